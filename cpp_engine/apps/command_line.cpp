#include "command_line.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

namespace command_line {

namespace {

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0U : 1U)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string closest(const std::string& name, const std::vector<Flag>& flags) {
  std::string best;
  std::size_t min_distance = std::max<std::size_t>(name.size() / 2, 2);
  for (const Flag& flag : flags) {
    const std::size_t distance = edit_distance(name, flag.name);
    if (distance < min_distance) {
      min_distance = distance;
      best = flag.name;
    }
  }
  return best.empty() ? "" : " (did you mean " + best + "?)";
}

}  // namespace

std::string Parsed::get(const std::string& name, const std::string& fallback) const {
  const auto found = flags.find(name);
  return found == flags.end() ? fallback : found->second;
}

std::vector<int> Parsed::counts(const std::string& name, const std::string& fallback, int low, int high) {
  std::vector<int> values;
  std::istringstream words(get(name, fallback) + ",");
  for (std::string word; std::getline(words, word, ',');) {
    const int value = parse_count(name, word, low, high);
    if (std::find(values.begin(), values.end(), value) == values.end()) values.push_back(value);
  }
  return values;
}

int Parsed::count(const std::string& name, const std::string& fallback, int low, int high) {
  return parse_count(name, get(name, fallback), low, high);
}

int Parsed::parse_count(const std::string& name, const std::string& text, int low, int high) {
  int value = low;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool valid = code == std::errc() && end == text.data() + text.size() && value >= low && value <= high;
  if (!valid && error.empty()) {
    error = name + " takes integers from " + std::to_string(low) + " to " + std::to_string(high) + ", got '" +
            text + "'";
  }
  return value;
}

double Parsed::seconds(const std::string& name, const std::string& fallback, double high) {
  const std::string text = get(name, fallback);
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if ((text.empty() || *end != '\0' || !(value >= 0.0 && value <= high)) && error.empty()) {
    error =
        name + " takes seconds from 0 to " + std::to_string(static_cast<int>(high)) + ", got '" + text + "'";
  }
  return value;
}

Parsed parse(int argc, char** argv, const std::vector<Flag>& flags) {
  Parsed parsed;
  bool flags_ended = false;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (flags_ended || word.size() < 2 || word[0] != '-') {
      parsed.positionals.push_back(word);
      continue;
    }
    if (word == "--") {
      flags_ended = true;
      continue;
    }
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const auto flag = std::find_if(flags.begin(), flags.end(), [&](const Flag& f) { return f.name == name; });
    if (flag == flags.end()) {
      parsed.error = "unknown flag " + name + closest(name, flags) + "; --help lists all flags";
      return parsed;
    }
    std::string value;
    if (flag->value.empty()) {
      if (equals != std::string::npos) parsed.error = name + " takes no value";
    } else if (equals != std::string::npos) {
      value = word.substr(equals + 1);
    } else if (i + 1 < argc) {
      value = argv[++i];
    } else {
      parsed.error = name + " needs a value: " + flag->value;
    }
    if (!parsed.error.empty()) return parsed;
    parsed.flags[name] = value;
  }
  return parsed;
}

bool print_information(const Parsed& parsed, const std::string& usage, const std::string& description,
                       const std::vector<Flag>& flags, const std::string& version) {
  if (parsed.has("--version")) {
    std::printf("%s %s\n", usage.substr(0, usage.find(' ')).c_str(), version.c_str());
    return true;
  }
  if (!parsed.has("--help")) return false;
  std::printf("usage: %s\n\n%s\n\n", usage.c_str(), description.c_str());
  std::size_t width = 0;
  for (const Flag& flag : flags) width = std::max(width, flag.name.size() + flag.value.size() + 1);
  for (const Flag& flag : flags) {
    const std::string flag_and_value = flag.name + (flag.value.empty() ? "" : " " + flag.value);
    std::printf("  %-*s  %s\n", static_cast<int>(width), flag_and_value.c_str(), flag.meaning.c_str());
  }
  return true;
}

int fail(int code, const std::string& message) {
  std::fprintf(stderr, "error: %s\n", message.c_str());
  return code;
}

bool write_file(const std::string& path, const std::string& text, std::string& error) {
  const std::string temporary = path + ".tmp" + std::to_string(::getpid());
  std::ofstream file(temporary, std::ios::binary);
  file << text;
  file.close();
  if (file && std::rename(temporary.c_str(), path.c_str()) == 0) return true;
  error = "cannot write " + path + ": " + std::strerror(errno);
  std::remove(temporary.c_str());
  return false;
}

}  // namespace command_line

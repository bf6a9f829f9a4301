#include "command_line.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

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

std::string help(const std::string& usage, const std::string& description, const std::vector<Flag>& flags) {
  std::string text = "usage: " + usage + "\n\n" + description + "\n\n";
  std::size_t width = 0;
  for (const Flag& flag : flags) width = std::max(width, flag.name.size() + flag.value.size() + 1);
  for (const Flag& flag : flags) {
    const std::string flag_and_value = flag.name + (flag.value.empty() ? "" : " " + flag.value);
    text += "  " + flag_and_value + std::string(width + 2 - flag_and_value.size(), ' ') + flag.meaning + "\n";
  }
  return text;
}

bool parse_counts(const std::string& flag, const std::string& text, int low, int high, std::vector<int>& out,
                  std::string& error) {
  out.clear();
  std::size_t at = 0;
  while (at <= text.size()) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    int value = 0;
    if (!parse_count(flag, text.substr(at, end - at), low, high, value, error)) return false;
    if (std::find(out.begin(), out.end(), value) == out.end()) out.push_back(value);
    at = end + 1;
  }
  return true;
}

bool parse_count(const std::string& flag, const std::string& text, int low, int high, int& out,
                 std::string& error) {
  char* end = nullptr;
  errno = 0;
  const long value = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || errno != 0 || value < low || value > high) {
    error = flag + " takes integers from " + std::to_string(low) + " to " + std::to_string(high) + ", got '" +
            text + "'";
    return false;
  }
  out = static_cast<int>(value);
  return true;
}

bool parse_seconds(const std::string& flag, const std::string& text, double high, double& out,
                   std::string& error) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= 0.0 && value <= high)) {
    error =
        flag + " takes seconds from 0 to " + std::to_string(static_cast<int>(high)) + ", got '" + text + "'";
    return false;
  }
  out = value;
  return true;
}

int fail(int code, const std::string& message) {
  std::fprintf(stderr, "error: %s\n", message.c_str());
  return code;
}

bool write_file(const std::string& path, const std::string& text, std::string& error) {
  const std::string temporary = path + ".tmp" + std::to_string(::getpid());
  std::FILE* file = std::fopen(temporary.c_str(), "wb");
  bool done = file != nullptr;
  if (done) {
    done = std::fwrite(text.data(), 1, text.size(), file) == text.size() && std::fflush(file) == 0 &&
           ::fsync(::fileno(file)) == 0;
    done = std::fclose(file) == 0 && done;
  }
  done = done && std::rename(temporary.c_str(), path.c_str()) == 0;
  if (!done) {
    error = "cannot write " + path + ": " + std::strerror(errno);
    if (file != nullptr) ::unlink(temporary.c_str());
  }
  return done;
}

}  // namespace command_line

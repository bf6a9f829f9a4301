#pragma once

#include <map>
#include <string>
#include <vector>

/// Command-line parsing. Exit codes of the programs: 0 success, 1 invalid model, image or file, 2 usage
/// error.
namespace command_line {

constexpr int exit_ok = 0;
constexpr int exit_failed = 1;
constexpr int exit_usage = 2;

/// A command-line flag.
struct Flag {
  std::string name;     ///< including the dashes
  std::string value;    ///< placeholder of its value in the help; empty for a switch
  std::string meaning;  ///< one line, including the default
};

struct Parsed {
  std::map<std::string, std::string> flags;
  std::vector<std::string> positionals;
  std::string error;  ///< empty on success

  [[nodiscard]] bool has(const std::string& name) const { return flags.count(name) != 0; }
  [[nodiscard]] std::string get(const std::string& name, const std::string& fallback) const;

  /// Comma-separated integers from `low` to `high`, e.g. `1,2,4`, without duplicates. If the text is invalid,
  /// this function and the next two set `error`, unless there is an earlier one.
  std::vector<int> counts(const std::string& name, const std::string& fallback, int low, int high);
  /// An integer from `low` to `high`.
  int count(const std::string& name, const std::string& fallback, int low, int high);
  /// A number of seconds from 0 to `high`.
  double seconds(const std::string& name, const std::string& fallback, double high);

 private:
  int parse_count(const std::string& name, const std::string& text, int low, int high);
};

/// Parse `--flag value`, `--flag=value` and `--`. The error for an unknown flag suggests the closest one.
Parsed parse(int argc, char** argv, const std::vector<Flag>& flags);

/// Print the help (usage line, description, one line per flag) for --help, or the version for --version.
/// @returns whether there was one of these flags
bool print_information(const Parsed& parsed, const std::string& usage, const std::string& description,
                       const std::vector<Flag>& flags, const std::string& version);

/// Print `error: message` on stderr and return the exit code.
int fail(int code, const std::string& message);

/// Write a file atomically through a temporary file in the same folder.
/// @returns false with `error` set on failure
bool write_file(const std::string& path, const std::string& text, std::string& error);

}  // namespace command_line

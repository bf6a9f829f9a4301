#pragma once

#include <map>
#include <string>
#include <vector>

/// A command line: flags with or without a value, and the rest. Exit codes of the programs:
/// 0 done, 1 something outside is wrong (a model, an image, a file), 2 the command line is wrong.
namespace command_line {

constexpr int exit_ok = 0;
constexpr int exit_failed = 1;
constexpr int exit_usage = 2;

/// One flag a program knows.
struct Flag {
  std::string name;     ///< with its dashes
  std::string value;    ///< what its value is called in the help; empty for a switch
  std::string meaning;  ///< one line; mentions the default
};

struct Parsed {
  std::map<std::string, std::string> flags;
  std::vector<std::string> rest;
  std::string error;  ///< empty when all is well

  bool has(const std::string& name) const { return flags.count(name) != 0; }
  std::string get(const std::string& name, const std::string& fallback) const;
};

/// Understands `--flag value`, `--flag=value` and `--`; an unknown flag is an error that names the closest
/// one.
Parsed parse(int argc, char** argv, const std::vector<Flag>& flags);

/// The help text: usage line, what it does, one line per flag.
std::string help(const std::string& usage, const std::string& about, const std::vector<Flag>& flags);

/// Read whole numbers, `1,2,4`, each within bounds; false with `error` set otherwise.
bool parse_counts(const std::string& flag, const std::string& text, int low, int high, std::vector<int>& out,
                  std::string& error);
bool parse_count(const std::string& flag, const std::string& text, int low, int high, int& out,
                 std::string& error);
bool parse_seconds(const std::string& flag, const std::string& text, double high, double& out,
                   std::string& error);

/// Print `error: message` on stderr and return the exit code.
int fail(int code, const std::string& message);

/// Write the whole text under a temporary name beside `path`, then rename it; false with `error` set
/// otherwise.
bool write_file(const std::string& path, const std::string& text, std::string& error);

}  // namespace command_line

#pragma once

#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

/// Minimal unit-test framework: named cases, and checks that report the actual value.
namespace check {

struct Case {
  const char* name;
  std::function<void()> run;
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

struct Register {
  Register(const char* name, std::function<void()> run) { cases().push_back({name, std::move(run)}); }
};

inline void fail(const char* file, int line, const std::string& what) {
  ++failures();
  std::printf("%s:%d: %s\n", file, line, what.c_str());
}

inline std::string show(const std::string& value) { return "'" + value + "'"; }
inline std::string show(const char* value) { return show(std::string(value)); }
inline std::string show(bool value) { return value ? "true" : "false"; }
template <typename T>
std::string show(const T& value) {
  return std::to_string(value);
}

template <typename A, typename B>
void equal(const A& got, const B& expected, const char* text, const char* file, int line) {
  if (!(got == expected))
    fail(file, line, std::string(text) + ": got " + show(got) + ", expected " + show(expected));
}

inline int run_all() {
  for (const Case& test_case : cases()) {
    const int before = failures();
    test_case.run();
    std::printf("%s %s\n", failures() == before ? "ok  " : "FAIL", test_case.name);
  }
  return failures() == 0 ? 0 : 1;
}

}  // namespace check

#define TEST_CASE(id)                                   \
  static void id();                                     \
  static const check::Register register_##id(#id, &id); \
  static void id()

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) check::fail(__FILE__, __LINE__, std::string("check failed: ") + #condition); \
  } while (false)

#define CHECK_EQUAL(got, expected) check::equal((got), (expected), #got, __FILE__, __LINE__)

#define CHECK_CONTAINS(text, part)                                                                        \
  do {                                                                                                    \
    const std::string got_text = (text);                                                                  \
    if (got_text.find(part) == std::string::npos)                                                         \
      check::fail(__FILE__, __LINE__, "'" + got_text + "' does not contain '" + std::string(part) + "'"); \
  } while (false)

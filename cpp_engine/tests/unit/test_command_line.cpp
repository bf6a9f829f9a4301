#include "check.h"
#include "command_line.h"

namespace {

const std::vector<command_line::Flag> flags = {{"--threads", "N", ""}, {"--json", "", ""}};

command_line::Parsed parse(std::vector<std::string> words) {
  std::vector<char*> argv;
  words.insert(words.begin(), "program");
  for (std::string& word : words) argv.push_back(word.data());
  return command_line::parse(static_cast<int>(argv.size()), argv.data(), flags);
}

}  // namespace

TEST_CASE(parse_separates_flags_and_positionals) {
  const auto parsed = parse({"a", "--threads", "2", "--json", "-", "--", "--b"});
  CHECK_EQUAL(parsed.error, "");
  CHECK_EQUAL(parsed.get("--threads", ""), "2");
  CHECK(parsed.has("--json"));
  CHECK(parsed.positionals == (std::vector<std::string>{"a", "-", "--b"}));
  CHECK_EQUAL(parse({"--threads=3"}).get("--threads", ""), "3");
}

TEST_CASE(unknown_flag_suggests_the_closest) {
  CHECK_CONTAINS(parse({"--tread", "2"}).error, "did you mean --threads?");
  CHECK_CONTAINS(parse({"--threads"}).error, "needs a value");
  CHECK_CONTAINS(parse({"--json=1"}).error, "takes no value");
}

TEST_CASE(parse_counts_checks_bounds) {
  std::vector<int> counts;
  std::string error;
  CHECK(command_line::parse_counts("--threads", "1,2,2", 1, 256, counts, error));
  CHECK(counts == (std::vector<int>{1, 2}));
  for (const char* text : {"", "0", "1,", "x", "1.5", "257", "99999999999999999999"}) {
    CHECK(!command_line::parse_counts("--threads", text, 1, 256, counts, error));
    CHECK_CONTAINS(error, "from 1 to 256");
  }
}

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

TEST_CASE(counts_are_within_bounds) {
  command_line::Parsed parsed = parse({"--threads", "1,2,2"});
  CHECK(parsed.counts("--threads", "1", 1, 256) == (std::vector<int>{1, 2}));
  CHECK_EQUAL(parsed.error, "");
  for (const char* text : {"", "0", "1,", "x", "1.5", "257", "99999999999999999999"}) {
    command_line::Parsed wrong = parse({"--threads", text});
    wrong.counts("--threads", "1", 1, 256);
    CHECK_CONTAINS(wrong.error, "from 1 to 256");
  }
}

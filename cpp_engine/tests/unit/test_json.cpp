#include "check.h"
#include "sweep_engine/json.h"

using sweep_engine::Json;
using sweep_engine::parse_json;

TEST_CASE(json_round_trips) {
  const std::string text =
      R"({"a":[1,-2.5,1e-7,0.1,123456789012],"b":{"c":null,"d":true,"e":"x\"\\\n\u0001é"},"f":[]})";
  const auto value = parse_json(text);
  CHECK(value.ok());
  const auto again = parse_json(value.value().text(2));
  CHECK(again.ok());
  CHECK_EQUAL(again.value().text(), value.value().text());
  CHECK_EQUAL(value.value().find("a")->items()[2].number(), 1e-7);
}

TEST_CASE(json_decodes_escapes) {
  CHECK_EQUAL(parse_json(R"("A\u00e9\ud83d\ude00\/")").value().string(), "A\xC3\xA9\xF0\x9F\x98\x80/");
}

TEST_CASE(parse_json_rejects_invalid_json) {
  const std::vector<std::string> wrong = {"",
                                          "{",
                                          "[1,]",
                                          "{\"a\":1,}",
                                          "{a:1}",
                                          "NaN",
                                          "Infinity",
                                          "01",
                                          "1.",
                                          ".5",
                                          "+1",
                                          "1e",
                                          "1e999",
                                          "\"\t\"",
                                          "\"\\x\"",
                                          "\"\\ud800\"",
                                          "\"\\udc00x\"",
                                          "{\"a\":1,\"a\":2}",
                                          "[1] 2",
                                          "// x\n1",
                                          "\"\xC0\x80\"",
                                          "\"\xED\xA0\x80\"",
                                          "tru",
                                          "\"abc",
                                          std::string(100, '[')};
  for (const std::string& text : wrong) {
    if (parse_json(text).ok()) check::fail(__FILE__, __LINE__, "accepted: " + text);
  }
}

TEST_CASE(json_errors_have_line_and_column) {
  CHECK_CONTAINS(parse_json("{\n  \"a\": x\n}").status().message(), "line 2, column 8");
}

TEST_CASE(json_writes_nan_as_null) { CHECK_EQUAL(Json(std::nan("")).text(), "null"); }

#include "check.h"
#include "sweep_engine/model_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

using sweep_engine::read_manifest;

namespace {

const std::string hash(64, 'a');
const std::string good =
    R"({"schema_version": 1, "name": "tiny", "extra": [1],
 "input": {"blob": "in0", "channels": 3, "height": 2, "width": 2, "color": "RGB", "resize": "direct"},
 "normalization": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
 "output": {"blob": "out0", "classes": ["cat", "dog"]},
 "precision": "fp32",
 "files": {"model.param": {"sha256": ")" +
    hash + R"(", "bytes": 10}, "model.bin": {"sha256": ")" + hash +
    R"(", "bytes": 20}},
 "self_test": {"tolerance": 0.001, "logits": [[1.0, 2.0]]},
 "source": {"test_accuracy": 0.9}})";

std::string message_for(const std::string& text) {
  char folder[] = "/tmp/sweep-engine-XXXXXX";
  if (::mkdtemp(folder) == nullptr) return "mkdtemp";
  const std::string path = std::string(folder) + "/model.json";
  std::ofstream(path) << text;
  const auto manifest = read_manifest(folder);
  ::unlink(path.c_str());
  ::rmdir(folder);
  return manifest.ok() ? "" : manifest.status().message();
}

std::string replaced(const std::string& from, const std::string& to) {
  std::string text = good;
  return text.replace(text.find(from), from.size(), to);
}

}  // namespace

TEST_CASE(valid_manifest_is_read) { CHECK_EQUAL(message_for(good), ""); }

TEST_CASE(tolerance_may_be_large) { CHECK_EQUAL(message_for(replaced("0.001", "5000")), ""); }

TEST_CASE(errors_name_the_invalid_field) {
  CHECK_CONTAINS(message_for(replaced("\"schema_version\": 1", "\"schema_version\": 2")),
                 "schema_version is 2");
  CHECK_CONTAINS(message_for(replaced("\"schema_version\": 1, ", "")), "schema_version is missing");
  CHECK_CONTAINS(message_for(replaced("fp32", "fp64")), "fp32, fp16, bf16 or int8");
  CHECK_CONTAINS(message_for(replaced("\"channels\": 3", "\"channels\": 4")), "input.channels");
  CHECK_CONTAINS(message_for(replaced("\"height\": 2", "\"height\": 2.5")), "input.height");
  CHECK_CONTAINS(message_for(replaced("\"height\": 2", "\"height\": \"2\"")), "must be a number");
  CHECK_CONTAINS(message_for(replaced("\"RGB\"", "\"BGR\"")), "input.color");
  CHECK_CONTAINS(message_for(replaced("\"direct\"", "\"none\"")), "input.resize");
  CHECK_CONTAINS(message_for(replaced("[0.5, 0.5, 0.5]", "[0.5]")), "normalization.mean");
  CHECK_CONTAINS(message_for(replaced("[0.25, 0.25, 0.25]", "[0.25, 0, 0.25]")), "must be positive");
  CHECK_CONTAINS(message_for(replaced("[\"cat\", \"dog\"]", "[]")), "output.classes");
  CHECK_CONTAINS(message_for(replaced("[\"cat\", \"dog\"]", "[\"cat\"]")), "one number per class (1)");
  CHECK_CONTAINS(message_for(replaced("[[1.0, 2.0]]", "[]")), "at least one row");
  CHECK_CONTAINS(message_for(replaced(hash, "xyz")), "files.model.param.sha256");
  CHECK_CONTAINS(message_for(replaced("\"bytes\": 20", "\"bytes\": -1")), "files.model.bin.bytes");
  CHECK_CONTAINS(message_for("[]"), "must be an object");
  CHECK_CONTAINS(message_for("{"), "not valid JSON");
  CHECK_CONTAINS(read_manifest("/nonexistent").status().message(), "not a model folder");
}

TEST_CASE(self_test_pattern_matches_its_formula) {
  sweep_engine::InputSpec input;
  input.height = 4;
  input.width = 5;
  const auto pixels = sweep_engine::self_test_pattern(input, 2);
  const int c = 1;
  const int h = 3;
  const int w = 2;
  const int i = (c * 4 + h) * 5 + w;
  CHECK_EQUAL(static_cast<int>(pixels[static_cast<std::size_t>(i)]), (31 * i + 17 * h + 97 * 2) % 256);
}

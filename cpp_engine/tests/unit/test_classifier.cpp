#include <algorithm>
#include <cmath>

#include "check.h"
#include "sweep_engine/classifier.h"
#include "tiny_model.h"

using sweep_engine::Classifier;
using sweep_engine::ClassifierOptions;
using sweep_engine::Json;

namespace {

Classifier load(const tiny_model::Folder& folder, int threads = 1) {
  ClassifierOptions options;
  options.self_test = false;
  options.num_threads = threads;
  auto model = Classifier::load(folder.path(), options);
  CHECK_EQUAL(model.status().message(), "");
  return std::move(model).value();
}

std::string load_message(const tiny_model::Files& files, bool self_test = false) {
  const tiny_model::Folder folder;
  folder.write(files);
  ClassifierOptions options;
  options.self_test = self_test;
  const auto model = Classifier::load(folder.path(), options);
  return model.ok() ? "" : model.status().message();
}

}  // namespace

TEST_CASE(valid_folder_loads_and_classifies) {
  const tiny_model::Folder folder;
  folder.write(tiny_model::files());
  const Classifier model = load(folder);
  CHECK_EQUAL(model.macs(), std::int64_t{108 * 64 + 20});
  const auto first = model.logits(std::vector<std::uint8_t>(192, 10));
  const auto second = model.logits(std::vector<std::uint8_t>(192, 200));
  CHECK(first.ok() && second.ok() && first.value() != second.value());
  CHECK(!model.logits(std::vector<std::uint8_t>(191)).ok());
  const auto scores = model.classify({9, 7, std::vector<std::uint8_t>(9 * 7 * 3, 99)}, 3);
  CHECK_EQUAL(scores.value().size(), std::size_t{3});
  CHECK(scores.value()[0].probability >= scores.value()[1].probability);
}

TEST_CASE(number_of_threads_does_not_change_logits) {
  const tiny_model::Folder folder;
  folder.write(tiny_model::files());
  std::vector<std::vector<float>> logits_per_run;
  for (const int threads : {1, 2}) {
    logits_per_run.push_back(load(folder, threads).logits(std::vector<std::uint8_t>(192, 77)).value());
  }
  CHECK(logits_per_run[0] == logits_per_run[1]);
}

TEST_CASE(self_test_compares_reference_logits) {
  tiny_model::Files files = tiny_model::files();
  CHECK_CONTAINS(load_message(files, true), "self-test failed");
  tiny_model::set_self_test(files, tiny_model::logits(files, 1), 0.0);
  CHECK_EQUAL(load_message(files, true), "");
}

TEST_CASE(files_that_differ_from_the_manifest_are_rejected) {
  tiny_model::Files files = tiny_model::files();
  files.bin[40] = static_cast<char>(files.bin[40] + 1);
  CHECK_CONTAINS(load_message(files), "model.bin: the SHA-256");
  files = tiny_model::files();
  files.bin += '\0';
  CHECK_CONTAINS(load_message(files), "model.bin: " + std::to_string(files.bin.size()) + " bytes, but");
  files = tiny_model::files();
  files.param += "\n";
  CHECK_CONTAINS(load_message(files), "model.param: " + std::to_string(files.param.size()) + " bytes, but");
  files = tiny_model::files();
  Json classes = Json::array();
  classes.add("a").add("b");
  Json output = Json::object();
  output.set("blob", "out0").set("classes", classes);
  files.manifest.set("output", output);
  CHECK_CONTAINS(load_message(files), "one number per class");
}

TEST_CASE(nan_logits_are_an_error) {
  tiny_model::Files files = tiny_model::files();
  const float nan = std::nanf("");
  // In the last layer: whether a NaN passes ncnn's ReLU depends on the instruction set.
  files.bin.replace(files.bin.size() - 4, 4, reinterpret_cast<const char*>(&nan), 4);
  tiny_model::update_hashes(files);
  CHECK_CONTAINS(load_message(files, true), "not finite");
}

TEST_CASE(parity_counts_differences_from_the_reference_logits) {
  tiny_model::Files files = tiny_model::files();
  std::vector<std::vector<double>> rows = tiny_model::logits(files, 2);
  *std::min_element(rows[1].begin(), rows[1].end()) += 100.0;
  tiny_model::set_self_test(files, rows, 0.0);
  const tiny_model::Folder folder;
  folder.write(files);
  const auto parity = sweep_engine::measure_parity(load(folder));
  CHECK(std::abs(parity.value().max_abs - 100.0) < 1e-4);
  CHECK(std::abs(parity.value().mean_abs - 10.0) < 1e-4);
  CHECK_EQUAL(parity.value().top1_agreement(), 0.5);
}

TEST_CASE(batched_logits_equal_single_image_logits) {
  const tiny_model::Folder folder;
  folder.write(tiny_model::files());
  const Classifier model = load(folder);
  std::vector<std::vector<std::uint8_t>> images;
  std::vector<float> expected;
  for (int k = 0; k < 5; ++k) {
    images.push_back(sweep_engine::self_test_pattern(model.manifest().input, k));
    const auto logits = model.logits(images.back()).value();
    expected.insert(expected.end(), logits.begin(), logits.end());
  }
  const auto input = model.prepare_batch(images);
  CHECK(model.infer(input.value()).value() == expected);
  CHECK(!model.prepare_batch({}).ok());
  images.back().pop_back();
  CHECK(!model.prepare_batch(images).ok());
}

#include <algorithm>
#include <cmath>

#include "check.h"
#include "sweep_engine/classifier.h"
#include "sweep_engine/evaluation.h"
#include "tiny_model.h"

using sweep_engine::Classifier;
using sweep_engine::ClassifierOptions;
using sweep_engine::Json;

namespace {

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
  ClassifierOptions options;
  options.self_test = false;
  const auto model = Classifier::load(folder.path(), options);
  CHECK_EQUAL(model.status().message(), "");
  CHECK_EQUAL(model.value().macs(), std::int64_t{108 * 64 + 20});
  const auto first = model.value().logits(std::vector<std::uint8_t>(192, 10));
  const auto second = model.value().logits(std::vector<std::uint8_t>(192, 200));
  CHECK(first.ok() && second.ok() && first.value() != second.value());
  CHECK(!model.value().logits(std::vector<std::uint8_t>(191)).ok());
  const auto scores = model.value().classify({9, 7, std::vector<std::uint8_t>(9 * 7 * 3, 99)}, 3);
  CHECK_EQUAL(scores.value().size(), std::size_t{3});
  CHECK(scores.value()[0].probability >= scores.value()[1].probability);
}

TEST_CASE(number_of_threads_does_not_change_logits) {
  const tiny_model::Folder folder;
  folder.write(tiny_model::files());
  std::vector<std::vector<float>> logits_per_run;
  for (const int threads : {1, 2}) {
    ClassifierOptions options;
    options.self_test = false;
    options.num_threads = threads;
    const auto model = Classifier::load(folder.path(), options);
    logits_per_run.push_back(model.value().logits(std::vector<std::uint8_t>(192, 77)).value());
  }
  CHECK(logits_per_run[0] == logits_per_run[1]);
}

TEST_CASE(self_test_compares_reference_logits) {
  const tiny_model::Folder folder;
  tiny_model::Files files = tiny_model::files();
  folder.write(files);
  CHECK_CONTAINS(load_message(files, true), "self-test failed");
  ClassifierOptions options;
  options.self_test = false;
  const auto model = Classifier::load(folder.path(), options);
  const auto pattern = sweep_engine::self_test_pattern(model.value().manifest().input, 0);
  const auto logits = model.value().logits(pattern).value();
  Json rows = Json::array();
  rows.add(Json::array(std::vector<double>(logits.begin(), logits.end())));
  Json self_test = Json::object();
  self_test.set("tolerance", 0.0).set("logits", rows);
  files.manifest.set("self_test", self_test);
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

TEST_CASE(accuracy_counts_correct_predictions) {
  const tiny_model::Folder folder;
  folder.write(tiny_model::files());
  ClassifierOptions options;
  options.self_test = false;
  const auto model = Classifier::load(folder.path(), options);
  sweep_engine::ImageSet set;
  set.channels = 3;
  set.height = 8;
  set.width = 8;
  std::size_t correct = 0;
  for (int i = 0; i < 20; ++i) {
    const std::vector<std::uint8_t> pixels(192, static_cast<std::uint8_t>(12 * i));
    set.pixels.insert(set.pixels.end(), pixels.begin(), pixels.end());
    const auto logits = model.value().logits(pixels).value();
    const auto best =
        static_cast<std::uint32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    set.labels.push_back(i % 3 == 0 ? (best + 1) % 5 : best);
    correct += i % 3 == 0 ? 0U : 1U;
  }
  sweep_engine::Logits reference;
  reference.classes = 5;
  for (int i = 0; i < 20; ++i) {
    const auto logits =
        model.value().logits(std::vector<std::uint8_t>(192, static_cast<std::uint8_t>(12 * i)));
    reference.values.insert(reference.values.end(), logits.value().begin(), logits.value().end());
  }
  reference.values[7] += 0.5F;
  const auto ignore = [](std::size_t) {};
  for (const int workers : {1, 3}) {
    std::size_t done = 0;
    const auto accuracy = sweep_engine::measure_accuracy(model.value(), set, reference, workers,
                                                         [&](std::size_t count) { done = count; });
    CHECK(done == 20 || (workers > 1 && done < 20));
    CHECK_EQUAL(accuracy.value().correct, correct);
    CHECK_EQUAL(accuracy.value().images, std::size_t{20});
    CHECK_EQUAL(accuracy.value().parity.images, std::size_t{20});
    CHECK(std::abs(accuracy.value().parity.max_abs - 0.5) < 1e-6);
    CHECK(std::abs(accuracy.value().parity.mean_abs - 0.005) < 1e-6);
  }
  CHECK_EQUAL(sweep_engine::measure_accuracy(model.value(), set, {}, 1, ignore).value().parity.images,
              std::size_t{0});
  reference.values.resize(95);
  CHECK(!sweep_engine::measure_accuracy(model.value(), set, reference, 1, ignore).ok());
  set.width = 4;
  CHECK(!sweep_engine::measure_accuracy(model.value(), set, {}, 1, ignore).ok());
}

TEST_CASE(batched_logits_equal_single_image_logits) {
  const tiny_model::Folder folder;
  folder.write(tiny_model::files());
  ClassifierOptions options;
  options.self_test = false;
  const auto model = Classifier::load(folder.path(), options);
  std::vector<std::vector<std::uint8_t>> images;
  std::vector<float> expected;
  for (int k = 0; k < 5; ++k) {
    images.push_back(sweep_engine::self_test_pattern(model.value().manifest().input, k));
    const auto logits = model.value().logits(images.back()).value();
    expected.insert(expected.end(), logits.begin(), logits.end());
  }
  const auto input = model.value().prepare_batch(images);
  CHECK(model.value().infer(input.value()).value() == expected);
  CHECK(!model.value().prepare_batch({}).ok());
  images.back().pop_back();
  CHECK(!model.value().prepare_batch(images).ok());
}

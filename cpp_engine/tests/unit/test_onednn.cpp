#include <algorithm>
#include <cmath>
#include <cstdio>
#include <thread>

#include "check.h"
#include "sweep_engine/classifier.h"
#include "sweep_engine/host.h"
#include "tiny_model.h"

using sweep_engine::Classifier;
using sweep_engine::ClassifierOptions;
using sweep_engine::Json;
using sweep_engine::Kernels;
using sweep_engine::StatusCode;

namespace {

sweep_engine::Result<Classifier> load(const tiny_model::Files& files, Kernels kernels, int threads = 1) {
  const tiny_model::Folder folder;
  folder.write(files);
  ClassifierOptions options;
  options.self_test = false;
  options.kernels = kernels;
  options.num_threads = threads;
  return Classifier::load(folder.path(), options);
}

bool is_available() {
  const auto forced = load(tiny_model::residual_files("fp32"), Kernels::onednn);
  const std::string& message = forced.status().message();
  for (const char* reason : {"has no oneDNN", "with AVX2 only"}) {
    if (message.find(reason) == std::string::npos) continue;
    std::printf("skipped: %s\n", message.c_str());
    return false;
  }
  return true;
}

std::vector<std::vector<std::uint8_t>> images(int count) {
  std::vector<std::vector<std::uint8_t>> all;
  for (int image = 0; image < count; ++image) {
    std::vector<std::uint8_t> pixels(192);
    for (std::size_t i = 0; i < pixels.size(); ++i)
      pixels[i] = static_cast<std::uint8_t>(37 * i * static_cast<std::size_t>(image + 1) + 11 * i);
    all.push_back(pixels);
  }
  return all;
}

std::vector<float> logits(const Classifier& model, const std::vector<std::vector<std::uint8_t>>& batch) {
  return model.infer(model.prepare_batch(batch).value()).value();
}

/// Old processors have no bf16 kernels.
bool has_no_bf16(const std::string& precision, const sweep_engine::Status& status) {
  return precision == "bf16" && status.message().find("has no kernel for this network") != std::string::npos;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = a.size() == b.size() ? 0.0 : 1e9;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    largest = std::max(largest, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return largest;
}

}  // namespace

TEST_CASE(onednn_gives_the_logits_of_ncnn) {
  if (!is_available()) return;
  const std::vector<float> exact =
      logits(load(tiny_model::residual_files("fp32"), Kernels::ncnn).value(), images(3));
  const double range =
      *std::max_element(exact.begin(), exact.end()) - *std::min_element(exact.begin(), exact.end());
  CHECK(range > 0.1);
  for (const char* precision : {"fp32", "bf16", "int8"}) {
    const tiny_model::Files files = tiny_model::residual_files(precision);
    const auto model = load(files, Kernels::onednn);
    if (has_no_bf16(precision, model.status())) continue;
    CHECK_EQUAL(model.status().message(), "");
    if (!model.ok()) continue;
    CHECK(model.value().kernels() == Kernels::onednn);
    const double tolerance = precision == std::string("fp32") ? 1e-5 : 0.05;
    CHECK(largest_difference(logits(model.value(), images(3)), exact) < tolerance * range);
    CHECK(largest_difference(logits(load(files, Kernels::ncnn).value(), images(3)), exact) <
          tolerance * range);
  }
}

TEST_CASE(convolution_can_add_its_own_input) {
  if (!is_available()) return;
  tiny_model::Files files = tiny_model::files();
  // As files(), but the addition has another convolution between its inputs.
  files.param =
      "7767517\n7 8\n"
      "Input in0 0 1 in0\n"
      "Convolution conv 1 1 in0 1 0=4 1=3 4=1 5=1 6=108 9=1\n"
      "Split split 1 2 1 2 3\n"
      "Convolution conv2 1 1 2 4 0=4 1=3 4=1 6=144\n"
      "BinaryOp add 2 1 3 4 5 0=0\n"
      "Pooling pool 1 1 5 6 0=1 4=1\n"
      "InnerProduct fc 1 1 6 out0 0=5 1=1 2=20\n";
  std::string weights(4, '\0');
  for (int i = 0; i < 144; ++i) {
    const float value = 0.05F * static_cast<float>(i * 7 % 11 - 5);
    weights.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  files.bin.insert(4 + 4 * (108 + 4), weights);
  tiny_model::update_hashes(files);
  const auto model = load(files, Kernels::onednn);
  CHECK_EQUAL(model.status().message(), "");
  const std::vector<float> exact = logits(load(files, Kernels::ncnn).value(), images(2));
  CHECK(largest_difference(logits(model.value(), images(2)), exact) < 1e-5);
}

TEST_CASE(onednn_logits_do_not_depend_on_batch_threads_or_workers) {
  if (!is_available()) return;
  for (const char* precision : {"fp32", "int8"}) {
    const tiny_model::Files files = tiny_model::residual_files(precision);
    const auto model = load(files, Kernels::onednn);
    std::vector<float> single;
    for (const auto& image : images(8)) {
      const std::vector<float> one = logits(model.value(), {image});
      single.insert(single.end(), one.begin(), one.end());
    }
    CHECK(largest_difference(logits(model.value(), images(8)), single) < 1e-5);
    CHECK(largest_difference(logits(load(files, Kernels::onednn, 2).value(), images(8)), single) < 1e-5);
    std::vector<double> differences(4, 1.0);
    std::vector<std::thread> workers;
    for (double& difference : differences) {
      workers.emplace_back([&model, &single, &difference] {
        difference = 0.0;
        for (int query = 0; query < 20; ++query)
          difference = std::max(difference, largest_difference(logits(model.value(), images(8)), single));
      });
    }
    for (std::thread& worker : workers) worker.join();
    CHECK(*std::max_element(differences.begin(), differences.end()) < 1e-5);
    // More batch sizes than the executor keeps kernels for.
    for (int count = 1; count <= 12; ++count)
      CHECK_EQUAL(logits(model.value(), images(count)).size(), static_cast<std::size_t>(5 * count));
    CHECK(largest_difference(logits(model.value(), images(8)), single) < 1e-5);
  }
}

TEST_CASE(tuned_kernels_are_used_on_the_same_processor_only) {
  tiny_model::Files files = tiny_model::residual_files("fp32");
  CHECK(load(files, Kernels::automatic).value().kernels() == Kernels::ncnn);
  Json tuning = Json::object();
  tuning.set("kernels", "onednn").set("processor", "Z80");
  files.manifest.set("tuning", tuning);
  CHECK(load(files, Kernels::automatic).value().kernels() == Kernels::ncnn);
  files.manifest.set("tuning", tuning.set("processor", sweep_engine::processor_name()));
  const Kernels expected = is_available() ? Kernels::onednn : Kernels::ncnn;
  CHECK(load(files, Kernels::automatic).value().kernels() == expected);
  CHECK(load(files, Kernels::ncnn).value().kernels() == Kernels::ncnn);
}

TEST_CASE(unsupported_networks_run_with_ncnn) {
  // An addition of a value to itself, which no convolution can do.
  tiny_model::Files files = tiny_model::files();
  const auto forced = load(files, Kernels::onednn);
  CHECK(forced.status().code() == StatusCode::unsupported);
  if (is_available()) CHECK_CONTAINS(forced.status().message(), "add (BinaryOp)");
  Json tuning = Json::object();
  tuning.set("kernels", "onednn").set("processor", sweep_engine::processor_name());
  files.manifest.set("tuning", tuning);
  CHECK(load(files, Kernels::automatic).value().kernels() == Kernels::ncnn);
}

TEST_CASE(kernel_names_are_checked) {
  CHECK(sweep_engine::parse_kernels("auto").value() == Kernels::automatic);
  CHECK_CONTAINS(sweep_engine::parse_kernels("mkl").status().message(), "auto, ncnn or onednn, got \"mkl\"");
}

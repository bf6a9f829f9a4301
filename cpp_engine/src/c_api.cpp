#include "sweep_engine/c_api.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>

#include "sweep_engine/classifier.h"
#include "sweep_engine/host.h"

using sweep_engine::Classifier;
using sweep_engine::ClassifierOptions;
using sweep_engine::Kernels;
using sweep_engine::PreparedInput;
using sweep_engine::Result;
using sweep_engine::Status;

struct SweepEngineModel {
  Classifier classifier;
};

namespace {

void write_error(const Status& status, char* error, std::size_t error_size) {
  std::snprintf(error, error_size, "%s", status.message().c_str());
}

}  // namespace

SweepEngineModel* sweep_engine_load(const char* folder, int threads, const char* kernels, int self_test,
                                    char* error, std::size_t error_size) {
  const Result<Kernels> chosen = sweep_engine::parse_kernels(kernels);
  ClassifierOptions options;
  options.num_threads = threads;
  options.self_test = self_test != 0;
  if (chosen.ok()) options.kernels = chosen.value();
  Result<Classifier> loaded =
      chosen.ok() ? Classifier::load(folder, options) : Result<Classifier>(chosen.status());
  if (!loaded.ok()) {
    write_error(loaded.status(), error, error_size);
    return nullptr;
  }
  return std::make_unique<SweepEngineModel>(SweepEngineModel{std::move(loaded).value()}).release();
}

void sweep_engine_free(SweepEngineModel* model) { const std::unique_ptr<SweepEngineModel> owner(model); }

const char* sweep_engine_version() {
  static const std::string text = sweep_engine::describe_versions();
  return text.c_str();
}

const char* sweep_engine_kernels(const SweepEngineModel* model) {
  return sweep_engine::kernels_name(model->classifier.kernels());
}

int sweep_engine_classes(const SweepEngineModel* model) {
  return static_cast<int>(model->classifier.manifest().classes.size());
}

int sweep_engine_infer(const SweepEngineModel* model, const float* images, int count, float* logits,
                       char* error, std::size_t error_size) {
  const Result<PreparedInput> input = model->classifier.prepare_normalized(images, count);
  const Result<std::vector<float>> output =
      input.ok() ? model->classifier.infer(input.value()) : Result<std::vector<float>>(input.status());
  if (!output.ok()) {
    write_error(output.status(), error, error_size);
    return 1;
  }
  std::copy(output.value().begin(), output.value().end(), logits);
  return 0;
}

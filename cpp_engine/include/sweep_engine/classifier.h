#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sweep_engine/image.h"
#include "sweep_engine/model_folder.h"
#include "sweep_engine/status.h"

namespace sweep_engine {

/// How a model is loaded.
struct ClassifierOptions {
  int num_threads = 1;    ///< OpenMP threads of one inference, 1 to 256
  bool self_test = true;  ///< reproduce the folder's stored logits before the first use
};

/// One class with its probability.
struct Score {
  int index = 0;
  std::string label;
  double probability = 0.0;  ///< softmax over all classes
};

/// Pictures in the form the network takes, to be run any number of times.
class PreparedInput {
 public:
  PreparedInput();
  ~PreparedInput();
  PreparedInput(PreparedInput&&) noexcept;
  PreparedInput& operator=(PreparedInput&&) noexcept;

 private:
  friend class Classifier;
  struct Data;
  std::unique_ptr<Data> data_;
};

/// A loaded model. All const functions may be called from several threads at once.
///
///     auto model = sweep_engine::Classifier::load("runs/x/export", {});
///     if (!model.ok()) return report(model.status());
///     auto scores = model.value().classify(image, 5);
class Classifier {
 public:
  /// Check a model folder and load it: manifest, sizes, hashes, the structure of both files, the input's
  /// shape, the number of classes, and (unless told not to) the stored logits. ncnn sees the files only after
  /// all of that.
  static Result<Classifier> load(const std::string& folder, const ClassifierOptions& options);

  ~Classifier();
  Classifier(Classifier&&) noexcept;
  Classifier& operator=(Classifier&&) noexcept;

  const Manifest& manifest() const;
  /// Multiply-accumulates for one image.
  std::int64_t macs() const;

  /// Logits of one picture of exactly the input's size.
  /// @param pixels  CHW, channels * height * width levels of 0 to 255
  Result<std::vector<float>> logits(const std::vector<std::uint8_t>& pixels) const;

  /// The `top` most probable classes, best first, of a picture of any size.
  Result<std::vector<Score>> classify(const Image& image, int top) const;

  /// Normalize one picture (CHW, as for logits) for infer().
  Result<PreparedInput> prepare(const std::vector<std::uint8_t>& pixels) const;
  /// Normalize one or more pictures, to be computed together: ncnn runs layer by layer over all of them, so
  /// that weights are read once.
  Result<PreparedInput> prepare_batch(const std::vector<std::vector<std::uint8_t>>& pictures) const;
  /// Run the network once on what was prepared: the logits of the first picture, then those of the second,
  /// ...
  Result<std::vector<float>> infer(const PreparedInput& input) const;

 private:
  struct Impl;
  explicit Classifier(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Bring a picture of any size to the input's: CHW levels of 0 to 255.
Result<std::vector<std::uint8_t>> fit_to_input(const Image& image, const InputSpec& input);

/// exp(x - max) / sum, in double precision.
std::vector<double> softmax(const std::vector<float>& logits);

/// Version of ncnn this library was built with.
const char* ncnn_version();

}  // namespace sweep_engine

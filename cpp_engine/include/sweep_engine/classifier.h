#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sweep_engine/image.h"
#include "sweep_engine/model_folder.h"
#include "sweep_engine/status.h"

namespace sweep_engine {

/// Library whose kernels run a network.
enum class Kernels {
  automatic,  ///< oneDNN if the model folder was tuned for it on this processor, otherwise ncnn
  ncnn,
  onednn,  ///< x86 only, optional in the build, ResNets only
};

const char* kernels_name(Kernels kernels);
/// @param name  auto, ncnn or onednn
Result<Kernels> parse_kernels(const std::string& name);

/// Options of Classifier::load.
struct ClassifierOptions {
  int num_threads = 1;    ///< OpenMP threads per inference, 1 to 256
  bool self_test = true;  ///< compare with the folder's reference logits while loading
  Kernels kernels = Kernels::automatic;
};

/// A class and its probability.
struct Score {
  int index = 0;
  std::string label;
  double probability = 0.0;  ///< softmax over all classes
};

/// Normalized images in ncnn's layout; can be run any number of times.
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

/// A loaded model. The const functions are thread-safe.
///
///     auto model = sweep_engine::Classifier::load("runs/x/export", {});
///     if (!model.ok()) return report(model.status());
///     auto scores = model.value().classify(image, 5);
class Classifier {
 public:
  /// Check a model folder and load it: manifest, file sizes, hashes, the structure of both files, the input
  /// shape, the number of classes, and the reference logits (`ClassifierOptions::self_test`). ncnn parses the
  /// files only after these checks.
  static Result<Classifier> load(const std::string& folder, const ClassifierOptions& options);

  ~Classifier();
  Classifier(Classifier&&) noexcept;
  Classifier& operator=(Classifier&&) noexcept;

  [[nodiscard]] const Manifest& manifest() const;
  /// Multiply-accumulates per image.
  [[nodiscard]] std::int64_t macs() const;
  /// The kernels in use: ncnn or onednn.
  [[nodiscard]] Kernels kernels() const;

  /// Logits of one image that has the network's input size.
  /// @param pixels  CHW, channels * height * width values from 0 to 255
  [[nodiscard]] Result<std::vector<float>> logits(const std::vector<std::uint8_t>& pixels) const;

  /// The `top` most probable classes of an image of any size, most probable first.
  [[nodiscard]] Result<std::vector<Score>> classify(const Image& image, int top) const;

  /// Normalize one image (CHW, as for logits()) for infer().
  [[nodiscard]] Result<PreparedInput> prepare(const std::vector<std::uint8_t>& pixels) const;
  /// Normalize images for one batched inference. ncnn runs each layer on the whole batch, so that the weights
  /// are read once.
  [[nodiscard]] Result<PreparedInput> prepare_batch(
      const std::vector<std::vector<std::uint8_t>>& images) const;
  /// Copy images that are already normalized.
  /// @param values  row-major [images, channels, height, width]
  [[nodiscard]] Result<PreparedInput> prepare_normalized(const float* values, int images) const;
  /// Run the network once on the prepared images.
  /// @returns logits, row-major [images, classes]
  [[nodiscard]] Result<std::vector<float>> infer(const PreparedInput& input) const;

 private:
  struct Impl;
  explicit Classifier(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Differences between computed and reference logits.
struct Parity {
  int images = 0;
  double max_abs = 0.0;   ///< largest absolute difference
  double mean_abs = 0.0;  ///< mean absolute difference
  int same_top1 = 0;      ///< images with the same top-1 class

  /// Share of images with the same top-1 class, in [0, 1].
  [[nodiscard]] double top1_agreement() const { return static_cast<double>(same_top1) / images; }
};

/// Compare the network's logits of the self-test images with the model folder's PyTorch logits.
Result<Parity> measure_parity(const Classifier& classifier);

/// Resize (and crop) an image to the network's input size.
/// @returns pixels, CHW, 0 to 255
Result<std::vector<std::uint8_t>> fit_to_input(const Image& image, const InputSpec& input);

/// Softmax in double precision.
std::vector<double> softmax(const std::vector<float>& logits);

/// Version of the ncnn that this library was built with.
const char* ncnn_version();

/// Version of the oneDNN library; empty if this library was built without it.
std::string onednn_version();

}  // namespace sweep_engine

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "sweep_engine/classifier.h"
#include "sweep_engine/status.h"

namespace sweep_engine {

/// Labeled images of one size. The file is little-endian (written by deploy/model_files/image_file.py):
///
///     8 bytes  "SWEEPIMG"
///     u32      version, 1
///     u32 x 4  count, channels, height, width
///     u32      label, count times
///     u8       pixels, count * channels * height * width, CHW
struct ImageSet {
  int channels = 0;
  int height = 0;
  int width = 0;
  std::vector<std::uint32_t> labels;
  std::vector<std::uint8_t> pixels;

  [[nodiscard]] std::size_t count() const { return labels.size(); }
  /// Pixels of one image, CHW.
  [[nodiscard]] std::vector<std::uint8_t> image(std::size_t index) const;
};

Result<ImageSet> read_image_set(const std::string& path);

/// Reference logits of the images of an ImageSet, row-major [count, classes]. The file is little-endian:
/// "SWEEPLGT", u32 version (1), u32 count, u32 classes, f32 count * classes.
struct Logits {
  std::size_t classes = 0;
  std::vector<float> values;

  [[nodiscard]] std::size_t count() const { return classes == 0 ? 0 : values.size() / classes; }
};

Result<Logits> read_logits(const std::string& path);

/// Differences between computed and reference logits.
struct Parity {
  std::size_t images = 0;
  double max_abs = 0.0;       ///< largest absolute difference
  double mean_abs = 0.0;      ///< mean absolute difference
  std::size_t same_top1 = 0;  ///< images with the same top-1 class

  /// Share of images with the same top-1 class, in [0, 1].
  [[nodiscard]] double top1_agreement() const {
    return images == 0 ? 0.0 : static_cast<double>(same_top1) / static_cast<double>(images);
  }
};

/// Compare the network's logits of the self-test images with the model folder's PyTorch logits.
Result<Parity> measure_parity(const Classifier& classifier);

/// Top-1 accuracy on an image set.
struct Accuracy {
  std::size_t images = 0;
  std::size_t correct = 0;
  Parity parity;  ///< zero images if there are no reference logits

  /// Top-1 accuracy in [0, 1].
  [[nodiscard]] double top1() const {
    return images == 0 ? 0.0 : static_cast<double>(correct) / static_cast<double>(images);
  }
};

/// Classify every image of the set.
/// @param reference  logits of the same images; may be empty
/// @param workers  threads that share the model and take one image each, 1 to 256
/// @param progress  called by this thread with the number of images done or in progress
Result<Accuracy> measure_accuracy(const Classifier& classifier, const ImageSet& images,
                                  const Logits& reference, int workers,
                                  const std::function<void(std::size_t)>& progress);

}  // namespace sweep_engine

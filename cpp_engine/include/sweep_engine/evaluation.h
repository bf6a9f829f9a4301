#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sweep_engine/classifier.h"
#include "sweep_engine/status.h"

namespace sweep_engine {

/// Labeled pictures of one size. The file (deploy/model_files/image_file.py writes it) is little-endian:
///
///     8 bytes  "SWEEPIMG"
///     u32      version, 1
///     u32 x 4  count, channels, height, width
///     u32      label, count times
///     u8       levels, count * channels * height * width, CHW
struct ImageSet {
  int channels = 0;
  int height = 0;
  int width = 0;
  std::vector<std::uint32_t> labels;
  std::vector<std::uint8_t> levels;

  std::size_t count() const { return labels.size(); }
  std::vector<std::uint8_t> pixels(std::size_t index) const;
};

Result<ImageSet> read_image_set(const std::string& path);

/// Reference logits of the pictures of an ImageSet, row by row. The file is little-endian: "SWEEPLGT", u32
/// version (1), u32 count, u32 classes, then f32 count * classes.
struct Logits {
  std::size_t classes = 0;
  std::vector<float> values;

  std::size_t count() const { return classes == 0 ? 0 : values.size() / classes; }
};

Result<Logits> read_logits(const std::string& path);

/// Computed logits beside their reference.
struct Parity {
  std::size_t images = 0;
  double max_abs = 0.0;       ///< largest absolute difference of a logit
  double mean_abs = 0.0;      ///< mean of all of them
  std::size_t same_top1 = 0;  ///< pictures with the same most probable class

  double top1_agreement() const {
    return images == 0 ? 0.0 : static_cast<double>(same_top1) / static_cast<double>(images);
  }
};

/// The network's answers for the self-test's patterns beside PyTorch's, which every model folder has.
Result<Parity> measure_parity(const Classifier& classifier);

/// How often the most probable class was the right one.
struct Accuracy {
  std::size_t images = 0;
  std::size_t correct = 0;
  Parity parity;  ///< of no images where no reference was given

  double top1() const {
    return images == 0 ? 0.0 : static_cast<double>(correct) / static_cast<double>(images);
  }
};

/// Classify every picture of the set.
/// @param reference  logits of the same pictures, or nothing (no values)
/// @param workers  threads that share the model, each on its own picture; 1 to 256
Result<Accuracy> measure_accuracy(const Classifier& classifier, const ImageSet& images,
                                  const Logits& reference, int workers);

}  // namespace sweep_engine

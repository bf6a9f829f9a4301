#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sweep_engine/classifier.h"
#include "sweep_engine/status.h"

namespace sweep_engine {

/// Labelled pictures of one size. The file (deploy/image_file.py writes it) is little-endian:
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

/// How often the most probable class was the right one.
struct Accuracy {
  std::size_t images = 0;
  std::size_t correct = 0;

  double top1() const {
    return images == 0 ? 0.0 : static_cast<double>(correct) / static_cast<double>(images);
  }
};

/// Classify every picture of the set.
/// @param workers  threads that share the model, each on its own picture; 1 to 256
Result<Accuracy> measure_accuracy(const Classifier& classifier, const ImageSet& images, int workers);

}  // namespace sweep_engine

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "sweep_engine/status.h"

namespace sweep_engine {

/// Number format of weights and computation.
enum class Precision {
  fp32,
  fp16,  ///< weights stored in fp16, computed in fp32
  bf16,  ///< weights and activations in bfloat16 at run time
  int8,  ///< quantized convolutions
};

const char* precision_name(Precision precision);
Result<Precision> parse_precision(const std::string& name);

/// Method that resizes an image to the network's input size.
enum class ResizeMode {
  direct,             ///< scale both sides independently
  shorter_side_crop,  ///< scale the shorter side to `shorter_side`, then crop the center
};

/// The network's input.
struct InputSpec {
  std::string blob;
  int channels = 3;
  int height = 0;
  int width = 0;
  ResizeMode resize = ResizeMode::direct;
  int shorter_side = 0;  ///< pixels, for shorter_side_crop

  /// Number of values, channels * height * width.
  [[nodiscard]] std::size_t size() const {
    return static_cast<std::size_t>(channels) * static_cast<std::size_t>(height) *
           static_cast<std::size_t>(width);
  }
};

/// x = (pixel / 255 - mean) / std.
struct NormalizationSpec {
  std::vector<float> mean;  ///< one value per channel, or one per pixel in CHW order
  std::vector<float> std;   ///< one positive value per channel
};

/// A file of the folder, as declared in the manifest.
struct FileSpec {
  std::string name;
  std::string sha256;
  std::uint64_t bytes = 0;
};

/// The validated contents of model.json, schema version 1.
struct Manifest {
  std::string name;
  InputSpec input;
  NormalizationSpec normalization;
  std::string output_blob;
  std::vector<std::string> classes;
  Precision precision = Precision::fp32;
  FileSpec param;
  FileSpec bin;
  double self_test_tolerance = 0.0;                   ///< largest permitted absolute difference of a logit
  std::vector<std::vector<double>> self_test_logits;  ///< one row per image of self_test_pattern()
  double test_accuracy = -1.0;                        ///< in [0, 1]; negative if unknown
  std::string tuned_for;                              ///< processor of the tuning; empty if not tuned
  bool tuned_for_onednn = false;                      ///< whether oneDNN's kernels were the fastest there
};

/// Read FOLDER/model.json and check its schema version and the types and ranges of all fields. Does not check
/// the other files.
Result<Manifest> read_manifest(const std::string& folder);

/// Read a regular file of at most `limit` bytes.
Result<std::string> read_file(const std::string& path, std::uint64_t limit);

/// Self-test image `k`, CHW: pixel(c, h, w) = (31 i + 17 h + 97 k) mod 256 with i = (c H + h) W + w.
std::vector<std::uint8_t> self_test_pattern(const InputSpec& input, int k);

}  // namespace sweep_engine

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "sweep_engine/status.h"

namespace sweep_engine {

/// How numbers are stored and computed.
enum class Precision {
  fp32,
  fp16,  ///< weights stored in half the size; computed in fp32
  bf16,  ///< weights and activations in bfloat16 while running
  int8,  ///< quantized convolutions
};

const char* precision_name(Precision precision);
Result<Precision> parse_precision(const std::string& name);

/// How an image of any size becomes the size of the input.
enum class ResizeMode {
  direct,             ///< both sides scaled to the input's, each by its own factor
  shorter_side_crop,  ///< the shorter side scaled to `shorter_side`, then the center cut out
};

/// What the network takes.
struct InputSpec {
  std::string blob;
  int channels = 3;
  int height = 0;
  int width = 0;
  ResizeMode resize = ResizeMode::direct;
  int shorter_side = 0;  ///< pixels, for shorter_side_crop

  std::size_t size() const {
    return static_cast<std::size_t>(channels) * static_cast<std::size_t>(height) *
           static_cast<std::size_t>(width);
  }
};

/// x = (pixel / 255 - mean) / std.
struct NormalizationSpec {
  std::vector<float> mean;  ///< one per channel, or one per pixel in CHW order
  std::vector<float> std;   ///< one per channel, positive
};

/// One of the folder's files, as the manifest declares it.
struct FileSpec {
  std::string name;
  std::string sha256;
  std::uint64_t bytes = 0;
};

/// model.json, schema version 1, checked.
struct Manifest {
  std::string name;
  InputSpec input;
  NormalizationSpec normalization;
  std::string output_blob;
  std::vector<std::string> classes;
  Precision precision = Precision::fp32;
  FileSpec param;
  FileSpec bin;
  double self_test_tolerance = 0.0;                   ///< largest allowed absolute difference of a logit
  std::vector<std::vector<double>> self_test_logits;  ///< one row per pattern; see self_test_pattern()
  double test_accuracy = -1.0;                        ///< in [0, 1]; negative when unknown
  std::string tuned_for;                              ///< the processor it was tuned on; empty: by rule
  std::string json;                                   ///< the file's text, for records that quote it
};

/// Read and check FOLDER/model.json: schema version, every field's type and range, nothing about the other
/// files.
Result<Manifest> read_manifest(const std::string& folder);

/// The folder of the same network in another precision: `folder` itself if it is in that precision, else the
/// one that the export writes beside it, DIR-int8 beside DIR.
Result<std::string> folder_in(const std::string& folder, Precision precision);

/// Read a whole file of at most `limit` bytes. Refuses what is not a regular file.
Result<std::string> read_file(const std::string& path, std::uint64_t limit);

/// The fixed picture number `k` of the self-test, CHW: pixel(c, h, w) = (31 i + 17 h + 97 k) mod 256 with
/// i = (c H + h) W + w.
std::vector<std::uint8_t> self_test_pattern(const InputSpec& input, int k);

}  // namespace sweep_engine

#include <cmath>
#include <cstring>
#include <vector>

#include "model/graph.h"
#include "model/weight_tags.h"

namespace sweep_engine {

namespace {

const char* tag_name(std::uint32_t tag) {
  switch (tag) {
    case tag_fp32: return "fp32";
    case tag_fp16: return "fp16";
    case tag_bf16: return "bf16";
    case tag_int8: return "int8";
    default: return "of an unknown type";
  }
}

/// Read position in the file, limited to its declared length.
class FileCursor {
 public:
  FileCursor(std::FILE* file, std::uint64_t bytes) : file_(file), bytes_(bytes) {}

  bool skip(std::uint64_t count) {
    if (count > bytes_ - offset_) return false;
    offset_ += count;
    return true;
  }

  bool read(void* out, std::size_t count) {
    const std::uint64_t from = offset_;
    if (!skip(count)) return false;
    return ::fseeko(file_, static_cast<off_t>(from), SEEK_SET) == 0 &&
           std::fread(out, 1, count, file_) == count;
  }

  [[nodiscard]] std::uint64_t offset() const { return offset_; }

 private:
  std::FILE* file_;
  std::uint64_t bytes_;
  std::uint64_t offset_ = 0;
};

Status invalid_bin(const LayerLine& layer, const std::string& message) {
  return {StatusCode::model_invalid, "model.bin: " + layer.name + ": " + message};
}

Status truncated(const LayerLine& layer, const FileCursor& cursor) {
  return invalid_bin(
      layer, "the file ends within the weights of this layer (byte " + std::to_string(cursor.offset()) + ")");
}

Status check_scales(const LayerLine& layer, FileCursor& cursor, std::uint64_t count) {
  std::vector<float> scales(count);
  if (!cursor.read(scales.data(), count * sizeof(float))) return truncated(layer, cursor);
  for (const float scale : scales) {
    if (!std::isfinite(scale)) return invalid_bin(layer, "an int8 scale is not finite");
  }
  return {};
}

/// Check a tagged array of `count` weights.
Status check_weight_array(const LayerLine& layer, FileCursor& cursor, std::uint64_t count, bool quantized,
                          Precision precision) {
  std::uint32_t tag = 0;
  if (!cursor.read(&tag, sizeof tag)) return truncated(layer, cursor);
  const bool fits = quantized ? tag == tag_int8
                              : tag == tag_fp32 || (tag == tag_fp16 && precision != Precision::fp32) ||
                                    (tag == tag_bf16 && precision == Precision::bf16);
  if (!fits) {
    return invalid_bin(layer,
                       std::string("the weights are ") + tag_name(tag) + ", but " +
                           (quantized ? "model.param declares int8"
                                      : std::string("model.json declares ") + precision_name(precision)));
  }
  return cursor.skip(weight_bytes(tag, count)) ? Status() : truncated(layer, cursor);
}

Status check_int8_scales(const LayerLine& layer, FileCursor& cursor, std::uint64_t outputs, int int8_mode) {
  Status status = check_scales(layer, cursor, outputs);                         // of the weights
  if (status.ok()) status = check_scales(layer, cursor, 1);                     // of the input
  if (status.ok() && int8_mode > 100) status = check_scales(layer, cursor, 1);  // of the output
  return status;
}

Status check_layer(const LayerLine& layer, FileCursor& cursor, Precision precision) {
  const bool convolution = layer.type == "Convolution";
  if (convolution || layer.type == "InnerProduct") {
    const auto outputs = static_cast<std::uint64_t>(layer.integer(0));
    const int int8_mode = layer.integer(8);
    const bool is_known_mode = int8_mode <= 2 || (convolution && (int8_mode == 101 || int8_mode == 102));
    if (!is_known_mode)
      return invalid_bin(layer, "unknown int8 mode in model.param (8=" + std::to_string(int8_mode) + ")");
    if (int8_mode != 0 && precision != Precision::int8) {
      return invalid_bin(layer, std::string("model.param declares int8, but model.json declares ") +
                                    precision_name(precision));
    }
    const auto weights = static_cast<std::uint64_t>(layer.integer(convolution ? 6 : 2));
    Status status = check_weight_array(layer, cursor, weights, int8_mode != 0, precision);
    if (!status.ok()) return status;
    if (layer.integer(convolution ? 5 : 1) != 0 && !cursor.skip(4 * outputs)) return truncated(layer, cursor);
    return int8_mode != 0 ? check_int8_scales(layer, cursor, outputs, int8_mode) : Status();
  }
  if (layer.type == "BatchNorm") {
    // Scale, mean, variance and bias, fp32 per channel.
    return cursor.skip(16 * static_cast<std::uint64_t>(layer.integer(0))) ? Status()
                                                                          : truncated(layer, cursor);
  }
  if (layer.type == "MemoryData") {
    return cursor.skip(4 * static_cast<std::uint64_t>(layer.output.total())) ? Status()
                                                                             : truncated(layer, cursor);
  }
  return {};
}

}  // namespace

Status check_weights(const Graph& graph, std::FILE* bin, std::uint64_t bytes, Precision precision) {
  FileCursor cursor(bin, bytes);
  for (const LayerLine& layer : graph.layers) {
    Status status = check_layer(layer, cursor, precision);
    if (!status.ok()) return status;
  }
  if (cursor.offset() != bytes) {
    return {StatusCode::model_invalid, "model.bin: " + std::to_string(bytes) +
                                           " bytes, but model.param requires " +
                                           std::to_string(cursor.offset())};
  }
  return {};
}

}  // namespace sweep_engine

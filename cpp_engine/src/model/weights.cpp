#include <cmath>
#include <cstring>
#include <vector>

#include "model/graph.h"

namespace sweep_engine {

namespace {

constexpr std::uint32_t tag_fp32 = 0;
constexpr std::uint32_t tag_fp16 = 0x01306B47;
constexpr std::uint32_t tag_bf16 = 0x01348B83;
constexpr std::uint32_t tag_int8 = 0x000D4B38;

std::uint64_t whole_param(const LayerLine& layer, int key, std::uint64_t fallback) {
  const auto found = layer.params.find(key);
  return found == layer.params.end() ? fallback : static_cast<std::uint64_t>(found->second.numbers[0]);
}

const char* tag_meaning(std::uint32_t tag) {
  switch (tag) {
    case tag_fp32: return "fp32";
    case tag_fp16: return "fp16";
    case tag_bf16: return "bf16";
    case tag_int8: return "int8";
    default: return "of an unknown kind";
  }
}

/// A cursor over the file that never reads past its declared length.
class Walk {
 public:
  Walk(std::FILE* file, std::uint64_t bytes) : file_(file), bytes_(bytes) {}

  bool skip(std::uint64_t count) {
    if (count > bytes_ - at_) return false;
    at_ += count;
    return true;
  }

  bool read(void* out, std::size_t count) {
    const std::uint64_t from = at_;
    if (!skip(count)) return false;
    return ::fseeko(file_, static_cast<off_t>(from), SEEK_SET) == 0 &&
           std::fread(out, 1, count, file_) == count;
  }

  std::uint64_t at() const { return at_; }

 private:
  std::FILE* file_;
  std::uint64_t bytes_;
  std::uint64_t at_ = 0;
};

Status bad(const LayerLine& layer, const std::string& message) {
  return {StatusCode::model_invalid, "model.bin: " + layer.name + ": " + message};
}

Status ends_early(const LayerLine& layer, const Walk& walk) {
  return bad(layer,
             "the file ends in the middle of this layer's weights (byte " + std::to_string(walk.at()) + ")");
}

Status check_scales(const LayerLine& layer, Walk& walk, std::uint64_t count) {
  std::vector<float> scales(count);
  if (!walk.read(scales.data(), count * sizeof(float))) return ends_early(layer, walk);
  for (const float scale : scales) {
    if (!std::isfinite(scale)) return bad(layer, "an int8 scale is not finite");
  }
  return {};
}

/// One tagged block of `count` weights.
Status check_block(const LayerLine& layer, Walk& walk, std::uint64_t count, bool quantized,
                   Precision precision) {
  std::uint32_t tag = 0;
  if (!walk.read(&tag, sizeof tag)) return ends_early(layer, walk);
  const bool fits = quantized ? tag == tag_int8
                              : tag == tag_fp32 || (tag == tag_fp16 && precision != Precision::fp32) ||
                                    (tag == tag_bf16 && precision == Precision::bf16);
  if (!fits) {
    return bad(layer, std::string("its weights are ") + tag_meaning(tag) + " where " +
                          (quantized ? "model.param says int8"
                                     : std::string("model.json says ") + precision_name(precision)));
  }
  const std::uint64_t each = tag == tag_fp32 ? 4 : (tag == tag_int8 ? 1 : 2);
  return walk.skip((count * each + 3) / 4 * 4) ? Status() : ends_early(layer, walk);
}

Status check_quantized(const LayerLine& layer, Walk& walk, std::uint64_t outputs, std::uint64_t term) {
  Status status = check_scales(layer, walk, outputs);                    // of the weights
  if (status.ok()) status = check_scales(layer, walk, 1);                // of the input
  if (status.ok() && term > 100) status = check_scales(layer, walk, 1);  // of the output
  return status;
}

Status check_layer(const LayerLine& layer, Walk& walk, Precision precision) {
  const bool convolution = layer.type == "Convolution";
  if (convolution || layer.type == "InnerProduct") {
    const std::uint64_t outputs = whole_param(layer, 0, 0);
    const std::uint64_t term = whole_param(layer, 8, 0);
    const bool known_term =
        term == 0 || term == 1 || term == 2 || (convolution && (term == 101 || term == 102));
    if (!known_term)
      return bad(layer, "model.param asks for an unknown int8 scheme (8=" + std::to_string(term) + ")");
    if (term != 0 && precision != Precision::int8) {
      return bad(layer,
                 std::string("is int8 in model.param where model.json says ") + precision_name(precision));
    }
    Status status =
        check_block(layer, walk, whole_param(layer, convolution ? 6 : 2, 0), term != 0, precision);
    if (!status.ok()) return status;
    const std::uint64_t bias = whole_param(layer, convolution ? 5 : 1, 0);
    if (bias != 0 && !walk.skip(4 * outputs)) return ends_early(layer, walk);
    return term != 0 ? check_quantized(layer, walk, outputs, term) : Status();
  }
  if (layer.type == "BatchNorm") {
    return walk.skip(4 * 4 * whole_param(layer, 0, 0)) ? Status() : ends_early(layer, walk);
  }
  if (layer.type == "MemoryData") {
    return walk.skip(4 * static_cast<std::uint64_t>(layer.output.total())) ? Status()
                                                                           : ends_early(layer, walk);
  }
  return {};
}

}  // namespace

Status check_weights(const Graph& graph, std::FILE* bin, std::uint64_t bytes, Precision precision) {
  Walk walk(bin, bytes);
  for (const LayerLine& layer : graph.layers) {
    const Status status = check_layer(layer, walk, precision);
    if (!status.ok()) return status;
  }
  if (walk.at() != bytes) {
    return {StatusCode::model_invalid, "model.bin: has " + std::to_string(bytes) +
                                           " bytes where model.param needs " + std::to_string(walk.at())};
  }
  return {};
}

}  // namespace sweep_engine

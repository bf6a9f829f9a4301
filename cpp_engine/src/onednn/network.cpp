#include "onednn/network.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include <cpu.h>
#include <mat.h>

#include "model/weight_tags.h"

namespace sweep_engine::onednn {

namespace {

Status unsupported(const LayerLine& layer, const std::string& reason) {
  return {StatusCode::unsupported,
          "not supported with oneDNN: " + layer.name + " (" + layer.type + ")" + reason};
}

/// Builds the operations from the layers, in their order.
class Fuser {
 public:
  Fuser(std::FILE* bin, bool is_int8) : bin_(bin), is_int8_(is_int8) {}

  Status add(const LayerLine& layer);

  Network network;
  std::map<std::string, int> values;  ///< by blob

 private:
  Status add_convolution(const LayerLine& layer);
  Status add_linear(const LayerLine& layer);
  Status add_pooling(const LayerLine& layer);
  Status add_addition(const LayerLine& layer);
  Status add_relu(const LayerLine& layer);
  Status widen_shortcut(const LayerLine& layer);
  Status read_weight_data(const LayerLine& layer, int count_key, int bias_key, Weights& weights);
  bool read_floats(std::vector<float>& numbers, std::size_t count);
  void append(const LayerLine& layer, Operation operation);
  /// The operation that may still be changed because nothing but the next layer reads its output.
  Operation* open_operation(const std::string& blob);

  std::FILE* bin_;
  bool is_int8_;
  std::set<std::string> shared_;  ///< blobs whose value has several readers
};

bool Fuser::read_floats(std::vector<float>& numbers, std::size_t count) {
  numbers.resize(count);
  return std::fread(numbers.data(), sizeof(float), count, bin_) == count;
}

Status Fuser::read_weight_data(const LayerLine& layer, int count_key, int bias_key, Weights& weights) {
  const bool is_quantized = layer.integer(8) != 0;
  weights.count = static_cast<std::uint64_t>(layer.integer(count_key));
  bool complete = std::fread(&weights.tag, sizeof weights.tag, 1, bin_) == 1;
  weights.offset = static_cast<std::uint64_t>(::ftello(bin_));
  complete =
      complete && ::fseeko(bin_, static_cast<off_t>(weight_bytes(weights.tag, weights.count)), SEEK_CUR) == 0;
  const auto outputs = static_cast<std::size_t>(layer.integer(0));
  if (layer.integer(bias_key) != 0) complete = complete && read_floats(weights.bias, outputs);
  if (weights.bias.empty()) weights.bias.resize(outputs);
  if (!is_quantized) return complete ? Status() : unsupported(layer, ": incomplete read");
  std::vector<float> input_scale;
  std::vector<float> output_scale;
  complete = complete && read_floats(weights.scales, outputs) && read_floats(input_scale, 1) &&
             (layer.integer(8) < 100 || read_floats(output_scale, 1));
  if (!complete) return unsupported(layer, ": incomplete read");
  if (*std::min_element(weights.scales.begin(), weights.scales.end()) <= 0.0F || input_scale[0] <= 0.0F) {
    return unsupported(layer, ": a scale is not positive");
  }
  float& scale = network.value(values.at(layer.bottoms[0])).scale;
  if (scale != 0.0F && scale != input_scale[0]) return unsupported(layer, ": two scales of one input");
  scale = input_scale[0];
  return {};
}

void Fuser::append(const LayerLine& layer, Operation operation) {
  operation.input = values.at(layer.bottoms[0]);
  operation.output = static_cast<int>(network.values.size());
  Value output;
  output.shape = layer.output;
  output.producer = static_cast<int>(network.operations.size());
  output.is_non_negative = operation.has_relu || (operation.kind != Operation::Kind::convolution &&
                                                  network.value(operation.input).is_non_negative);
  network.values.push_back(output);
  values[layer.tops[0]] = operation.output;
  network.operations.push_back(std::move(operation));
}

Operation* Fuser::open_operation(const std::string& blob) {
  const int producer = network.value(values.at(blob)).producer;
  if (producer < 0 || shared_.count(blob) != 0) return nullptr;
  Operation& operation = network.operations[static_cast<std::size_t>(producer)];
  return operation.kind == Operation::Kind::convolution && !operation.has_relu ? &operation : nullptr;
}

/// Read kernel size, stride and padding; the keys of the strides begin at `stride`, followed by the paddings.
void read_window(const LayerLine& layer, int stride, Operation& operation) {
  operation.kernel[1] = layer.integer(1);
  operation.kernel[0] = layer.integer(11, operation.kernel[1]);
  operation.stride[1] = layer.integer(stride, 1);
  operation.stride[0] = layer.integer(stride + 10, operation.stride[1]);
  operation.pad_before[1] = layer.integer(stride + 1);
  operation.pad_before[0] = layer.integer(stride + 11, operation.pad_before[1]);
  operation.pad_after[1] = layer.integer(stride + 12, operation.pad_before[1]);
  operation.pad_after[0] = layer.integer(stride + 13, operation.pad_before[0]);
}

Status Fuser::add_convolution(const LayerLine& layer) {
  Operation operation;
  read_window(layer, 3, operation);
  if (layer.integer(2, 1) != 1 || layer.integer(12, 1) != 1 || layer.integer(18) != 0)
    return unsupported(layer, ": dilation or padding with a value");
  if (layer.integer(9) > 1) return unsupported(layer, ": its activation function");
  if (is_int8_ && layer.integer(8) == 0) return unsupported(layer, ": not quantized in an int8 network");
  operation.has_relu = layer.integer(9) == 1;
  const Status status = read_weight_data(layer, 6, 5, operation.weights);
  if (!status.ok()) return status;
  append(layer, std::move(operation));
  return {};
}

Status Fuser::add_linear(const LayerLine& layer) {
  const Shape& in = network.value(values.at(layer.bottoms[0])).shape;
  if (in.total() != in.c * (in.dims == 1 ? in.w : 1) || layer.integer(9) != 0 || layer.integer(8) != 0)
    return unsupported(layer, ": more than one pixel, an activation function or int8");
  Operation operation;
  operation.kind = Operation::Kind::linear;
  const Status status = read_weight_data(layer, 2, 1, operation.weights);
  if (!status.ok()) return status;
  append(layer, std::move(operation));
  return {};
}

Status Fuser::add_pooling(const LayerLine& layer) {
  Operation operation;
  const bool is_mean = layer.type == "Reduction" ? layer.integer(0) == 3 : layer.integer(0) == 1;
  if (layer.output.total() == layer.output.c * (layer.output.dims == 1 ? layer.output.w : 1) && is_mean &&
      (layer.type == "Reduction" || layer.integer(4) == 1)) {
    operation.kind = Operation::Kind::mean;
    append(layer, std::move(operation));
    Shape& shape = network.values.back().shape;
    shape = {1, static_cast<int>(shape.total()), 1, 1};
    return {};
  }
  if (layer.type == "Reduction" || layer.integer(4) == 1 || layer.integer(7) == 1)
    return unsupported(layer, "");
  read_window(layer, 2, operation);
  if (operation.kernel[0] == 1 && operation.kernel[1] == 1) {
    // The subsampling of an option-A shortcut: a convolution, so that an addition can be fused.
    operation.weights.bias.resize(static_cast<std::size_t>(layer.output.c));
    if (is_int8_) operation.weights.scales.assign(operation.weights.bias.size(), 1.0F);
    append(layer, std::move(operation));
    return {};
  }
  // ncnn rounds the output size up unless key 5 is set; the last window may then exceed the padding.
  if (is_mean || layer.integer(5) == 0) return unsupported(layer, "");
  operation.kind = Operation::Kind::max_pool;
  append(layer, std::move(operation));
  return {};
}

/// Padding of channels, the second part of an option-A shortcut.
Status Fuser::widen_shortcut(const LayerLine& layer) {
  Operation* operation = open_operation(layer.bottoms[0]);
  for (const int key : {0, 1, 2, 3}) {
    if (layer.integer(key) != 0) operation = nullptr;
  }
  const auto value = layer.params.find(5);
  if (value != layer.params.end() && value->second.numbers[0] != 0.0) operation = nullptr;
  if (operation == nullptr || operation->weights.count != 0) return unsupported(layer, "");
  Weights& weights = operation->weights;
  weights.first_channel += layer.integer(7);
  weights.bias.resize(static_cast<std::size_t>(layer.output.c));
  if (is_int8_) weights.scales.resize(weights.bias.size(), 1.0F);
  network.value(operation->output).shape = layer.output;
  values[layer.tops[0]] = operation->output;
  return {};
}

Status Fuser::add_addition(const LayerLine& layer) {
  const bool is_sum = layer.type == "BinaryOp" ? layer.integer(0) == 0 && layer.integer(1) == 0
                                               : layer.integer(0) == 1 && layer.params.count(1) == 0;
  if (!is_sum || layer.bottoms.size() != 2) return unsupported(layer, "");
  // The later of the two operations can add the other's output, which is complete by then.
  Operation* last = nullptr;
  int residual = -1;
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
    Operation* operation = open_operation(layer.bottoms[i]);
    const int other = values.at(layer.bottoms[1 - i]);
    if (operation == nullptr || operation->residual >= 0) continue;
    const int producer = network.value(operation->output).producer;
    if (network.value(other).producer >= producer) continue;
    last = operation;
    residual = other;
  }
  if (last == nullptr) return unsupported(layer, ": no convolution that can add the other input");
  if (!(network.value(residual).shape == layer.output && network.value(last->output).shape == layer.output)) {
    return unsupported(layer, ": broadcasting");
  }
  last->residual = residual;
  values[layer.tops[0]] = last->output;
  return {};
}

Status Fuser::add_relu(const LayerLine& layer) {
  Operation* operation = open_operation(layer.bottoms[0]);
  const auto slope = layer.params.find(0);
  if (operation == nullptr || (slope != layer.params.end() && slope->second.numbers[0] != 0.0))
    return unsupported(layer, "");
  operation->has_relu = true;
  network.value(operation->output).is_non_negative = true;
  values[layer.tops[0]] = operation->output;
  return {};
}

Status Fuser::add(const LayerLine& layer) {
  const std::string& type = layer.type;
  if (type == "Input") {
    Value input;
    input.shape = layer.output;
    values[layer.tops[0]] = 0;
    network.values.push_back(input);
    return {};
  }
  if (layer.bottoms.empty() || network.values.empty()) return unsupported(layer, "");
  if (type == "Convolution") return add_convolution(layer);
  if (type == "InnerProduct") return add_linear(layer);
  if (type == "Pooling" || type == "Reduction") return add_pooling(layer);
  if (type == "BinaryOp" || type == "Eltwise") return add_addition(layer);
  if (type == "ReLU") return add_relu(layer);
  if (type == "Padding") return widen_shortcut(layer);
  const Shape& in = network.value(values.at(layer.bottoms[0])).shape;
  const bool is_vector = in.total() == in.c * (in.dims == 1 ? in.w : 1);
  const bool keeps_order = type == "Split" || type == "Dropout" || type == "Noop" ||
                           ((type == "Flatten" || type == "Reshape") && is_vector);
  if (!keeps_order || (type == "Dropout" && layer.params.count(0) != 0)) return unsupported(layer, "");
  for (const std::string& blob : layer.tops) {
    values[blob] = values.at(layer.bottoms[0]);
    if (type == "Split" || shared_.count(layer.bottoms[0]) != 0) shared_.insert(blob);
  }
  return {};
}

/// Number of the last operation that reads each value.
void find_last_uses(Network& network, int output) {
  for (std::size_t i = 0; i < network.operations.size(); ++i) {
    for (const int value : {network.operations[i].input, network.operations[i].residual}) {
      if (value >= 0) network.value(value).last_use = static_cast<int>(i);
    }
  }
  network.value(output).last_use = static_cast<int>(network.operations.size());
}

/// Whether an operation has a residual whose memory may become its output.
bool is_free_after(const Network& network, std::size_t index) {
  const Operation& operation = network.operations[index];
  return operation.residual >= 0 && operation.residual != operation.input &&
         network.value(operation.residual).last_use == static_cast<int>(index);
}

/// Choose the formats of an int8 network. The inputs of quantized convolutions are 8-bit numbers with the
/// scales of the .bin file; other values, such as a shortcut's output, stay fp32.
bool choose_int8_formats(Network& network) {
  // A maximum keeps the scale.
  for (std::size_t i = network.operations.size(); i-- > 0;) {
    const Operation& operation = network.operations[i];
    if (operation.kind != Operation::Kind::max_pool) continue;
    float& scale = network.value(operation.input).scale;
    if (scale != 0.0F && scale != network.value(operation.output).scale) return false;
    scale = network.value(operation.output).scale;
  }
  // ncnn's 8-bit activations use only 127 of the 255 levels of a non-negative one. Without VNNI, pairs of
  // larger products can exceed 16 bits.
  const bool has_vnni = ncnn::cpu_support_x86_avx512_vnni() != 0 || ncnn::cpu_support_x86_avx_vnni() != 0;
  for (Value& one : network.values) {
    if (one.scale == 0.0F) continue;
    one.format = one.is_non_negative ? Format::u8 : Format::s8;
    if (one.is_non_negative && has_vnni) one.scale *= 255.0F / 127.0F;
  }
  for (std::size_t i = 0; i < network.operations.size(); ++i) {
    Operation& operation = network.operations[i];
    Value& output = network.value(operation.output);
    if (operation.kind == Operation::Kind::convolution &&
        network.value(operation.input).format == Format::fp32)
      return false;
    if (operation.residual < 0) continue;
    Value& residual = network.value(operation.residual);
    operation.accumulates =
        residual.format == output.format && residual.format != Format::fp32 && is_free_after(network, i);
    if (operation.accumulates) continue;
    // The two must have one scale. That of an fp32 value is free.
    if (residual.scale == 0.0F) residual.scale = output.scale == 0.0F ? 1.0F : output.scale;
    if (output.scale == 0.0F) output.scale = residual.scale;
    if (residual.scale != output.scale) return false;
  }
  for (Value& one : network.values) {
    if (one.scale == 0.0F) one.scale = 1.0F;
  }
  return true;
}

}  // namespace

Result<Network> fuse_layers(const Graph& graph, std::FILE* bin, Precision precision,
                            const std::string& output_blob) {
  std::rewind(bin);
  Fuser fuser(bin, precision == Precision::int8);
  for (const LayerLine& layer : graph.layers) {
    Status status = fuser.add(layer);
    if (!status.ok()) return status;
  }
  Network& network = fuser.network;
  const int output = fuser.values.at(output_blob);
  if (network.operations.empty() || network.operations.back().output != output ||
      network.operations.back().kind != Operation::Kind::linear) {
    return Status(StatusCode::unsupported,
                  "not supported with oneDNN: the last layer is not fully connected");
  }
  find_last_uses(network, output);
  if (precision == Precision::int8) {
    if (!choose_int8_formats(network))
      return Status(StatusCode::unsupported,
                    "not supported with oneDNN: the int8 scales of an addition differ");
    return network;
  }
  for (std::size_t i = 0; i < network.values.size(); ++i) {
    Value& value = network.values[i];
    value.scale = 1.0F;
    const bool is_map =
        value.producer < 0 ||
        network.operations[static_cast<std::size_t>(value.producer)].kind != Operation::Kind::mean;
    value.format =
        precision == Precision::bf16 && is_map && static_cast<int>(i) != output ? Format::bf16 : Format::fp32;
  }
  for (std::size_t i = 0; i < network.operations.size(); ++i) {
    network.operations[i].accumulates = is_free_after(network, i);
  }
  return network;
}

namespace {

bool is_shortcut(const Operation& operation) { return operation.weights.count == 0; }

template <typename T>
void write_identity(const Network& network, const Operation& operation, std::vector<T>& weights) {
  const auto inputs = static_cast<std::size_t>(network.value(operation.input).shape.c);
  weights.assign(inputs * operation.weights.bias.size(), T{0});
  for (std::size_t i = 0; i < inputs; ++i) {
    weights[(i + static_cast<std::size_t>(operation.weights.first_channel)) * inputs + i] = T{1};
  }
}

template <typename T>
bool read_array(const Network& network, const Operation& operation, std::FILE* bin, std::vector<T>& numbers) {
  if (is_shortcut(operation)) {
    write_identity(network, operation, numbers);
    return true;
  }
  const Weights& weights = operation.weights;
  numbers.resize(weights.count);
  return ::fseeko(bin, static_cast<off_t>(weights.offset), SEEK_SET) == 0 &&
         std::fread(numbers.data(), sizeof(T), numbers.size(), bin) == numbers.size();
}

}  // namespace

bool read_weights(const Network& network, const Operation& operation, std::FILE* bin,
                  std::vector<float>& weights) {
  if (is_shortcut(operation) || operation.weights.tag == tag_fp32)
    return read_array(network, operation, bin, weights);
  std::vector<unsigned short> halves;
  if (!read_array(network, operation, bin, halves)) return false;
  const bool is_bf16 = operation.weights.tag == tag_bf16;
  weights.resize(halves.size());
  std::transform(halves.begin(), halves.end(), weights.begin(), [is_bf16](unsigned short half) {
    return is_bf16 ? ncnn::bfloat16_to_float32(half) : ncnn::float16_to_float32(half);
  });
  return true;
}

bool read_int8_weights(const Network& network, const Operation& operation, std::FILE* bin,
                       std::vector<std::int8_t>& weights) {
  return read_array(network, operation, bin, weights);
}

}  // namespace sweep_engine::onednn

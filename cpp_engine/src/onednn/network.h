#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "model/graph.h"
#include "sweep_engine/model_folder.h"
#include "sweep_engine/status.h"

namespace sweep_engine::onednn {

/// Number format of a value in memory.
enum class Format { fp32, bf16, s8, u8 };

/// An activation, stored as NHWC. The stored number is the real one times `scale`, which is 1 unless the
/// network is int8.
struct Value {
  Shape shape;
  Format format = Format::fp32;
  float scale = 0.0F;  ///< 0 until it is known
  bool is_non_negative = false;
  int producer = -1;  ///< operation; -1: the network's input
  int last_use = -1;  ///< operation
};

/// Weights of a layer in the .bin file. A layer without a weight array is the option-A shortcut of He et al.,
/// which copies input channel i to output channel `first_channel` + i.
struct Weights {
  std::uint64_t offset = 0;  ///< of the array, behind its tag
  std::uint64_t count = 0;
  std::uint32_t tag = 0;
  std::vector<float> bias;
  std::vector<float> scales;  ///< int8 only, one per output channel
  int first_channel = 0;
};

/// One step of the execution. A convolution computes relu(convolution(input) + bias + residual).
struct Operation {
  enum class Kind { convolution, max_pool, mean, linear };
  Kind kind = Kind::convolution;
  int input = 0;      ///< value
  int output = 0;     ///< value
  int residual = -1;  ///< value; -1: none
  /// Whether the residual's memory becomes the output, which saves a pass over memory.
  bool accumulates = false;
  bool has_relu = false;
  int kernel[2] = {1, 1};  ///< height, width; so are the three below
  int stride[2] = {1, 1};
  int pad_before[2] = {0, 0};
  int pad_after[2] = {0, 0};
  Weights weights;
};

/// A network as a sequence of operations, with batch normalization, ReLU and additions fused.
struct Network {
  std::vector<Value> values;  ///< the first is the input
  std::vector<Operation> operations;

  [[nodiscard]] const Value& value(int index) const { return values[static_cast<std::size_t>(index)]; }
  [[nodiscard]] Value& value(int index) { return values[static_cast<std::size_t>(index)]; }
};

/// Fuse the layers of a checked graph into operations; read the biases and scales of its checked .bin file,
/// but not the weights.
/// @returns an error `unsupported` if the graph has a layer or a connection that ResNets do not have
Result<Network> fuse_layers(const Graph& graph, std::FILE* bin, Precision precision,
                            const std::string& output_blob);

/// Read the weights of an operation as fp32 [outputs, inputs, height, width].
bool read_weights(const Network& network, const Operation& operation, std::FILE* bin,
                  std::vector<float>& weights);

/// Read the weights of a quantized operation, of the same shape.
bool read_int8_weights(const Network& network, const Operation& operation, std::FILE* bin,
                       std::vector<std::int8_t>& weights);

}  // namespace sweep_engine::onednn

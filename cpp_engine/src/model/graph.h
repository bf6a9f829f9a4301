#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "sweep_engine/model_folder.h"
#include "sweep_engine/status.h"

namespace sweep_engine {

/// The shape of a blob as ncnn counts it: 1 to 3 dimensions, w innermost.
struct Shape {
  int dims = 0;
  int w = 1;
  int h = 1;
  int c = 1;

  std::int64_t total() const { return static_cast<std::int64_t>(w) * h * c; }
  bool operator==(const Shape& other) const {
    return dims == other.dims && w == other.w && h == other.h && c == other.c;
  }
};

/// One value of a layer's parameters: a number, or a list of numbers. The text is what ncnn will read.
struct ParamValue {
  std::string text;
  std::vector<double> numbers;
  bool is_list = false;
};

/// One line of a .param file.
struct LayerLine {
  std::string type;
  std::string name;
  std::vector<std::string> bottoms;
  std::vector<std::string> tops;
  std::map<int, ParamValue> params;
  Shape output;           ///< of every top; known after infer_shapes()
  std::int64_t macs = 0;  ///< multiply-accumulates for one image
};

/// A network as its .param file describes it.
struct Graph {
  std::vector<LayerLine> layers;
  std::size_t blob_count = 0;
  std::int64_t macs = 0;
};

/// Which convolutions may use Winograd's transform. ncnn by itself uses it for every 3x3 convolution of
/// stride 1, which on small feature maps costs more memory traffic than it saves in arithmetic.
enum class WinogradPolicy {
  as_exported,  ///< ncnn decides
  off,
  where_it_pays,  ///< not where the output is small and the weights are many
};

/// Read a .param file; only layers the engine builds and knows the sizes of are let through.
Result<Graph> parse_graph(std::string_view text);

/// Compute every blob's shape from the input's and check that each layer fits the one before it.
/// @returns the shape of blob `output`, or why the network does not fit the declared input.
Result<Shape> infer_shapes(Graph& graph, const std::string& input_blob, const Shape& input,
                           const std::string& output);

/// Walk a .bin file as ncnn would read it, without letting ncnn read it: the tag of each weight against the
/// declared precision, each size against the .param, and the exact length. Scales of int8 layers must be
/// finite.
Status check_weights(const Graph& graph, std::FILE* bin, std::uint64_t bytes, Precision precision);

/// The .param text for ncnn: canonical, with shape hints, and Winograd's transform masked per layer.
std::string write_graph(const Graph& graph, WinogradPolicy policy);

}  // namespace sweep_engine

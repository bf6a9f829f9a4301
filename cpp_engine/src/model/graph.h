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

/// Shape of a blob in ncnn's convention: 1 to 3 dimensions, w innermost.
struct Shape {
  int dims = 0;
  int w = 1;
  int h = 1;
  int c = 1;

  [[nodiscard]] std::int64_t total() const { return static_cast<std::int64_t>(w) * h * c; }
  bool operator==(const Shape& other) const {
    return dims == other.dims && w == other.w && h == other.h && c == other.c;
  }
};

/// Value of a layer parameter: a number or a list of numbers.
struct ParamValue {
  std::string text;  ///< as written to the .param file for ncnn
  std::vector<double> numbers;
  bool is_list = false;
};

/// A layer: one line of a .param file.
struct LayerLine {
  std::string type;
  std::string name;
  std::vector<std::string> bottoms;
  std::vector<std::string> tops;
  std::map<int, ParamValue> params;
  Shape output;           ///< shape of every top; set by infer_shapes()
  std::int64_t macs = 0;  ///< multiply-accumulates per image

  /// Value of an integer parameter.
  [[nodiscard]] int integer(int key, int fallback = 0) const {
    const auto found = params.find(key);
    return found == params.end() ? fallback : static_cast<int>(found->second.numbers[0]);
  }
};

/// A network as described by its .param file.
struct Graph {
  std::vector<LayerLine> layers;
  std::size_t blob_count = 0;
  std::int64_t macs = 0;
};

/// Parse a .param file. Layer types and parameters that the engine does not support are errors.
Result<Graph> parse_graph(std::string_view text);

/// Infer the shape of every blob from the input shape and check that consecutive layers are compatible.
/// @returns the shape of blob `output`
Result<Shape> infer_shapes(Graph& graph, const std::string& input_blob, const Shape& input,
                           const std::string& output);

/// Check a .bin file before ncnn reads it: the tag of each weight array against the declared precision, its
/// size against the .param file, and the exact file length. The scales of int8 layers must be finite.
Status check_weights(const Graph& graph, std::FILE* bin, std::uint64_t bytes, Precision precision);

/// Serialize to a .param text for ncnn, with the inferred shapes as hints.
[[nodiscard]] std::string write_graph(const Graph& graph);

}  // namespace sweep_engine

#include "model/graph.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <set>

namespace sweep_engine {

namespace {

constexpr std::string_view magic = "7767517";
constexpr int max_layers = 10000;
constexpr int max_name = 255;  // ncnn reads names into a 256-byte buffer
constexpr int max_list = 64;
constexpr int key_shape_hints = 30;
constexpr int key_feature_mask = 31;

Status invalid_param(const std::string& message) {
  return {StatusCode::model_invalid, "model.param: " + message};
}

/// Supported parameters of each supported layer type. Others are rejected because their effect on blob sizes,
/// and thus on memory, is unknown. All types also support keys 30 (shape hints) and 31 (feature mask).
const std::map<std::string, std::set<int>>& known_layers() {
  static const std::map<std::string, std::set<int>> known = {
      {"Input", {0, 1, 2}},
      {"Convolution", {0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18}},
      {"InnerProduct", {0, 1, 2, 8, 9, 10}},
      {"Pooling", {0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 18}},
      {"BatchNorm", {0, 1}},
      {"BinaryOp", {0, 1, 2}},
      {"Concat", {0}},
      {"Dropout", {0}},
      {"Eltwise", {0, 1}},
      {"Flatten", {}},
      {"MemoryData", {0, 1, 2, 21}},
      {"Noop", {}},
      {"Padding", {0, 1, 2, 3, 4, 5, 6, 7, 8}},
      {"ReLU", {0}},
      {"Reduction", {0, 1, 2, 3, 4, 5}},
      {"Reshape", {0, 1, 2}},
      {"Softmax", {0, 1}},
      {"Split", {}},
      {"UnaryOp", {0}},
  };
  return known;
}

bool is_list_key(const std::string& type, int key) {
  return key == key_shape_hints || ((type == "Convolution" || type == "InnerProduct") && key == 10) ||
         (type == "Eltwise" && key == 1) || (type == "Reduction" && key == 3);
}

std::optional<int> parse_int(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> parse_number(std::string_view text) {
  if (text.empty() || text.size() > 40 ||
      text.find_first_not_of("0123456789+-.eE") != std::string_view::npos) {
    return std::nullopt;
  }
  const std::string copy(text);
  char* end = nullptr;
  const double value = std::strtod(copy.c_str(), &end);
  if (end != copy.c_str() + copy.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> words;
  std::size_t at = 0;
  while ((at = text.find_first_not_of(separators, at)) != std::string_view::npos) {
    const std::size_t end = std::min(text.find_first_of(separators, at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

bool is_valid_name(std::string_view name) {
  if (name.empty() || name.size() > max_name) return false;
  for (const char c : name) {
    if (c <= ' ' || c > '~' || c == '"') return false;
  }
  return true;
}

/// Parse `key=value` or `-233KK=count,v,v,...`.
Status parse_param(std::string_view word, LayerLine& layer) {
  const std::string where = layer.name + ": ";
  const std::size_t equals = word.find('=');
  const std::optional<int> key = parse_int(word.substr(0, equals));
  if (equals == std::string_view::npos || !key)
    return invalid_param(where + "'" + std::string(word) + "' is not key=value");
  const std::string_view text = word.substr(equals + 1);
  ParamValue value;
  int id = *key;
  if (*key <= -23300 && *key > -23332) {
    id = -23300 - *key;
    value.is_list = true;
    std::vector<std::string_view> words = split(text, ",");
    const std::optional<int> count = words.empty() ? std::nullopt : parse_int(words[0]);
    if (!count || *count < 0 || *count > max_list || static_cast<std::size_t>(*count) + 1 != words.size()) {
      return invalid_param(where + "'" + std::string(word) + "' is not a list that begins with its length");
    }
    words.erase(words.begin());
    value.text = std::to_string(*count);
    for (const std::string_view item : words) {
      const std::optional<double> number = parse_number(item);
      if (!number) return invalid_param(where + "'" + std::string(word) + "' is not a list of numbers");
      value.numbers.push_back(*number);
      value.text += "," + std::string(item);
    }
  } else {
    const std::optional<double> number = parse_number(text);
    if (!number) return invalid_param(where + "'" + std::string(word) + "' is not a number");
    value.numbers.push_back(*number);
    value.text = std::string(text);
  }
  if (value.is_list != is_list_key(layer.type, id)) {
    return invalid_param(where + "parameter " + std::to_string(id) +
                         (value.is_list ? " must not be a list" : " must be a list"));
  }
  const std::set<int>& allowed = known_layers().at(layer.type);
  if (id != key_shape_hints && id != key_feature_mask && allowed.count(id) == 0) {
    return invalid_param(where + "parameter " + std::to_string(id) + " of " + layer.type +
                         " is not supported by this engine");
  }
  if (!layer.params.emplace(id, std::move(value)).second) {
    return invalid_param(where + "duplicate parameter " + std::to_string(id));
  }
  return {};
}

Status parse_layer(std::string_view line, LayerLine& layer) {
  const std::vector<std::string_view> words = split(line, " \t");
  const std::optional<int> bottoms = words.size() < 4 ? std::nullopt : parse_int(words[2]);
  const std::optional<int> tops = words.size() < 4 ? std::nullopt : parse_int(words[3]);
  if (!bottoms || !tops || *bottoms < 0 || *tops < 1 || *bottoms > 1000 || *tops > 1000 ||
      words.size() < 4 + static_cast<std::size_t>(*bottoms + *tops)) {
    return invalid_param("not a layer: '" + std::string(line.substr(0, 60)) + "'");
  }
  layer.type = words[0];
  layer.name = words[1];
  if (!is_valid_name(layer.name))
    return invalid_param("a layer name is not printable ASCII of at most 255 characters");
  if (known_layers().count(layer.type) == 0) {
    return invalid_param(layer.name + ": layer type '" + layer.type.substr(0, 60) +
                         "' is not supported by this engine");
  }
  std::size_t at = 4;
  for (int i = 0; i < *bottoms; ++i) layer.bottoms.emplace_back(words[at++]);
  for (int i = 0; i < *tops; ++i) layer.tops.emplace_back(words[at++]);
  for (; at < words.size(); ++at) {
    Status status = parse_param(words[at], layer);
    if (!status.ok()) return status;
  }
  return {};
}

/// Check that every blob is produced once, before its use, and consumed at most once (ncnn then frees it).
Status check_connections(const Graph& graph) {
  std::set<std::string> names;
  std::map<std::string, bool> consumed;  // by blob produced so far
  for (const LayerLine& layer : graph.layers) {
    if (!names.insert(layer.name).second) return invalid_param("two layers are named '" + layer.name + "'");
    for (const std::string& blob : layer.bottoms) {
      const auto found = consumed.find(blob);
      if (found == consumed.end())
        return invalid_param(layer.name + ": input blob '" + blob + "' is not produced by an earlier layer");
      if (found->second)
        return invalid_param(layer.name + ": input blob '" + blob + "' is already consumed by another layer");
      found->second = true;
    }
    for (const std::string& blob : layer.tops) {
      if (!is_valid_name(blob))
        return invalid_param(layer.name + ": a blob name is not printable ASCII of at most 255 characters");
      if (!consumed.emplace(blob, false).second) {
        return invalid_param(layer.name + ": output blob '" + blob +
                             "' is already produced by another layer");
      }
    }
  }
  if (consumed.size() != graph.blob_count) {
    return invalid_param("declares " + std::to_string(graph.blob_count) + " blobs, but has " +
                         std::to_string(consumed.size()));
  }
  return {};
}

}  // namespace

Result<Graph> parse_graph(std::string_view text) {
  std::vector<std::string_view> lines;
  for (const std::string_view line : split(text, "\r\n")) {
    if (!split(line, " \t").empty()) lines.push_back(line);
  }
  if (lines.empty() || split(lines[0], " \t") != std::vector<std::string_view>{magic}) {
    return invalid_param("does not begin with " + std::string(magic) +
                         ", the signature of an ncnn text model");
  }
  const std::vector<std::string_view> counts =
      lines.size() < 2 ? std::vector<std::string_view>() : split(lines[1], " \t");
  const std::optional<int> layers = counts.size() == 2 ? parse_int(counts[0]) : std::nullopt;
  const std::optional<int> blobs = counts.size() == 2 ? parse_int(counts[1]) : std::nullopt;
  if (!layers || !blobs || *layers < 1 || *layers > max_layers || *blobs < 1 || *blobs > 10 * max_layers) {
    return invalid_param("the second line must contain the numbers of layers and blobs");
  }
  if (lines.size() != static_cast<std::size_t>(*layers) + 2) {
    return invalid_param("declares " + std::to_string(*layers) + " layers, but has " +
                         std::to_string(lines.size() - 2));
  }
  Graph graph;
  graph.blob_count = static_cast<std::size_t>(*blobs);
  for (std::size_t i = 2; i < lines.size(); ++i) {
    LayerLine layer;
    const Status status = parse_layer(lines[i], layer);
    if (!status.ok()) return status;
    graph.layers.push_back(std::move(layer));
  }
  const Status status = check_connections(graph);
  if (!status.ok()) return status;
  return graph;
}

std::string write_graph(const Graph& graph) {
  std::string text = std::string(magic) + "\n" + std::to_string(graph.layers.size()) + " " +
                     std::to_string(graph.blob_count) + "\n";
  for (const LayerLine& layer : graph.layers) {
    text += layer.type + " " + layer.name + " " + std::to_string(layer.bottoms.size()) + " " +
            std::to_string(layer.tops.size());
    for (const std::string& blob : layer.bottoms) text += " " + blob;
    for (const std::string& blob : layer.tops) text += " " + blob;
    for (const auto& [key, value] : layer.params) {
      if (key == key_shape_hints) continue;
      text += " " + std::to_string(value.is_list ? -23300 - key : key) + "=" + value.text;
    }
    text += " -" + std::to_string(23300 + key_shape_hints) + "=" + std::to_string(4 * layer.tops.size());
    for (std::size_t i = 0; i < layer.tops.size(); ++i) {
      text += "," + std::to_string(layer.output.dims) + "," + std::to_string(layer.output.w) + "," +
              std::to_string(layer.output.h) + "," + std::to_string(layer.output.c);
    }
    text += "\n";
  }
  return text;
}

}  // namespace sweep_engine

#include <algorithm>
#include <cmath>
#include <map>

#include "model/graph.h"

namespace sweep_engine {

namespace {

constexpr int max_extent = 1 << 16;
constexpr std::int64_t max_blob = std::int64_t{1} << 28;
constexpr std::int64_t max_macs = std::int64_t{1} << 50;

/// Reads integer parameters of one layer and keeps the first error.
class LayerChecker {
 public:
  explicit LayerChecker(const LayerLine& layer) : layer_(layer) {}

  int get(int key, int fallback, int low, int high) {
    const auto found = layer_.params.find(key);
    if (found == layer_.params.end()) return fallback;
    const ParamValue& value = found->second;
    // ncnn distinguishes integers from floats by their notation.
    const bool is_integer = !value.is_list && value.text.find_first_of(".eE") == std::string::npos;
    if (!is_integer || value.numbers[0] < low || value.numbers[0] > high) {
      fail("parameter " + std::to_string(key) + " is " + value.text + ", expected an integer from " +
           std::to_string(low) + " to " + std::to_string(high));
      return std::clamp(fallback, low, high);
    }
    return static_cast<int>(value.numbers[0]);
  }

  void require(bool condition, const std::string& message) {
    if (!condition) fail(message);
  }

  void fail(const std::string& message) {
    if (status_.ok()) {
      status_ = Status(StatusCode::model_invalid,
                       "model.param: " + layer_.name + " (" + layer_.type + "): " + message);
    }
  }

  [[nodiscard]] const Status& status() const { return status_; }

 private:
  const LayerLine& layer_;
  Status status_;
};

int checked_extent(LayerChecker& check, int extent, int kernel, int stride, int before, int after,
                   bool round_up) {
  const int room = extent + before + after - kernel;
  check.require(room >= 0, "the window is larger than the input");
  check.require(room <= max_extent, "the output is too large");
  return room < 0 ? 1 : (round_up ? (room + stride - 1) / stride : room / stride) + 1;
}

Shape convolution(const LayerLine& layer, LayerChecker& check, const Shape& in, std::int64_t& macs) {
  const int outputs = check.get(0, 0, 1, max_extent);
  const int kernel_w = check.get(1, 0, 1, 64);
  const int kernel_h = check.get(11, kernel_w, 1, 64);
  const int dilation_w = check.get(2, 1, 1, 64);
  const int dilation_h = check.get(12, dilation_w, 1, 64);
  const int stride_w = check.get(3, 1, 1, 64);
  const int stride_h = check.get(13, stride_w, 1, 64);
  const int left = check.get(4, 0, 0, 64);
  const int top = check.get(14, left, 0, 64);
  const int right = check.get(15, left, 0, 64);
  const int bottom = check.get(16, top, 0, 64);
  check.get(5, 0, 0, 1);
  check.get(8, 0, 0, 102);
  const int weights = check.get(6, 0, 1, 1 << 28);
  check.require(layer.params.count(0) != 0 && layer.params.count(1) != 0 && layer.params.count(6) != 0,
                "missing number of outputs, kernel size or number of weights");
  check.require(in.dims == 3, "the input must have three dimensions");
  check.require(weights == static_cast<std::int64_t>(outputs) * in.c * kernel_w * kernel_h,
                std::to_string(weights) + " weights do not match " + std::to_string(in.c) +
                    " input channels and " + std::to_string(outputs) + " outputs");
  Shape out{3, 1, 1, std::max(outputs, 1)};
  if (!check.status().ok()) return out;
  out.w = checked_extent(check, in.w, dilation_w * (kernel_w - 1) + 1, stride_w, left, right, false);
  out.h = checked_extent(check, in.h, dilation_h * (kernel_h - 1) + 1, stride_h, top, bottom, false);
  macs = static_cast<std::int64_t>(weights) * out.w * out.h;
  return out;
}

Shape inner_product(LayerChecker& check, const Shape& in, std::int64_t& macs) {
  const int outputs = check.get(0, 0, 1, 1 << 20);
  check.get(1, 0, 0, 1);
  check.get(8, 0, 0, 2);
  const int weights = check.get(2, 0, 1, 1 << 28);
  check.require(in.dims == 1 || in.dims == 3, "the input must have one or three dimensions");
  check.require(weights > 0 && weights == outputs * in.total(),
                std::to_string(weights) + " weights do not match " + std::to_string(in.total()) +
                    " inputs and " + std::to_string(outputs) + " outputs");
  macs = weights;
  return {1, std::max(outputs, 1), 1, 1};
}

Shape pooling(LayerChecker& check, const Shape& in) {
  check.get(0, 0, 0, 1);
  check.require(in.dims == 3, "the input must have three dimensions");
  if (check.get(4, 0, 0, 1) == 1) return {1, in.c, 1, 1};
  if (check.get(7, 0, 0, 1) == 1) {
    const int w = check.get(8, 0, 1, 1024);
    const int h = check.get(18, w, 1, 1024);
    check.require(w >= 1 && h >= 1, "missing output size");
    return {3, std::max(w, 1), std::max(h, 1), in.c};
  }
  const int kernel_w = check.get(1, 0, 1, 1024);
  const int kernel_h = check.get(11, kernel_w, 1, 1024);
  const int stride_w = check.get(2, 1, 1, 1024);
  const int stride_h = check.get(12, stride_w, 1, 1024);
  const int left = check.get(3, 0, 0, 1024);
  const int top = check.get(13, left, 0, 1024);
  const int right = check.get(14, left, 0, 1024);
  const int bottom = check.get(15, top, 0, 1024);
  const bool round_up = check.get(5, 0, 0, 1) == 0;
  check.require(kernel_w >= 1 && kernel_h >= 1, "missing window size");
  check.require(left < kernel_w && right < kernel_w && top < kernel_h && bottom < kernel_h,
                "the padding must be smaller than the window");
  Shape out{3, 1, 1, in.c};
  if (!check.status().ok()) return out;
  out.w = checked_extent(check, in.w, kernel_w, stride_w, left, right, round_up);
  out.h = checked_extent(check, in.h, kernel_h, stride_h, top, bottom, round_up);
  return out;
}

Shape padding(LayerChecker& check, const Shape& in) {
  const int top = check.get(0, 0, 0, 1024);
  const int bottom = check.get(1, 0, 0, 1024);
  const int left = check.get(2, 0, 0, 1024);
  const int right = check.get(3, 0, 0, 1024);
  const int type = check.get(4, 0, 0, 2);
  check.get(6, 0, 0, 0);  // per-channel padding values, which would need weights, are not supported
  const int front = check.get(7, 0, 0, max_extent);
  const int back = check.get(8, 0, 0, max_extent);
  check.require(in.dims == 3, "the input must have three dimensions");
  check.require(type == 0, "only constant padding is supported");
  return {3, in.w + left + right, in.h + top + bottom, in.c + front + back};
}

Shape reduction(const LayerLine& layer, LayerChecker& check, const Shape& in) {
  check.get(0, 0, 0, 10);
  const bool all = check.get(1, 1, 0, 1) == 1;
  const bool keep = check.get(4, 0, 0, 1) == 1;
  check.require(check.get(5, 0, 0, 1) == 1, "uses the old axis numbering; export the model again");
  const auto axes = layer.params.find(3);
  bool over_height = false;
  bool over_width = false;
  if (axes != layer.params.end() && axes->second.is_list) {
    for (const double axis : axes->second.numbers) {
      over_height = over_height || axis == 1 || axis == -2;
      over_width = over_width || axis == 2 || axis == -1;
      check.require(axis == 1 || axis == 2 || axis == -1 || axis == -2,
                    "only reduction over height and width is supported");
    }
  }
  check.require(!all && in.dims == 3 && over_height && over_width,
                "only reduction over both height and width is supported");
  return keep ? Shape{3, 1, 1, in.c} : Shape{1, in.c, 1, 1};
}

Shape reshape(const LayerLine& layer, LayerChecker& check, const Shape& in) {
  Shape out{static_cast<int>(layer.params.size()), 1, 1, 1};
  int* const extents[3] = {&out.w, &out.h, &out.c};
  const int before[3] = {in.w, in.h, in.c};
  out.dims = 0;
  int* inferred = nullptr;
  std::int64_t known = 1;
  for (int key = 0; key < 3; ++key) {
    if (layer.params.count(key) == 0) break;
    ++out.dims;
    const int extent = check.get(key, 0, -1, 1 << 28);
    if (extent == -1) {
      check.require(inferred == nullptr, "two extents are -1");
      inferred = extents[key];
    } else {
      *extents[key] = extent == 0 ? before[key] : extent;
      known *= *extents[key];
    }
  }
  if (inferred != nullptr) *inferred = static_cast<int>(in.total() / std::max<std::int64_t>(known, 1));
  check.require(out.dims >= 1 && known <= max_blob && out.total() == in.total(),
                "the new shape must have " + std::to_string(in.total()) + " values, like the input");
  return out;
}

Shape memory_data(LayerChecker& check) {
  const int w = check.get(0, 0, 0, 1 << 24);
  const int h = check.get(1, 0, 0, max_extent);
  const int c = check.get(2, 0, 0, max_extent);
  check.require(check.get(21, 1, 1, 1) == 1, "unsupported weight type");
  check.require(w > 0 && (c == 0 || h > 0), "missing size");
  return {c > 0 ? 3 : (h > 0 ? 2 : 1), std::max(w, 1), std::max(h, 1), std::max(c, 1)};
}

/// Shape of a broadcast binary operation.
Shape broadcast(LayerChecker& check, const Shape& a, const Shape& b) {
  if (a == b) return a;
  const auto fits = [](int x, int y) { return x == y || x == 1 || y == 1; };
  check.require(a.dims == 3 && b.dims == 3 && fits(a.w, b.w) && fits(a.h, b.h) && fits(a.c, b.c),
                "the two input shapes cannot be broadcast");
  return {a.dims, std::max(a.w, b.w), std::max(a.h, b.h), std::max(a.c, b.c)};
}

Shape concat(LayerChecker& check, const std::vector<Shape>& inputs) {
  check.require(check.get(0, 0, 0, 0) == 0, "only the first axis is supported");
  Shape out = inputs[0];
  for (std::size_t i = 1; i < inputs.size(); ++i) {
    const Shape& next = inputs[i];
    if (out.dims == 1) {
      check.require(next.dims == 1, "the input shapes differ");
      out.w = std::min(out.w + next.w, 1 << 28);
    } else {
      check.require(out.dims == 3 && next.dims == 3 && next.w == out.w && next.h == out.h,
                    "the input shapes differ");
      out.c = std::min(out.c + next.c, 1 << 28);
    }
  }
  return out;
}

void check_activation(const LayerLine& layer, LayerChecker& check) {
  const int type = check.get(9, 0, 0, 6);
  const auto found = layer.params.find(10);
  const std::size_t given =
      found == layer.params.end() || !found->second.is_list ? 0 : found->second.numbers.size();
  const std::size_t needed = type == 2 ? 1 : (type == 3 || type == 6 ? 2 : 0);
  check.require(given >= needed, "missing activation parameters");
}

Shape layer_output(const LayerLine& layer, LayerChecker& check, const std::vector<Shape>& in,
                   std::int64_t& macs) {
  const std::string& type = layer.type;
  if (type == "Convolution" || type == "InnerProduct") check_activation(layer, check);
  if (type == "Convolution") return convolution(layer, check, in[0], macs);
  if (type == "InnerProduct") return inner_product(check, in[0], macs);
  if (type == "Pooling") return pooling(check, in[0]);
  if (type == "Padding") return padding(check, in[0]);
  if (type == "Reduction") return reduction(layer, check, in[0]);
  if (type == "Reshape") return reshape(layer, check, in[0]);
  if (type == "Concat") return concat(check, in);
  if (type == "Flatten") return {1, static_cast<int>(in[0].total()), 1, 1};
  if (type == "Eltwise") {
    check.get(0, 0, 0, 2);
    const auto weights = layer.params.find(1);
    check.require(weights == layer.params.end() || weights->second.numbers.size() == in.size(),
                  "expected one coefficient per input");
    for (const Shape& shape : in) check.require(shape == in[0], "the input shapes differ");
    return in[0];
  }
  if (type == "BinaryOp") {
    check.get(0, 0, 0, 14);
    const bool scalar = check.get(1, 0, 0, 1) == 1;
    check.require(in.size() == (scalar ? 1U : 2U), "wrong number of inputs");
    return scalar || in.size() < 2 ? in[0] : broadcast(check, in[0], in[1]);
  }
  if (type == "BatchNorm") {
    check.require(in[0].dims != 2 && check.get(0, 0, 1, max_extent) == (in[0].dims == 3 ? in[0].c : in[0].w),
                  "the number of channels differs from the input");
    return in[0];
  }
  if (type == "Softmax") {
    check.get(0, 0, 0, in[0].dims - 1);
    check.get(1, 0, 0, 1);
  }
  if (type == "UnaryOp") check.get(0, 0, 0, 19);
  return in[0];  // ReLU, Split, Dropout, Noop, Softmax, UnaryOp
}

}  // namespace

Result<Shape> infer_shapes(Graph& graph, const std::string& input_blob, const Shape& input,
                           const std::string& output) {
  std::map<std::string, Shape> shapes;
  std::int64_t values = 0;
  bool input_seen = false;
  for (LayerLine& layer : graph.layers) {
    LayerChecker check(layer);
    std::vector<Shape> inputs;
    for (const std::string& blob : layer.bottoms) inputs.push_back(shapes.at(blob));
    if (layer.type == "Input") {
      check.require(
          layer.bottoms.empty() && layer.tops.size() == 1 && layer.tops[0] == input_blob && !input_seen,
          "the network must have exactly one input, '" + input_blob + "', as declared in model.json");
      input_seen = true;
      layer.output = input;
    } else if (layer.type == "MemoryData") {
      check.require(layer.bottoms.empty() && layer.tops.size() == 1, "expected no input and one output");
      layer.output = memory_data(check);
    } else {
      const bool takes_several =
          layer.type == "Concat" || layer.type == "Eltwise" || layer.type == "BinaryOp";
      check.require(!inputs.empty() && (takes_several || inputs.size() == 1), "wrong number of inputs");
      check.require(layer.tops.size() == 1 || layer.type == "Split", "wrong number of outputs");
      if (check.status().ok()) layer.output = layer_output(layer, check, inputs, layer.macs);
    }
    check.get(31, 0, 0, 255);
    values += layer.output.total();
    check.require(layer.output.total() <= max_blob && values <= 4 * max_blob, "the output is too large");
    if (!check.status().ok()) return check.status();
    for (const std::string& blob : layer.tops) shapes[blob] = layer.output;
    graph.macs = std::min(graph.macs + std::min(layer.macs, max_macs), max_macs);
  }
  const auto found = shapes.find(output);
  if (!input_seen || found == shapes.end()) {
    return Status(
        StatusCode::model_invalid,
        "model.param: missing blob '" + (input_seen ? output : input_blob) + "', which model.json declares");
  }
  return found->second;
}

}  // namespace sweep_engine

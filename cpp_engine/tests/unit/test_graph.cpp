#include "check.h"
#include "model/graph.h"

#include <cstring>
#include <memory>

using namespace sweep_engine;

namespace {

const std::string tiny =
    "7767517\n4 4\n"
    "Input in0 0 1 in0\n"
    "Convolution conv 1 1 in0 1 0=4 1=3 11=3 12=1 13=1 14=1 2=1 3=1 4=1 5=1 6=108 9=1\n"
    "Pooling pool 1 1 1 2 0=1 4=1\n"
    "InnerProduct fc 1 1 2 out0 0=5 1=1 2=20\n";
const Shape input{3, 8, 8, 3};

Result<Shape> shape_of(const std::string& text) {
  Result<Graph> graph = parse_graph(text);
  if (!graph.ok()) return graph.status();
  return infer_shapes(graph.value(), "in0", input, "out0");
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

struct Bin {
  std::string bytes;
  void tag(std::uint32_t value) { raw(&value, 4); }
  void raw(const void* data, std::size_t size) { bytes.append(static_cast<const char*>(data), size); }
  void floats(std::size_t count) { bytes.append(4 * count, '\0'); }
  Status check(const std::string& param, Precision precision) const {
    Result<Graph> graph = parse_graph(param);
    if (!infer_shapes(graph.value(), "in0", input, "out0").ok())
      return {StatusCode::invalid_argument, "shapes"};
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), &std::fclose);
    std::fwrite(bytes.data(), 1, bytes.size(), file.get());
    std::rewind(file.get());
    return check_weights(graph.value(), file.get(), bytes.size(), precision);
  }
};

Bin tiny_bin() {
  Bin bin;
  bin.tag(0);
  bin.floats(108 + 4);
  bin.tag(0);
  bin.floats(20 + 5);
  return bin;
}

}  // namespace

TEST_CASE(shapes_and_macs_are_inferred) {
  Result<Graph> graph = parse_graph(tiny);
  CHECK(graph.ok());
  const Result<Shape> out = infer_shapes(graph.value(), "in0", input, "out0");
  CHECK(out.ok());
  CHECK(out.value() == (Shape{1, 5, 1, 1}));
  CHECK_EQUAL(graph.value().macs, std::int64_t{108 * 64 + 20});
  CHECK(graph.value().layers[1].output == (Shape{3, 8, 8, 4}));
}

TEST_CASE(written_graph_can_be_parsed) {
  Result<Graph> graph = parse_graph(tiny);
  CHECK(infer_shapes(graph.value(), "in0", input, "out0").ok());
  CHECK(shape_of(write_graph(graph.value())).ok());
  CHECK_CONTAINS(write_graph(graph.value()), "Pooling pool 1 1 1 2 0=1 4=1 -23330=4,1,4,1,1");
}

TEST_CASE(damaged_params_are_rejected) {
  const std::vector<std::pair<std::string, std::string>> damage = {
      {"7767517", "7767518"},
      {"4 4", "5 4"},
      {"4 4", "4 5"},
      {"4 4", "2000000000 4"},
      {"Convolution", "Conv"},
      {"0=4", "0=-4"},
      {"0=4", "0=2000000000"},
      {"0=4", "0=4.0"},
      {"0=4", "0="},
      {"0=4", "0=4 0=4"},
      {"6=108", "6=107"},
      {"1=3", "1=0"},
      {"1 1 in0 1", "1 1 1 1"},
      {"1 1 1 2", "1 1 9 2"},
      {"1 1 1 2", "2 1 1 1 2"},
      {"2=20", "2=21"},
      {"0=1 4=1", "0=9 4=1"},
      {"9=1", "9=2"},
      {"9=1", "19=1"},
      {"9=1", "31=1e9"},
      {"Input in0 0 1 in0", "Input in0 0 1 x"},
      {"2 out0", "2 out1"},
      {"9=1", "-23310=2,1"},
      {"9=1", "10=1"},
      {"9=1", "8=500"},
      {"1 1 2 out0", "1 1 in0 out0"},
  };
  for (const auto& [from, to] : damage) {
    if (shape_of(replaced(tiny, from, to)).ok())
      check::fail(__FILE__, __LINE__, "accepted: " + from + " -> " + to);
  }
  for (const char* text : {"", "\n", "7767517", "7767517\n", "7767517\n0 0\n", "\x7f\x45\x4c\x46"}) {
    CHECK(!parse_graph(text).ok());
  }
}

TEST_CASE(windows_line_endings_are_accepted) {
  std::string text;
  for (const char c : tiny) text += c == '\n' ? std::string("\r\n") : std::string(1, c);
  CHECK(shape_of(text).ok());
}

TEST_CASE(residual_and_option_a_shapes) {
  const std::string text =
      "7767517\n8 9\n"
      "Input in0 0 1 in0\n"
      "Split s 1 2 in0 a b\n"
      "Convolution conv 1 1 a c 0=5 1=3 3=2 4=1 5=1 6=135\n"
      "Pooling half 1 1 b d 0=1 1=1 2=2 5=1\n"
      "Padding wide 1 1 d e 6=0 7=1 8=1\n"
      "BinaryOp add 2 1 c e f 0=0\n"
      "Reduction mean 1 1 f g 0=3 1=0 -23303=2,1,2 4=0 5=1\n"
      "Softmax soft 1 1 g out0 0=0\n";
  const Result<Shape> out = shape_of(text);
  CHECK_EQUAL(out.status().message(), "");
  CHECK(out.ok() && out.value() == (Shape{1, 5, 1, 1}));
}

TEST_CASE(valid_weights_pass) { CHECK_EQUAL(tiny_bin().check(tiny, Precision::fp32).message(), ""); }

TEST_CASE(truncated_and_extended_weights_are_rejected) {
  for (std::size_t size : {std::size_t{0}, std::size_t{3}, std::size_t{400}, tiny_bin().bytes.size() - 1}) {
    Bin bin = tiny_bin();
    bin.bytes.resize(size);
    CHECK_CONTAINS(bin.check(tiny, Precision::fp32).message(), "ends within the weights");
  }
  Bin bin = tiny_bin();
  bin.bytes += '\0';
  CHECK_CONTAINS(bin.check(tiny, Precision::fp32).message(), "bytes, but model.param requires");
}

TEST_CASE(wrong_tag_is_rejected) {
  Bin bin = tiny_bin();
  const std::uint32_t int8 = 0x000D4B38;
  std::memcpy(bin.bytes.data(), &int8, 4);
  CHECK_CONTAINS(bin.check(tiny, Precision::fp32).message(), "int8, but model.json declares fp32");
  CHECK(!tiny_bin().check(replaced(tiny, "9=1", "8=2"), Precision::fp32).ok());
  CHECK(!tiny_bin().check(replaced(tiny, "9=1", "8=2"), Precision::int8).ok());
}

TEST_CASE(int8_scales_must_be_finite) {
  const std::string param = replaced(tiny, "9=1", "8=102");
  Bin bin;
  bin.tag(0x000D4B38);
  bin.bytes.append(108, '\1');
  bin.floats(4 + 4 + 1 + 1);
  bin.tag(0);
  bin.floats(20 + 5);
  CHECK_EQUAL(bin.check(param, Precision::int8).message(), "");
  const float infinite = HUGE_VALF;
  std::memcpy(bin.bytes.data() + 4 + 108 + 16, &infinite, 4);
  CHECK_CONTAINS(bin.check(param, Precision::int8).message(), "not finite");
}

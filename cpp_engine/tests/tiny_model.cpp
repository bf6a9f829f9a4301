#include "tiny_model.h"

#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>

#include "sweep_engine/classifier.h"
#include "sweep_engine/sha256.h"

namespace tiny_model {

using sweep_engine::Json;

namespace {

void append_floats(std::string& bin, int count, float first) {
  for (int i = 0; i < count; ++i) {
    const float value = first + 0.01F * static_cast<float>(i % 17 - 8);
    bin.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
}

Json describe(const std::string& data) {
  sweep_engine::Sha256 hash;
  hash.update(data.data(), data.size());
  Json file = Json::object();
  file.set("sha256", hash.hex());
  file.set("bytes", data.size());
  return file;
}

/// Weights, bias and, in int8, scales of a layer.
void append_weights(std::string& bin, int outputs, int count, bool is_int8) {
  const auto append = [&bin](const auto& value) {
    bin.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  const float largest = 2.0F * std::sqrt(static_cast<float>(outputs) / static_cast<float>(count));
  append(std::uint32_t{is_int8 ? 0x000D4B38U : 0U});
  for (int i = 0; i < count; ++i) {
    const auto level = static_cast<std::int8_t>(i * 7919 % 251 - 125);
    if (is_int8) append(level);
    if (!is_int8) append(static_cast<float>(level) * largest / 127.0F);
  }
  for (int i = 0; i < outputs; ++i) append(0.05F * static_cast<float>(i % 5 - 2));
  if (!is_int8) return;
  for (int i = 0; i < outputs; ++i) append(127.0F / largest);
  append(127.0F / 6.0F);
}

/// The parts of model.json that the networks share.
void describe_network(Files& files, const std::string& precision) {
  Json input = Json::object();
  input.set("blob", "in0").set("channels", 3).set("height", 8).set("width", 8);
  input.set("color", "RGB").set("resize", "direct");
  Json normalization = Json::object();
  normalization.set("mean", Json::array({0.5, 0.4, 0.3})).set("std", Json::array({0.25, 0.25, 0.5}));
  Json classes = Json::array();
  for (const char* name : {"a", "b", "c", "d", "e"}) classes.add(name);
  Json output = Json::object();
  output.set("blob", "out0").set("classes", classes);
  files.manifest = Json::object();
  files.manifest.set("schema_version", 1).set("name", "tiny").set("input", input);
  files.manifest.set("normalization", normalization).set("output", output).set("precision", precision);
  set_self_test(files, {std::vector<double>(5, 0.0)}, 0.001);
  update_hashes(files);
}

}  // namespace

Files files() {
  Files files;
  files.param =
      "7767517\n6 7\n"
      "Input in0 0 1 in0\n"
      "Convolution conv 1 1 in0 1 0=4 1=3 4=1 5=1 6=108 9=1\n"
      "Split split 1 2 1 2 3\n"
      "BinaryOp add 2 1 2 3 4 0=0\n"
      "Pooling pool 1 1 4 5 0=1 4=1\n"
      "InnerProduct fc 1 1 5 out0 0=5 1=1 2=20\n";
  const std::uint32_t tag = 0;
  files.bin.append(reinterpret_cast<const char*>(&tag), 4);
  append_floats(files.bin, 108 + 4, 0.02F);
  files.bin.append(reinterpret_cast<const char*>(&tag), 4);
  append_floats(files.bin, 20 + 5, -0.1F);
  describe_network(files, "fp32");
  return files;
}

Files residual_files(const std::string& precision) {
  struct Line {
    const char* text;
    int outputs;
    int weights;  ///< 0: the layer stores none
  };
  const Line lines[] = {
      {"Input in0 0 1 in0", 0, 0},
      {"Convolution stem 1 1 in0 1 1=3 4=1 5=1 9=1", 8, 216},
      {"Pooling max 1 1 1 2 0=0 1=3 2=1 3=1 5=1", 0, 0},
      {"Split split1 1 2 2 3 4", 0, 0},
      {"Convolution conv1 1 1 3 5 1=3 3=2 4=1 5=1 9=1", 16, 1152},
      {"Convolution conv2 1 1 5 6 1=3 4=1 5=1", 16, 2304},
      {"Convolution shortcut 1 1 4 7 1=1 3=2 5=1", 16, 128},
      {"BinaryOp add1 2 1 6 7 8 0=0", 0, 0},
      {"ReLU relu1 1 1 8 9", 0, 0},
      {"Split split2 1 2 9 10 11", 0, 0},
      {"Convolution conv3 1 1 10 12 1=3 3=2 4=1 5=1 9=1", 32, 4608},
      {"Convolution conv4 1 1 12 13 1=3 4=1 5=1", 32, 9216},
      {"Pooling subsample 1 1 11 14 0=1 1=1 2=2 5=1", 0, 0},
      {"Padding widen 1 1 14 15 8=16", 0, 0},
      {"BinaryOp add2 2 1 13 15 16 0=0", 0, 0},
      {"ReLU relu2 1 1 16 17", 0, 0},
      {"Split split3 1 2 17 18 19", 0, 0},
      {"Convolution conv5 1 1 18 20 1=3 4=1 5=1 9=1", 32, 9216},
      {"Convolution conv6 1 1 20 21 1=3 4=1 5=1", 32, 9216},
      {"BinaryOp add3 2 1 21 19 22 0=0", 0, 0},
      {"ReLU relu3 1 1 22 23", 0, 0},
      {"Pooling mean 1 1 23 24 0=1 4=1", 0, 0},
      {"InnerProduct fc 1 1 24 out0 1=1", 5, 160},
  };
  Files files;
  files.param = "7767517\n" + std::to_string(sizeof lines / sizeof lines[0]) + " 26\n";
  for (const Line& line : lines) {
    files.param += line.text;
    if (line.weights > 0) {
      const bool is_linear = line.outputs == 5;
      const bool is_int8 = precision == "int8" && !is_linear;
      files.param += " 0=" + std::to_string(line.outputs) + (is_linear ? " 2=" : " 6=") +
                     std::to_string(line.weights) + (is_int8 ? " 8=2" : "");
      append_weights(files.bin, line.outputs, line.weights, is_int8);
    }
    files.param += "\n";
  }
  describe_network(files, precision);
  return files;
}

void update_hashes(Files& files) {
  Json described = Json::object();
  described.set("model.param", describe(files.param)).set("model.bin", describe(files.bin));
  files.manifest.set("files", described);
}

std::vector<std::vector<double>> logits(const Files& files, int images) {
  const Folder folder;
  folder.write(files);
  sweep_engine::ClassifierOptions options;
  options.self_test = false;
  const auto model = sweep_engine::Classifier::load(folder.path(), options);
  std::vector<std::vector<double>> rows;
  for (int k = 0; k < images; ++k) {
    const auto row = model.value().logits(sweep_engine::self_test_pattern(model.value().manifest().input, k));
    rows.emplace_back(row.value().begin(), row.value().end());
  }
  return rows;
}

void set_self_test(Files& files, const std::vector<std::vector<double>>& logits, double tolerance) {
  Json rows = Json::array();
  for (const std::vector<double>& row : logits) rows.add(Json::array(row));
  Json self_test = Json::object();
  files.manifest.set("self_test", self_test.set("tolerance", tolerance).set("logits", rows));
}

Folder::Folder() {
  const char* root = std::getenv("TMPDIR");
  std::string path = std::string(root == nullptr ? "/tmp" : root) + "/sweep-engine-XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) std::abort();
  path_ = path;
}

Folder::~Folder() {
  for (const char* name : {"/model.param", "/model.bin", "/model.json"}) ::unlink((path_ + name).c_str());
  ::rmdir(path_.c_str());
}

void Folder::write(const Files& files) const { write(files.param, files.bin, files.manifest.text(1)); }

void Folder::write(const std::string& param, const std::string& bin, const std::string& manifest) const {
  std::ofstream(path_ + "/model.param", std::ios::binary) << param;
  std::ofstream(path_ + "/model.bin", std::ios::binary) << bin;
  std::ofstream(path_ + "/model.json", std::ios::binary) << manifest;
}

}  // namespace tiny_model

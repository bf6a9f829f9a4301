#include "tiny_model.h"

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>

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

  Json input = Json::object();
  input.set("blob", "in0").set("channels", 3).set("height", 8).set("width", 8);
  input.set("color", "RGB").set("resize", "direct");
  Json normalization = Json::object();
  normalization.set("mean", Json::array({0.5, 0.4, 0.3})).set("std", Json::array({0.25, 0.25, 0.5}));
  Json classes = Json::array();
  for (const char* name : {"a", "b", "c", "d", "e"}) classes.add(name);
  Json output = Json::object();
  output.set("blob", "out0").set("classes", classes);
  Json logits = Json::array();
  logits.add(Json::array(std::vector<double>(5, 0.0)));
  Json self_test = Json::object();
  self_test.set("tolerance", 0.001).set("logits", logits);
  files.manifest = Json::object();
  files.manifest.set("schema_version", 1).set("name", "tiny").set("input", input);
  files.manifest.set("normalization", normalization).set("output", output).set("precision", "fp32");
  files.manifest.set("files", Json::object()).set("self_test", self_test);
  update_hashes(files);
  return files;
}

void update_hashes(Files& files) {
  Json described = Json::object();
  described.set("model.param", describe(files.param)).set("model.bin", describe(files.bin));
  files.manifest.set("files", described);
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

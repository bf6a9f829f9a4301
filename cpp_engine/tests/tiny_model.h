#pragma once

#include <string>
#include <vector>

#include "sweep_engine/json.h"

/// A model folder of a few hundred bytes: convolution with ReLU, addition, global pooling, linear layer.
namespace tiny_model {

/// Contents of the three files.
struct Files {
  std::string param;
  std::string bin;
  sweep_engine::Json manifest;
};

/// Contents of a valid folder, except that its reference logits are zero.
Files files();

/// Contents of a small ResNet with a convolution as its first shortcut, a maximum and an option-A shortcut.
/// @param precision  fp32, bf16 or int8
Files residual_files(const std::string& precision);

/// Set the sizes and hashes in the manifest to those of the contents.
void update_hashes(Files& files);

/// Logits of the network for the self-test images.
std::vector<std::vector<double>> logits(const Files& files, int images);

/// Set the reference logits of the self-test.
void set_self_test(Files& files, const std::vector<std::vector<double>>& logits, double tolerance);

/// A temporary folder, removed by the destructor.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::string& path() const { return path_; }
  void write(const Files& files) const;
  void write(const std::string& param, const std::string& bin, const std::string& manifest) const;

 private:
  std::string path_;
};

}  // namespace tiny_model

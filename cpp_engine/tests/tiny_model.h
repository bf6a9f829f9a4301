#pragma once

#include <string>

#include "sweep_engine/json.h"

/// A model folder of a few hundred bytes, made on the spot: a convolution, a ReLU, a mean, a classifier.
namespace tiny_model {

/// The three files' contents.
struct Files {
  std::string param;
  std::string bin;
  sweep_engine::Json manifest;
};

/// A consistent folder's contents, apart from the self-test's logits, which are zero.
Files files();

/// Make the manifest's sizes and hashes those of the contents.
void seal(Files& files);

/// A folder under the system's place for temporary files, removed with what is in it when the object goes.
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

#pragma once

#include <cstddef>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "model/graph.h"
#include "sweep_engine/model_folder.h"
#include "sweep_engine/status.h"

namespace sweep_engine::onednn {

/// Version of the oneDNN library; empty if this build of the engine has none.
std::string library_version();

/// A network that runs with oneDNN's kernels. The const functions are thread-safe.
class Executor {
 public:
  /// Select the kernels for one image, and convert the weights to their layouts.
  /// @param bin  checked .bin file of the graph
  /// @returns an error `unsupported` if this build, processor or graph requires ncnn
  static Result<std::unique_ptr<Executor>> load(const Graph& graph, std::FILE* bin, Precision precision,
                                                const std::string& output_blob, int num_threads);

  virtual ~Executor() = default;

  /// Normalized images, fp32. The planes are `plane_stride` floats apart, the images `image_stride`.
  struct Images {
    const float* values = nullptr;
    int count = 0;
    std::size_t plane_stride = 0;
    std::size_t image_stride = 0;
  };

  /// @returns logits, row-major [images, classes]
  [[nodiscard]] virtual Result<std::vector<float>> run(const Images& images) const = 0;
};

}  // namespace sweep_engine::onednn

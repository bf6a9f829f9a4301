// The engine without oneDNN.

#include "onednn/executor.h"

namespace sweep_engine::onednn {

std::string library_version() { return ""; }

Result<std::unique_ptr<Executor>> Executor::load(const Graph& /*graph*/, std::FILE* /*bin*/,
                                                 Precision /*precision*/, const std::string& /*output_blob*/,
                                                 int /*num_threads*/) {
  return Status(
      StatusCode::unsupported,
      "this build of the engine has no oneDNN; install its headers (Debian and Ubuntu: sudo apt-get "
      "install libdnnl-dev) and build the engine again");
}

}  // namespace sweep_engine::onednn

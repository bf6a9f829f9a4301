#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "sweep_engine/model_folder.h"
#include "sweep_engine/status.h"

namespace sweep_engine {

/// Read a text file of a model folder whose size and SHA-256 match the manifest.
Result<std::string> read_checked_text(const std::string& folder, const FileSpec& file);

/// Open the weights file of a model folder after checking its size and SHA-256. It is hashed in chunks,
/// because a copy in memory would double the loading time.
Result<std::shared_ptr<std::FILE>> open_checked_file(const std::string& folder, const FileSpec& file);

}  // namespace sweep_engine

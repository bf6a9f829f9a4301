#pragma once

#include <string>
#include <string_view>

#include "sweep_engine/status.h"

namespace sweep_engine {

/// An image file, reduced to the parts that determine its pixels and written again, so that all decoders
/// judge damage alike. The rules are in docs/engine.md; platform/data/images/jpeg.py and png.py have the
/// same.
struct FileParts {
  std::string data;  ///< the new file, always with an end marker
  int orientation = 1;
  bool has_end = false;  ///< whether the original file has an end marker
  bool is_damage_known =
      true;  ///< JPEG: whether the decoder of Python reports damage (see jpeg_segments.cpp)
};

/// Errors are `image_invalid` if no decoder could decode the file.
Result<FileParts> read_jpeg_parts(std::string_view file);
Result<FileParts> read_png_parts(std::string_view file);

}  // namespace sweep_engine

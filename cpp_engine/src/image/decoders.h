#pragma once

#include <string>
#include <string_view>

#include "sweep_engine/image.h"
#include "sweep_engine/status.h"

namespace sweep_engine {

/// An image file, reduced to the parts that determine its pixels and written again, so that all decoders
/// judge damage alike. The rules are in docs/engine.md; platform/data/images/jpeg.py and png.py have the
/// same.
struct FileParts {
  std::string data;  ///< the new file, always with an end marker
  int orientation = 1;
  bool has_end = false;         ///< whether the original file has an end marker
  bool is_damage_known = true;  ///< JPEG: whether the decoder of Python reports damage (jpeg_segments.cpp)
};

/// Errors are `image_invalid` if no decoder could decode the file.
Result<FileParts> read_jpeg_parts(std::string_view file);
Result<FileParts> read_png_parts(std::string_view file);

/// Decode one format, without applying the EXIF orientation.
Result<Image> decode_jpeg(const FileParts& file);
Result<Image> decode_png(const FileParts& file);

/// Reject empty images and images with more than `max_image_pixels`.
Status check_image_size(std::int64_t width, std::int64_t height);

/// Composite RGBA pixels over white with the rounding of Pillow's alpha_composite.
/// @param size  bytes of `rgba`
/// @returns RGB pixels
[[nodiscard]] std::vector<std::uint8_t> composite_over_white(const std::uint8_t* rgba, std::size_t size);

}  // namespace sweep_engine

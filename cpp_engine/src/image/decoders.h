#pragma once

#include "image/file_parts.h"
#include "sweep_engine/image.h"

namespace sweep_engine {

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

#pragma once

#include <string_view>

#include "sweep_engine/image.h"

namespace sweep_engine {

/// Decoders of one format each; the EXIF orientation is not theirs to apply.
Result<Image> decode_jpeg(std::string_view data);
Result<Image> decode_png(std::string_view data);

/// Refuses a size of zero or beyond `max_image_pixels`.
Status check_image_size(std::int64_t width, std::int64_t height);

/// Lay RGBA pixels over white, rounded as Pillow's alpha_composite: 3/4 of `size` bytes.
std::vector<std::uint8_t> over_white(const std::uint8_t* rgba, std::size_t size);

}  // namespace sweep_engine

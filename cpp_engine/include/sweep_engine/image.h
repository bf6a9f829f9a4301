#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sweep_engine/status.h"

namespace sweep_engine {

/// An RGB picture, 8 bits a channel, rows from the top, no padding.
struct Image {
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> rgb;  ///< height * width * 3
};

/// Pictures with more pixels are refused before they are decoded (Pillow's own limit).
constexpr std::int64_t max_image_pixels = 89478485;

/// Decode a JPEG or PNG picture held in memory, to the pixels that platform/data/images/decode.py makes of it
/// with Pillow: gray, palette, 16-bit and CMYK become RGB, transparency is laid over white, and the EXIF
/// orientation is applied. A truncated file, a wrong checksum or a warning of the JPEG decoder is an error
/// (`image_invalid`).
Result<Image> decode_image(std::string_view data);

/// Read and decode a file; messages begin with its path.
Result<Image> decode_image_file(const std::string& path);

/// "libjpeg-turbo + libpng" or "stb_image": which decoders this build has.
const char* image_decoders();

/// Resize as Pillow's `resize((width, height), BILINEAR)` does: a triangle filter that widens when it shrinks
/// the picture, rows and columns apart, in the same fixed-point arithmetic, hence equal to the last bit.
/// @param width, height  1 to 16384 pixels
Result<Image> resize_image(const Image& image, int width, int height);

/// Cut out `width` x `height` pixels in the middle, placed as torchvision's CenterCrop does.
Result<Image> center_crop(const Image& image, int width, int height);

}  // namespace sweep_engine

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sweep_engine/status.h"

namespace sweep_engine {

/// RGB image, 8 bits per channel, rows from top to bottom without padding.
struct Image {
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> rgb;  ///< height * width * 3
};

/// Images with more pixels are rejected before decoding (Pillow's limit).
constexpr std::int64_t max_image_pixels = 89478485;

/// Larger files are rejected.
constexpr std::uint64_t max_image_bytes = 256U << 20;

/// Decode a JPEG or PNG to the same pixels as platform/data/images/decode.py: gray, palette, 16-bit and CMYK
/// are converted to RGB, transparency is composited over white, and the EXIF orientation is applied. Damaged
/// data are errors (`image_invalid`); docs/engine.md says which damage is benign.
Result<Image> decode_image(std::string_view data);

/// Read and decode a file; error messages begin with its path.
Result<Image> decode_image_file(const std::string& path);

/// Decoders of this build: "libjpeg-turbo + libpng" or "stb_image".
const char* image_decoders();

/// Resize like Pillow's `resize((width, height), BILINEAR)`: a separable triangle filter whose width grows
/// with the downscaling factor, in the same fixed-point arithmetic. The results are bit-identical.
/// @param width, height  1 to 16384 pixels
Result<Image> resize_image(const Image& image, int width, int height);

/// Resize the shorter side and crop the center, like torchvision's Resize(int), which rounds the longer side
/// down, and CenterCrop. Only the pixels of the crop are computed, so any proportions are possible.
/// @param width, height  size of the crop, at most `shorter_side`
Result<Image> resize_and_center_crop(const Image& image, int shorter_side, int width, int height);

}  // namespace sweep_engine

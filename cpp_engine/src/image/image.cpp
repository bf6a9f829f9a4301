#include "sweep_engine/image.h"

#include <algorithm>
#include <new>

#include "image/decoders.h"
#include "image/exif.h"
#include "sweep_engine/model_folder.h"

namespace sweep_engine {

namespace {

constexpr std::string_view png_magic("\x89PNG\r\n\x1a\n", 8);
constexpr std::string_view jpeg_magic("\xff\xd8\xff", 3);

Status not_an_image(std::string_view data) {
  if (data.empty()) return {StatusCode::image_invalid, "the file is empty"};
  const std::string_view start = data.substr(0, 64);
  const bool text = std::all_of(start.begin(), start.end(), [](char c) {
    return (c >= ' ' && c <= '~') || c == '\n' || c == '\r' || c == '\t';
  });
  return {StatusCode::image_invalid,
          std::string("neither a JPEG nor a PNG image") + (text ? "; it looks like a text file" : "")};
}

}  // namespace

Status check_image_size(std::int64_t width, std::int64_t height) {
  if (width < 1 || height < 1 || width > max_image_pixels / std::max<std::int64_t>(height, 1)) {
    return {StatusCode::image_invalid, "image size " + std::to_string(width) + " x " +
                                           std::to_string(height) + " is outside the permitted 1 to " +
                                           std::to_string(max_image_pixels) + " pixels"};
  }
  return {};
}

std::vector<std::uint8_t> composite_over_white(const std::uint8_t* rgba, std::size_t size) {
  std::vector<std::uint8_t> rgb;
  rgb.reserve(size / 4 * 3);
  for (std::size_t i = 0; i < size; i += 4) {
    const unsigned alpha = rgba[i + 3];
    for (std::size_t c = 0; c < 3; ++c) {
      const unsigned sum = (rgba[i + c] * alpha + 255U * (255U - alpha) + 0x80U) << 7;
      rgb.push_back(static_cast<std::uint8_t>((((sum >> 8) + sum) >> 8) >> 7));
    }
  }
  return rgb;
}

Result<Image> decode_image(std::string_view data) {
  try {
    const bool jpeg = data.substr(0, jpeg_magic.size()) == jpeg_magic;
    if (!jpeg && data.substr(0, png_magic.size()) != png_magic) return not_an_image(data);
    const Result<FileParts> file = jpeg ? read_jpeg_parts(data) : read_png_parts(data);
    if (!file.ok()) return file.status();
    Result<Image> image = jpeg ? decode_jpeg(file.value()) : decode_png(file.value());
    if (!image.ok()) return image;
    return apply_orientation(image.value(), file.value().orientation);
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::out_of_memory, "not enough memory to decode the image");
  }
}

Result<Image> decode_image_file(const std::string& path) {
  const Result<std::string> data = read_file(path, max_image_bytes);
  if (!data.ok()) return data.status();
  Result<Image> image = decode_image(data.value());
  if (!image.ok()) return Status(image.status().code(), path + ": " + image.status().message());
  return image;
}

const char* image_decoders() { return SWEEP_ENGINE_DECODER_NAMES; }

}  // namespace sweep_engine

// JPEG and PNG decoding with stb_image, for machines without the headers of libjpeg and libpng. stb_image
// accepts truncated JPEG data and PNG data with wrong checksums, so these are checked before decoding.

#include <array>
#include <cstdlib>
#include <memory>

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include <stb_image.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#include "image/decoders.h"

namespace sweep_engine {

namespace {

Result<Image> decode(std::string_view data, const char* format) {
  const auto* bytes = reinterpret_cast<const stbi_uc*>(data.data());
  const int size = static_cast<int>(data.size());  // checked below
  int width = 0;
  int height = 0;
  int channels = 0;
  const auto damaged = [&](const char* reason) {
    return Status(StatusCode::image_invalid, std::string("the ") + format + " data is damaged: " + reason);
  };
  if (data.size() > 0x7fffffff || stbi_info_from_memory(bytes, size, &width, &height, &channels) == 0) {
    return damaged(stbi_failure_reason());
  }
  Status status = check_image_size(width, height);
  if (!status.ok()) return status;
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
      stbi_load_from_memory(bytes, size, &width, &height, &channels, 4), &stbi_image_free);
  if (pixels == nullptr) return damaged(stbi_failure_reason());
  const std::size_t count = static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 4;
  return Image{width, height, composite_over_white(pixels.get(), count)};
}

std::uint32_t crc32(std::string_view data) {
  std::uint32_t crc = 0xFFFFFFFFU;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1U) != 0 ? 0xEDB88320U : 0U);
  }
  return ~crc;
}

/// Big-endian.
std::uint32_t read_u32(std::string_view data, std::size_t offset) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(data[offset + i]);
  return value;
}

}  // namespace

Result<Image> decode_jpeg(std::string_view data) {
  if (data.rfind("\xff\xd9") == std::string_view::npos) {
    return Status(StatusCode::image_invalid, "the JPEG data is damaged: no end-of-image marker");
  }
  return decode(data, "JPEG");
}

Result<Image> decode_png(std::string_view data) {
  std::size_t at = 8;
  bool ended = false;
  while (!ended) {
    if (at + 12 > data.size() || read_u32(data, at) > data.size() - at - 12) {
      return Status(StatusCode::image_invalid, "the PNG data is damaged: unexpected end of data");
    }
    const std::size_t length = read_u32(data, at);
    if (crc32(data.substr(at + 4, length + 4)) != read_u32(data, at + 8 + length)) {
      return Status(
          StatusCode::image_invalid,
          "the PNG data is damaged: " + std::string(data.substr(at + 4, 4)) + " has a wrong checksum");
    }
    ended = data.substr(at + 4, 4) == "IEND";
    at += 12 + length;
  }
  return decode(data, "PNG");
}

}  // namespace sweep_engine

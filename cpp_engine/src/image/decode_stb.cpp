// JPEG and PNG decoding with stb_image, for machines without the headers of libjpeg and libpng. stb_image
// does not report damaged JPEG data, so a missing end is an error here.

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

}  // namespace

Result<Image> decode_jpeg(const FileParts& file) {
  if (!file.has_end) {
    return Status(StatusCode::image_invalid, "the JPEG data is damaged: no end-of-image marker");
  }
  return decode(file.data, "JPEG");
}

Result<Image> decode_png(const FileParts& file) { return decode(file.data, "PNG"); }

}  // namespace sweep_engine

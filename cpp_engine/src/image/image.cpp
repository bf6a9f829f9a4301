#include "sweep_engine/image.h"

#include <algorithm>
#include <new>

#include "image/decoders.h"
#include "sweep_engine/model_folder.h"

namespace sweep_engine {

namespace {

constexpr std::uint64_t file_limit = 256U << 20;
constexpr std::string_view png_magic("\x89PNG\r\n\x1a\n", 8);
constexpr std::string_view jpeg_magic("\xff\xd8\xff", 3);

unsigned read_u8(std::string_view data, std::size_t offset) {
  return offset < data.size() ? static_cast<unsigned char>(data[offset]) : 0U;
}

/// Big-endian.
unsigned read_u16(std::string_view data, std::size_t offset) {
  return read_u8(data, offset) << 8 | read_u8(data, offset + 1);
}

/// EXIF orientation (1 to 8) from the first directory of a TIFF header; 1 if there is none.
int tiff_orientation(std::string_view tiff) {
  const bool little = tiff.substr(0, 2) == "II";
  if (!little && tiff.substr(0, 2) != "MM") return 1;
  const auto read16 = [&](std::size_t at) {
    return little ? read_u8(tiff, at) | read_u8(tiff, at + 1) << 8 : read_u16(tiff, at);
  };
  const auto read32 = [&](std::size_t at) {
    return little ? read16(at) | read16(at + 2) << 16 : read16(at) << 16 | read16(at + 2);
  };
  const std::size_t directory = read32(4);
  const unsigned entries = read16(directory);
  for (unsigned i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + std::size_t{12} * i;
    if (entry + 12 > tiff.size()) break;
    if (read16(entry) == 0x0112) {
      const unsigned value = read16(entry + 8);
      return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
    }
  }
  return 1;
}

int jpeg_orientation(std::string_view data) {
  std::size_t at = 2;
  while (at + 4 <= data.size() && read_u8(data, at) == 0xFF) {
    const unsigned marker = read_u8(data, at + 1);
    if (marker == 0xFF) {  // fill byte
      ++at;
      continue;
    }
    if (marker == 0xDA || marker == 0xD9) break;  // start of scan or end of image
    const std::size_t length = read_u16(data, at + 2);
    const std::string_view segment = data.substr(at + 4, length < 2 ? 0 : length - 2);
    if (marker == 0xE1 && segment.substr(0, 6) == std::string_view("Exif\0\0", 6)) {
      return tiff_orientation(segment.substr(6));
    }
    at += 2 + length;
  }
  return 1;
}

int png_orientation(std::string_view data) {
  std::size_t at = png_magic.size();
  while (at + 12 <= data.size()) {
    const std::size_t length = static_cast<std::size_t>(read_u16(data, at)) << 16 | read_u16(data, at + 2);
    if (data.substr(at + 4, 4) == "eXIf") return tiff_orientation(data.substr(at + 8, length));
    at += 12 + length;
  }
  return 1;
}

/// Mirror or rotate the image according to its EXIF orientation.
Image apply_orientation(const Image& image, int orientation) {
  if (orientation == 1) return image;
  const bool swaps_sides = orientation >= 5;
  Image out{swaps_sides ? image.height : image.width, swaps_sides ? image.width : image.height, {}};
  out.rgb.resize(image.rgb.size());
  std::uint8_t* to = out.rgb.data();
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      int from_x = swaps_sides ? y : x;
      int from_y = swaps_sides ? x : y;
      if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) {
        from_x = image.width - 1 - from_x;
      }
      if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7) {
        from_y = image.height - 1 - from_y;
      }
      const std::size_t from = (static_cast<std::size_t>(from_y) * static_cast<std::size_t>(image.width) +
                                static_cast<std::size_t>(from_x)) *
                               3;
      to = std::copy_n(image.rgb.data() + from, 3, to);
    }
  }
  return out;
}

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
    Result<Image> image = jpeg ? decode_jpeg(data) : decode_png(data);
    if (!image.ok()) return image;
    return apply_orientation(image.value(), jpeg ? jpeg_orientation(data) : png_orientation(data));
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::out_of_memory, "not enough memory to decode the image");
  }
}

Result<Image> decode_image_file(const std::string& path) {
  const Result<std::string> data = read_file(path, file_limit);
  if (!data.ok()) return data.status();
  Result<Image> image = decode_image(data.value());
  if (!image.ok()) return Status(image.status().code(), path + ": " + image.status().message());
  return image;
}

const char* image_decoders() { return SWEEP_ENGINE_DECODER_NAMES; }

}  // namespace sweep_engine

#include "sweep_engine/image.h"

#include <algorithm>
#include <new>

#include "image/decoders.h"
#include "sweep_engine/model_folder.h"

namespace sweep_engine {

namespace {

constexpr std::uint64_t file_limit = 256U << 20;
constexpr std::string_view png_mark("\x89PNG\r\n\x1a\n", 8);
constexpr std::string_view jpeg_mark("\xff\xd8\xff", 3);

unsigned byte_at(std::string_view data, std::size_t at) {
  return at < data.size() ? static_cast<unsigned char>(data[at]) : 0U;
}

unsigned big16(std::string_view data, std::size_t at) {
  return byte_at(data, at) << 8 | byte_at(data, at + 1);
}

/// The orientation (1 to 8) in a TIFF header with its first directory; 1 when there is none.
int tiff_orientation(std::string_view tiff) {
  const bool little = tiff.substr(0, 2) == "II";
  if (!little && tiff.substr(0, 2) != "MM") return 1;
  const auto read16 = [&](std::size_t at) {
    return little ? byte_at(tiff, at) | byte_at(tiff, at + 1) << 8 : big16(tiff, at);
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
  while (at + 4 <= data.size() && byte_at(data, at) == 0xFF) {
    const unsigned marker = byte_at(data, at + 1);
    if (marker == 0xFF) {  // fill byte
      ++at;
      continue;
    }
    if (marker == 0xDA || marker == 0xD9) break;  // the picture itself, or its end
    const std::size_t length = big16(data, at + 2);
    const std::string_view segment = data.substr(at + 4, length < 2 ? 0 : length - 2);
    if (marker == 0xE1 && segment.substr(0, 6) == std::string_view("Exif\0\0", 6)) {
      return tiff_orientation(segment.substr(6));
    }
    at += 2 + length;
  }
  return 1;
}

int png_orientation(std::string_view data) {
  std::size_t at = png_mark.size();
  while (at + 12 <= data.size()) {
    const std::size_t length = static_cast<std::size_t>(big16(data, at)) << 16 | big16(data, at + 2);
    if (data.substr(at + 4, 4) == "eXIf") return tiff_orientation(data.substr(at + 8, length));
    at += 12 + length;
  }
  return 1;
}

/// EXIF's eight orientations: bit by bit, mirrored or turned in steps of 90 degrees.
Image orient(const Image& image, int orientation) {
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
          std::string("is neither a JPEG nor a PNG picture") + (text ? "; it looks like a text file" : "")};
}

}  // namespace

Status check_image_size(std::int64_t width, std::int64_t height) {
  if (width < 1 || height < 1 || width > max_image_pixels / std::max<std::int64_t>(height, 1)) {
    return {StatusCode::image_invalid, "has " + std::to_string(width) + " x " + std::to_string(height) +
                                           " pixels; from 1 to " + std::to_string(max_image_pixels) +
                                           " are allowed"};
  }
  return {};
}

std::vector<std::uint8_t> over_white(const std::uint8_t* rgba, std::size_t size) {
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
    const bool jpeg = data.substr(0, jpeg_mark.size()) == jpeg_mark;
    if (!jpeg && data.substr(0, png_mark.size()) != png_mark) return not_an_image(data);
    Result<Image> image = jpeg ? decode_jpeg(data) : decode_png(data);
    if (!image.ok()) return image;
    return orient(image.value(), jpeg ? jpeg_orientation(data) : png_orientation(data));
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::out_of_memory, "not enough memory to decode the picture");
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

// The chunks of a PNG file that determine its pixels.

#include <algorithm>
#include <array>
#include <cstdint>

#include "image/decoders.h"
#include "image/exif.h"

namespace sweep_engine {

namespace {

constexpr std::string_view signature("\x89PNG\r\n\x1a\n", 8);
constexpr unsigned gray = 0;
constexpr unsigned rgb = 2;
constexpr unsigned palette = 3;

Status damaged(const std::string& reason) {
  return {StatusCode::image_invalid, "the PNG data is damaged: " + reason};
}

constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1U) != 0 ? 0xEDB88320U : 0U);
    table[i] = value;
  }
  return table;
}

std::uint32_t crc32(std::string_view data) {
  static constexpr std::array<std::uint32_t, 256> table = crc_table();
  std::uint32_t crc = 0xFFFFFFFFU;
  for (const char c : data) crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(c)) & 0xFFU];
  return ~crc;
}

/// Big-endian.
std::uint32_t read_u32(std::string_view data, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(data[at + i]);
  return value;
}

void append_u32(std::string& data, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) data += static_cast<char>(value >> shift & 0xFFU);
}

void append_chunk(std::string& data, std::string_view kind, std::string_view content) {
  append_u32(data, static_cast<std::uint32_t>(content.size()));
  const std::size_t start = data.size();
  data += kind;
  data += content;
  append_u32(data, crc32(std::string_view(data).substr(start)));
}

bool is_letters(std::string_view kind) {
  return std::all_of(kind.begin(), kind.end(),
                     [](char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); });
}

/// Reads the chunks in the order of the file.
class Reader {
 public:
  explicit Reader(std::string_view file) : file_(file) {}

  Result<FileParts> read() {
    std::size_t at = signature.size();
    while (at + 8 <= file_.size() && !parts_.has_end) {
      const std::size_t length = read_u32(file_, at);
      const std::string_view kind = file_.substr(at + 4, 4);
      const std::string_view content = file_.substr(at + 8, length);
      const bool complete = length + 12 <= file_.size() - at;
      const bool sound =
          complete && crc32(file_.substr(at + 4, length + 4)) == read_u32(file_, at + 8 + length);
      is_after_pixels_ = is_after_pixels_ || (has_pixels_ && kind != "IDAT");
      if (!is_letters(kind)) {
        if (is_after_pixels_) break;
        return damaged("invalid chunk type");
      }
      Status status;
      if (!is_after_pixels_) status = add(kind, content, complete, sound);
      if (!status.ok()) return status;
      parts_.has_end = is_after_pixels_ && kind == "IEND";
      if (kind == "eXIf" && sound && !has_exif_) {
        has_exif_ = true;
        parts_.orientation = exif_orientation(content);
      }
      if (!complete) break;
      at += length + 12;
    }
    return finish();
  }

 private:
  Status add(std::string_view kind, std::string_view content, bool complete, bool sound) {
    const bool critical = (static_cast<unsigned char>(kind[0]) & 0x20U) == 0;
    if (critical && complete && !sound) return damaged(std::string(kind) + " has a wrong checksum");
    if (header_.empty()) {
      if (kind != "IHDR" || content.size() != 13 || !complete) return damaged("no header");
      header_ = content;
      return check_header();
    }
    if (kind == "IDAT") {
      has_pixels_ = true;
      pixels_ += content;  // the last one may be cut off
      return {};
    }
    if (kind == "PLTE" && complete) return add_palette(content);
    if (critical) return damaged("unexpected chunk " + std::string(kind));
    if (kind == "tRNS" && sound) add_transparency(content);
    return {};
  }

  Status check_header() {
    const auto field = [&](std::size_t at) {
      return static_cast<unsigned>(static_cast<unsigned char>(header_[at]));
    };
    const std::uint32_t width = read_u32(header_, 0);
    const std::uint32_t height = read_u32(header_, 4);
    depth_ = field(8);
    color_ = field(9);
    const bool is_byte = depth_ == 8 || depth_ == 16;
    const bool is_small = depth_ == 1 || depth_ == 2 || depth_ == 4;
    const bool allowed = color_ == gray                                ? is_byte || is_small
                         : color_ == palette                           ? is_small || depth_ == 8
                         : color_ == rgb || color_ == 4 || color_ == 6 ? is_byte
                                                                       : false;
    if (!allowed || field(10) != 0 || field(11) != 0 || field(12) > 1) return damaged("invalid header");
    if (width < 1 || height < 1 || width >> 31 != 0 || height >> 31 != 0) return damaged("invalid header");
    return check_image_size(width, height);
  }

  Status add_palette(std::string_view content) {
    if (color_ != palette) return {};  // only a suggestion
    if (!palette_.empty() || content.empty() || content.size() % 3 != 0 || content.size() > 768) {
      return damaged("invalid palette");
    }
    palette_ = content.substr(0, std::size_t{3} << depth_);
    return {};
  }

  void add_transparency(std::string_view content) {
    const bool fits = color_ == palette
                          ? !content.empty() && content.size() <= palette_.size() / 3
                          : (color_ == gray && content.size() == 2) || (color_ == rgb && content.size() == 6);
    if (fits && transparency_.empty()) transparency_ = content;
  }

  Result<FileParts> finish() {
    if (pixels_.empty()) return damaged("no pixel data");
    if (color_ == palette && palette_.empty()) return damaged("no palette");
    std::string& data = parts_.data;
    data = signature;
    append_chunk(data, "IHDR", header_);
    if (!palette_.empty()) {
      palette_.resize(std::size_t{3} << depth_);  // missing colors are black
      append_chunk(data, "PLTE", palette_);
    }
    if (!transparency_.empty()) append_chunk(data, "tRNS", transparency_);
    append_chunk(data, "IDAT", pixels_);
    append_chunk(data, "IEND", {});
    return std::move(parts_);
  }

  std::string_view file_;
  FileParts parts_;
  std::string_view header_;
  std::string palette_;
  std::string_view transparency_;
  std::string pixels_;
  unsigned depth_ = 0;
  unsigned color_ = 0;
  bool has_pixels_ = false;
  bool is_after_pixels_ = false;
  bool has_exif_ = false;
};

}  // namespace

Result<FileParts> read_png_parts(std::string_view file) { return Reader(file).read(); }

}  // namespace sweep_engine

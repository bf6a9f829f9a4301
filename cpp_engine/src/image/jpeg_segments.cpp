// The segments of a JPEG file that determine its pixels.

#include <algorithm>
#include <array>
#include <bitset>
#include <vector>

#include "image/decoders.h"
#include "image/exif.h"

namespace sweep_engine {

namespace {

constexpr unsigned sos = 0xDA;
constexpr unsigned eoi = 0xD9;
constexpr unsigned app0 = 0xE0;
constexpr unsigned app1 = 0xE1;
constexpr unsigned app14 = 0xEE;
constexpr unsigned app15 = 0xEF;
constexpr unsigned comment = 0xFE;

struct Segment {
  unsigned code = 0;
  std::string_view data;  // length and payload; of a start of scan also the entropy-coded data

  [[nodiscard]] std::string_view payload() const { return data.substr(2); }
};

unsigned read_u8(std::string_view data, std::size_t at) { return static_cast<unsigned char>(data[at]); }

bool starts_with(std::string_view text, std::string_view start) {
  return text.substr(0, start.size()) == start;
}

/// Find the next marker: one or more 0xFF, then a code other than 0 (which is data) and other than a restart
/// marker. Between segments 0x01 is skipped too, because it has no segment.
/// @param start  set to the first 0xFF
/// @returns the position after the code; 0 if there is none
std::size_t find_marker(std::string_view file, std::size_t at, bool in_scan, std::size_t& start) {
  while ((start = file.find('\xff', at)) != std::string_view::npos) {
    at = file.find_first_not_of('\xff', start);
    if (at == std::string_view::npos) break;
    const unsigned code = read_u8(file, at++);
    if (code != 0 && (code < 0xD0 || code > 0xD7) && (in_scan || code != 1)) return at;
  }
  start = file.size();
  return 0;
}

/// The complete segments; bytes between them are skipped, as libjpeg does with a warning.
std::vector<Segment> split(std::string_view file, bool& has_end) {
  std::vector<Segment> segments;
  std::size_t at = 2;
  std::size_t start = 0;
  while ((at = find_marker(file, at, false, start)) != 0) {
    const unsigned code = read_u8(file, at - 1);
    has_end = code == eoi;
    if (has_end || at + 2 > file.size()) break;
    const std::size_t begin = at;
    const std::size_t length = read_u8(file, at) << 8 | read_u8(file, at + 1);
    at += length < 2 ? 2 : length;
    if (at > file.size()) break;
    if (code == sos) {
      find_marker(file, at, true, start);
      at = start;
    }
    segments.push_back({code, file.substr(begin, at - begin)});
  }
  return segments;
}

bool is_frame(unsigned code) {  // baseline, extended, progressive; the last two with arithmetic coding
  return code == 0xC0 || code == 0xC1 || code == 0xC2 || code == 0xC9 || code == 0xCA;
}

bool is_other_frame(unsigned code) {  // lossless or hierarchical
  return code >= 0xC3 && code <= 0xCF && code != 0xC4 && code != 0xCC && !is_frame(code);
}

/// Whether a segment does not influence the pixels. Only JFIF and Adobe segments tell the color space.
bool is_metadata(const Segment& segment) {
  if (segment.code == app0) {
    return segment.data.size() < 16 || !starts_with(segment.payload(), std::string_view("JFIF\0", 5));
  }
  if (segment.code == app14) return segment.data.size() < 14 || !starts_with(segment.payload(), "Adobe");
  return (segment.code >= app0 && segment.code <= app15) || segment.code == comment;
}

/// Whether TurboJPEG, which decodes in Python, knows this chroma subsampling and so reports damage.
bool is_sampling_known(std::string_view frame) {
  const std::size_t components = read_u8(frame, 5);
  if (frame.size() < 6 + 3 * components) return false;
  const auto sampling = [&](std::size_t component) { return read_u8(frame, 7 + 3 * component); };
  if (components == 1) return true;
  if (components != 3 && components != 4) return false;
  const unsigned luma = sampling(0);
  return (luma == 0x11 || luma == 0x12 || luma == 0x14 || luma == 0x21 || luma == 0x22 || luma == 0x41) &&
         sampling(1) == 0x11 && sampling(2) == 0x11 && (components == 3 || sampling(3) == luma);
}

/// Whether the scans of a progressive file have all bits; libjpeg smooths an image without some of them.
bool has_all_coefficients(const std::vector<Segment>& segments, std::string_view frame) {
  std::array<std::bitset<64>, 256> known;
  for (const Segment& segment : segments) {
    if (segment.code != sos) continue;
    const std::string_view scan = segment.payload();
    const std::size_t components = scan.empty() ? 0 : read_u8(scan, 0);
    if (scan.size() < 4 + 2 * components || (read_u8(scan, 3 + 2 * components) & 15U) != 0) continue;
    const unsigned last = std::min(read_u8(scan, 2 + 2 * components), 63U);
    for (std::size_t i = 0; i < components; ++i) {
      for (unsigned k = read_u8(scan, 1 + 2 * components); k <= last; ++k)
        known[read_u8(scan, 1 + 2 * i)].set(k);
    }
  }
  for (std::size_t i = 0; i < read_u8(frame, 5) && 6 + 3 * i < frame.size(); ++i) {
    if (!known[read_u8(frame, 6 + 3 * i)].all()) return false;
  }
  return true;
}

/// Append a segment, with a JFIF version and a color transform that libjpeg does not warn about.
void append(std::string& data, const Segment& segment, std::size_t components) {
  data += '\xff';
  data += static_cast<char>(segment.code);
  if (segment.code == app0) {
    data += std::string_view("\0\x10JFIF\0\1\1\0\0\1\0\1\0\0", 16);
  } else if (segment.code == app14) {
    data += std::string_view(
        "\0\x0e"
        "Adobe\0d\0\0\0\0",
        13);
    data += segment.payload()[11] == 0 ? '\0' : components == 4 ? '\2' : '\1';
  } else {
    data += segment.data;
  }
}

}  // namespace

Result<FileParts> read_jpeg_parts(std::string_view file) {
  FileParts parts;
  const std::vector<Segment> segments = split(file, parts.has_end);
  std::string_view frame;
  bool supported = true;
  bool progressive = false;
  for (const Segment& segment : segments) {
    if (is_frame(segment.code) && frame.empty()) frame = segment.payload();
    progressive = progressive || segment.code == 0xC2 || segment.code == 0xCA;
    supported = supported && !is_other_frame(segment.code);
  }
  if (!supported || frame.size() < 6) {
    return Status(StatusCode::image_invalid, "only baseline and progressive JPEG data are supported");
  }
  if (progressive && !has_all_coefficients(segments, frame)) {
    return Status(StatusCode::image_invalid, "the JPEG data is damaged: scans are missing");
  }
  bool has_exif = false;
  parts.is_damage_known = is_sampling_known(frame);
  parts.data = "\xff\xd8";
  for (const Segment& segment : segments) {
    if (!has_exif && segment.code == app1 && starts_with(segment.payload(), exif_prefix)) {
      has_exif = true;
      parts.orientation = exif_orientation(segment.payload());
    }
    if (!is_metadata(segment)) append(parts.data, segment, read_u8(frame, 5));
  }
  parts.data += "\xff\xd9";
  return parts;
}

}  // namespace sweep_engine

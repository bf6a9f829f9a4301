#include "image/exif.h"

#include <algorithm>

namespace sweep_engine {

int exif_orientation(std::string_view exif) {
  if (exif.substr(0, exif_prefix.size()) == exif_prefix) exif.remove_prefix(exif_prefix.size());
  const bool little = exif.substr(0, 4) == std::string_view("II*\0", 4);
  if (!little && exif.substr(0, 4) != std::string_view("MM\0*", 4)) return 1;
  const auto number = [&](std::size_t at, std::size_t size) {
    std::size_t value = 0;
    for (std::size_t i = 0; i < size && at + i < exif.size(); ++i) {
      const std::size_t byte = static_cast<unsigned char>(exif[at + i]);
      value = little ? value | byte << (8 * i) : value << 8 | byte;
    }
    return value;
  };
  const std::size_t directory = number(4, 4);
  const std::size_t entries = number(directory, 2);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + 12 * i;
    if (entry + 12 > exif.size()) break;
    if (number(entry, 2) != 0x0112) continue;
    const std::size_t type = number(entry + 2, 2);
    const std::size_t size = type == 1 ? 1 : type == 3 ? 2 : type == 4 ? 4 : 0;  // BYTE, SHORT, LONG
    const std::size_t value = number(entry + 4, 4) == 1 ? number(entry + 8, size) : 1;
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

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

}  // namespace sweep_engine

#pragma once

#include <string_view>

#include "sweep_engine/image.h"

namespace sweep_engine {

/// The bytes before the EXIF data of a JPEG file, and of some PNG files.
constexpr std::string_view exif_prefix("Exif\0\0", 6);

/// EXIF orientation (1 to 8) from the first directory of EXIF data, with or without the prefix; 1 if there is
/// none or the data are damaged. Rules as in platform/data/images/exif.py.
int exif_orientation(std::string_view exif);

/// Mirror or rotate the image with its EXIF orientation.
Image apply_orientation(const Image& image, int orientation);

}  // namespace sweep_engine

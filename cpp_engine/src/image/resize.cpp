#include <algorithm>
#include <cmath>
#include <string>

#include "sweep_engine/image.h"

namespace sweep_engine {

namespace {

constexpr int max_side = 16384;
// As in Pillow's src/libImaging/Resample.c: 8 bits for the pixel, 2 for overshoot, the rest for the weight.
constexpr int precision_bits = 32 - 8 - 2;

/// Input pixels of one output pixel, with their weights.
struct Window {
  int first = 0;
  std::vector<int> weights;
};

/// Pixels of the resized image along one axis.
struct Range {
  std::int64_t size = 0;  ///< of the whole resized image
  std::int64_t first = 0;
  int count = 0;
};

// NOLINTBEGIN(bugprone-incorrect-roundings): Pillow rounds with (int)(x + 0.5).
std::vector<Window> triangle_windows(int in, const Range& range) {
  const double scale = static_cast<double>(in) / static_cast<double>(range.size);
  const double support = std::max(scale, 1.0);  // the triangle's half-width, in input pixels
  std::vector<Window> windows(static_cast<std::size_t>(range.count));
  std::vector<double> weights;
  for (int i = 0; i < range.count; ++i) {
    const double center = (static_cast<double>(range.first + i) + 0.5) * scale;
    const int first = std::max(static_cast<int>(center - support + 0.5), 0);
    const int last = std::min(static_cast<int>(center + support + 0.5), in);
    weights.clear();
    double sum = 0.0;
    for (int x = first; x < last; ++x) {
      weights.push_back(std::max(1.0 - std::fabs((x - center + 0.5) / support), 0.0));
      sum += weights.back();
    }
    Window& window = windows[static_cast<std::size_t>(i)];
    window.first = first;
    for (const double weight : weights) {
      window.weights.push_back(
          static_cast<int>(0.5 + (sum != 0.0 ? weight / sum : weight) * (1 << precision_bits)));
    }
  }
  return windows;
}
// NOLINTEND(bugprone-incorrect-roundings)

std::uint8_t to_pixel(int sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> precision_bits, 0, 255));
}

/// @param first, last  the rows to resize
Image resize_rows(const Image& image, int first, int last, const std::vector<Window>& windows) {
  Image out{static_cast<int>(windows.size()), last - first, {}};
  out.rgb.resize(windows.size() * static_cast<std::size_t>(last - first) * 3);
  std::uint8_t* to = out.rgb.data();
  for (int y = first; y < last; ++y) {
    const std::uint8_t* row =
        image.rgb.data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(image.width) * 3;
    for (const Window& window : windows) {
      int sum[3] = {1 << (precision_bits - 1), 1 << (precision_bits - 1), 1 << (precision_bits - 1)};
      const std::uint8_t* from = row + static_cast<std::size_t>(window.first) * 3;
      for (const int weight : window.weights) {
        for (int& channel : sum) channel += *from++ * weight;
      }
      for (const int value : sum) *to++ = to_pixel(value);
    }
  }
  return out;
}

/// @param image  its first row is row `first` of the image that the windows refer to
Image resize_columns(const Image& image, int first, const std::vector<Window>& windows) {
  const std::size_t stride = static_cast<std::size_t>(image.width) * 3;
  Image out{image.width, static_cast<int>(windows.size()), {}};
  out.rgb.resize(stride * windows.size());
  std::vector<int> sums(stride);
  std::uint8_t* to = out.rgb.data();
  for (const Window& window : windows) {
    std::fill(sums.begin(), sums.end(), 1 << (precision_bits - 1));
    const std::uint8_t* from = image.rgb.data() + static_cast<std::size_t>(window.first - first) * stride;
    for (const int weight : window.weights) {
      for (std::size_t x = 0; x < stride; ++x) sums[x] += *from++ * weight;
    }
    for (const int value : sums) *to++ = to_pixel(value);
  }
  return out;
}

Result<Image> resize(const Image& image, const Range& columns, const Range& rows) {
  const std::vector<Window> vertical = triangle_windows(image.height, rows);
  const int first = vertical.front().first;
  const int last = vertical.back().first + static_cast<int>(vertical.back().weights.size());
  return resize_columns(resize_rows(image, first, last, triangle_windows(image.width, columns)), first,
                        vertical);
}

Status check_arguments(const Image& image, int width, int height) {
  const std::size_t pixels = static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height);
  if (image.width < 1 || image.height < 1 || image.rgb.size() != 3 * pixels)
    return {StatusCode::invalid_argument, "the image size does not match its data"};
  if (width < 1 || height < 1 || width > max_side || height > max_side) {
    return {StatusCode::invalid_argument, "width and height must be 1 to 16384 pixels, got " +
                                              std::to_string(width) + " x " + std::to_string(height)};
  }
  return {};
}

/// The centered range of a resized side; rounds half to even in the default rounding mode, like torchvision.
Range centered(std::int64_t size, int count) {
  return {size, static_cast<std::int64_t>(std::nearbyint(static_cast<double>(size - count) / 2.0)), count};
}

}  // namespace

Result<Image> resize_image(const Image& image, int width, int height) {
  const Status status = check_arguments(image, width, height);
  if (!status.ok()) return status;
  return resize(image, {width, 0, width}, {height, 0, height});
}

Result<Image> resize_and_center_crop(const Image& image, int shorter_side, int width, int height) {
  const Status status = check_arguments(image, width, height);
  if (!status.ok()) return status;
  if (shorter_side < std::max(width, height)) {
    return Status(StatusCode::invalid_argument,
                  "the shorter side must be at least the crop's, got " + std::to_string(shorter_side));
  }
  const std::int64_t side = shorter_side;
  const bool wide = image.width > image.height;
  return resize(image, centered(wide ? side * image.width / image.height : side, width),
                centered(wide ? side : side * image.height / image.width, height));
}

}  // namespace sweep_engine

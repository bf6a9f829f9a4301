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

// NOLINTBEGIN(bugprone-incorrect-roundings): Pillow rounds with (int)(x + 0.5).
std::vector<Window> triangle_windows(int in, int out) {
  const double scale = static_cast<double>(in) / out;
  const double support = std::max(scale, 1.0);  // the triangle's half-width, in input pixels
  std::vector<Window> windows(static_cast<std::size_t>(out));
  std::vector<double> weights;
  for (int i = 0; i < out; ++i) {
    const double center = (i + 0.5) * scale;
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

Image resize_rows(const Image& image, int width) {
  Image out{width, image.height,
            std::vector<std::uint8_t>(static_cast<std::size_t>(width) *
                                      static_cast<std::size_t>(image.height) * 3)};
  const std::vector<Window> windows = triangle_windows(image.width, width);
  std::uint8_t* to = out.rgb.data();
  for (int y = 0; y < image.height; ++y) {
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

Image resize_columns(const Image& image, int height) {
  const std::size_t stride = static_cast<std::size_t>(image.width) * 3;
  Image out{image.width, height, std::vector<std::uint8_t>(stride * static_cast<std::size_t>(height))};
  const std::vector<Window> windows = triangle_windows(image.height, height);
  std::vector<int> sums(stride);
  std::uint8_t* to = out.rgb.data();
  for (const Window& window : windows) {
    std::fill(sums.begin(), sums.end(), 1 << (precision_bits - 1));
    const std::uint8_t* from = image.rgb.data() + static_cast<std::size_t>(window.first) * stride;
    for (const int weight : window.weights) {
      for (std::size_t x = 0; x < stride; ++x) sums[x] += *from++ * weight;
    }
    for (const int value : sums) *to++ = to_pixel(value);
  }
  return out;
}

bool is_consistent(const Image& image) {
  return image.width > 0 && image.height > 0 &&
         image.rgb.size() ==
             static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height) * 3;
}

}  // namespace

Result<Image> resize_image(const Image& image, int width, int height) {
  if (!is_consistent(image))
    return Status(StatusCode::invalid_argument, "the image size does not match its data");
  if (width < 1 || height < 1 || width > max_side || height > max_side) {
    return Status(StatusCode::invalid_argument, "width and height must be 1 to 16384 pixels, got " +
                                                    std::to_string(width) + " x " + std::to_string(height));
  }
  Image out = image.width == width ? image : resize_rows(image, width);
  return image.height == height ? out : resize_columns(out, height);
}

Result<Image> center_crop(const Image& image, int width, int height) {
  if (!is_consistent(image) || width < 1 || height < 1 || width > image.width || height > image.height) {
    return Status(StatusCode::invalid_argument, "cannot crop " + std::to_string(width) + " x " +
                                                    std::to_string(height) + " pixels from an image of " +
                                                    std::to_string(image.width) + " x " +
                                                    std::to_string(image.height));
  }
  // Rounds half to even in the default rounding mode, like torchvision.
  const auto left = static_cast<std::size_t>(std::nearbyint((image.width - width) / 2.0));
  const auto top = static_cast<std::size_t>(std::nearbyint((image.height - height) / 2.0));
  Image out{width, height, {}};
  out.rgb.reserve(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3);
  for (std::size_t y = 0; y < static_cast<std::size_t>(height); ++y) {
    const std::size_t from = ((top + y) * static_cast<std::size_t>(image.width) + left) * 3;
    const auto begin = image.rgb.begin() + static_cast<std::ptrdiff_t>(from);
    out.rgb.insert(out.rgb.end(), begin, begin + static_cast<std::ptrdiff_t>(width) * 3);
  }
  return out;
}

}  // namespace sweep_engine

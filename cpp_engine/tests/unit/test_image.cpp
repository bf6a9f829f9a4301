#include "check.h"
#include "sweep_engine/classifier.h"
#include "sweep_engine/image.h"

using sweep_engine::Image;

namespace {

Image gradient(int width, int height) {
  Image image{width, height, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c)
        image.rgb.push_back(static_cast<std::uint8_t>((7 * x + 13 * y + 50 * c) % 256));
    }
  }
  return image;
}

}  // namespace

TEST_CASE(resize_to_the_same_size_is_the_identity) {
  const Image image = gradient(9, 7);
  CHECK(sweep_engine::resize_image(image, 9, 7).value().rgb == image.rgb);
}

TEST_CASE(resize_keeps_a_constant_image_constant) {
  Image image{50, 40, std::vector<std::uint8_t>(50 * 40 * 3, 123)};
  for (const int side : {1, 7, 32, 100}) {
    const auto resized = sweep_engine::resize_image(image, side, side);
    CHECK(resized.ok());
    for (const std::uint8_t level : resized.value().rgb) CHECK_EQUAL(static_cast<int>(level), 123);
  }
}

TEST_CASE(resize_rejects_invalid_sizes) {
  CHECK(!sweep_engine::resize_image(gradient(4, 4), 0, 4).ok());
  CHECK(!sweep_engine::resize_image(gradient(4, 4), 4, 20000).ok());
  CHECK(!sweep_engine::resize_image(Image{4, 4, {}}, 4, 4).ok());
}

TEST_CASE(center_crop_selects_the_center) {
  const Image image = gradient(5, 5);
  const auto cropped = sweep_engine::resize_and_center_crop(image, 5, 1, 1);
  CHECK(cropped.value().rgb == std::vector<std::uint8_t>(image.rgb.begin() + 36, image.rgb.begin() + 39));
  CHECK(!sweep_engine::resize_and_center_crop(image, 5, 6, 1).ok());
}

TEST_CASE(decoding_errors_name_the_cause) {
  CHECK_CONTAINS(sweep_engine::decode_image("").status().message(), "empty");
  CHECK_CONTAINS(sweep_engine::decode_image("hello, world\n").status().message(), "text file");
  CHECK_CONTAINS(sweep_engine::decode_image(std::string("\x89PNG\r\n\x1a\n\x00", 9)).status().message(),
                 "PNG");
  CHECK_CONTAINS(sweep_engine::decode_image("\xff\xd8\xff").status().message(), "JPEG");
  CHECK(sweep_engine::decode_image_file("/nonexistent").status().code() ==
        sweep_engine::StatusCode::io_error);
  CHECK_CONTAINS(sweep_engine::decode_image_file("/").status().message(), "folder");
}

TEST_CASE(fit_to_input_returns_planar_pixels) {
  sweep_engine::InputSpec input;
  input.height = 2;
  input.width = 1;
  const Image image{1, 2, {1, 2, 3, 4, 5, 6}};
  CHECK(sweep_engine::fit_to_input(image, input).value() == (std::vector<std::uint8_t>{1, 4, 2, 5, 3, 6}));
}

TEST_CASE(fit_to_input_crops_after_resizing_the_shorter_side) {
  sweep_engine::InputSpec input;
  input.height = 24;
  input.width = 24;
  input.resize = sweep_engine::ResizeMode::shorter_side_crop;
  input.shorter_side = 32;
  CHECK_EQUAL(sweep_engine::fit_to_input(gradient(100, 50), input).value().size(), std::size_t{24 * 24 * 3});
  CHECK_EQUAL(sweep_engine::fit_to_input(gradient(50, 101), input).value().size(), std::size_t{24 * 24 * 3});
}

TEST_CASE(softmax_does_not_overflow) {
  const auto p = sweep_engine::softmax({1000.0F, 1000.0F, -1000.0F});
  CHECK_EQUAL(p[0], 0.5);
  CHECK_EQUAL(p[2], 0.0);
}

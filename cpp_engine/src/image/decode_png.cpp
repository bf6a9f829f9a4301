// PNG decoding with libpng, of a file that read_png_parts() has written.

#include <csetjmp>
#include <cstring>
#include <vector>

#include <png.h>

#include "image/decoders.h"

namespace sweep_engine {

namespace {

struct DecodeState {
  std::string_view data;
  std::size_t offset = 0;
  std::jmp_buf escape;
  char message[200] = {};
  std::vector<png_bytep> rows;
  std::vector<std::uint8_t> rgba;
  Image image;
};

/// Frees the decoder on every exit path, including std::bad_alloc.
struct Cleanup {
  png_structp png;
  png_infop info;
  ~Cleanup() { png_destroy_read_struct(&png, &info, nullptr); }
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto* state = static_cast<DecodeState*>(png_get_error_ptr(png));
  std::strncpy(state->message, message, sizeof state->message - 1);
  std::longjmp(state->escape, 1);
}

// Warnings concern data after the last pixel.
void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep out, png_size_t count) {
  auto* state = static_cast<DecodeState*>(png_get_io_ptr(png));
  if (count > state->data.size() - state->offset) png_error(png, "unexpected end of data");
  std::memcpy(out, state->data.data() + state->offset, count);
  state->offset += count;
}

bool read_header(png_structp png, png_infop info, DecodeState& state) {
  if (setjmp(state.escape) != 0) return false;
  png_set_read_fn(png, &state, &on_read);
  // All pixel data at once, so that a wrong checksum of the last pixels is an error for every size of file.
  png_set_compression_buffer_size(png, state.data.size());
  png_set_user_limits(png, 0x7fffffff, 0x7fffffff);  // decode_png() checks max_image_pixels
  png_read_info(png, info);
  return true;
}

bool read_pixels(png_structp png, png_infop info, DecodeState& state) {
  if (setjmp(state.escape) != 0) return false;
  png_set_strip_16(png);
  png_set_palette_to_rgb(png);
  if (png_get_color_type(png, info) == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(png, info) < 8) {
    png_set_expand_gray_1_2_4_to_8(png);
  }
  if (png_get_valid(png, info, PNG_INFO_tRNS) != 0) png_set_tRNS_to_alpha(png);
  png_set_gray_to_rgb(png);
  png_set_add_alpha(png, 0xFF, PNG_FILLER_AFTER);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  if (png_get_rowbytes(png, info) != static_cast<std::size_t>(state.image.width) * 4) {
    png_error(png, "unsupported pixel format");
  }
  png_read_image(png, state.rows.data());
  png_read_end(png, nullptr);
  return true;
}

}  // namespace

Result<Image> decode_png(const FileParts& file) {
  DecodeState state;
  state.data = file.data;
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &state, &on_error, &on_warning);
  if (png == nullptr) return Status(StatusCode::out_of_memory, "not enough memory to decode the image");
  png_infop info = png_create_info_struct(png);
  const Cleanup cleanup{png, info};
  bool done = info != nullptr && read_header(png, info, state);
  Status status;
  if (done) {
    status = check_image_size(png_get_image_width(png, info), png_get_image_height(png, info));
    if (status.ok()) {
      state.image.width = static_cast<int>(png_get_image_width(png, info));
      state.image.height = static_cast<int>(png_get_image_height(png, info));
      const std::size_t stride = static_cast<std::size_t>(state.image.width) * 4;
      state.rgba.resize(stride * static_cast<std::size_t>(state.image.height));
      for (int y = 0; y < state.image.height; ++y) {
        state.rows.push_back(state.rgba.data() + stride * static_cast<std::size_t>(y));
      }
      done = read_pixels(png, info, state);
    }
  }
  if (!status.ok()) return status;
  if (!done)
    return Status(StatusCode::image_invalid, std::string("the PNG data is damaged: ") + state.message);
  state.image.rgb = composite_over_white(state.rgba.data(), state.rgba.size());
  return std::move(state.image);
}

}  // namespace sweep_engine

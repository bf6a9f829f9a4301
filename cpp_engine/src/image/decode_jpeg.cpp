// JPEG decoding with libjpeg-turbo, of a file that read_jpeg_parts() has written. Python uses the same
// library, so the pixels are identical.

#include <csetjmp>
#include <cstdio>
#include <vector>

#include <jpeglib.h>

#include <jerror.h>

#include "image/decoders.h"

namespace sweep_engine {

namespace {

struct ErrorState {
  jpeg_error_mgr manager;  // must be first: on_error() casts from its address
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
  bool is_damage_known;
};

[[noreturn]] void on_error(j_common_ptr info) {
  auto* state = reinterpret_cast<ErrorState*>(info->err);
  info->err->format_message(info, state->message);
  std::longjmp(state->escape, 1);
}

void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;  // trace messages
  const auto* state = reinterpret_cast<const ErrorState*>(info->err);
  if (!state->is_damage_known) return;
  if (info->err->msg_code == JWRN_EXTRANEOUS_DATA) {
    const int marker = info->err->msg_parm.i[1];
    if (marker < JPEG_RST0 || marker > JPEG_RST0 + 7) return;  // the scan is complete
  }
  // libjpeg reports truncated and damaged data as warnings and fills the rest of the image with gray.
  on_error(info);
}

/// Owns no memory because longjmp() skips destructors; the caller owns the buffers.
struct DecodeState {
  jpeg_decompress_struct info;
  ErrorState error;
  std::vector<std::uint8_t>* pixels;
  std::vector<std::uint8_t>* row;
};

/// Frees the decoder on every exit path, including std::bad_alloc.
struct Cleanup {
  jpeg_decompress_struct* info;
  ~Cleanup() { jpeg_destroy_decompress(info); }
};

bool read_header(DecodeState& state, std::string_view data) {
  if (setjmp(state.error.escape) != 0) return false;
  jpeg_mem_src(&state.info, reinterpret_cast<const unsigned char*>(data.data()), data.size());
  jpeg_read_header(&state.info, TRUE);
  return true;
}

bool read_pixels(DecodeState& state) {
  if (setjmp(state.error.escape) != 0) return false;
  jpeg_start_decompress(&state.info);
  std::uint8_t* to = state.pixels->data();
  const bool cmyk = state.info.out_color_space == JCS_CMYK;
  while (state.info.output_scanline < state.info.output_height) {
    JSAMPROW row = cmyk ? state.row->data() : to;
    jpeg_read_scanlines(&state.info, &row, 1);
    if (!cmyk) {
      to += static_cast<std::size_t>(state.info.output_width) * 3;
      continue;
    }
    for (JDIMENSION x = 0; x < state.info.output_width; ++x) {
      const std::uint8_t* inverted = row + std::size_t{4} * x;  // Pillow assumes Adobe's inverted CMYK
      const int white = inverted[3];
      for (int i = 0; i < 3; ++i) {  // Pillow's cmyk2rgb: round(white - ink * white / 255)
        const int product = (255 - inverted[i]) * white + 128;
        const int level = white - (((product >> 8) + product) >> 8);
        *to++ = static_cast<std::uint8_t>(level < 0 ? 0 : level);
      }
    }
  }
  jpeg_finish_decompress(&state.info);
  return true;
}

}  // namespace

Result<Image> decode_jpeg(const FileParts& file) {
  Image image;
  std::vector<std::uint8_t> row;
  DecodeState state{};
  state.info.err = jpeg_std_error(&state.error.manager);
  state.error.manager.error_exit = &on_error;
  state.error.manager.emit_message = &on_message;
  state.error.is_damage_known = file.is_damage_known;
  state.pixels = &image.rgb;
  state.row = &row;
  jpeg_create_decompress(&state.info);
  const Cleanup cleanup{&state.info};
  bool done = read_header(state, file.data);
  Status status;
  if (done) {
    const bool cmyk = state.info.jpeg_color_space == JCS_CMYK || state.info.jpeg_color_space == JCS_YCCK;
    state.info.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    status = check_image_size(state.info.image_width, state.info.image_height);
    if (status.ok()) {
      image.width = static_cast<int>(state.info.image_width);
      image.height = static_cast<int>(state.info.image_height);
      image.rgb.resize(static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height) * 3);
      row.resize(static_cast<std::size_t>(image.width) * 4);
      done = read_pixels(state);
    }
  }
  if (!status.ok()) return status;
  if (!done)
    return Status(StatusCode::image_invalid, std::string("the JPEG data is damaged: ") + state.error.message);
  return image;
}

}  // namespace sweep_engine

// JPEG through libjpeg-turbo, the decoder Pillow uses: the same pixels, and damage is reported.

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <vector>

#include <jpeglib.h>

#include "image/decoders.h"

namespace sweep_engine {

namespace {

struct ErrorState {
  jpeg_error_mgr manager;  // first: libjpeg hands a pointer to it back to us
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void on_error(j_common_ptr info) {
  auto* state = reinterpret_cast<ErrorState*>(info->err);
  info->err->format_message(info, state->message);
  std::longjmp(state->escape, 1);  // NOLINT(cert-err52-cpp): libjpeg is C and knows no other way out
}

void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;  // a trace, not a warning
  // Truncated and damaged data only warn, and the rest of the picture would be gray.
  on_error(info);
}

/// Nothing here may own memory that a longjmp would lose: what it fills belongs to the caller.
struct JpegJob {
  jpeg_decompress_struct info;
  ErrorState error;
  std::vector<std::uint8_t>* pixels;
  std::vector<std::uint8_t>* row;
};

/// Frees the decoder on every way out, an exception of the vectors included.
struct Cleanup {
  jpeg_decompress_struct* info;
  ~Cleanup() { jpeg_destroy_decompress(info); }
};

bool read_header(JpegJob& job, std::string_view data) {
  if (setjmp(job.error.escape) != 0) return false;
  jpeg_mem_src(&job.info, reinterpret_cast<const unsigned char*>(data.data()), data.size());
  jpeg_read_header(&job.info, TRUE);
  return true;
}

bool read_pixels(JpegJob& job) {
  if (setjmp(job.error.escape) != 0) return false;
  jpeg_start_decompress(&job.info);
  std::uint8_t* to = job.pixels->data();
  const bool cmyk = job.info.out_color_space == JCS_CMYK;
  while (job.info.output_scanline < job.info.output_height) {
    JSAMPROW row = cmyk ? job.row->data() : to;
    jpeg_read_scanlines(&job.info, &row, 1);
    if (!cmyk) {
      to += static_cast<std::size_t>(job.info.output_width) * 3;
      continue;
    }
    for (JDIMENSION x = 0; x < job.info.output_width; ++x) {
      const std::uint8_t* inverted =
          row + std::size_t{4} * x;  // Adobe's convention, which Pillow assumes always
      const int white = inverted[3];
      for (int i = 0; i < 3; ++i) {  // Pillow's cmyk2rgb: white - ink * white / 255, rounded
        const int product = (255 - inverted[i]) * white + 128;
        const int level = white - (((product >> 8) + product) >> 8);
        *to++ = static_cast<std::uint8_t>(level < 0 ? 0 : level);
      }
    }
  }
  jpeg_finish_decompress(&job.info);
  return true;
}

}  // namespace

Result<Image> decode_jpeg(std::string_view data) {
  Image image;
  std::vector<std::uint8_t> row;
  JpegJob job{};
  job.info.err = jpeg_std_error(&job.error.manager);
  job.error.manager.error_exit = &on_error;
  job.error.manager.emit_message = &on_message;
  job.pixels = &image.rgb;
  job.row = &row;
  jpeg_create_decompress(&job.info);
  const Cleanup cleanup{&job.info};
  bool done = read_header(job, data);
  Status status;
  if (done) {
    const bool cmyk = job.info.jpeg_color_space == JCS_CMYK || job.info.jpeg_color_space == JCS_YCCK;
    job.info.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    status = check_image_size(job.info.image_width, job.info.image_height);
    if (status.ok()) {
      image.width = static_cast<int>(job.info.image_width);
      image.height = static_cast<int>(job.info.image_height);
      image.rgb.resize(static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height) * 3);
      row.resize(static_cast<std::size_t>(image.width) * 4);
      done = read_pixels(job);
    }
  }
  if (!status.ok()) return status;
  if (!done)
    return Status(StatusCode::image_invalid, std::string("the JPEG data is damaged: ") + job.error.message);
  return image;
}

}  // namespace sweep_engine

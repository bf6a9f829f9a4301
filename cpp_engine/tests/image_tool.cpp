// Decode images for the Python tests: image_tool OUT_DIR SIZE FILE ... writes OUT_DIR/0.ppm, 1.ppm, ... SIZE
// is -, or a size to resize to, e.g. 32x24, or a shorter side and the size of a center crop, e.g. 256/224.
// Prints one line per file: ok, or the error.

#include <cstdio>
#include <cstring>
#include <string>

#include "sweep_engine/image.h"

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  int width = 0;
  int height = 0;
  const bool crops = std::strchr(argv[2], '/') != nullptr;
  const bool resizes = !crops && std::strcmp(argv[2], "-") != 0;
  const char* format = crops ? "%d/%d" : "%dx%d";
  if ((crops || resizes) && std::sscanf(argv[2], format, &width, &height) != 2) return 2;
  for (int i = 3; i < argc; ++i) {
    sweep_engine::Result<sweep_engine::Image> image = sweep_engine::decode_image_file(argv[i]);
    if (image.ok() && resizes) image = sweep_engine::resize_image(image.value(), width, height);
    if (image.ok() && crops) {
      image = sweep_engine::resize_and_center_crop(image.value(), width, height, height);
    }
    if (!image.ok()) {
      std::printf("%s: %s\n", sweep_engine::status_code_name(image.status().code()),
                  image.status().message().c_str());
      continue;
    }
    const std::string path = std::string(argv[1]) + "/" + std::to_string(i - 3) + ".ppm";
    std::FILE* file = std::fopen(path.c_str(), "wb");
    if (file == nullptr) return 1;
    std::fprintf(file, "P6 %d %d 255\n", image.value().width, image.value().height);
    std::fwrite(image.value().rgb.data(), 1, image.value().rgb.size(), file);
    std::fclose(file);
    std::printf("ok\n");
  }
  return 0;
}

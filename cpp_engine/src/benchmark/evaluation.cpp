#include "sweep_engine/evaluation.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>
#include <string_view>
#include <system_error>
#include <thread>

namespace sweep_engine {

namespace {

constexpr std::uint64_t file_limit = std::uint64_t{8} << 30;
/// Little-endian.
std::uint32_t read_u32(const std::string& data, std::size_t offset) {
  std::uint32_t value = 0;
  for (std::size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(data[offset + i]);
  return value;
}

/// Read a file that begins with 8 bytes `magic` and the version 1.
Result<std::string> read_versioned_file(const std::string& path, std::string_view magic,
                                        std::size_t header_size) {
  Result<std::string> file = read_file(path, file_limit);
  if (!file.ok()) return file;
  const std::string& data = file.value();
  if (data.size() < header_size || data.compare(0, magic.size(), magic) != 0 || read_u32(data, 8) != 1) {
    return Status(StatusCode::io_error,
                  path + ": not a version 1 file with the signature " + std::string(magic));
  }
  return file;
}

Status wrong_file_size(const std::string& path, std::uint64_t got, std::uint64_t expected) {
  return {StatusCode::io_error,
          path + ": " + std::to_string(got) + " bytes, but its header requires " + std::to_string(expected)};
}

template <typename Number>
std::size_t top1(const Number* logits, std::size_t classes) {
  return static_cast<std::size_t>(std::max_element(logits, logits + classes) - logits);
}

/// Add one image. `mean_abs` holds the sum until finish() divides it.
template <typename Number>
void add_row(Parity& parity, const std::vector<float>& logits, const Number* reference) {
  ++parity.images;
  if (top1(logits.data(), logits.size()) == top1(reference, logits.size())) ++parity.same_top1;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(logits[i]) - static_cast<double>(reference[i]));
    parity.max_abs = std::max(parity.max_abs, difference);
    parity.mean_abs += difference;
  }
}

void finish(Parity& parity, std::size_t classes) {
  if (parity.images > 0) parity.mean_abs /= static_cast<double>(parity.images * classes);
}

}  // namespace

std::vector<std::uint8_t> ImageSet::image(std::size_t index) const {
  const std::size_t size = pixels.size() / count();
  const auto begin = pixels.begin() + static_cast<std::ptrdiff_t>(index * size);
  return {begin, begin + static_cast<std::ptrdiff_t>(size)};
}

Result<ImageSet> read_image_set(const std::string& path) {
  constexpr std::size_t header_size = 28;
  const Result<std::string> file = read_versioned_file(path, "SWEEPIMG", header_size);
  if (!file.ok()) return file.status();
  const std::string& data = file.value();
  const std::uint64_t count = read_u32(data, 12);
  const std::uint64_t channels = read_u32(data, 16);
  const std::uint64_t height = read_u32(data, 20);
  const std::uint64_t width = read_u32(data, 24);
  if (count < 1 || channels < 1 || channels > 4 || height < 1 || height > 4096 || width < 1 || width > 4096) {
    return Status(StatusCode::io_error,
                  path +
                      ": the image count or size in the header is out of range (1 to 4 channels, 1 to 4096 "
                      "pixels per side)");
  }
  const std::uint64_t expected = header_size + count * (4 + channels * height * width);
  if (data.size() != expected) return wrong_file_size(path, data.size(), expected);
  ImageSet set;
  set.channels = static_cast<int>(channels);
  set.height = static_cast<int>(height);
  set.width = static_cast<int>(width);
  for (std::size_t i = 0; i < count; ++i) set.labels.push_back(read_u32(data, header_size + 4 * i));
  set.pixels.assign(data.begin() + static_cast<std::ptrdiff_t>(header_size + 4 * count), data.end());
  return set;
}

Result<Logits> read_logits(const std::string& path) {
  constexpr std::size_t header_size = 20;
  const Result<std::string> file = read_versioned_file(path, "SWEEPLGT", header_size);
  if (!file.ok()) return file.status();
  const std::string& data = file.value();
  const std::uint64_t count = read_u32(data, 12);
  const std::uint64_t classes = read_u32(data, 16);
  if (count < 1 || classes < 1 || classes > 1000000) {
    return Status(StatusCode::io_error,
                  path + ": the number of rows or classes in the header is out of range");
  }
  const std::uint64_t expected = header_size + 4 * count * classes;
  if (data.size() != expected) return wrong_file_size(path, data.size(), expected);
  Logits logits;
  logits.classes = classes;
  logits.values.resize(count * classes);
  for (std::size_t i = 0; i < logits.values.size(); ++i) {
    const std::uint32_t bits = read_u32(data, header_size + 4 * i);
    std::memcpy(&logits.values[i], &bits, sizeof bits);
  }
  return logits;
}

Result<Parity> measure_parity(const Classifier& classifier) {
  const Manifest& manifest = classifier.manifest();
  Parity parity;
  for (std::size_t k = 0; k < manifest.self_test_logits.size(); ++k) {
    const Result<std::vector<float>> logits =
        classifier.logits(self_test_pattern(manifest.input, static_cast<int>(k)));
    if (!logits.ok()) return logits.status();
    add_row(parity, logits.value(), manifest.self_test_logits[k].data());
  }
  finish(parity, manifest.classes.size());
  return parity;
}

Result<Accuracy> measure_accuracy(const Classifier& classifier, const ImageSet& images,
                                  const Logits& reference, int workers,
                                  const std::function<void(std::size_t)>& progress) {
  const InputSpec& input = classifier.manifest().input;
  if (images.channels != input.channels || images.height != input.height || images.width != input.width) {
    return Status(StatusCode::invalid_argument,
                  "the images are " + std::to_string(images.width) + " x " + std::to_string(images.height) +
                      ", but the network input is " + std::to_string(input.width) + " x " +
                      std::to_string(input.height));
  }
  const std::size_t classes = classifier.manifest().classes.size();
  if (reference.count() > 0 && (reference.count() != images.count() || reference.classes != classes)) {
    return Status(StatusCode::invalid_argument,
                  "the reference logits are " + std::to_string(reference.count()) + " x " +
                      std::to_string(reference.classes) + ", but there are " +
                      std::to_string(images.count()) + " images and " + std::to_string(classes) + " classes");
  }
  std::atomic<std::size_t> next{0};
  std::atomic<std::size_t> correct{0};
  std::mutex guard;
  Status failure;
  Parity parity;
  const auto work = [&](const std::function<void(std::size_t)>& report) {
    for (std::size_t i = next++; i < images.count(); i = next++) {
      const Result<std::vector<float>> logits = classifier.logits(images.image(i));
      if (!logits.ok()) {
        const std::lock_guard<std::mutex> lock(guard);
        failure = logits.status();
        next = images.count();
        return;
      }
      if (top1(logits.value().data(), classes) == images.labels[i]) ++correct;
      report(std::min(next.load(), images.count()));
      if (reference.count() == 0) continue;
      const std::lock_guard<std::mutex> lock(guard);
      add_row(parity, logits.value(), reference.values.data() + i * classes);
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < std::clamp(workers, 1, 256); ++i) {
    try {
      threads.emplace_back(work, [](std::size_t) {});
    } catch (const std::system_error&) {
      break;  // continue with fewer threads
    }
  }
  work(progress);
  for (std::thread& thread : threads) thread.join();
  if (!failure.ok()) return failure;
  finish(parity, classes);
  return Accuracy{images.count(), correct.load(), parity};
}

}  // namespace sweep_engine

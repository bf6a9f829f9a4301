#include "sweep_engine/dataset.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <string_view>
#include <system_error>
#include <thread>

namespace sweep_engine {

namespace {

constexpr std::uint64_t file_limit = std::uint64_t{8} << 30;
constexpr std::string_view mark = "SWEEPIMG";
constexpr std::size_t header_size = 28;

std::uint32_t little32(const std::string& data, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(data[at + i]);
  return value;
}

}  // namespace

std::vector<std::uint8_t> ImageSet::pixels(std::size_t index) const {
  const std::size_t size = levels.size() / count();
  const auto begin = levels.begin() + static_cast<std::ptrdiff_t>(index * size);
  return {begin, begin + static_cast<std::ptrdiff_t>(size)};
}

Result<ImageSet> read_image_set(const std::string& path) {
  const Result<std::string> file = read_file(path, file_limit);
  if (!file.ok()) return file.status();
  const std::string& data = file.value();
  const auto bad = [&](const std::string& what) { return Status(StatusCode::io_error, path + ": " + what); };
  if (data.size() < header_size || data.compare(0, mark.size(), mark) != 0 || little32(data, 8) != 1) {
    return bad("is not an image set of version 1 (it does not begin with SWEEPIMG)");
  }
  const std::uint64_t count = little32(data, 12);
  const std::uint64_t channels = little32(data, 16);
  const std::uint64_t height = little32(data, 20);
  const std::uint64_t width = little32(data, 24);
  if (count < 1 || channels < 1 || channels > 4 || height < 1 || height > 4096 || width < 1 || width > 4096) {
    return bad("declares a size that is not allowed");
  }
  const std::uint64_t expected = header_size + count * (4 + channels * height * width);
  if (data.size() != expected) {
    return bad("has " + std::to_string(data.size()) + " bytes where its header needs " +
               std::to_string(expected));
  }
  ImageSet set;
  set.channels = static_cast<int>(channels);
  set.height = static_cast<int>(height);
  set.width = static_cast<int>(width);
  for (std::size_t i = 0; i < count; ++i) set.labels.push_back(little32(data, header_size + 4 * i));
  set.levels.assign(data.begin() + static_cast<std::ptrdiff_t>(header_size + 4 * count), data.end());
  return set;
}

Result<Accuracy> measure_accuracy(const Classifier& classifier, const ImageSet& images, int workers) {
  const InputSpec& input = classifier.manifest().input;
  if (images.channels != input.channels || images.height != input.height || images.width != input.width) {
    return Status(StatusCode::invalid_argument, "the pictures are " + std::to_string(images.width) + " x " +
                                                    std::to_string(images.height) + ", the network takes " +
                                                    std::to_string(input.width) + " x " +
                                                    std::to_string(input.height));
  }
  std::atomic<std::size_t> next{0};
  std::atomic<std::size_t> correct{0};
  std::mutex guard;
  Status failure;
  const auto work = [&] {
    for (std::size_t i = next++; i < images.count(); i = next++) {
      const Result<std::vector<float>> logits = classifier.logits(images.pixels(i));
      if (!logits.ok()) {
        const std::lock_guard<std::mutex> lock(guard);
        failure = logits.status();
        next = images.count();
        return;
      }
      const auto& values = logits.value();
      const auto best = std::max_element(values.begin(), values.end()) - values.begin();
      if (static_cast<std::uint32_t>(best) == images.labels[i]) ++correct;
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < std::clamp(workers, 1, 256); ++i) {
    try {
      threads.emplace_back(work);
    } catch (const std::system_error&) {
      break;  // fewer threads do the same work
    }
  }
  work();
  for (std::thread& thread : threads) thread.join();
  if (!failure.ok()) return failure;
  return Accuracy{images.count(), correct.load()};
}

}  // namespace sweep_engine

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
constexpr std::string_view mark = "SWEEPIMG";
constexpr std::size_t header_size = 28;

std::uint32_t little32(const std::string& data, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(data[at + i]);
  return value;
}

template <typename Number>
std::size_t top1(const Number* logits, std::size_t classes) {
  return static_cast<std::size_t>(std::max_element(logits, logits + classes) - logits);
}

/// Adds sums to what finish() makes a mean of.
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

Result<Logits> read_logits(const std::string& path) {
  const Result<std::string> file = read_file(path, file_limit);
  if (!file.ok()) return file.status();
  const std::string& data = file.value();
  constexpr std::string_view logits_mark = "SWEEPLGT";
  constexpr std::size_t head = 20;
  if (data.size() < head || data.compare(0, logits_mark.size(), logits_mark) != 0 || little32(data, 8) != 1) {
    return Status(StatusCode::io_error,
                  path + ": is not a file of logits of version 1 (it does not begin with SWEEPLGT)");
  }
  const std::uint64_t count = little32(data, 12);
  const std::uint64_t classes = little32(data, 16);
  if (count < 1 || classes < 1 || classes > 1000000 || data.size() != head + 4 * count * classes) {
    return Status(StatusCode::io_error, path + ": its size and its header do not agree");
  }
  Logits logits;
  logits.classes = classes;
  logits.values.resize(count * classes);
  for (std::size_t i = 0; i < logits.values.size(); ++i) {
    const std::uint32_t bits = little32(data, head + 4 * i);
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
                                  const Logits& reference, int workers) {
  const InputSpec& input = classifier.manifest().input;
  if (images.channels != input.channels || images.height != input.height || images.width != input.width) {
    return Status(StatusCode::invalid_argument, "the pictures are " + std::to_string(images.width) + " x " +
                                                    std::to_string(images.height) + ", the network takes " +
                                                    std::to_string(input.width) + " x " +
                                                    std::to_string(input.height));
  }
  const std::size_t classes = classifier.manifest().classes.size();
  if (reference.count() > 0 && (reference.count() != images.count() || reference.classes != classes)) {
    return Status(StatusCode::invalid_argument,
                  "the reference has " + std::to_string(reference.count()) + " rows of " +
                      std::to_string(reference.classes) + " logits, the pictures are " +
                      std::to_string(images.count()) + " and the classes " + std::to_string(classes));
  }
  std::atomic<std::size_t> next{0};
  std::atomic<std::size_t> correct{0};
  std::mutex guard;
  Status failure;
  Parity parity;
  const auto work = [&] {
    for (std::size_t i = next++; i < images.count(); i = next++) {
      const Result<std::vector<float>> logits = classifier.logits(images.pixels(i));
      if (!logits.ok()) {
        const std::lock_guard<std::mutex> lock(guard);
        failure = logits.status();
        next = images.count();
        return;
      }
      if (top1(logits.value().data(), classes) == images.labels[i]) ++correct;
      if (reference.count() == 0) continue;
      const std::lock_guard<std::mutex> lock(guard);
      add_row(parity, logits.value(), reference.values.data() + i * classes);
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
  finish(parity, classes);
  return Accuracy{images.count(), correct.load(), parity};
}

}  // namespace sweep_engine

#include "onednn/activations.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace sweep_engine::onednn {

namespace {

std::uint16_t to_bf16(float number) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &number, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

float from_bf16(std::uint16_t half) {
  const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
  float number = 0.0F;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

std::size_t count_pixels(const Shape& shape) {
  return static_cast<std::size_t>(shape.w) * static_cast<std::size_t>(shape.h);
}

template <typename T, typename Convert>
void interleave_channels(const Executor::Images& images, const Shape& shape, char* to, Convert convert) {
  const auto channels = static_cast<std::size_t>(shape.c);
  const std::size_t pixels = count_pixels(shape);
  T* out = reinterpret_cast<T*>(to);
  for (int image = 0; image < images.count; ++image) {
    const float* planes = images.values + static_cast<std::size_t>(image) * images.image_stride;
    for (std::size_t c = 0; c < channels; ++c) {
      const float* plane = planes + c * images.plane_stride;
      for (std::size_t i = 0; i < pixels; ++i) out[i * channels + c] = convert(plane[i]);
    }
    out += pixels * channels;
  }
}

template <typename T, typename Convert>
void average(const char* from, const Value& input, int images, float* means, Convert convert) {
  const auto channels = static_cast<std::size_t>(input.shape.c);
  const std::size_t pixels = count_pixels(input.shape);
  const T* numbers = reinterpret_cast<const T*>(from);
  for (int image = 0; image < images; ++image) {
    std::fill(means, means + channels, 0.0F);
    for (std::size_t i = 0; i < pixels; ++i) {
      for (std::size_t c = 0; c < channels; ++c) means[c] += convert(numbers[c]);
      numbers += channels;
    }
    for (std::size_t c = 0; c < channels; ++c) means[c] /= input.scale * static_cast<float>(pixels);
    means += channels;
  }
}

}  // namespace

std::vector<std::size_t> place_values(const Network& network, const std::vector<std::size_t>& bytes,
                                      std::size_t& total) {
  struct Range {
    std::size_t begin;
    std::size_t end;
    int last_use;
  };
  std::vector<Range> used;
  std::vector<std::size_t> offsets(bytes.size());
  total = 0;
  const auto last_use = [&](int index) { return network.value(index).last_use; };
  const auto place = [&](int index, int operation) {
    used.erase(std::remove_if(used.begin(), used.end(),
                              [&](const Range& range) { return range.last_use < operation; }),
               used.end());
    std::sort(used.begin(), used.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
    const std::size_t size = (bytes[static_cast<std::size_t>(index)] + alignment - 1) / alignment * alignment;
    std::size_t begin = 0;
    for (const Range& range : used) {
      if (begin + size <= range.begin) break;
      begin = range.end;
    }
    used.push_back({begin, begin + size, last_use(index)});
    offsets[static_cast<std::size_t>(index)] = begin;
    total = std::max(total, begin + size);
  };
  place(0, 0);
  for (std::size_t i = 0; i < network.operations.size(); ++i) {
    const Operation& operation = network.operations[i];
    if (!operation.accumulates) {
      place(operation.output, static_cast<int>(i));
      continue;
    }
    const std::size_t begin = offsets[static_cast<std::size_t>(operation.residual)];
    offsets[static_cast<std::size_t>(operation.output)] = begin;
    for (Range& range : used) {
      if (range.begin == begin) range.last_use = last_use(operation.output);
    }
  }
  return offsets;
}

void write_input(const Executor::Images& images, const Value& input, char* to) {
  if (input.format == Format::fp32) {
    interleave_channels<float>(images, input.shape, to, [](float number) { return number; });
  } else if (input.format == Format::bf16) {
    interleave_channels<std::uint16_t>(images, input.shape, to, to_bf16);
  } else {
    // An image has negative numbers, so its format is s8. Saturate before the conversion to an integer, which
    // is undefined for numbers out of range.
    interleave_channels<std::int8_t>(images, input.shape, to, [scale = input.scale](float number) {
      const float scaled = number * scale;
      return static_cast<std::int8_t>(scaled > -127.0F ? std::nearbyint(std::min(scaled, 127.0F)) : -127.0F);
    });
  }
}

void write_means(const char* from, const Value& input, int images, float* means) {
  const auto number = [](auto stored) { return static_cast<float>(stored); };
  switch (input.format) {
    case Format::fp32: return average<float>(from, input, images, means, number);
    case Format::bf16: return average<std::uint16_t>(from, input, images, means, from_bf16);
    case Format::s8: return average<std::int8_t>(from, input, images, means, number);
    case Format::u8: return average<std::uint8_t>(from, input, images, means, number);
  }
}

}  // namespace sweep_engine::onednn

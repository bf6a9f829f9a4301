#pragma once

#include <cstdint>

namespace sweep_engine {

/// Tags in front of the weight arrays of a .bin file (ncnn's modelbin.cpp).
constexpr std::uint32_t tag_fp32 = 0;
constexpr std::uint32_t tag_fp16 = 0x01306B47;
constexpr std::uint32_t tag_bf16 = 0x01348B83;
constexpr std::uint32_t tag_int8 = 0x000D4B38;

/// Size of an array of `count` weights, which is padded to four bytes.
inline std::uint64_t weight_bytes(std::uint32_t tag, std::uint64_t count) {
  const std::uint64_t bytes_per_weight = tag == tag_fp32 ? 4 : (tag == tag_int8 ? 1 : 2);
  return (count * bytes_per_weight + 3) / 4 * 4;
}

}  // namespace sweep_engine

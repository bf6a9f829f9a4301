#pragma once

#include <cstddef>
#include <vector>

#include "onednn/executor.h"
#include "onednn/network.h"

namespace sweep_engine::onednn {

/// Of every address in a workspace, in bytes.
constexpr std::size_t alignment = 64;

/// Choose the offset of each value in a workspace. Values that do not exist at the same time share memory,
/// which keeps the activations of a small network in the cache.
/// @param bytes  size of each value
/// @param total  receives the size of all of them
std::vector<std::size_t> place_values(const Network& network, const std::vector<std::size_t>& bytes,
                                      std::size_t& total);

/// Convert images to NHWC in the format of the network's input.
void write_input(const Executor::Images& images, const Value& input, char* to);

/// Mean of each channel over the pixels of each image.
/// @param means  [images, channels]
void write_means(const char* from, const Value& input, int images, float* means);

}  // namespace sweep_engine::onednn

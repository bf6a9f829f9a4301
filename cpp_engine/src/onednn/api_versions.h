#pragma once

#include <vector>

#include <dnnl.hpp>

// The differences between oneDNN 2 (Debian 12, Ubuntu 22.04 and 24.04) and oneDNN 3.

namespace sweep_engine::onednn {

using Dims = dnnl::memory::dims;
using MemoryDesc = dnnl::memory::desc;

/// Geometry of a convolution or pooling: height, width.
struct Window {
  Dims kernel;
  Dims stride;
  Dims pad_before;
  Dims pad_after;
};

inline void append_relu(dnnl::post_ops& post_ops) {
#if DNNL_VERSION_MAJOR >= 3
  post_ops.append_eltwise(dnnl::algorithm::eltwise_relu, 0.0F, 0.0F);
#else
  post_ops.append_eltwise(1.0F, dnnl::algorithm::eltwise_relu, 0.0F, 0.0F);
#endif
}

/// Multiply the sums of an int8 convolution by one factor per output channel. In oneDNN 3 the factors are an
/// argument of the execution, and the bias is added behind the multiplication instead of before it.
inline void set_output_factors(dnnl::primitive_attr& attributes, const std::vector<float>& factors) {
#if DNNL_VERSION_MAJOR >= 3
  (void)factors;
  attributes.set_scales_mask(DNNL_ARG_WEIGHTS, 1);
#else
  attributes.set_output_scales(1 << 1, factors);
#endif
}

#if DNNL_VERSION_MAJOR >= 3
constexpr bool factors_are_arguments = true;
constexpr int factors_argument = DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS;
#else
constexpr bool factors_are_arguments = false;
constexpr int factors_argument = 0;
#endif

/// @returns an empty descriptor if oneDNN has no kernel
inline dnnl::convolution_forward::primitive_desc describe_convolution(
    const dnnl::engine& engine, const MemoryDesc& input, const MemoryDesc& weights, const MemoryDesc& bias,
    const MemoryDesc& output, const Window& window, const dnnl::primitive_attr& attributes) {
  const auto kind = dnnl::prop_kind::forward_inference;
  const auto direct = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return {
      engine,           kind,       direct, input, weights, bias, output, window.stride, window.pad_before,
      window.pad_after, attributes, true};
#else
  const dnnl::convolution_forward::desc operation(kind, direct, input, weights, bias, output, window.stride,
                                                  window.pad_before, window.pad_after);
  return {operation, attributes, engine, true};
#endif
}

inline dnnl::pooling_forward::primitive_desc describe_max_pool(const dnnl::engine& engine,
                                                               const MemoryDesc& input,
                                                               const MemoryDesc& output, const Window& window,
                                                               const dnnl::primitive_attr& attributes) {
  const auto kind = dnnl::prop_kind::forward_inference;
  const auto max = dnnl::algorithm::pooling_max;
#if DNNL_VERSION_MAJOR >= 3
  return {engine,
          kind,
          max,
          input,
          output,
          window.stride,
          window.kernel,
          Dims{0, 0},
          window.pad_before,
          window.pad_after,
          attributes,
          true};
#else
  const dnnl::pooling_forward::desc operation(kind, max, input, output, window.stride, window.kernel,
                                              window.pad_before, window.pad_after);
  return {operation, attributes, engine, true};
#endif
}

inline dnnl::inner_product_forward::primitive_desc describe_linear(
    const dnnl::engine& engine, const MemoryDesc& input, const MemoryDesc& weights, const MemoryDesc& bias,
    const MemoryDesc& output, const dnnl::primitive_attr& attributes) {
  const auto kind = dnnl::prop_kind::forward_inference;
#if DNNL_VERSION_MAJOR >= 3
  return {engine, kind, input, weights, bias, output, attributes, true};
#else
  const dnnl::inner_product_forward::desc operation(kind, input, weights, bias, output);
  return {operation, attributes, engine, true};
#endif
}

}  // namespace sweep_engine::onednn

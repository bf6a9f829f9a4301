# The part of ncnn the engine needs, and nothing else: one static library in a third of the full build's time.
# Used in two ways: `cmake -C` by deploy/engine_build/ncnn_source.py, and `include()` for -DNCNN_SOURCE_DIR=.
# Both set NCNN_SOURCE_DIR first.

if(NOT EXISTS "${NCNN_SOURCE_DIR}/src/CMakeLists.txt")
  message(FATAL_ERROR "NCNN_SOURCE_DIR must name ncnn's source tree (with src/CMakeLists.txt), got '${NCNN_SOURCE_DIR}'")
endif()

function(ncnn_option name value)
  set(${name} ${value} CACHE BOOL "set by ncnn_options.cmake" FORCE)
endfunction()

# Without it the version is the date of the build, and no two builds are alike.
if(NOT NCNN_VERSION)
  set(NCNN_VERSION 20261020 CACHE STRING "ncnn's version" FORCE)
endif()

ncnn_option(NCNN_OPENMP ON)
ncnn_option(NCNN_VULKAN OFF)
ncnn_option(NCNN_INSTALL_SDK ON)
# The source distribution has none of these folders, and their defaults are ON.
ncnn_option(NCNN_BUILD_TOOLS OFF)
ncnn_option(NCNN_BUILD_EXAMPLES OFF)
ncnn_option(NCNN_BUILD_BENCHMARK OFF)
ncnn_option(NCNN_BUILD_TESTS OFF)
# Image reading would define stb_image's functions a second time.
ncnn_option(NCNN_SIMPLEOCV OFF)
ncnn_option(NCNN_C_API OFF)
ncnn_option(NCNN_PIXEL OFF)
ncnn_option(NCNN_PIXEL_ROTATE OFF)
ncnn_option(NCNN_PIXEL_AFFINE OFF)
ncnn_option(NCNN_PIXEL_DRAWING OFF)
ncnn_option(NCNN_WEIGHT_QUANT OFF)
# Instruction sets of one AMD generation each, before AVX2; and half-precision arithmetic the engine never asks for.
ncnn_option(NCNN_XOP OFF)
ncnn_option(NCNN_FMA4 OFF)
ncnn_option(NCNN_AVX512FP16 OFF)

# Names in lower case: ncnn ignores WITH_LAYER_Convolution without a word.
# gemm stays although no model has one: int8 convolution links against its kernels.
set(ncnn_layers
  batchnorm binaryop cast concat convolution crop dequantize dropout eltwise flatten gemm innerproduct input
  memorydata noop packing padding pooling quantize reduction relu requantize reshape softmax split unaryop)
file(STRINGS "${NCNN_SOURCE_DIR}/src/CMakeLists.txt" ncnn_layer_lines REGEX "^ncnn_add_layer\\(")
foreach(line IN LISTS ncnn_layer_lines)
  string(REGEX REPLACE "^ncnn_add_layer\\(([A-Za-z0-9_]+).*" "\\1" layer "${line}")
  string(TOLOWER "${layer}" layer)
  if(layer IN_LIST ncnn_layers)
    ncnn_option(WITH_LAYER_${layer} ON)
  else()
    ncnn_option(WITH_LAYER_${layer} OFF)
  endif()
endforeach()

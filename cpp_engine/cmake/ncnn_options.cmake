# Options for a minimal static ncnn with only the layers of the engine; it builds in a third of the full build's time.
# Used by `cmake -C` (deploy/engine_build/ncnn_source.py) and by include() for -DNCNN_SOURCE_DIR=. NCNN_SOURCE_DIR must
# be set.

if(NOT EXISTS "${NCNN_SOURCE_DIR}/src/CMakeLists.txt")
  message(FATAL_ERROR "NCNN_SOURCE_DIR must be ncnn's source tree (with src/CMakeLists.txt), got '${NCNN_SOURCE_DIR}'")
endif()

function(ncnn_option name value)
  set(${name} ${value} CACHE BOOL "set by ncnn_options.cmake" FORCE)
endfunction()

# ncnn's default version is the build date, which makes builds irreproducible.
if(NOT NCNN_VERSION)
  set(NCNN_VERSION 20261020 CACHE STRING "ncnn's version" FORCE)
endif()

ncnn_option(NCNN_OPENMP ON)
ncnn_option(NCNN_VULKAN OFF)
ncnn_option(NCNN_INSTALL_SDK ON)
# The source distribution lacks these folders, but their defaults are ON.
ncnn_option(NCNN_BUILD_TOOLS OFF)
ncnn_option(NCNN_BUILD_EXAMPLES OFF)
ncnn_option(NCNN_BUILD_BENCHMARK OFF)
ncnn_option(NCNN_BUILD_TESTS OFF)
# ncnn's image reading would define stb_image's symbols a second time.
ncnn_option(NCNN_SIMPLEOCV OFF)
ncnn_option(NCNN_C_API OFF)
ncnn_option(NCNN_PIXEL OFF)
ncnn_option(NCNN_PIXEL_ROTATE OFF)
ncnn_option(NCNN_PIXEL_AFFINE OFF)
ncnn_option(NCNN_PIXEL_DRAWING OFF)
ncnn_option(NCNN_WEIGHT_QUANT OFF)
# Instruction sets of single pre-AVX2 AMD generations, and fp16 arithmetic, which the engine does not use.
ncnn_option(NCNN_XOP OFF)
ncnn_option(NCNN_FMA4 OFF)
ncnn_option(NCNN_AVX512FP16 OFF)

# ncnn silently ignores layer names that are not lower case, e.g. WITH_LAYER_Convolution.
# gemm is required although no model uses it: int8 convolution links against its kernels.
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

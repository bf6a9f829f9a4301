#pragma once

#include <cstddef>

// The engine as a shared library, for deploy/engine_build/engine_model.py. Errors are written to `error`,
// which has room for `error_size` bytes.

extern "C" {

struct SweepEngineModel;

/// Load and check a model folder.
/// @param kernels  auto, ncnn or onednn
/// @returns null on an error
SweepEngineModel* sweep_engine_load(const char* folder, int threads, const char* kernels, int self_test,
                                    char* error, std::size_t error_size);

void sweep_engine_free(SweepEngineModel* model);

/// Versions of the engine and its libraries, as in `0.1.0 (ncnn 1.0, oneDNN 2.6.3)`.
const char* sweep_engine_version();

/// The kernels in use: ncnn or onednn.
const char* sweep_engine_kernels(const SweepEngineModel* model);

/// Number of logits per image.
int sweep_engine_classes(const SweepEngineModel* model);

/// Run the network on normalized images.
/// @param images  [count, channels, height, width]
/// @param logits  [count, classes]
/// @returns 0, or 1 on an error
int sweep_engine_infer(const SweepEngineModel* model, const float* images, int count, float* logits,
                       char* error, std::size_t error_size);
}

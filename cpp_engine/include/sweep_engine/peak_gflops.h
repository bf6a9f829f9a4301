#pragma once

#include <optional>

#include "sweep_engine/model_folder.h"

namespace sweep_engine {

/// What one core reaches in a loop of nothing but multiply-accumulates held in registers, in 1e9 operations a
/// second (a multiply-accumulate is two): fp32 by FMA, bf16 by dot products of bfloat16, int8 by VNNI. The
/// upper limit of any kernel, at the clock of this moment.
/// @returns nothing where the processor has no such instruction, or this program does not know it (not x86)
std::optional<double> measure_peak_gflops(Precision precision);

}  // namespace sweep_engine

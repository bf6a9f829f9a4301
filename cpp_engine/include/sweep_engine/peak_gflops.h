#pragma once

#include <optional>

#include "sweep_engine/model_folder.h"

namespace sweep_engine {

/// Peak arithmetic throughput of one core in 1e9 operations per second (a multiply-accumulate counts as two),
/// measured in a loop of register-only instructions at the current clock rate: FMA for fp32, bfloat16 dot
/// products for bf16, VNNI for int8. It is the upper bound for any kernel.
/// @returns nullopt if the processor lacks the instruction or is not x86-64
std::optional<double> measure_peak_gflops(Precision precision);

}  // namespace sweep_engine

#pragma once

#include <vector>

namespace sweep_engine {

/// Quantile with linear interpolation, like NumPy's default.
/// @param values  at least one, in any order
/// @param p       0 (minimum) to 1 (maximum)
[[nodiscard]] double percentile(std::vector<double> values, double p);

/// @param values  at least one
[[nodiscard]] double mean(const std::vector<double>& values);

}  // namespace sweep_engine

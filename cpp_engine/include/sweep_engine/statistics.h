#pragma once

#include <vector>

namespace sweep_engine {

/// The value below which the share `p` of the values lies, interpolated linearly between neighbors as NumPy
/// does.
/// @param values  at least one, in any order
/// @param p       0 (the smallest) to 1 (the largest)
double percentile(std::vector<double> values, double p);

double mean(const std::vector<double>& values);

}  // namespace sweep_engine

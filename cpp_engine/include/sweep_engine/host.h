#pragma once

#include <string>

#include "sweep_engine/json.h"

namespace sweep_engine {

/// Cumulative load counters of the machine. Two samples, before and after a measurement, give the load.
struct LoadSample {
  double time_s = 0.0;    ///< steady clock
  double stall_s = -1.0;  ///< time in which some task waited for a CPU (PSI); negative if unknown
  double steal_s = -1.0;  ///< time stolen by the hypervisor, summed over CPUs; negative if unknown
};

[[nodiscard]] LoadSample sample_load();

/// JSON record of the load between two samples: duration_s, cpu_stall_share, steal_share (null if unknown),
/// load_average, trustworthy (whether measurements from this interval are reliable), reason.
Json describe_noise(const LoadSample& before, const LoadSample& after);

/// JSON record of the date, processor, cores, memory, operating system and software versions.
Json describe_host();

/// Model name of the processor. On x86 it includes family and model, because virtual machines give processors
/// of different generations the same name. Empty if unknown. Must match deploy/winograd/measured_choice.py.
std::string processor_name();

/// Peak resident set size of this process in MiB.
double peak_rss_mb();

/// Versions of the engine and the libraries of its kernels, as in `0.1.0 (ncnn 1.0, oneDNN 2.6.3)`.
std::string describe_versions();

}  // namespace sweep_engine

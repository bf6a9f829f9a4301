#pragma once

#include <string>

#include "sweep_engine/json.h"

namespace sweep_engine {

/// How busy the machine was, in running totals; take one before and one after.
struct LoadSample {
  double at_s = 0.0;        ///< steady clock
  double stalled_s = -1.0;  ///< time in which some task waited for a processor (PSI); negative when unknown
  double steal_s = -1.0;    ///< time the hypervisor gave to others, all processors; negative when unknown
};

LoadSample sample_load();

/// The share of the time between two samples that was lost, and whether figures taken in it can be trusted.
/// Members: cpu_stall_share, steal_share (null when the machine does not tell), load_average, trustworthy,
/// reason.
Json describe_noise(const LoadSample& before, const LoadSample& after);

/// Date, processor, cores, memory, operating system, and the versions this program is made of.
Json describe_host();

/// The processor's marketing name, on x86 with its family and model: virtual machines call processors of
/// several generations by one name. Empty where the system does not tell. deploy/winograd/measured_choice.py
/// says the same.
std::string processor_name();

/// Largest resident set of this process so far, MiB (1024 * 1024 bytes).
double peak_rss_mb();

const char* engine_version();

}  // namespace sweep_engine

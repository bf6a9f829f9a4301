#pragma once

#include <functional>
#include <string>
#include <vector>

#include "sweep_engine/json.h"
#include "sweep_engine/status.h"

namespace sweep_engine {

/// What a latency benchmark runs, and for how long.
struct BenchmarkSettings {
  std::vector<int> threads = {1};  ///< OpenMP threads of one inference, one configuration each
  int warmup = 10;                 ///< unmeasured inferences of each configuration
  int repetitions = 200;           ///< at least so many measured inferences of each configuration
  double min_time_s = 1.0;         ///< and at least so much measured time of each
  double max_time_s = 60.0;        ///< but no more than that, whatever the repetitions, once there are ten
};

/// What it costs to get the first answer, measured in a process of its own.
struct ColdStart {
  double load_ms = 0.0;  ///< reading, checking and preparing the model, its files in the page cache
  double first_inference_ms = 0.0;  ///< right after loading
  double peak_rss_mb = 0.0;         ///< MiB, after the first inference
};

/// One configuration's measurements: single-stream latency, one image at a time.
struct LatencySeries {
  int threads = 1;
  ColdStart cold;
  std::vector<double> samples_ms;  ///< wall time of each inference, from prepared input to logits
  std::vector<double> cpu_ms;      ///< processor time of the process meanwhile, all threads
};

/// Told what the benchmark is doing, one line at a time.
using Progress = std::function<void(const std::string&)>;

/// Fork, load the model there, run it once. Call it before this process has any threads.
Result<ColdStart> measure_cold_start(const std::string& folder, int threads);

/// Run all configurations in turn, a few inferences each, until every one has enough: what disturbs the
/// machine then disturbs all of them alike, so that their ratios hold.
Result<std::vector<LatencySeries>> measure_latency(const std::string& folder,
                                                   const BenchmarkSettings& settings,
                                                   const Progress& progress);

/// One series as a record: threads, batch, repetitions, latency_ms {min, p50, p90, p99, mean}, cpu_ms_p50,
/// images_per_s, gflops, load_ms, first_inference_ms, peak_rss_mb, samples_ms.
/// @param macs  multiply-accumulates of one image
Json describe_series(const LatencySeries& series, std::int64_t macs);

}  // namespace sweep_engine

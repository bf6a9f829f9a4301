#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "sweep_engine/json.h"
#include "sweep_engine/status.h"

namespace sweep_engine {

/// What a benchmark runs, and for how long. Every model is run with every combination of the three lists.
struct BenchmarkSettings {
  std::vector<int> threads = {1};  ///< OpenMP threads of one inference, 1 to 256
  std::vector<int> batches = {1};  ///< pictures of one query, computed together, 1 to 4096
  std::vector<int> workers = {1};  ///< threads that share the model, each with queries of its own, 1 to 256
  int warmup = 10;                 ///< unmeasured queries of each, at least; more until it settles; 0: none
  int repetitions = 200;           ///< at least so many measured queries of each
  double min_time_s = 1.0;         ///< and at least so much measured time of each
  double max_time_s = 60.0;        ///< but no more than that, whatever the repetitions, once there are ten
};

/// What it costs to get the first answer, measured in a process of its own.
struct ColdStart {
  double load_ms = 0.0;  ///< reading, checking and preparing the model, its files in the page cache
  double first_inference_ms = 0.0;  ///< right after loading, one picture
  double peak_rss_mb = 0.0;         ///< MiB, after the first inference
};

/// One configuration's measurements. A query is one call for `batch` pictures.
struct LatencySeries {
  std::size_t model = 0;  ///< which of the folders
  int threads = 1;
  int batch = 1;
  int workers = 1;
  ColdStart cold;
  int warmup_queries = 0;
  bool settled = false;            ///< whether the warm-up's last medians agreed within 5 %
  std::vector<double> samples_ms;  ///< wall time of each query, from prepared input to logits
  std::vector<double> cpu_ms;  ///< the process's time meanwhile, all its threads; with several workers the
                               ///< mean of their turn
  double busy_ms = 0.0;        ///< measured wall time in which some worker had a query

  /// MLPerf's name for it: single-stream (one picture after the other), multi-stream (queries of several
  /// pictures, one after the other), offline (several workers, all pictures there from the start).
  const char* scenario() const;
  /// Pictures answered in a second of busy time.
  double images_per_s() const;
};

/// Told what the benchmark is doing, one line at a time.
using Progress = std::function<void(const std::string&)>;

/// Fork, load the model there, run it once. Call it before this process has any threads.
Result<ColdStart> measure_cold_start(const std::string& folder, int threads);

/// Run all configurations in turn, a few queries each, every second turn in reverse order, until every one
/// has enough: what disturbs the machine then disturbs all of them alike, so that their ratios hold.
/// @param folders  model folders, at least one
Result<std::vector<LatencySeries>> measure_latency(const std::vector<std::string>& folders,
                                                   const BenchmarkSettings& settings,
                                                   const Progress& progress);

/// One series as a record: scenario, threads, batch, workers, repetitions, warmup, latency_ms {min, p50, p90,
/// p99, mean}, cpu_ms_p50, images_per_s, gflops, load_ms, first_inference_ms, peak_rss_mb, samples_ms.
/// @param macs  multiply-accumulates of one picture
Json describe_series(const LatencySeries& series, std::int64_t macs);

}  // namespace sweep_engine

#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sweep_engine/classifier.h"
#include "sweep_engine/json.h"
#include "sweep_engine/status.h"

namespace sweep_engine {

/// Configurations and duration of a benchmark. Every model runs in every combination of the three lists.
struct BenchmarkSettings {
  std::vector<int> threads = {1};  ///< OpenMP threads per inference, 1 to 256
  std::vector<int> batches = {1};  ///< images per query, 1 to 4096
  std::vector<int> workers = {1};  ///< threads that share the model and run queries concurrently, 1 to 256
  Kernels kernels = Kernels::automatic;
  int warmup = 10;           ///< minimum warm-up queries per configuration; 0: no warm-up
  int repetitions = 200;     ///< minimum measured queries per configuration
  double min_time_s = 1.0;   ///< minimum measured time per configuration
  double max_time_s = 60.0;  ///< maximum measured time per configuration, once it has ten queries
};

/// Cost of the first inference, measured in a separate process.
struct ColdStart {
  double load_ms = 0.0;             ///< reading, checking and preparing the model, with a warm page cache
  double first_inference_ms = 0.0;  ///< one image, directly after loading
  double peak_rss_mb = 0.0;         ///< MiB, after the first inference
};

/// Measurements of one configuration. A query is one call with `batch` images.
struct LatencySeries {
  std::size_t model = 0;            ///< index of the model folder
  Kernels kernels = Kernels::ncnn;  ///< in use: ncnn or onednn
  int threads = 1;
  int batch = 1;
  int workers = 1;
  ColdStart cold;
  int warmup_queries = 0;
  bool settled = false;            ///< whether the last warm-up medians agreed within 5 %
  std::vector<double> samples_ms;  ///< wall time of each query, from prepared input to logits
  std::vector<double> cpu_ms;  ///< CPU time of the process per query, all threads; with several workers, the
                               ///< mean of the round
  double busy_ms = 0.0;        ///< wall time during which at least one worker ran a query

  /// MLPerf scenario: single-stream (sequential queries of one image), multi-stream (sequential queries of
  /// several images) or offline (several workers).
  [[nodiscard]] const char* scenario() const;
  /// Images per second of busy time.
  [[nodiscard]] double images_per_s() const;
};

/// Fork, then load the model and run it once in the child. Call it before this process starts any thread.
/// The self-test of `options` is skipped.
Result<ColdStart> measure_cold_start(const std::string& folder, ClassifierOptions options);

/// Callback for progress messages of one line.
using Progress = std::function<void(const std::string&)>;

/// Measure all configurations round-robin, a few queries per round and every second round in reverse order,
/// until each has enough samples. A disturbance of the machine then affects all configurations alike, so that
/// their ratios remain valid.
/// @param folders  model folders, at least one
Result<std::vector<LatencySeries>> measure_latency(const std::vector<std::string>& folders,
                                                   const BenchmarkSettings& settings,
                                                   const Progress& progress);

/// Peak arithmetic throughput of one core in 1e9 operations per second (a multiply-accumulate counts as two),
/// measured in a loop of register-only instructions at the current clock rate: FMA for fp32, bfloat16 dot
/// products for bf16, VNNI for int8. It is the upper bound for any kernel.
/// @returns nullopt if the processor lacks the instruction or is not x86-64
std::optional<double> measure_peak_gflops(Precision precision);

/// Quantile with linear interpolation, like NumPy's default.
/// @param values  at least one, in any order
/// @param p       0 (minimum) to 1 (maximum)
double percentile(std::vector<double> values, double p);

/// JSON record of one series: scenario, kernels, threads, batch, workers, repetitions, warmup, latency_ms
/// {min, p50, p90, p99, mean}, cpu_ms_p50, images_per_s, gflops, load_ms, first_inference_ms, peak_rss_mb,
/// samples_ms.
/// @param macs  multiply-accumulates per image
Json describe_series(const LatencySeries& series, std::int64_t macs);

}  // namespace sweep_engine

#include "sweep_engine/benchmark.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <mutex>
#include <numeric>

#include "benchmark/clocks.h"
#include "support/worker_threads.h"
#include "sweep_engine/classifier.h"

namespace sweep_engine {

namespace {

constexpr int queries_per_round = 5;  // per worker and configuration
constexpr std::size_t max_samples = 100000;
constexpr std::size_t min_samples = 10;
constexpr double settled_tolerance = 0.05;  // relative change of the median, for two consecutive rounds
constexpr double max_warmup_ms = 2000.0;
constexpr double report_every_ms = 1000.0;

/// One combination of model, threads, batch size and workers. Combinations with the same model and number of
/// threads share the loaded network.
struct Configuration {
  std::shared_ptr<const Classifier> model;
  PreparedInput input;
  LatencySeries series;
  std::unique_ptr<WorkerThreads> worker_threads;  ///< null with one worker
};

/// Measurements of one round of queries.
struct Round {
  std::vector<double> samples_ms;
  std::vector<double> cpu_ms;
  double busy_ms = 0.0;
};

Status run_sequential(const Configuration& configuration, int count, Round& round) {
  for (int i = 0; i < count; ++i) {
    const double cpu = cpu_ms();
    const double wall = wall_ms();
    const Result<std::vector<float>> logits = configuration.model->infer(configuration.input);
    const double elapsed_ms = wall_ms() - wall;
    if (!logits.ok()) return logits.status();
    round.samples_ms.push_back(elapsed_ms);
    round.cpu_ms.push_back(cpu_ms() - cpu);
    round.busy_ms += elapsed_ms;
  }
  return {};
}

Status run_concurrent(const Configuration& configuration, int count, Round& round) {
  const int queries = count * configuration.series.workers;
  std::vector<double> samples(static_cast<std::size_t>(queries));
  std::atomic<int> next{0};
  std::mutex guard;
  Status failure;
  const std::function<void(int)> job = [&](int) {
    for (int query = next++; query < queries; query = next++) {
      const double begin = wall_ms();
      const Result<std::vector<float>> logits = configuration.model->infer(configuration.input);
      samples[static_cast<std::size_t>(query)] = wall_ms() - begin;
      if (logits.ok()) continue;
      const std::lock_guard<std::mutex> lock(guard);
      failure = logits.status();
      return;
    }
  };
  const double cpu = cpu_ms();
  const double wall = wall_ms();
  configuration.worker_threads->run(job);
  round.busy_ms += wall_ms() - wall;
  const double mean_cpu_ms = (cpu_ms() - cpu) / queries;
  round.samples_ms.insert(round.samples_ms.end(), samples.begin(), samples.end());
  round.cpu_ms.insert(round.cpu_ms.end(), samples.size(), mean_cpu_ms);
  return failure;
}

/// Run `count` queries per worker.
Result<Round> run_round(const Configuration& configuration, int count) {
  Round round;
  Status status = configuration.worker_threads != nullptr ? run_concurrent(configuration, count, round)
                                                          : run_sequential(configuration, count, round);
  if (!status.ok()) return status;
  return round;
}

Status warm_up(Configuration& configuration, int min_queries) {
  LatencySeries& series = configuration.series;
  double previous_median = 0.0;
  double spent_ms = 0.0;
  int rounds_agreed = 0;
  while (min_queries > 0 && (series.warmup_queries < min_queries || !series.settled)) {
    const Result<Round> round = run_round(configuration, queries_per_round);
    if (!round.ok()) return round.status();
    series.warmup_queries += static_cast<int>(round.value().samples_ms.size());
    const double median = percentile(round.value().samples_ms, 0.5);
    rounds_agreed =
        std::fabs(median - previous_median) <= settled_tolerance * previous_median ? rounds_agreed + 1 : 0;
    series.settled = rounds_agreed >= 2;
    previous_median = median;
    spent_ms += round.value().busy_ms;
    if (series.warmup_queries >= min_queries && spent_ms >= max_warmup_ms) break;
  }
  return {};
}

Status measure_round(Configuration& configuration, bool refill_caches) {
  // The other configurations have evicted this configuration's weights from the caches.
  if (refill_caches) {
    const Result<Round> unmeasured = run_round(configuration, 1);
    if (!unmeasured.ok()) return unmeasured.status();
  }
  const Result<Round> round = run_round(configuration, queries_per_round);
  if (!round.ok()) return round.status();
  LatencySeries& series = configuration.series;
  const auto append = [](std::vector<double>& to, const std::vector<double>& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  append(series.samples_ms, round.value().samples_ms);
  append(series.cpu_ms, round.value().cpu_ms);
  series.busy_ms += round.value().busy_ms;
  return {};
}

/// Share of the required samples and time that `series` has; 1 or more if it is complete.
double share_done(const LatencySeries& series, const BenchmarkSettings& settings) {
  const auto count = static_cast<double>(series.samples_ms.size());
  const double time_s = 1e-3 * series.busy_ms;
  const auto of = [](double done, double needed) { return needed > 0.0 ? done / needed : 1.0; };
  const double required = std::min(of(count, settings.repetitions), of(time_s, settings.min_time_s));
  const double limit = std::min(of(count, static_cast<double>(min_samples)), of(time_s, settings.max_time_s));
  return std::max({required, limit, count / static_cast<double>(max_samples)});
}

/// Load a model and append a configuration for each combination of batch size and workers.
Status add_configurations(const std::string& folder, const LatencySeries& series,
                          const BenchmarkSettings& settings, std::vector<Configuration>& configurations) {
  ClassifierOptions options;
  options.num_threads = series.threads;
  options.kernels = settings.kernels;
  Result<Classifier> loaded = Classifier::load(folder, options);
  if (!loaded.ok()) return loaded.status();
  const auto model = std::make_shared<const Classifier>(std::move(loaded).value());
  for (const int batch : settings.batches) {
    for (const int workers : settings.workers) {
      std::vector<std::vector<std::uint8_t>> images;
      images.reserve(static_cast<std::size_t>(batch));
      for (int i = 0; i < batch; ++i) images.push_back(self_test_pattern(model->manifest().input, i));
      Result<PreparedInput> input = model->prepare_batch(images);
      if (!input.ok()) return input.status();
      Configuration configuration{model, std::move(input).value(), series, nullptr};
      configuration.series.kernels = model->kernels();
      configuration.series.batch = batch;
      configuration.series.workers = workers;
      if (workers > 1) {
        configuration.worker_threads = std::make_unique<WorkerThreads>();
        Status status = configuration.worker_threads->start(workers);
        if (!status.ok()) return status;
      }
      configurations.push_back(std::move(configuration));
    }
  }
  return {};
}

}  // namespace

const char* LatencySeries::scenario() const {
  if (workers > 1) return "offline";
  return batch > 1 ? "multi-stream" : "single-stream";
}

double LatencySeries::images_per_s() const {
  return 1e3 * static_cast<double>(samples_ms.size()) * batch / busy_ms;
}

Result<std::vector<LatencySeries>> measure_latency(const std::vector<std::string>& folders,
                                                   const BenchmarkSettings& settings,
                                                   const Progress& progress) {
  // All cold starts first: a forked process inherits loaded models, and threads do not survive a fork.
  std::vector<LatencySeries> cold_starts;
  for (std::size_t model = 0; model < folders.size(); ++model) {
    progress("loading " + folders[model]);
    for (const int threads : settings.threads) {
      ClassifierOptions options;
      options.num_threads = threads;
      options.kernels = settings.kernels;
      const Result<ColdStart> measured = measure_cold_start(folders[model], options);
      if (!measured.ok())
        return Status(measured.status().code(), folders[model] + ": " + measured.status().message());
      LatencySeries series;
      series.model = model;
      series.threads = threads;
      series.cold = measured.value();
      cold_starts.push_back(std::move(series));
    }
  }
  std::vector<Configuration> configurations;
  for (const LatencySeries& series : cold_starts) {
    Status status = add_configurations(folders[series.model], series, settings, configurations);
    if (!status.ok()) return status;
  }
  progress("warming up");
  for (Configuration& configuration : configurations) {
    Status status = warm_up(configuration, settings.warmup);
    if (!status.ok()) return status;
  }
  const std::string phase =
      "measuring " + std::to_string(configurations.size()) +
      (configurations.size() == 1 ? " configuration: " : " configurations round-robin: ");
  double reported_ms = wall_ms() - report_every_ms;
  for (int round = 0;; ++round) {
    double least = 1.0;
    for (const Configuration& configuration : configurations) {
      least = std::min(least, share_done(configuration.series, settings));
    }
    if (least >= 1.0) break;
    if (wall_ms() - reported_ms >= report_every_ms) {
      reported_ms = wall_ms();
      progress(phase + std::to_string(static_cast<int>(100.0 * least)) + " %");
    }
    for (std::size_t i = 0; i < configurations.size(); ++i) {
      Configuration& configuration = configurations[round % 2 == 0 ? i : configurations.size() - 1 - i];
      Status status = measure_round(configuration, configurations.size() > 1);
      if (!status.ok()) return status;
    }
  }
  std::vector<LatencySeries> series;
  series.reserve(configurations.size());
  for (Configuration& configuration : configurations) series.push_back(std::move(configuration.series));
  return series;
}

double percentile(std::vector<double> values, double p) {
  std::sort(values.begin(), values.end());
  const double place = p * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (values[above] - values[below]) * (place - static_cast<double>(below));
}

Json describe_series(const LatencySeries& series, std::int64_t macs) {
  const std::vector<double>& samples = series.samples_ms;
  Json latency = Json::object();
  latency.set("min", percentile(samples, 0.0));
  latency.set("p50", percentile(samples, 0.5));
  latency.set("p90", percentile(samples, 0.9));
  latency.set("p99", percentile(samples, 0.99));
  latency.set("mean",
              std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(samples.size()));
  Json warmup = Json::object();
  warmup.set("queries", series.warmup_queries);
  warmup.set("settled", series.settled);
  // For sequential queries, GFLOP/s is based on the median: outliers measure the machine, not the kernels.
  const double images_per_s =
      series.workers > 1 ? series.images_per_s() : 1e3 * series.batch / percentile(samples, 0.5);
  Json record = Json::object();
  record.set("scenario", series.scenario());
  record.set("kernels", kernels_name(series.kernels));
  record.set("threads", series.threads);
  record.set("batch", series.batch);
  record.set("workers", series.workers);
  record.set("repetitions", samples.size());
  record.set("warmup", std::move(warmup));
  record.set("latency_ms", std::move(latency));
  record.set("cpu_ms_p50", percentile(series.cpu_ms, 0.5));
  record.set("images_per_s", series.images_per_s());
  record.set("gflops", 2e-9 * static_cast<double>(macs) * images_per_s);
  record.set("load_ms", series.cold.load_ms);
  record.set("first_inference_ms", series.cold.first_inference_ms);
  record.set("peak_rss_mb", series.cold.peak_rss_mb);
  record.set("samples_ms", Json::array(samples));
  return record;
}

}  // namespace sweep_engine

#include "sweep_engine/benchmark.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <ctime>
#include <memory>
#include <mutex>

#include "support/worker_threads.h"
#include "sweep_engine/classifier.h"
#include "sweep_engine/host.h"
#include "sweep_engine/statistics.h"

namespace sweep_engine {

namespace {

constexpr int block = 5;  // queries of one worker before the next configuration has its turn
constexpr std::size_t most_samples = 100000;
constexpr std::size_t fewest_samples = 10;
constexpr double settled_within = 0.05;  // of the median of the turn before, twice running
constexpr double longest_warmup_ms = 2000.0;

double wall_ms() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(now).count();
}

double cpu_ms() {
  std::timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
}

Result<ColdStart> start_cold(const std::string& folder, int threads) {
  ColdStart cold;
  ClassifierOptions options;
  options.num_threads = threads;
  options.self_test = false;
  const double begin = wall_ms();
  const Result<Classifier> model = Classifier::load(folder, options);
  cold.load_ms = wall_ms() - begin;
  if (!model.ok()) return model.status();
  const Result<PreparedInput> input =
      model.value().prepare(self_test_pattern(model.value().manifest().input, 0));
  if (!input.ok()) return input.status();
  const double loaded = wall_ms();
  const Result<std::vector<float>> logits = model.value().infer(input.value());
  cold.first_inference_ms = wall_ms() - loaded;
  if (!logits.ok()) return logits.status();
  cold.peak_rss_mb = peak_rss_mb();
  return cold;
}

/// Everything one configuration needs for its turns. Configurations of one model and number of threads share
/// the loaded network.
struct Configuration {
  std::shared_ptr<const Classifier> model;
  PreparedInput input;
  LatencySeries series;
  std::unique_ptr<WorkerThreads> worker_threads;  ///< with several workers
};

struct Turn {
  std::vector<double> samples_ms;
  std::vector<double> cpu_ms;
  double busy_ms = 0.0;
};

Status one_after_the_other(const Configuration& configuration, int count, Turn& turn) {
  for (int i = 0; i < count; ++i) {
    const double cpu = cpu_ms();
    const double wall = wall_ms();
    const Result<std::vector<float>> logits = configuration.model->infer(configuration.input);
    const double took = wall_ms() - wall;
    if (!logits.ok()) return logits.status();
    turn.samples_ms.push_back(took);
    turn.cpu_ms.push_back(cpu_ms() - cpu);
    turn.busy_ms += took;
  }
  return {};
}

Status side_by_side(const Configuration& configuration, int count, Turn& turn) {
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
  turn.busy_ms += wall_ms() - wall;
  const double each = (cpu_ms() - cpu) / queries;
  turn.samples_ms.insert(turn.samples_ms.end(), samples.begin(), samples.end());
  turn.cpu_ms.insert(turn.cpu_ms.end(), samples.size(), each);
  return failure;
}

/// Run `count` queries of each worker.
Result<Turn> take_turn(const Configuration& configuration, int count) {
  Turn turn;
  const Status status = configuration.worker_threads != nullptr
                            ? side_by_side(configuration, count, turn)
                            : one_after_the_other(configuration, count, turn);
  if (!status.ok()) return status;
  return turn;
}

Status warm_up(Configuration& configuration, int at_least) {
  LatencySeries& series = configuration.series;
  double before = 0.0;
  double spent_ms = 0.0;
  int agreed = 0;
  while (at_least > 0 && (series.warmup_queries < at_least || !series.settled)) {
    const Result<Turn> turn = take_turn(configuration, block);
    if (!turn.ok()) return turn.status();
    series.warmup_queries += static_cast<int>(turn.value().samples_ms.size());
    const double median = percentile(turn.value().samples_ms, 0.5);
    agreed = std::fabs(median - before) <= settled_within * before ? agreed + 1 : 0;
    series.settled = agreed >= 2;
    before = median;
    spent_ms += turn.value().busy_ms;
    if (series.warmup_queries >= at_least && spent_ms >= longest_warmup_ms) break;
  }
  return {};
}

Status measure_turn(Configuration& configuration, bool refill) {
  // Queries that fill the caches with this configuration's weights again.
  if (refill) {
    const Result<Turn> unmeasured = take_turn(configuration, 1);
    if (!unmeasured.ok()) return unmeasured.status();
  }
  const Result<Turn> turn = take_turn(configuration, block);
  if (!turn.ok()) return turn.status();
  LatencySeries& series = configuration.series;
  const auto append = [](std::vector<double>& to, const std::vector<double>& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  append(series.samples_ms, turn.value().samples_ms);
  append(series.cpu_ms, turn.value().cpu_ms);
  series.busy_ms += turn.value().busy_ms;
  return {};
}

/// Load one model for one number of threads, and make a configuration of each batch size and number of
/// workers.
Status configure(const std::string& folder, const LatencySeries& series, const BenchmarkSettings& settings,
                 std::vector<Configuration>& all) {
  ClassifierOptions options;
  options.num_threads = series.threads;
  Result<Classifier> loaded = Classifier::load(folder, options);
  if (!loaded.ok()) return loaded.status();
  const auto model = std::make_shared<const Classifier>(std::move(loaded).value());
  for (const int batch : settings.batches) {
    for (const int workers : settings.workers) {
      std::vector<std::vector<std::uint8_t>> pictures;
      for (int i = 0; i < batch; ++i) pictures.push_back(self_test_pattern(model->manifest().input, i));
      Result<PreparedInput> input = model->prepare_batch(pictures);
      if (!input.ok()) return input.status();
      Configuration made{model, std::move(input).value(), series, nullptr};
      made.series.batch = batch;
      made.series.workers = workers;
      if (workers > 1) {
        made.worker_threads = std::make_unique<WorkerThreads>();
        const Status status = made.worker_threads->start(workers);
        if (!status.ok()) return status;
      }
      all.push_back(std::move(made));
    }
  }
  return {};
}

}  // namespace

Result<ColdStart> measure_cold_start(const std::string& folder, int threads) {
  int ends[2];
  if (::pipe(ends) != 0) return Status(StatusCode::io_error, std::string("pipe: ") + std::strerror(errno));
  const pid_t child = ::fork();
  if (child < 0) return Status(StatusCode::io_error, std::string("fork: ") + std::strerror(errno));
  if (child == 0) {
    ::close(ends[0]);
    const Result<ColdStart> cold = start_cold(folder, threads);
    std::string answer(1, cold.ok() ? 'v' : static_cast<char>('A' + static_cast<int>(cold.status().code())));
    if (cold.ok()) {
      answer.append(reinterpret_cast<const char*>(&cold.value()), sizeof(ColdStart));
    } else {
      answer += cold.status().message();
    }
    const bool sent = ::write(ends[1], answer.data(), answer.size()) == static_cast<ssize_t>(answer.size());
    ::_exit(sent ? 0 : 1);
  }
  ::close(ends[1]);
  std::string answer;
  char piece[4096];
  ssize_t got = 0;
  while ((got = ::read(ends[0], piece, sizeof piece)) > 0 || (got < 0 && errno == EINTR)) {
    if (got > 0) answer.append(piece, static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  int ended = 0;
  ::waitpid(child, &ended, 0);
  if (answer.empty())
    return Status(StatusCode::inference_failed, "the process that loads the model ended early");
  ColdStart cold;
  if (answer[0] != 'v') return Status(static_cast<StatusCode>(answer[0] - 'A'), answer.substr(1));
  if (answer.size() != 1 + sizeof cold)
    return Status(StatusCode::inference_failed, "the loading process was cut off");
  std::memcpy(&cold, answer.data() + 1, sizeof cold);
  return cold;
}

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
  // All cold starts first: a fork inherits what is loaded, and threads do not survive one.
  std::vector<LatencySeries> cold;
  for (std::size_t model = 0; model < folders.size(); ++model) {
    progress("loading " + folders[model]);
    for (const int threads : settings.threads) {
      const Result<ColdStart> measured = measure_cold_start(folders[model], threads);
      if (!measured.ok())
        return Status(measured.status().code(), folders[model] + ": " + measured.status().message());
      LatencySeries series;
      series.model = model;
      series.threads = threads;
      series.cold = measured.value();
      cold.push_back(series);
    }
  }
  std::vector<Configuration> all;
  for (const LatencySeries& series : cold) {
    const Status status = configure(folders[series.model], series, settings, all);
    if (!status.ok()) return status;
  }
  progress("warming up");
  for (Configuration& configuration : all) {
    const Status status = warm_up(configuration, settings.warmup);
    if (!status.ok()) return status;
  }
  progress("measuring " + std::to_string(all.size()) +
           (all.size() == 1 ? " configuration" : " configurations in turn"));
  const auto enough = [&](const Configuration& configuration) {
    const LatencySeries& series = configuration.series;
    const std::size_t count = series.samples_ms.size();
    if (count >= most_samples) return true;
    if (count >= fewest_samples && series.busy_ms >= 1e3 * settings.max_time_s) return true;
    return count >= static_cast<std::size_t>(settings.repetitions) &&
           series.busy_ms >= 1e3 * settings.min_time_s;
  };
  for (int turn = 0; !std::all_of(all.begin(), all.end(), enough); ++turn) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      Configuration& configuration = all[turn % 2 == 0 ? i : all.size() - 1 - i];
      const Status status = measure_turn(configuration, all.size() > 1);
      if (!status.ok()) return status;
    }
  }
  std::vector<LatencySeries> series;
  for (Configuration& configuration : all) series.push_back(std::move(configuration.series));
  return series;
}

Json describe_series(const LatencySeries& series, std::int64_t macs) {
  const std::vector<double>& samples = series.samples_ms;
  Json latency = Json::object();
  latency.set("min", percentile(samples, 0.0));
  latency.set("p50", percentile(samples, 0.5));
  latency.set("p90", percentile(samples, 0.9));
  latency.set("p99", percentile(samples, 0.99));
  latency.set("mean", mean(samples));
  Json warmup = Json::object();
  warmup.set("queries", series.warmup_queries);
  warmup.set("settled", series.settled);
  // By the median where queries come one by one: a disturbed one says nothing about the kernels.
  const double images_per_s =
      series.workers > 1 ? series.images_per_s() : 1e3 * series.batch / percentile(samples, 0.5);
  Json record = Json::object();
  record.set("scenario", series.scenario());
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

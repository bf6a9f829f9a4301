#include "sweep_engine/benchmark.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <numeric>

#include "sweep_engine/classifier.h"
#include "sweep_engine/host.h"
#include "sweep_engine/statistics.h"

namespace sweep_engine {

namespace {

constexpr int block = 5;  // inferences of one configuration before the next has its turn
constexpr std::size_t most_samples = 100000;
constexpr std::size_t fewest_samples = 10;

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

struct Configuration {
  Classifier model;
  PreparedInput input;
  LatencySeries series;
  double measured_ms = 0.0;
};

Status run_block(Configuration& configuration, int count, bool measured) {
  for (int i = 0; i < count; ++i) {
    const double cpu = cpu_ms();
    const double wall = wall_ms();
    const Result<std::vector<float>> logits = configuration.model.infer(configuration.input);
    const double took = wall_ms() - wall;
    if (!logits.ok()) return logits.status();
    if (!measured) continue;
    configuration.series.samples_ms.push_back(took);
    configuration.series.cpu_ms.push_back(cpu_ms() - cpu);
    configuration.measured_ms += took;
  }
  return {};
}

Result<Configuration> configure(const std::string& folder, int threads, const ColdStart& cold) {
  ClassifierOptions options;
  options.num_threads = threads;
  Result<Classifier> model = Classifier::load(folder, options);
  if (!model.ok()) return model.status();
  Result<PreparedInput> input = model.value().prepare(self_test_pattern(model.value().manifest().input, 0));
  if (!input.ok()) return input.status();
  LatencySeries series;
  series.threads = threads;
  series.cold = cold;
  return Configuration{std::move(model).value(), std::move(input).value(), std::move(series), 0.0};
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

Result<std::vector<LatencySeries>> measure_latency(const std::string& folder,
                                                   const BenchmarkSettings& settings,
                                                   const Progress& progress) {
  progress("loading " + folder);
  // All cold starts first: a fork inherits what is loaded, and OpenMP's threads do not survive one.
  std::vector<ColdStart> cold;
  for (const int threads : settings.threads) {
    const Result<ColdStart> measured = measure_cold_start(folder, threads);
    if (!measured.ok()) return measured.status();
    cold.push_back(measured.value());
  }
  std::vector<Configuration> all;
  for (std::size_t i = 0; i < cold.size(); ++i) {
    Result<Configuration> made = configure(folder, settings.threads[i], cold[i]);
    if (!made.ok()) return made.status();
    all.push_back(std::move(made).value());
  }
  progress("warming up");
  for (Configuration& configuration : all) {
    const Status status = run_block(configuration, settings.warmup, false);
    if (!status.ok()) return status;
  }
  progress("measuring");
  const auto enough = [&](const Configuration& configuration) {
    const std::size_t count = configuration.series.samples_ms.size();
    if (count >= most_samples) return true;
    if (count >= fewest_samples && configuration.measured_ms >= 1e3 * settings.max_time_s) return true;
    return count >= static_cast<std::size_t>(settings.repetitions) &&
           configuration.measured_ms >= 1e3 * settings.min_time_s;
  };
  while (!std::all_of(all.begin(), all.end(), enough)) {
    for (Configuration& configuration : all) {
      // One run to fill the caches with this configuration's weights again.
      Status status = run_block(configuration, all.size() > 1 ? 1 : 0, false);
      if (status.ok()) status = run_block(configuration, block, true);
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
  Json record = Json::object();
  record.set("threads", series.threads);
  record.set("batch", 1);
  record.set("repetitions", samples.size());
  record.set("latency_ms", std::move(latency));
  record.set("cpu_ms_p50", percentile(series.cpu_ms, 0.5));
  record.set("images_per_s", 1e3 / mean(samples));
  record.set("gflops", 2e-6 * static_cast<double>(macs) / percentile(samples, 0.5));
  record.set("load_ms", series.cold.load_ms);
  record.set("first_inference_ms", series.cold.first_inference_ms);
  record.set("peak_rss_mb", series.cold.peak_rss_mb);
  record.set("samples_ms", Json::array(samples));
  return record;
}

}  // namespace sweep_engine

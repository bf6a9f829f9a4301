#include "check.h"
#include "support/worker_threads.h"
#include "sweep_engine/benchmark.h"
#include "sweep_engine/classifier.h"
#include "tiny_model.h"

#include <atomic>
#include <set>

using sweep_engine::Json;

namespace {

/// Write a model folder that passes its self-test.
void write_valid_model(const tiny_model::Folder& folder) {
  tiny_model::Files files = tiny_model::files();
  tiny_model::set_self_test(files, tiny_model::logits(files, 3), 1e-6);
  folder.write(files);
}

}  // namespace

TEST_CASE(measure_latency_covers_every_combination) {
  const tiny_model::Folder folder;
  write_valid_model(folder);
  sweep_engine::BenchmarkSettings settings;
  settings.threads = {1, 2};
  settings.batches = {1, 3};
  settings.workers = {1, 2};
  settings.repetitions = 20;
  settings.min_time_s = 0.0;
  const auto measured =
      sweep_engine::measure_latency({folder.path(), folder.path()}, settings, [](const std::string&) {});
  CHECK_EQUAL(measured.status().message(), "");
  CHECK_EQUAL(measured.value().size(), std::size_t{16});
  std::set<std::string> seen;
  for (const auto& series : measured.value()) {
    seen.insert(std::to_string(series.model) + "," + std::to_string(series.threads) + "," +
                std::to_string(series.batch) + "," + std::to_string(series.workers));
    CHECK(series.samples_ms.size() >= 20 && series.samples_ms.size() == series.cpu_ms.size());
    CHECK(series.warmup_queries >= settings.warmup);
    const std::string expected = series.workers > 1 ? "offline"
                                 : series.batch > 1 ? "multi-stream"
                                                    : "single-stream";
    CHECK_EQUAL(std::string(series.scenario()), expected);
    CHECK(series.images_per_s() > 0.0);
  }
  CHECK_EQUAL(seen.size(), std::size_t{16});
}

TEST_CASE(record_counts_images_not_queries) {
  sweep_engine::LatencySeries series;
  series.batch = 4;
  series.samples_ms = {2.0, 2.0, 2.0};
  series.cpu_ms = series.samples_ms;
  series.busy_ms = 6.0;
  const Json record = sweep_engine::describe_series(series, 500000);
  CHECK_EQUAL(record.find("images_per_s")->number(), 2000.0);
  CHECK(record.find("gflops")->number() > 1.999 && record.find("gflops")->number() < 2.001);
  series.workers = 2;
  series.busy_ms = 3.0;
  CHECK_EQUAL(sweep_engine::describe_series(series, 500000).find("images_per_s")->number(), 4000.0);
}

TEST_CASE(parity_with_own_logits_is_zero) {
  const tiny_model::Folder folder;
  write_valid_model(folder);
  const auto model = sweep_engine::Classifier::load(folder.path(), {});
  const auto parity = sweep_engine::measure_parity(model.value());
  CHECK_EQUAL(parity.value().images, 3);
  CHECK(parity.value().max_abs < 1e-6);
  CHECK_EQUAL(parity.value().top1_agreement(), 1.0);
}

TEST_CASE(percentile_interpolates_like_numpy) {
  const std::vector<double> values = {4.0, 1.0, 3.0, 2.0};
  CHECK_EQUAL(sweep_engine::percentile(values, 0.0), 1.0);
  CHECK_EQUAL(sweep_engine::percentile(values, 0.5), 2.5);
  CHECK_EQUAL(sweep_engine::percentile(values, 1.0), 4.0);
  CHECK(std::fabs(sweep_engine::percentile(values, 0.9) - 3.7) < 1e-12);
  CHECK_EQUAL(sweep_engine::percentile({7.0}, 0.99), 7.0);
}

TEST_CASE(worker_threads_run_a_job_once_per_thread) {
  sweep_engine::WorkerThreads threads;
  CHECK(threads.start(3).ok());
  std::atomic<int> sum{0};
  for (int round = 0; round < 50; ++round) threads.run([&](int index) { sum += 1 + index; });
  CHECK_EQUAL(sum.load(), 50 * 6);
}

TEST_CASE(peak_gflops_is_plausible_or_unavailable) {
  for (const auto precision : {sweep_engine::Precision::fp32, sweep_engine::Precision::int8}) {
    const auto peak = sweep_engine::measure_peak_gflops(precision);
    CHECK(!peak || (*peak > 0.1 && *peak < 1e5));
  }
}

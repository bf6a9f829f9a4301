// Measure a model's latency on this machine, and its accuracy on a set of pictures.

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "command_line.h"
#include "sweep_engine/benchmark.h"
#include "sweep_engine/classifier.h"
#include "sweep_engine/dataset.h"
#include "sweep_engine/host.h"
#include "sweep_engine/json.h"

namespace {

using command_line::Flag;
using sweep_engine::BenchmarkSettings;
using sweep_engine::Json;
using sweep_engine::LatencySeries;
using sweep_engine::Result;

const std::vector<Flag> flags = {
    {"--threads", "1,2", "threads of one inference, each a configuration (default: 1)"},
    {"--warmup", "N", "unmeasured inferences of each configuration (default: 10)"},
    {"--repetitions", "N", "measured inferences of each configuration, at least (default: 200)"},
    {"--min-time-s", "S", "measured seconds of each configuration, at least (default: 1)"},
    {"--max-time-s", "S", "measured seconds of each configuration, at most (default: 60)"},
    {"--images", "FILE", "also count the right answers on this image set"},
    {"--json", "FILE", "write the record there; - for stdout, without the table"},
    {"--version", "", "print the versions and stop"},
    {"--help", "", "print this and stop"},
};

constexpr const char* about =
    "Latency of one image at a time. All configurations run in turn, a few inferences each, so that a "
    "disturbance\n"
    "meets them all; loading and the first inference are measured in a process of their own.\n"
    "Exit codes: 0 done, 1 the model or a file is no good, 2 the command line is wrong.";

/// libgomp reads its settings when it is loaded, and its default, to spin while it waits, lets one busy
/// neighbour slow two threads down tenfold. So the program starts itself once more with a short spin, unless
/// the user chose.
void tame_openmp(char** argv) {
  if (std::getenv("SWEEP_ENGINE_RESTARTED") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr ||
      std::getenv("GOMP_SPINCOUNT") != nullptr) {
    return;
  }
  ::setenv("SWEEP_ENGINE_RESTARTED", "1", 1);
  ::setenv("GOMP_SPINCOUNT", "2000", 1);
  ::execv("/proc/self/exe", argv);
  // Not on Linux, or no /proc: go on with the default.
}

void say(const std::string& message) { std::fprintf(stderr, "%s\n", message.c_str()); }

Json describe_model(const sweep_engine::Classifier& model) {
  const sweep_engine::Manifest& manifest = model.manifest();
  Json record = Json::object();
  record.set("name", manifest.name);
  record.set("precision", sweep_engine::precision_name(manifest.precision));
  record.set("sha256", manifest.bin.sha256);
  record.set("bytes", static_cast<double>(manifest.bin.bytes));
  record.set("macs", static_cast<double>(model.macs()));
  record.set("test_accuracy", manifest.test_accuracy < 0.0 ? Json() : Json(manifest.test_accuracy));
  return record;
}

void print_table(const Json& document) {
  const Json* model = document.find("model");
  const Json* context = document.find("context");
  std::printf("%s, %s, on %s\n", model->find("name")->string().c_str(),
              model->find("precision")->string().c_str(), context->find("cpu")->string().c_str());
  std::printf("%7s %9s %9s %9s %9s %9s %9s %8s %8s %8s\n", "threads", "p50 ms", "p90 ms", "p99 ms", "min ms",
              "cpu ms", "images/s", "load ms", "1st ms", "RSS MiB");
  for (const Json& row : document.find("results")->items()) {
    const Json* latency = row.find("latency_ms");
    const auto number = [&](const char* key) { return row.find(key)->number(); };
    const auto ms = [&](const char* key) { return latency->find(key)->number(); };
    std::printf("%7d %9.3f %9.3f %9.3f %9.3f %9.3f %9.1f %8.1f %8.2f %8.1f\n",
                static_cast<int>(number("threads")), ms("p50"), ms("p90"), ms("p99"), ms("min"),
                number("cpu_ms_p50"), number("images_per_s"), number("load_ms"), number("first_inference_ms"),
                number("peak_rss_mb"));
  }
  if (const Json* accuracy = document.find("accuracy")) {
    std::printf("accuracy: %.4f (%d of %d images)\n", accuracy->find("top1")->number(),
                static_cast<int>(accuracy->find("correct")->number()),
                static_cast<int>(accuracy->find("images")->number()));
  }
  const Json* noise = context->find("noise");
  if (!noise->find("trustworthy")->boolean()) {
    std::printf("The machine was busy (%s): do not trust these figures.\n",
                noise->find("reason")->string().c_str());
  }
}

/// Where the record goes, and what goes into it besides the latency.
struct Request {
  std::string folder;
  std::string images;
  std::string json;
  BenchmarkSettings settings;
};

int run(const Request& request) {
  const auto failed = [](const sweep_engine::Status& status) {
    return command_line::fail(command_line::exit_failed, status.message());
  };
  const sweep_engine::LoadSample before = sweep_engine::sample_load();
  const Result<std::vector<LatencySeries>> series =
      sweep_engine::measure_latency(request.folder, request.settings, &say);
  if (!series.ok()) return failed(series.status());
  const Json noise = sweep_engine::describe_noise(before, sweep_engine::sample_load());
  const Result<sweep_engine::Classifier> model = sweep_engine::Classifier::load(request.folder, {});
  if (!model.ok()) return failed(model.status());

  Json document = Json::object();
  document.set("schema_version", 1);
  Json context = sweep_engine::describe_host();
  context.set("noise", noise);
  document.set("context", std::move(context));
  document.set("model", describe_model(model.value()));
  Json results = Json::array();
  for (const LatencySeries& one : series.value()) {
    results.add(sweep_engine::describe_series(one, model.value().macs()));
  }
  document.set("results", std::move(results));
  if (!request.images.empty()) {
    say("counting right answers on " + request.images);
    const Result<sweep_engine::ImageSet> images = sweep_engine::read_image_set(request.images);
    if (!images.ok()) return failed(images.status());
    const int workers = static_cast<int>(document.find("context")->find("cores")->number());
    const Result<sweep_engine::Accuracy> accuracy =
        sweep_engine::measure_accuracy(model.value(), images.value(), workers);
    if (!accuracy.ok()) return failed(accuracy.status());
    Json record = Json::object();
    record.set("images", accuracy.value().images);
    record.set("correct", accuracy.value().correct);
    record.set("top1", accuracy.value().top1());
    document.set("accuracy", std::move(record));
  }
  if (request.json == "-") {
    std::printf("%s\n", document.text(2).c_str());
    return command_line::exit_ok;
  }
  print_table(document);
  std::string error;
  if (!request.json.empty() && !command_line::write_file(request.json, document.text(2) + "\n", error)) {
    return command_line::fail(command_line::exit_failed, error);
  }
  return command_line::exit_ok;
}

}  // namespace

int main(int argc, char** argv) {
  using command_line::exit_usage;
  const command_line::Parsed parsed = command_line::parse(argc, argv, flags);
  if (!parsed.error.empty()) return command_line::fail(exit_usage, parsed.error);
  if (parsed.has("--help")) {
    std::fputs(command_line::help("benchmark_ncnn [flags] MODEL_DIR", about, flags).c_str(), stdout);
    return command_line::exit_ok;
  }
  if (parsed.has("--version")) {
    std::printf("benchmark_ncnn %s (ncnn %s)\n", sweep_engine::engine_version(),
                sweep_engine::ncnn_version());
    return command_line::exit_ok;
  }
  Request request;
  BenchmarkSettings& settings = request.settings;
  std::string error;
  if (!command_line::parse_counts("--threads", parsed.get("--threads", "1"), 1, 256, settings.threads,
                                  error) ||
      !command_line::parse_count("--warmup", parsed.get("--warmup", "10"), 0, 100000, settings.warmup,
                                 error) ||
      !command_line::parse_count("--repetitions", parsed.get("--repetitions", "200"), 1, 100000,
                                 settings.repetitions, error) ||
      !command_line::parse_seconds("--min-time-s", parsed.get("--min-time-s", "1"), 3600.0,
                                   settings.min_time_s, error) ||
      !command_line::parse_seconds("--max-time-s", parsed.get("--max-time-s", "60"), 3600.0,
                                   settings.max_time_s, error)) {
    return command_line::fail(exit_usage, error);
  }
  if (parsed.rest.size() != 1) {
    return command_line::fail(exit_usage, "give one model folder: benchmark_ncnn [flags] MODEL_DIR, got " +
                                              std::to_string(parsed.rest.size()));
  }
  request.folder = parsed.rest[0];
  request.images = parsed.get("--images", "");
  request.json = parsed.get("--json", "");
  if (*std::max_element(settings.threads.begin(), settings.threads.end()) > 1) tame_openmp(argv);
  return run(request);
}

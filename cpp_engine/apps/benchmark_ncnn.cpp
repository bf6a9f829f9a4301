// Measure latency, throughput and parity with PyTorch of exported models on this machine.

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "command_line.h"
#include "sweep_engine/benchmark.h"
#include "sweep_engine/classifier.h"
#include "sweep_engine/host.h"
#include "sweep_engine/json.h"

namespace {

using command_line::Flag;
using sweep_engine::BenchmarkSettings;
using sweep_engine::Classifier;
using sweep_engine::Json;
using sweep_engine::Kernels;
using sweep_engine::LatencySeries;
using sweep_engine::Result;
using sweep_engine::Status;

const std::vector<Flag> flags = {
    {"--threads", "1,2", "threads per inference (default: 1)"},
    {"--batch", "1,8", "images per query (default: 1)"},
    {"--workers", "1,2", "threads that share the model and run queries concurrently (default: 1)"},
    {"--kernels", "NAME", "ncnn, onednn or auto: the choice of the model's tuning (default: auto)"},
    {"--warmup", "N",
     "minimum warm-up queries per configuration, until latency settles (default: 10; 0: none)"},
    {"--repetitions", "N", "minimum measured queries per configuration (default: 200)"},
    {"--min-time-s", "S", "minimum measured seconds per configuration (default: 1)"},
    {"--max-time-s", "S", "maximum measured seconds per configuration (default: 60)"},
    {"--json", "FILE", "also write the record to this file; -: write it to stdout instead of the table"},
    {"--version", "", "print the versions and exit"},
    {"--help", "", "print this help and exit"},
};

constexpr const char* description =
    "Measure every model in every combination of threads, batch and workers. The configurations run\n"
    "round-robin, a few queries each, so that a disturbance affects all of them. Loading and the first\n"
    "inference are measured in a separate process. The scenarios are MLPerf's: single-stream (sequential\n"
    "images), multi-stream (sequential batches) and offline (several workers). Peak: register-only\n"
    "throughput of one core times the number of threads.\n"
    "Exit codes: 0 success, 1 invalid model or file, 2 usage error.";

/// Limit how long libgomp's threads spin while they wait. With the default, one other busy process slows two
/// threads down tenfold. libgomp reads the setting when it is loaded, so the program restarts itself with it,
/// unless the user has chosen a setting.
void limit_openmp_spinning(char** argv) {
  if (std::getenv("SWEEP_ENGINE_RESTARTED") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr ||
      std::getenv("GOMP_SPINCOUNT") != nullptr) {
    return;
  }
  ::setenv("SWEEP_ENGINE_RESTARTED", "1", 1);
  ::setenv("GOMP_SPINCOUNT", "2000", 1);
  ::execv("/proc/self/exe", argv);
  // Without /proc the program continues with the default.
}

void log_progress(const std::string& message) { std::fprintf(stderr, "%s\n", message.c_str()); }

/// The record of a model. A reason why it may be slow is appended to `warnings`.
Result<Json> describe_model(const std::string& folder, Kernels kernels, Json& warnings) {
  sweep_engine::ClassifierOptions options;
  options.kernels = kernels;
  const Result<Classifier> loaded = Classifier::load(folder, options);
  if (!loaded.ok()) return loaded.status();
  const Classifier& model = loaded.value();
  const Result<sweep_engine::Parity> parity = sweep_engine::measure_parity(model);
  if (!parity.ok()) return parity.status();
  const sweep_engine::Manifest& manifest = model.manifest();
  const std::string precision = sweep_engine::precision_name(manifest.precision);
  Json record = Json::object();
  record.set("name", manifest.name);
  record.set("precision", precision);
  record.set("folder", folder);
  record.set("sha256", manifest.bin.sha256);
  record.set("param_sha256", manifest.param.sha256);
  record.set("bytes", static_cast<double>(manifest.bin.bytes));
  record.set("macs", model.macs());
  record.set("test_accuracy", manifest.test_accuracy < 0.0 ? Json() : Json(manifest.test_accuracy));
  Json differences = Json::object();
  differences.set("images", parity.value().images);
  differences.set("max_abs", parity.value().max_abs);
  differences.set("mean_abs", parity.value().mean_abs);
  differences.set("top1_agreement", parity.value().top1_agreement());
  differences.set("reference", "PyTorch fp32 logits of the self-test images");
  record.set("parity", std::move(differences));
  const std::string processor = sweep_engine::processor_name();
  const std::string name = manifest.name + " (" + precision + ")";
  if (!manifest.tuned_for.empty() && !processor.empty() && manifest.tuned_for != processor) {
    warnings.add(name + " was tuned on " + manifest.tuned_for + ", but this is " + processor +
                 ": it may run slower than possible; export it on this machine with --tune");
  } else if (manifest.tuned_for_onednn && kernels == Kernels::automatic &&
             model.kernels() != Kernels::onednn) {
    warnings.add(name +
                 " was tuned for oneDNN, which this build of the engine lacks, and runs slower with ncnn; "
                 "install libdnnl-dev and build the engine again");
  }
  return record;
}

Json describe_settings(const BenchmarkSettings& settings) {
  const auto numbers = [](const std::vector<int>& values) {
    Json list = Json::array();
    for (const int value : values) list.add(value);
    return list;
  };
  Json record = Json::object();
  record.set("threads", numbers(settings.threads));
  record.set("batch", numbers(settings.batches));
  record.set("workers", numbers(settings.workers));
  record.set("kernels", kernels_name(settings.kernels));
  record.set("warmup", settings.warmup);
  record.set("repetitions", settings.repetitions);
  record.set("min_time_s", settings.min_time_s);
  record.set("max_time_s", settings.max_time_s);
  return record;
}

/// @param peaks  GFLOP/s of one core by precision; null if unknown
Json describe_row(const LatencySeries& series, const Json& model, const Json& peaks, int cores) {
  Json row = sweep_engine::describe_series(series, static_cast<std::int64_t>(model.find("macs")->number()));
  const Json& peak = *peaks.find(model.find("precision")->string());
  const int used = std::min(series.threads * series.workers, cores);
  row.set("model", series.model);
  row.set("precision", *model.find("precision"));
  row.set("peak_gflops", peak.is(Json::Kind::number) ? Json(peak.number() * used) : Json());
  row.set("parity_max_abs", *model.find("parity")->find("max_abs"));
  row.set("parity_top1_agreement", *model.find("parity")->find("top1_agreement"));
  return row;
}

Result<Json> measure(const std::vector<std::string>& folders, const BenchmarkSettings& settings) {
  const sweep_engine::LoadSample before = sweep_engine::sample_load();
  const Result<std::vector<LatencySeries>> series =
      sweep_engine::measure_latency(folders, settings, &log_progress);
  if (!series.ok()) return series.status();
  const Json noise = sweep_engine::describe_noise(before, sweep_engine::sample_load());

  Json models = Json::array();
  Json peaks = Json::object();
  Json warnings = Json::array();
  for (const std::string& folder : folders) {
    Result<Json> model = describe_model(folder, settings.kernels, warnings);
    if (!model.ok()) return Status(model.status().code(), folder + ": " + model.status().message());
    models.add(std::move(model).value());
    const std::string& precision = models.items().back().find("precision")->string();
    if (peaks.find(precision) != nullptr) continue;
    const std::optional<double> peak =
        sweep_engine::measure_peak_gflops(sweep_engine::parse_precision(precision).value());
    peaks.set(precision, peak ? Json(*peak) : Json());
  }
  Json context = sweep_engine::describe_host();
  const int cores = static_cast<int>(context.find("cores")->number());
  Json results = Json::array();
  for (const LatencySeries& one : series.value()) {
    results.add(describe_row(one, models.items()[one.model], peaks, cores));
  }
  context.set("noise", noise);
  context.set("peak_gflops_one_core", std::move(peaks));
  context.set("warnings", std::move(warnings));
  Json document = Json::object();
  document.set("schema_version", 2);
  document.set("benchmark", "engine");
  document.set("context", std::move(context));
  document.set("settings", describe_settings(settings));
  document.set("models", std::move(models));
  document.set("results", std::move(results));
  return document;
}

/// A column of the table. deploy/benchmark_ncnn prints records with more columns and in other formats.
struct Column {
  const char* heading;
  const char* key;
  bool is_latency;  ///< a member of latency_ms
  int width;
  const char* format;
};

constexpr Column columns[] = {
    {"threads", "threads", false, 7, "%*.0f"},
    {"batch", "batch", false, 5, "%*.0f"},
    {"workers", "workers", false, 7, "%*.0f"},
    {"min ms", "min", true, 9, "%*.3f"},
    {"p50 ms", "p50", true, 9, "%*.3f"},
    {"p90 ms", "p90", true, 9, "%*.3f"},
    {"p99 ms", "p99", true, 9, "%*.3f"},
    {"cpu ms", "cpu_ms_p50", false, 9, "%*.3f"},
    {"images/s", "images_per_s", false, 9, "%*.1f"},
    {"GFLOP/s", "gflops", false, 7, "%*.0f"},
    {"peak", "peak_gflops", false, 6, "%*.0f"},
    {"load ms", "load_ms", false, 8, "%*.1f"},
    {"1st ms", "first_inference_ms", false, 8, "%*.2f"},
    {"RSS MiB", "peak_rss_mb", false, 8, "%*.1f"},
    {"max err", "parity_max_abs", false, 8, "%*.1e"},
};

void print_table(const Json& document) {
  const Json& context = *document.find("context");
  std::printf("%s on %s\n", document.find("models")->items()[0].find("name")->string().c_str(),
              context.find("cpu")->string().c_str());
  std::printf("%-13s  %-9s  %-7s", "scenario", "precision", "kernels");
  for (const Column& column : columns) std::printf("  %*s", column.width, column.heading);
  for (const Json& row : document.find("results")->items()) {
    std::printf("\n%-13s  %-9s  %-7s", row.find("scenario")->string().c_str(),
                row.find("precision")->string().c_str(), row.find("kernels")->string().c_str());
    for (const Column& column : columns) {
      const Json& value = *(column.is_latency ? *row.find("latency_ms") : row).find(column.key);
      std::printf("  ");
      if (value.is(Json::Kind::number)) {
        std::printf(column.format, column.width, value.number());
      } else {
        std::printf("%*s", column.width, "-");
      }
    }
  }
  std::printf("\n");
  for (const Json& warning : context.find("warnings")->items())
    std::printf("warning: %s\n", warning.string().c_str());
  const Json& noise = *context.find("noise");
  if (!noise.find("trustworthy")->boolean()) {
    std::printf("warning: the machine was busy (%s); the results are unreliable\n",
                noise.find("reason")->string().c_str());
  }
}

}  // namespace

int main(int argc, char** argv) {
  using command_line::fail;
  command_line::Parsed parsed = command_line::parse(argc, argv, flags);
  if (command_line::print_information(parsed, "benchmark_ncnn [flags] MODEL_DIR ...", description, flags,
                                      sweep_engine::describe_versions())) {
    return command_line::exit_ok;
  }
  BenchmarkSettings settings;
  settings.threads = parsed.counts("--threads", "1", 1, 256);
  settings.batches = parsed.counts("--batch", "1", 1, 4096);
  settings.workers = parsed.counts("--workers", "1", 1, 256);
  settings.warmup = parsed.count("--warmup", "10", 0, 100000);
  settings.repetitions = parsed.count("--repetitions", "200", 1, 100000);
  settings.min_time_s = parsed.seconds("--min-time-s", "1", 3600.0);
  settings.max_time_s = parsed.seconds("--max-time-s", "60", 3600.0);
  if (!parsed.error.empty()) return fail(command_line::exit_usage, parsed.error);
  const Result<Kernels> kernels = sweep_engine::parse_kernels(parsed.get("--kernels", "auto"));
  if (!kernels.ok()) return fail(command_line::exit_usage, "--kernels: " + kernels.status().message());
  settings.kernels = kernels.value();
  if (parsed.positionals.empty()) {
    return fail(command_line::exit_usage,
                "expected a model folder: benchmark_ncnn [flags] MODEL_DIR ...; see --help");
  }
  if (*std::max_element(settings.threads.begin(), settings.threads.end()) > 1) limit_openmp_spinning(argv);

  const Result<Json> document = measure(parsed.positionals, settings);
  if (!document.ok()) return fail(command_line::exit_failed, document.status().message());
  const std::string json = parsed.get("--json", "");
  const std::string text = document.value().text(2) + "\n";
  std::string error;
  if (json == "-") {
    std::fputs(text.c_str(), stdout);
  } else if (!json.empty() && !command_line::write_file(json, text, error)) {
    return fail(command_line::exit_failed, error);
  } else {
    print_table(document.value());
  }
  return command_line::exit_ok;
}

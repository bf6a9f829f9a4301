// Measure latency, throughput, accuracy and parity with PyTorch of exported models on this machine.

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "benchmark_output.h"
#include "command_line.h"
#include "sweep_engine/benchmark.h"
#include "sweep_engine/classifier.h"
#include "sweep_engine/evaluation.h"
#include "sweep_engine/host.h"
#include "sweep_engine/json.h"
#include "sweep_engine/peak_gflops.h"

namespace {

using command_line::Flag;
using sweep_engine::BenchmarkSettings;
using sweep_engine::Classifier;
using sweep_engine::Json;
using sweep_engine::LatencySeries;
using sweep_engine::Precision;
using sweep_engine::Result;
using sweep_engine::Status;

const std::vector<Flag> flags = {
    {"--precision", "fp32,int8",
     "measure the exports in these precisions, e.g. DIR-int8 for int8 (default: DIR)"},
    {"--threads", "1,2", "threads per inference (default: 1)"},
    {"--batch", "1,8", "images per query (default: 1)"},
    {"--workers", "1,2", "threads that share the model and run queries concurrently (default: 1)"},
    {"--kernels", "NAME", "ncnn, onednn or auto: the choice of the model's tuning (default: auto)"},
    {"--warmup", "N",
     "minimum warm-up queries per configuration, until latency settles (default: 10; 0: none)"},
    {"--repetitions", "N", "minimum measured queries per configuration (default: 200)"},
    {"--min-time-s", "S", "minimum measured seconds per configuration (default: 1)"},
    {"--max-time-s", "S", "maximum measured seconds per configuration (default: 60)"},
    {"--images", "FILE", "also measure top-1 accuracy on this image set"},
    {"--logits", "FILE", "reference logits of those images, for parity"},
    {"-o", "FORMAT", "output format: table (default), md, csv, json or jsonl"},
    {"--json", "FILE", "also write the record to this file; - is the same as -o json"},
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

/// The parsed command line.
struct Request {
  std::vector<std::string> folders;
  std::string images;
  std::string logits;
  std::string json;
  std::string format;
  BenchmarkSettings settings;
};

/// The image set for accuracy (empty without --images) and its reference logits.
struct EvaluationData {
  sweep_engine::ImageSet images;
  sweep_engine::Logits reference;
};

/// A model's record, and its values that are repeated in the result rows.
struct ModelReport {
  Json record;
  std::string precision;
  std::int64_t macs = 0;
  Json accuracy_top1;
  double parity_max_abs = 0.0;
  double parity_top1_agreement = 0.0;
  std::string warning;
};

Json describe_parity(const sweep_engine::Parity& parity, const char* reference) {
  Json record = Json::object();
  record.set("images", parity.images);
  record.set("max_abs", parity.max_abs);
  record.set("mean_abs", parity.mean_abs);
  record.set("top1_agreement", parity.top1_agreement());
  record.set("reference", reference);
  return record;
}

Result<ModelReport> describe_model(const std::string& folder, const EvaluationData& evaluation_data,
                                   sweep_engine::Kernels kernels, int workers) {
  sweep_engine::ClassifierOptions options;
  options.kernels = kernels;
  const Result<Classifier> loaded = Classifier::load(folder, options);
  if (!loaded.ok()) return loaded.status();
  const Classifier& model = loaded.value();
  const sweep_engine::Manifest& manifest = model.manifest();
  ModelReport report;
  report.precision = sweep_engine::precision_name(manifest.precision);
  report.macs = model.macs();
  Json& record = report.record = Json::object();
  record.set("name", manifest.name);
  record.set("precision", report.precision);
  record.set("folder", folder);
  record.set("sha256", manifest.bin.sha256);
  record.set("param_sha256", manifest.param.sha256);
  record.set("bytes", static_cast<double>(manifest.bin.bytes));
  record.set("macs", static_cast<double>(model.macs()));
  record.set("test_accuracy", manifest.test_accuracy < 0.0 ? Json() : Json(manifest.test_accuracy));
  Result<sweep_engine::Parity> parity = sweep_engine::measure_parity(model);
  if (!parity.ok()) return parity.status();
  const char* reference = "PyTorch fp32 logits of the self-test images";
  if (evaluation_data.images.count() > 0) {
    sweep_engine::ProgressCounter counter(
        &log_progress, "measuring accuracy in " + report.precision + ": ",
        " of " + std::to_string(evaluation_data.images.count()) + " images");
    const Result<sweep_engine::Accuracy> accuracy =
        sweep_engine::measure_accuracy(model, evaluation_data.images, evaluation_data.reference, workers,
                                       [&](std::size_t done) { counter.update(done); });
    if (!accuracy.ok()) return accuracy.status();
    Json found = Json::object();
    found.set("images", accuracy.value().images);
    found.set("correct", accuracy.value().correct);
    found.set("top1", accuracy.value().top1());
    report.accuracy_top1 = Json(accuracy.value().top1());
    record.set("accuracy", std::move(found));
    if (accuracy.value().parity.images > 0) {
      parity = accuracy.value().parity;
      reference = "reference logits of the image set";
    }
  }
  report.parity_max_abs = parity.value().max_abs;
  report.parity_top1_agreement = parity.value().top1_agreement();
  record.set("parity", describe_parity(parity.value(), reference));
  const std::string processor = sweep_engine::processor_name();
  if (!manifest.tuned_for.empty() && !processor.empty() && manifest.tuned_for != processor) {
    report.warning = manifest.name + " (" + report.precision + ") was tuned on " + manifest.tuned_for +
                     ", but this is " + processor +
                     ": it may run slower than possible; export it on this machine with --tune";
  } else if (manifest.tuned_for_onednn && kernels == sweep_engine::Kernels::automatic &&
             model.kernels() != sweep_engine::Kernels::onednn) {
    report.warning =
        manifest.name + " (" + report.precision +
        ") was tuned for oneDNN, which this build of the engine lacks, and runs slower with ncnn; "
        "install libdnnl-dev and build the engine again";
  }
  return report;
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

/// Peak GFLOP/s of one core, by precision.
class Peaks {
 public:
  void measure(const std::vector<Precision>& precisions) {
    for (const Precision precision : precisions) {
      const std::optional<double> found = sweep_engine::measure_peak_gflops(precision);
      std::optional<double>& best = best_[sweep_engine::precision_name(precision)];
      if (found && (!best || *found > *best)) best = found;
    }
  }

  /// Peak of `cores` cores; null if unknown.
  [[nodiscard]] Json for_cores(const std::string& precision, int cores) const {
    const auto found = best_.find(precision);
    if (found == best_.end() || !found->second) return {};
    return {*found->second * cores};
  }

  [[nodiscard]] Json record() const {
    Json all = Json::object();
    for (const auto& [precision, best] : best_) all.set(precision, best ? Json(*best) : Json());
    return all;
  }

 private:
  std::map<std::string, std::optional<double>> best_;
};

Json describe_row(const LatencySeries& series, const ModelReport& model, const Peaks& peaks, int cores) {
  Json row = sweep_engine::describe_series(series, model.macs);
  row.set("model", series.model);
  row.set("precision", model.precision);
  row.set("peak_gflops", peaks.for_cores(model.precision, std::min(series.threads * series.workers, cores)));
  row.set("accuracy_top1", model.accuracy_top1);
  row.set("parity_max_abs", model.parity_max_abs);
  row.set("parity_top1_agreement", model.parity_top1_agreement);
  return row;
}

Status read_evaluation_data(const Request& request, EvaluationData& evaluation_data) {
  if (!request.images.empty()) {
    Result<sweep_engine::ImageSet> images = sweep_engine::read_image_set(request.images);
    if (!images.ok()) return images.status();
    evaluation_data.images = std::move(images).value();
  }
  if (!request.logits.empty()) {
    Result<sweep_engine::Logits> reference = sweep_engine::read_logits(request.logits);
    if (!reference.ok()) return reference.status();
    evaluation_data.reference = std::move(reference).value();
  }
  return {};
}

Result<Json> measure(const Request& request) {
  EvaluationData evaluation_data;
  const Status read = read_evaluation_data(request, evaluation_data);
  if (!read.ok()) return read;
  const sweep_engine::LoadSample before = sweep_engine::sample_load();
  const Result<std::vector<LatencySeries>> series =
      sweep_engine::measure_latency(request.folders, request.settings, &log_progress);
  if (!series.ok()) return series.status();
  const Json noise = sweep_engine::describe_noise(before, sweep_engine::sample_load());

  Json context = sweep_engine::describe_host();
  context.set("noise", noise);
  const int cores = static_cast<int>(context.find("cores")->number());
  std::vector<ModelReport> models;
  std::vector<Precision> precisions;
  Json warnings = Json::array();
  Json model_records = Json::array();
  for (const std::string& folder : request.folders) {
    Result<ModelReport> model = describe_model(folder, evaluation_data, request.settings.kernels, cores);
    if (!model.ok()) return Status(model.status().code(), folder + ": " + model.status().message());
    models.push_back(std::move(model).value());
    if (!models.back().warning.empty()) warnings.add(models.back().warning);
    model_records.add(models.back().record);
    precisions.push_back(sweep_engine::parse_precision(models.back().precision).value());
  }
  Peaks peaks;
  peaks.measure(precisions);
  context.set("peak_gflops_one_core", peaks.record());
  context.set("warnings", std::move(warnings));

  Json document = Json::object();
  document.set("schema_version", 2);
  document.set("benchmark", "engine");
  document.set("context", std::move(context));
  document.set("settings", describe_settings(request.settings));
  document.set("models", std::move(model_records));
  Json results = Json::array();
  for (const LatencySeries& configuration : series.value()) {
    results.add(describe_row(configuration, models[configuration.model], peaks, cores));
  }
  document.set("results", std::move(results));
  return document;
}

int run(const Request& request) {
  const Result<Json> document = measure(request);
  if (!document.ok()) return command_line::fail(command_line::exit_failed, document.status().message());
  std::string error;
  if (!request.json.empty() &&
      !command_line::write_file(request.json, document.value().text(2) + "\n", error)) {
    return command_line::fail(command_line::exit_failed, error);
  }
  std::fputs(benchmark_output::text(document.value(), request.format).c_str(), stdout);
  return command_line::exit_ok;
}

/// Replace each folder by its exports in the requested precisions.
Status choose_folders(const std::string& precisions, std::vector<std::string>& folders) {
  if (precisions.empty()) return {};
  std::vector<std::string> chosen;
  for (const std::string& folder : folders) {
    std::istringstream words(precisions);
    for (std::string word; std::getline(words, word, ',');) {
      const Result<Precision> precision = sweep_engine::parse_precision(word);
      if (!precision.ok()) return precision.status();
      const Result<std::string> found = sweep_engine::find_precision_folder(folder, precision.value());
      if (!found.ok()) return found.status();
      if (std::find(chosen.begin(), chosen.end(), found.value()) == chosen.end())
        chosen.push_back(found.value());
    }
  }
  folders = chosen;
  return {};
}

/// Fill `request` from the parsed command line.
/// @returns an error message, empty on success
std::string read_command(const command_line::Parsed& parsed, Request& request) {
  BenchmarkSettings& settings = request.settings;
  std::string error;
  const bool valid =
      command_line::parse_counts("--threads", parsed.get("--threads", "1"), 1, 256, settings.threads,
                                 error) &&
      command_line::parse_counts("--batch", parsed.get("--batch", "1"), 1, 4096, settings.batches, error) &&
      command_line::parse_counts("--workers", parsed.get("--workers", "1"), 1, 256, settings.workers,
                                 error) &&
      command_line::parse_count("--warmup", parsed.get("--warmup", "10"), 0, 100000, settings.warmup,
                                error) &&
      command_line::parse_count("--repetitions", parsed.get("--repetitions", "200"), 1, 100000,
                                settings.repetitions, error) &&
      command_line::parse_seconds("--min-time-s", parsed.get("--min-time-s", "1"), 3600.0,
                                  settings.min_time_s, error) &&
      command_line::parse_seconds("--max-time-s", parsed.get("--max-time-s", "60"), 3600.0,
                                  settings.max_time_s, error);
  if (!valid) return error;
  const Result<sweep_engine::Kernels> kernels = sweep_engine::parse_kernels(parsed.get("--kernels", "auto"));
  if (!kernels.ok()) return "--kernels: " + kernels.status().message();
  settings.kernels = kernels.value();
  request.folders = parsed.positionals;
  request.images = parsed.get("--images", "");
  request.logits = parsed.get("--logits", "");
  request.json = parsed.get("--json", "");
  request.format = parsed.get("-o", "table");
  if (request.json == "-") {
    request.json.clear();
    request.format = "json";
  }
  if (!benchmark_output::is_format(request.format)) {
    return "-o takes table, md, csv, json or jsonl, got '" + request.format + "'";
  }
  if (request.folders.empty()) {
    return "expected a model folder: benchmark_ncnn [flags] MODEL_DIR ...; see --help";
  }
  if (!request.logits.empty() && request.images.empty()) return "--logits requires --images";
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  using command_line::exit_usage;
  const command_line::Parsed parsed = command_line::parse(argc, argv, flags);
  if (!parsed.error.empty()) return command_line::fail(exit_usage, parsed.error);
  if (parsed.has("--help")) {
    std::fputs(command_line::help("benchmark_ncnn [flags] MODEL_DIR ...", description, flags).c_str(),
               stdout);
    return command_line::exit_ok;
  }
  if (parsed.has("--version")) {
    std::printf("benchmark_ncnn %s\n", sweep_engine::describe_versions().c_str());
    return command_line::exit_ok;
  }
  Request request;
  const std::string error = read_command(parsed, request);
  if (!error.empty()) return command_line::fail(exit_usage, error);
  const std::vector<int>& threads = request.settings.threads;
  if (*std::max_element(threads.begin(), threads.end()) > 1) limit_openmp_spinning(argv);
  const Status chosen = choose_folders(parsed.get("--precision", ""), request.folders);
  if (!chosen.ok()) {
    const bool usage_error = chosen.code() == sweep_engine::StatusCode::invalid_argument;
    return command_line::fail(usage_error ? exit_usage : command_line::exit_failed,
                              (usage_error ? "--precision: " : "") + chosen.message());
  }
  return run(request);
}

// Measure exported networks on this machine: latency, throughput, accuracy on a set of pictures, parity with
// PyTorch.

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
    {"--precision", "fp32,int8", "the exports of these precisions, DIR-int8 beside DIR (default: DIR's own)"},
    {"--threads", "1,2", "threads of one inference (default: 1)"},
    {"--batch", "1,8", "pictures of one query, computed together (default: 1)"},
    {"--workers", "1,2", "threads that share the model, each with queries of its own (default: 1)"},
    {"--warmup", "N",
     "unmeasured queries of each configuration, more until it settles (default: 10; 0: none)"},
    {"--repetitions", "N", "measured queries of each configuration, at least (default: 200)"},
    {"--min-time-s", "S", "measured seconds of each configuration, at least (default: 1)"},
    {"--max-time-s", "S", "measured seconds of each configuration, at most (default: 60)"},
    {"--images", "FILE", "also count the right answers on this image set"},
    {"--logits", "FILE", "PyTorch's logits of those images, to compare with"},
    {"-o", "FORMAT", "what stdout gets: table (default), md, csv, json or jsonl"},
    {"--json", "FILE", "also write the record there; - is the same as -o json"},
    {"--version", "", "print the versions and stop"},
    {"--help", "", "print this and stop"},
};

constexpr const char* about =
    "Every model runs in every combination of threads, batch and workers. All configurations take turns, a "
    "few\n"
    "queries each, so that a disturbance meets them all; loading and the first inference are measured in a "
    "process\n"
    "of their own. Scenarios have MLPerf's names: single-stream (one picture after the other), multi-stream "
    "(queries\n"
    "of several pictures), offline (several workers). Peak: what one core reaches in registers, times the "
    "threads.\n"
    "Exit codes: 0 done, 1 the model or a file is no good, 2 the command line is wrong.";

/// libgomp reads its settings when it is loaded, and its default, to spin while it waits, lets one busy
/// neighbor slow two threads down tenfold. So the program starts itself once more with a short spin, unless
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

/// What the command line asks for.
struct Request {
  std::vector<std::string> folders;
  std::string images;
  std::string logits;
  std::string json;
  std::string format;
  BenchmarkSettings settings;
};

/// The pictures to count right answers on; empty without --images.
struct Questions {
  sweep_engine::ImageSet images;
  sweep_engine::Logits reference;
};

/// A model as the record has it, and what its rows repeat.
struct Described {
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

Result<Described> describe_model(const std::string& folder, const Questions& questions, int workers) {
  const Result<Classifier> loaded = Classifier::load(folder, {});
  if (!loaded.ok()) return loaded.status();
  const Classifier& model = loaded.value();
  const sweep_engine::Manifest& manifest = model.manifest();
  Described described;
  described.precision = sweep_engine::precision_name(manifest.precision);
  described.macs = model.macs();
  Json& record = described.record = Json::object();
  record.set("name", manifest.name);
  record.set("precision", described.precision);
  record.set("folder", folder);
  record.set("sha256", manifest.bin.sha256);
  record.set("param_sha256", manifest.param.sha256);
  record.set("bytes", static_cast<double>(manifest.bin.bytes));
  record.set("macs", static_cast<double>(model.macs()));
  record.set("test_accuracy", manifest.test_accuracy < 0.0 ? Json() : Json(manifest.test_accuracy));
  Result<sweep_engine::Parity> parity = sweep_engine::measure_parity(model);
  if (!parity.ok()) return parity.status();
  const char* reference = "PyTorch in fp32, the self-test's patterns";
  if (questions.images.count() > 0) {
    say("counting right answers in " + described.precision);
    const Result<sweep_engine::Accuracy> accuracy =
        sweep_engine::measure_accuracy(model, questions.images, questions.reference, workers);
    if (!accuracy.ok()) return accuracy.status();
    Json found = Json::object();
    found.set("images", accuracy.value().images);
    found.set("correct", accuracy.value().correct);
    found.set("top1", accuracy.value().top1());
    described.accuracy_top1 = Json(accuracy.value().top1());
    record.set("accuracy", std::move(found));
    if (accuracy.value().parity.images > 0) {
      parity = accuracy.value().parity;
      reference = "the logits given";
    }
  }
  described.parity_max_abs = parity.value().max_abs;
  described.parity_top1_agreement = parity.value().top1_agreement();
  record.set("parity", describe_parity(parity.value(), reference));
  const std::string here = sweep_engine::processor_name();
  if (!manifest.tuned_for.empty() && !here.empty() && manifest.tuned_for != here) {
    described.warning = manifest.name + " (" + described.precision + ") was tuned on " + manifest.tuned_for +
                        ", this is " + here + ": it may run slower than it could; export it here with --tune";
  }
  return described;
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
  record.set("warmup", settings.warmup);
  record.set("repetitions", settings.repetitions);
  record.set("min_time_s", settings.min_time_s);
  record.set("max_time_s", settings.max_time_s);
  return record;
}

/// The peaks of the precisions there are, of one core, taken before and after: the clock of a core changes.
class Peaks {
 public:
  void take(const std::vector<Precision>& precisions) {
    for (const Precision precision : precisions) {
      const std::optional<double> found = sweep_engine::measure_peak_gflops(precision);
      std::optional<double>& best = best_[sweep_engine::precision_name(precision)];
      if (found && (!best || *found > *best)) best = found;
    }
  }

  /// Of `cores` cores; null where it is unknown.
  Json of(const std::string& precision, int cores) const {
    const auto found = best_.find(precision);
    if (found == best_.end() || !found->second) return {};
    return Json(*found->second * cores);
  }

  Json record() const {
    Json all = Json::object();
    for (const auto& [precision, best] : best_) all.set(precision, best ? Json(*best) : Json());
    return all;
  }

 private:
  std::map<std::string, std::optional<double>> best_;
};

Json describe_row(const LatencySeries& series, const Described& model, const Peaks& peaks, int cores) {
  Json row = sweep_engine::describe_series(series, model.macs);
  row.set("model", series.model);
  row.set("precision", model.precision);
  row.set("peak_gflops", peaks.of(model.precision, std::min(series.threads * series.workers, cores)));
  row.set("accuracy_top1", model.accuracy_top1);
  row.set("parity_max_abs", model.parity_max_abs);
  row.set("parity_top1_agreement", model.parity_top1_agreement);
  return row;
}

Status read_questions(const Request& request, Questions& questions) {
  if (!request.images.empty()) {
    Result<sweep_engine::ImageSet> images = sweep_engine::read_image_set(request.images);
    if (!images.ok()) return images.status();
    questions.images = std::move(images).value();
  }
  if (!request.logits.empty()) {
    Result<sweep_engine::Logits> reference = sweep_engine::read_logits(request.logits);
    if (!reference.ok()) return reference.status();
    questions.reference = std::move(reference).value();
  }
  return {};
}

Result<Json> measure(const Request& request) {
  Questions questions;
  const Status read = read_questions(request, questions);
  if (!read.ok()) return read;
  const sweep_engine::LoadSample before = sweep_engine::sample_load();
  const Result<std::vector<LatencySeries>> series =
      sweep_engine::measure_latency(request.folders, request.settings, &say);
  if (!series.ok()) return series.status();
  const Json noise = sweep_engine::describe_noise(before, sweep_engine::sample_load());

  Json context = sweep_engine::describe_host();
  context.set("noise", noise);
  const int cores = static_cast<int>(context.find("cores")->number());
  std::vector<Described> models;
  std::vector<Precision> precisions;
  Json warnings = Json::array();
  Json model_records = Json::array();
  for (const std::string& folder : request.folders) {
    Result<Described> model = describe_model(folder, questions, cores);
    if (!model.ok()) return Status(model.status().code(), folder + ": " + model.status().message());
    models.push_back(std::move(model).value());
    if (!models.back().warning.empty()) warnings.add(models.back().warning);
    model_records.add(models.back().record);
    precisions.push_back(sweep_engine::parse_precision(models.back().precision).value());
  }
  Peaks peaks;
  peaks.take(precisions);
  context.set("peak_gflops_one_core", peaks.record());
  context.set("warnings", std::move(warnings));

  Json document = Json::object();
  document.set("schema_version", 2);
  document.set("benchmark", "engine");
  document.set("context", std::move(context));
  document.set("settings", describe_settings(request.settings));
  document.set("models", std::move(model_records));
  Json results = Json::array();
  for (const LatencySeries& one : series.value()) {
    results.add(describe_row(one, models[one.model], peaks, cores));
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

/// Replace each folder by those of the precisions asked for.
Status choose_folders(const std::string& wanted, std::vector<std::string>& folders) {
  if (wanted.empty()) return {};
  std::vector<std::string> chosen;
  for (const std::string& folder : folders) {
    std::istringstream words(wanted);
    for (std::string word; std::getline(words, word, ',');) {
      const Result<Precision> precision = sweep_engine::parse_precision(word);
      if (!precision.ok()) return precision.status();
      const Result<std::string> found = sweep_engine::folder_in(folder, precision.value());
      if (!found.ok()) return found.status();
      if (std::find(chosen.begin(), chosen.end(), found.value()) == chosen.end())
        chosen.push_back(found.value());
    }
  }
  folders = chosen;
  return {};
}

/// Fill `request`; the message of what is wrong, or nothing.
std::string read_command(const command_line::Parsed& parsed, Request& request) {
  BenchmarkSettings& settings = request.settings;
  std::string error;
  const bool fine =
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
  if (!fine) return error;
  request.folders = parsed.rest;
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
    return "give a model folder: benchmark_ncnn [flags] MODEL_DIR ...; --help tells more";
  }
  if (!request.logits.empty() && request.images.empty()) return "--logits are those of --images: give both";
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  using command_line::exit_usage;
  const command_line::Parsed parsed = command_line::parse(argc, argv, flags);
  if (!parsed.error.empty()) return command_line::fail(exit_usage, parsed.error);
  if (parsed.has("--help")) {
    std::fputs(command_line::help("benchmark_ncnn [flags] MODEL_DIR ...", about, flags).c_str(), stdout);
    return command_line::exit_ok;
  }
  if (parsed.has("--version")) {
    std::printf("benchmark_ncnn %s (ncnn %s)\n", sweep_engine::engine_version(),
                sweep_engine::ncnn_version());
    return command_line::exit_ok;
  }
  Request request;
  const std::string error = read_command(parsed, request);
  if (!error.empty()) return command_line::fail(exit_usage, error);
  const std::vector<int>& threads = request.settings.threads;
  if (*std::max_element(threads.begin(), threads.end()) > 1) tame_openmp(argv);
  const Status chosen = choose_folders(parsed.get("--precision", ""), request.folders);
  if (!chosen.ok()) {
    const bool mistyped = chosen.code() == sweep_engine::StatusCode::invalid_argument;
    return command_line::fail(mistyped ? exit_usage : command_line::exit_failed,
                              (mistyped ? "--precision: " : "") + chosen.message());
  }
  return run(request);
}

// Classify pictures with an exported model: the five most probable classes of each.

#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <dirent.h>

#include "command_line.h"
#include "sweep_engine/classifier.h"
#include "sweep_engine/host.h"
#include "sweep_engine/image.h"
#include "sweep_engine/json.h"

namespace {

using command_line::Flag;
using sweep_engine::Classifier;
using sweep_engine::Json;
using sweep_engine::Result;
using sweep_engine::Score;

const std::vector<Flag> flags = {
    {"--model", "DIR", "the model folder (default: $RESNET_SWEEP_MODEL)"},
    {"--top", "N", "classes to show for each picture (default: 5)"},
    {"--threads", "N", "threads of one inference (default: 1)"},
    {"--json", "", "one JSON document on stdout instead of text"},
    {"--no-self-test", "", "do not reproduce the model's stored logits first"},
    {"--version", "", "print the versions and stop"},
    {"--help", "", "print this and stop"},
};

constexpr const char* about =
    "Classify JPEG and PNG pictures. A folder stands for the pictures in it, - for one picture on stdin.\n"
    "Exit codes: 0 done, 1 the model or a picture is no good, 2 the command line is wrong.";

bool is_folder(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

bool has_picture_name(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c); });
  for (const char* ending : {".jpg", ".jpeg", ".png"}) {
    const std::string end(ending);
    if (name.size() > end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0) return true;
  }
  return false;
}

std::vector<std::string> pictures_in(const std::string& folder) {
  std::vector<std::string> paths;
  if (DIR* stream = ::opendir(folder.c_str())) {
    while (const dirent* entry = ::readdir(stream)) {
      if (has_picture_name(entry->d_name)) paths.push_back(folder + "/" + entry->d_name);
    }
    ::closedir(stream);
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

Result<sweep_engine::Image> read_picture(const std::string& path) {
  if (path != "-") return sweep_engine::decode_image_file(path);
  std::string data;
  char piece[65536];
  std::size_t got = 0;
  while ((got = std::fread(piece, 1, sizeof piece, stdin)) > 0) data.append(piece, got);
  Result<sweep_engine::Image> image = sweep_engine::decode_image(data);
  if (!image.ok()) return sweep_engine::Status(image.status().code(), "stdin: " + image.status().message());
  return image;
}

Json describe(const std::string& path, const Result<std::vector<Score>>& scores) {
  Json record = Json::object();
  record.set("path", path);
  if (!scores.ok()) {
    Json error = Json::object();
    error.set("code", sweep_engine::status_code_name(scores.status().code()));
    error.set("message", scores.status().message());
    record.set("error", std::move(error));
    return record;
  }
  Json top = Json::array();
  for (const Score& score : scores.value()) {
    Json item = Json::object();
    item.set("label", score.label);
    item.set("index", score.index);
    item.set("probability", score.probability);
    top.add(std::move(item));
  }
  record.set("top", std::move(top));
  return record;
}

void print(const std::string& path, const std::vector<Score>& scores, bool with_path) {
  if (with_path) std::printf("%s\n", path.c_str());
  for (const Score& score : scores) {
    std::printf("%s%6.2f %%  %s\n", with_path ? "  " : "", 100.0 * score.probability, score.label.c_str());
  }
}

int classify(const Classifier& model, const std::vector<std::string>& paths, int top, bool as_json) {
  int code = command_line::exit_ok;
  Json records = Json::array();
  for (const std::string& path : paths) {
    const Result<sweep_engine::Image> image = read_picture(path);
    const Result<std::vector<Score>> scores =
        image.ok() ? model.classify(image.value(), top) : Result<std::vector<Score>>(image.status());
    if (!scores.ok()) code = command_line::fail(command_line::exit_failed, scores.status().message());
    if (as_json) {
      records.add(describe(path, scores));
    } else if (scores.ok()) {
      print(path, scores.value(), paths.size() > 1);
    }
  }
  if (as_json) {
    Json document = Json::object();
    document.set("schema_version", 1);
    document.set("model", model.manifest().name);
    document.set("precision", sweep_engine::precision_name(model.manifest().precision));
    document.set("images", std::move(records));
    std::printf("%s\n", document.text(2).c_str());
  }
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  using command_line::exit_usage;
  const command_line::Parsed parsed = command_line::parse(argc, argv, flags);
  if (!parsed.error.empty()) return command_line::fail(exit_usage, parsed.error);
  if (parsed.has("--help")) {
    const std::string usage = "resnet18 [--model DIR] [--json] IMAGE|FOLDER|- ...";
    std::fputs(command_line::help(usage, about, flags).c_str(), stdout);
    return command_line::exit_ok;
  }
  if (parsed.has("--version")) {
    std::printf("resnet18 %s (ncnn %s, %s)\n", sweep_engine::engine_version(), sweep_engine::ncnn_version(),
                sweep_engine::image_decoders());
    return command_line::exit_ok;
  }
  int top = 5;
  sweep_engine::ClassifierOptions options;
  std::string error;
  if (!command_line::parse_count("--top", parsed.get("--top", "5"), 1, 100000, top, error) ||
      !command_line::parse_count("--threads", parsed.get("--threads", "1"), 1, 256, options.num_threads,
                                 error)) {
    return command_line::fail(exit_usage, error);
  }
  const char* from_environment = std::getenv("RESNET_SWEEP_MODEL");
  const std::string folder = parsed.get("--model", from_environment == nullptr ? "" : from_environment);
  if (folder.empty()) {
    return command_line::fail(exit_usage,
                              "a model is needed: --model DIR, or RESNET_SWEEP_MODEL=DIR, where DIR is "
                              "a sweep's export folder (runs/SWEEP/export)");
  }
  if (parsed.rest.empty()) {
    return command_line::fail(exit_usage,
                              "give at least one picture: resnet18 --model DIR IMAGE ...; --help tells more");
  }
  std::vector<std::string> paths;
  for (const std::string& path : parsed.rest) {
    if (!is_folder(path)) {
      paths.push_back(path);
      continue;
    }
    const std::vector<std::string> found = pictures_in(path);
    if (found.empty()) {
      return command_line::fail(command_line::exit_failed,
                                path + ": this folder has no .jpg, .jpeg or .png file");
    }
    paths.insert(paths.end(), found.begin(), found.end());
  }
  options.self_test = !parsed.has("--no-self-test");
  const Result<Classifier> model = Classifier::load(folder, options);
  if (!model.ok())
    return command_line::fail(command_line::exit_failed, folder + ": " + model.status().message());
  return classify(model.value(), paths, top, parsed.has("--json"));
}

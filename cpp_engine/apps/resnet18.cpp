// Classify images with an exported model.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

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
    {"--model", "DIR", "model folder (default: $RESNET_SWEEP_MODEL)"},
    {"--top", "N", "number of classes per image (default: 5)"},
    {"--threads", "N", "threads per inference (default: 1)"},
    {"--json", "", "print one JSON document instead of text"},
    {"--no-self-test", "", "skip the comparison with the model's reference logits"},
    {"--version", "", "print the versions and exit"},
    {"--help", "", "print this help and exit"},
};

constexpr const char* description =
    "Classify JPEG and PNG images. Each argument is an image file, a folder of images, or - for stdin.\n"
    "Exit codes: 0 success, 1 invalid model or image, 2 usage error.";

/// The image files of a folder, sorted; none if it cannot be read.
std::vector<std::string> list_images(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::string extension = entry->path().extension().string();
    std::transform(extension.begin(), extension.end(), extension.begin(),
                   [](unsigned char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c); });
    if (extension == ".jpg" || extension == ".jpeg" || extension == ".png")
      paths.push_back(entry->path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

Result<sweep_engine::Image> read_image(const std::string& path) {
  if (path != "-") return sweep_engine::decode_image_file(path);
  std::string data;
  char buffer[65536];
  std::size_t got = 0;
  while ((got = std::fread(buffer, 1, sizeof buffer, stdin)) > 0) {
    data.append(buffer, got);
    if (data.size() > sweep_engine::max_image_bytes) {
      return sweep_engine::Status(
          sweep_engine::StatusCode::image_invalid,
          "stdin: more than the limit of " + std::to_string(sweep_engine::max_image_bytes) + " bytes");
    }
  }
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
    const Result<sweep_engine::Image> image = read_image(path);
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
  command_line::Parsed parsed = command_line::parse(argc, argv, flags);
  const std::string version = sweep_engine::describe_versions() + ", " + sweep_engine::image_decoders();
  if (command_line::print_information(parsed, "resnet18 [--model DIR] [--json] IMAGE|FOLDER|- ...",
                                      description, flags, version)) {
    return command_line::exit_ok;
  }
  sweep_engine::ClassifierOptions options;
  const int top = parsed.count("--top", "5", 1, 100000);
  options.num_threads = parsed.count("--threads", "1", 1, 256);
  if (!parsed.error.empty()) return command_line::fail(exit_usage, parsed.error);
  const char* from_environment = std::getenv("RESNET_SWEEP_MODEL");
  const std::string folder = parsed.get("--model", from_environment == nullptr ? "" : from_environment);
  if (folder.empty()) {
    return command_line::fail(exit_usage,
                              "missing model: use --model DIR or RESNET_SWEEP_MODEL=DIR, where DIR is the "
                              "export folder of a sweep (runs/SWEEP/export)");
  }
  if (parsed.positionals.empty()) {
    return command_line::fail(exit_usage,
                              "expected at least one image: resnet18 --model DIR IMAGE ...; see --help");
  }
  std::vector<std::string> paths;
  for (const std::string& path : parsed.positionals) {
    std::error_code error_code;
    if (!std::filesystem::is_directory(path, error_code)) {
      paths.push_back(path);
      continue;
    }
    const std::vector<std::string> found = list_images(path);
    if (found.empty()) {
      return command_line::fail(command_line::exit_failed,
                                path + ": no .jpg, .jpeg or .png file in this folder");
    }
    paths.insert(paths.end(), found.begin(), found.end());
  }
  options.self_test = !parsed.has("--no-self-test");
  const Result<Classifier> model = Classifier::load(folder, options);
  if (!model.ok())
    return command_line::fail(command_line::exit_failed, folder + ": " + model.status().message());
  return classify(model.value(), paths, top, parsed.has("--json"));
}

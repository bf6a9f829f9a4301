#include "sweep_engine/model_folder.h"

#include <sys/stat.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>

#include "sweep_engine/json.h"

namespace sweep_engine {

namespace {

constexpr std::uint64_t manifest_limit = 64U << 20;
constexpr int max_side = 4096;

using Kind = Json::Kind;

/// Reads the fields of one JSON object and keeps the first error.
class Fields {
 public:
  Fields(const Json& object, std::string path, Status& status)
      : object_(object), path_(std::move(path)), status_(status) {
    if (!object.is(Kind::object)) fail("", "must be an object");
  }

  [[nodiscard]] const Json* get(const char* key, Kind kind, const char* kind_name) {
    const Json* value = object_.find(key);
    if (value == nullptr) {
      fail(key, "is missing");
      return nullptr;
    }
    if (!value->is(kind)) {
      fail(key, std::string("must be ") + kind_name + ", got " + value->text().substr(0, 60));
      return nullptr;
    }
    return value;
  }

  std::string text(const char* key) {
    const Json* value = get(key, Kind::string, "a string");
    return value == nullptr ? std::string() : value->string();
  }

  double number(const char* key, double low, double high) {
    const Json* value = get(key, Kind::number, "a number");
    if (value == nullptr) return low;
    if (value->number() >= low && value->number() <= high) return value->number();
    fail(key, "is " + value->text() + ", must be from " + Json(low).text() + " to " + Json(high).text());
    return low;
  }

  std::uint64_t integer(const char* key, double low, double high) {
    const double value = number(key, low, high);
    if (value != std::floor(value)) fail(key, "must be an integer, got " + Json(value).text());
    return static_cast<std::uint64_t>(value);
  }

  std::vector<double> numbers(const char* key) {
    const Json* value = get(key, Kind::array, "a list of numbers");
    return value == nullptr ? std::vector<double>() : as_numbers(*value, key);
  }

  std::vector<double> as_numbers(const Json& list, const std::string& key) {
    std::vector<double> values;
    if (!list.is(Kind::array)) fail(key, "must be a list of numbers");
    for (const Json& item : list.items()) {
      if (!item.is(Kind::number)) {
        fail(key, "must be a list of numbers, got " + item.text().substr(0, 60));
        break;
      }
      values.push_back(item.number());
    }
    return values;
  }

  Fields child(const char* key) {
    static const Json empty = Json::object();
    const Json* value = get(key, Kind::object, "an object");
    return {value == nullptr ? empty : *value, path_ + key + ".", status_};
  }

  void fail(const std::string& key, const std::string& what) {
    if (status_.ok()) status_ = Status(StatusCode::model_invalid, path_ + key + " " + what);
  }

 private:
  const Json& object_;
  std::string path_;
  Status& status_;
};

FileSpec read_file_spec(Fields files, const char* name) {
  Fields fields = files.child(name);
  FileSpec file;
  file.name = name;
  file.sha256 = fields.text("sha256");
  file.bytes = fields.integer("bytes", 1, 1e12);
  if (file.sha256.size() != 64 || file.sha256.find_first_not_of("0123456789abcdef") != std::string::npos) {
    fields.fail("sha256", "must be 64 lower-case hexadecimal digits");
  }
  return file;
}

InputSpec read_input(Fields fields) {
  InputSpec input;
  input.blob = fields.text("blob");
  input.channels = static_cast<int>(fields.integer("channels", 3, 3));
  input.height = static_cast<int>(fields.integer("height", 1, max_side));
  input.width = static_cast<int>(fields.integer("width", 1, max_side));
  const std::string color = fields.text("color");
  if (color != "RGB") fields.fail("color", "must be RGB, got " + Json(color).text());
  const std::string resize = fields.text("resize");
  if (resize == "shorter_side_crop") {
    input.resize = ResizeMode::shorter_side_crop;
    const int min_side = input.height > input.width ? input.height : input.width;
    input.shorter_side = static_cast<int>(fields.integer("shorter_side", min_side, max_side));
  } else if (resize != "direct") {
    fields.fail("resize", "must be direct or shorter_side_crop, got " + Json(resize).text());
  }
  return input;
}

NormalizationSpec read_normalization(Fields fields, const InputSpec& input) {
  NormalizationSpec normalization;
  for (const double value : fields.numbers("mean")) normalization.mean.push_back(static_cast<float>(value));
  for (const double value : fields.numbers("std")) normalization.std.push_back(static_cast<float>(value));
  const auto channels = static_cast<std::size_t>(input.channels);
  if (normalization.mean.size() != channels && normalization.mean.size() != input.size()) {
    fields.fail("mean", "must have one number per channel (" + std::to_string(channels) + ") or per pixel (" +
                            std::to_string(input.size()) + "), got " +
                            std::to_string(normalization.mean.size()));
  }
  if (normalization.std.size() != channels) {
    fields.fail("std", "must have one number per channel (" + std::to_string(channels) + "), got " +
                           std::to_string(normalization.std.size()));
  }
  for (const float value : normalization.std) {
    if (!(value > 0.0F))
      fields.fail("std", "must be positive, got " + Json(static_cast<double>(value)).text());
  }
  return normalization;
}

void read_self_test(Fields fields, Manifest& manifest) {
  manifest.self_test_tolerance = fields.number("tolerance", 0.0, 1e30);
  const Json* rows = fields.get("logits", Kind::array, "a list of lists of numbers");
  if (rows == nullptr) return;
  for (const Json& row : rows->items()) {
    manifest.self_test_logits.push_back(fields.as_numbers(row, "logits"));
    if (manifest.self_test_logits.back().size() != manifest.classes.size()) {
      fields.fail("logits", "must have one number per class (" + std::to_string(manifest.classes.size()) +
                                "), got " + std::to_string(manifest.self_test_logits.back().size()));
    }
  }
  if (rows->items().empty()) fields.fail("logits", "must have at least one row");
}

}  // namespace

const char* precision_name(Precision precision) {
  switch (precision) {
    case Precision::fp32: return "fp32";
    case Precision::fp16: return "fp16";
    case Precision::bf16: return "bf16";
    case Precision::int8: return "int8";
  }
  return "unknown";
}

Result<Precision> parse_precision(const std::string& name) {
  for (const Precision precision : {Precision::fp32, Precision::fp16, Precision::bf16, Precision::int8}) {
    if (name == precision_name(precision)) return precision;
  }
  return Status(StatusCode::invalid_argument,
                "precision must be fp32, fp16, bf16 or int8, got " + Json(name).text());
}

Result<std::string> read_file(const std::string& path, std::uint64_t limit) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    return Status(StatusCode::io_error, path + ": " + std::strerror(errno));
  }
  if (!S_ISREG(info.st_mode)) {
    return Status(StatusCode::io_error,
                  path + (S_ISDIR(info.st_mode) ? ": is a folder" : ": not a regular file"));
  }
  if (static_cast<std::uint64_t>(info.st_size) > limit) {
    return Status(StatusCode::io_error, path + ": " + std::to_string(info.st_size) +
                                            " bytes exceed the limit of " + std::to_string(limit));
  }
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
  if (file == nullptr) return Status(StatusCode::io_error, path + ": " + std::strerror(errno));
  std::string data(static_cast<std::size_t>(info.st_size), '\0');
  if (std::fread(data.data(), 1, data.size(), file.get()) != data.size()) {
    return Status(StatusCode::io_error, path + ": incomplete read");
  }
  return data;
}

Result<Manifest> read_manifest(const std::string& folder) {
  const std::string path = folder + "/model.json";
  const Result<std::string> text = read_file(path, manifest_limit);
  if (!text.ok()) {
    return Status(
        StatusCode::model_invalid,
        "not a model folder (expected model.json, model.param and model.bin): " + text.status().message());
  }
  const Result<Json> json = parse_json(text.value());
  if (!json.ok()) {
    return Status(StatusCode::model_invalid, path + ": not valid JSON: " + json.status().message());
  }
  Status status;
  Manifest manifest;
  Fields root(json.value(), "", status);
  const double version = root.number("schema_version", -1e9, 1e9);
  if (version != 1.0) {
    root.fail("schema_version",
              "is " + Json(version).text() + ", but this engine supports version 1. Export the model again");
  }
  manifest.name = root.text("name");
  manifest.input = read_input(root.child("input"));
  manifest.normalization = read_normalization(root.child("normalization"), manifest.input);
  Fields output = root.child("output");
  manifest.output_blob = output.text("blob");
  if (const Json* classes = output.get("classes", Kind::array, "a list of strings")) {
    for (const Json& item : classes->items()) {
      if (!item.is(Kind::string)) output.fail("classes", "must be a list of strings");
      manifest.classes.push_back(item.string());
    }
    if (manifest.classes.empty()) output.fail("classes", "must have at least one class");
  }
  const Result<Precision> precision = parse_precision(root.text("precision"));
  if (precision.ok()) {
    manifest.precision = precision.value();
  } else {
    root.fail("", precision.status().message());
  }
  Fields files = root.child("files");
  manifest.param = read_file_spec(files, "model.param");
  manifest.bin = read_file_spec(files, "model.bin");
  read_self_test(root.child("self_test"), manifest);
  if (const Json* source = json.value().find("source")) {
    const Json* accuracy = source->find("test_accuracy");
    if (accuracy != nullptr && accuracy->is(Kind::number)) manifest.test_accuracy = accuracy->number();
  }
  if (const Json* tuning = json.value().find("tuning")) {
    const Json* processor = tuning->find("processor");
    if (processor != nullptr && processor->is(Kind::string)) manifest.tuned_for = processor->string();
    const Json* kernels = tuning->find("kernels");
    manifest.tuned_for_onednn =
        kernels != nullptr && kernels->is(Kind::string) && kernels->string() == "onednn";
  }
  if (!status.ok()) return Status(status.code(), path + ": " + status.message());
  return manifest;
}

std::vector<std::uint8_t> self_test_pattern(const InputSpec& input, int k) {
  std::vector<std::uint8_t> pixels(input.size());
  const auto width = static_cast<std::size_t>(input.width);
  const auto height = static_cast<std::size_t>(input.height);
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    const std::size_t row = i / width % height;
    pixels[i] = static_cast<std::uint8_t>((31 * i + 17 * row + 97 * static_cast<std::size_t>(k)) % 256);
  }
  return pixels;
}

}  // namespace sweep_engine

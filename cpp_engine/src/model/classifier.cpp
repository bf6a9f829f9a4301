#include "sweep_engine/classifier.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <new>
#include <numeric>

#include <cpu.h>
#include <datareader.h>
#include <net.h>

#include "model/graph.h"
#include "sweep_engine/json.h"
#include "sweep_engine/sha256.h"

#if !NCNN_BATCH
#error "the engine needs ncnn 20260617 or newer, built with NCNN_BATCH=ON (the default)"
#endif

namespace sweep_engine {

namespace {

constexpr std::uint64_t param_limit = 16U << 20;

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

/// Gives ncnn the file it was checked in, and never a byte more than was checked.
class BoundedReader : public ncnn::DataReader {
 public:
  BoundedReader(std::FILE* file, std::uint64_t bytes) : file_(file), left_(bytes) {}

  std::size_t read(void* out, std::size_t size) const override {
    if (size > left_) return 0;
    const std::size_t got = std::fread(out, 1, size, file_);
    left_ -= got;
    return got;
  }

  std::uint64_t left() const { return left_; }

 private:
  std::FILE* file_;
  mutable std::uint64_t left_;
};

Status bad(const std::string& message) { return {StatusCode::model_invalid, message}; }

Status wrong_size(const FileSpec& file, std::uint64_t got) {
  return bad(file.name + ": has " + std::to_string(got) + " bytes where model.json says " +
             std::to_string(file.bytes) +
             "; the file is damaged or not of this model. Export the model again");
}

Status wrong_hash(const FileSpec& file) {
  return bad(
      file.name +
      ": its SHA-256 is not the one in model.json; the file was changed or damaged. Export the model again");
}

Result<std::string> read_param(const std::string& folder, const FileSpec& file) {
  Result<std::string> text = read_file(folder + "/" + file.name, param_limit);
  if (!text.ok()) return bad(text.status().message());
  if (text.value().size() != file.bytes) return wrong_size(file, text.value().size());
  Sha256 hash;
  hash.update(text.value().data(), text.value().size());
  if (hash.hex() != file.sha256) return wrong_hash(file);
  return text;
}

/// Open the weights and check size and hash, piece by piece: a copy in memory would double what loading
/// costs.
Result<std::shared_ptr<std::FILE>> open_checked(const std::string& folder, const FileSpec& file) {
  const std::string path = folder + "/" + file.name;
  const std::shared_ptr<std::FILE> handle(std::fopen(path.c_str(), "rb"), [](std::FILE* f) {
    if (f != nullptr) std::fclose(f);
  });
  struct stat info {};
  if (handle == nullptr || ::fstat(::fileno(handle.get()), &info) != 0)
    return bad(path + ": " + std::strerror(errno));
  if (!S_ISREG(info.st_mode)) return bad(path + ": is not a regular file");
  if (static_cast<std::uint64_t>(info.st_size) != file.bytes) {
    return wrong_size(file, static_cast<std::uint64_t>(info.st_size));
  }
  Sha256 hash;
  std::vector<char> piece(std::size_t{1} << 18);
  std::size_t got = 0;
  while ((got = std::fread(piece.data(), 1, piece.size(), handle.get())) > 0) hash.update(piece.data(), got);
  if (hash.hex() != file.sha256) return wrong_hash(file);
  std::rewind(handle.get());
  return handle;
}

ncnn::Option options_for(Precision precision, int num_threads) {
  ncnn::Option option;
  option.num_threads = num_threads;
  // On x86 these only round the classifier's weights to half precision: no speed, 1e-4 of error.
  option.use_fp16_packed = false;
  option.use_fp16_storage = false;
  option.use_fp16_arithmetic = false;
  option.use_bf16_packed = precision == Precision::bf16;
  option.use_bf16_storage = precision == Precision::bf16;
  return option;
}

// bf16 and int8 convolutions lose their own kernels to Winograd's, which compute in fp32.
WinogradPolicy policy_for(Precision precision) {
  const bool plain = precision == Precision::fp32 || precision == Precision::fp16;
  return plain ? WinogradPolicy::where_it_pays : WinogradPolicy::off;
}

Result<Graph> checked_graph(const Manifest& manifest, const std::string& text) {
  Result<Graph> graph = parse_graph(text);
  if (!graph.ok()) return graph;
  const Shape input{3, manifest.input.width, manifest.input.height, manifest.input.channels};
  const Result<Shape> output = infer_shapes(graph.value(), manifest.input.blob, input, manifest.output_blob);
  if (!output.ok()) return output.status();
  const Shape expected{1, static_cast<int>(manifest.classes.size()), 1, 1};
  if (!(output.value() == expected)) {
    return bad("model.json names " + std::to_string(manifest.classes.size()) +
               " classes and the network has " + std::to_string(output.value().total()) + " outputs");
  }
  return graph;
}

}  // namespace

struct PreparedInput::Data {
  ncnn::Mat values;
};

PreparedInput::PreparedInput() : data_(std::make_unique<Data>()) {}
PreparedInput::~PreparedInput() = default;
PreparedInput::PreparedInput(PreparedInput&&) noexcept = default;
PreparedInput& PreparedInput::operator=(PreparedInput&&) noexcept = default;

struct Classifier::Impl {
  Manifest manifest;
  ncnn::Net net;
  std::int64_t macs = 0;
};

Classifier::Classifier(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Classifier::~Classifier() = default;
Classifier::Classifier(Classifier&&) noexcept = default;
Classifier& Classifier::operator=(Classifier&&) noexcept = default;

const Manifest& Classifier::manifest() const { return impl_->manifest; }
std::int64_t Classifier::macs() const { return impl_->macs; }

namespace {

Status run_self_test(const Classifier& classifier) {
  const Manifest& manifest = classifier.manifest();
  for (std::size_t k = 0; k < manifest.self_test_logits.size(); ++k) {
    const std::vector<double>& expected = manifest.self_test_logits[k];
    const Result<std::vector<float>> got =
        classifier.logits(self_test_pattern(manifest.input, static_cast<int>(k)));
    if (!got.ok()) return got.status();
    double worst = 0.0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      worst = std::max(worst, std::fabs(expected[i] - static_cast<double>(got.value()[i])));
    }
    if (!(worst <= manifest.self_test_tolerance)) {
      return bad("the self-test failed: a logit of pattern " + std::to_string(k) + " differs by " +
                 Json(worst).text() + " from model.json's, more than " +
                 Json(manifest.self_test_tolerance).text() +
                 ". The files do not belong together, or this processor computes otherwise");
    }
  }
  return {};
}

/// @param to  channels x height x width, fp32
void normalize(const Manifest& manifest, const std::vector<std::uint8_t>& pixels, ncnn::Mat& to) {
  const NormalizationSpec& norm = manifest.normalization;
  const auto channels = static_cast<std::size_t>(manifest.input.channels);
  const bool mean_image = norm.mean.size() != channels;
  const std::size_t plane = pixels.size() / channels;
  for (std::size_t c = 0; c < channels; ++c) {
    float* levels = to.channel(static_cast<int>(c));
    const std::size_t begin = c * plane;
    for (std::size_t i = 0; i < plane; ++i) {
      // The same operations in the same order as in training: the last bit counts in a parity check.
      const float mean = norm.mean[mean_image ? begin + i : c];
      levels[i] = (static_cast<float>(pixels[begin + i]) / 255.0F - mean) / norm.std[c];
    }
  }
}

}  // namespace

Result<Classifier> Classifier::load(const std::string& folder, const ClassifierOptions& options) {
  if (options.num_threads < 1 || options.num_threads > 256) {
    return Status(StatusCode::invalid_argument,
                  "num_threads must be from 1 to 256, got " + std::to_string(options.num_threads));
  }
  try {
    Result<Manifest> manifest = read_manifest(folder);
    if (!manifest.ok()) return manifest.status();
    auto impl = std::make_unique<Impl>();
    impl->manifest = std::move(manifest).value();
    const Result<std::string> text = read_param(folder, impl->manifest.param);
    if (!text.ok()) return text.status();
    const Result<Graph> graph = checked_graph(impl->manifest, text.value());
    if (!graph.ok()) return graph.status();
    const Result<std::shared_ptr<std::FILE>> bin = open_checked(folder, impl->manifest.bin);
    if (!bin.ok()) return bin.status();
    const Precision precision = impl->manifest.precision;
    const Status weights =
        check_weights(graph.value(), bin.value().get(), impl->manifest.bin.bytes, precision);
    if (!weights.ok()) return weights;
    std::rewind(bin.value().get());

    impl->macs = graph.value().macs;
    impl->net.opt = options_for(precision, options.num_threads);
    const BoundedReader reader(bin.value().get(), impl->manifest.bin.bytes);
    if (impl->net.load_param_mem(write_graph(graph.value(), policy_for(precision)).c_str()) != 0) {
      return bad("ncnn refuses model.param");
    }
    if (impl->net.load_model(reader) != 0 || reader.left() != 0) return bad("ncnn refuses model.bin");
    Classifier classifier(std::move(impl));
    if (options.self_test) {
      const Status status = run_self_test(classifier);
      if (!status.ok()) return status;
    }
    return classifier;
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::out_of_memory, "not enough memory to load " + folder);
  }
}

Result<PreparedInput> Classifier::prepare(const std::vector<std::uint8_t>& pixels) const {
  return prepare_batch({pixels});
}

Result<PreparedInput> Classifier::prepare_batch(
    const std::vector<std::vector<std::uint8_t>>& pictures) const {
  const InputSpec& spec = impl_->manifest.input;
  if (pictures.empty()) return Status(StatusCode::invalid_argument, "a batch needs at least one picture");
  for (const std::vector<std::uint8_t>& pixels : pictures) {
    if (pixels.size() == spec.size()) continue;
    return Status(StatusCode::invalid_argument, "the network takes " + std::to_string(spec.size()) +
                                                    " levels (channels x height x width), got " +
                                                    std::to_string(pixels.size()));
  }
  PreparedInput input;
  ncnn::Mat& values = input.data_->values;
  values.create(spec.width, spec.height, spec.channels, sizeof(float), 1, static_cast<int>(pictures.size()));
  if (values.empty()) return Status(StatusCode::out_of_memory, "not enough memory for the input");
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    ncnn::Mat one = values.batch(static_cast<int>(i));
    normalize(impl_->manifest, pictures[i], one);
  }
  return input;
}

Result<std::vector<float>> Classifier::infer(const PreparedInput& input) const {
  // One extractor per query: a second input on the same one would return the first one's cached result.
  ncnn::Extractor extractor = impl_->net.create_extractor();
  ncnn::Mat output;
  int code = extractor.input(impl_->manifest.input.blob.c_str(), input.data_->values);
  if (code == 0) code = extractor.extract(impl_->manifest.output_blob.c_str(), output);
  if (code != 0) return Status(StatusCode::inference_failed, "ncnn returned error " + std::to_string(code));
  const std::size_t classes = impl_->manifest.classes.size();
  if (output.dims != 1 || static_cast<std::size_t>(output.w) != classes ||
      output.n != input.data_->values.n) {
    return Status(StatusCode::inference_failed,
                  "the output is not one row of " + std::to_string(classes) + " logits for each picture");
  }
  std::vector<float> logits;
  logits.reserve(classes * static_cast<std::size_t>(output.n));
  for (int i = 0; i < output.n; ++i) {
    const ncnn::Mat row = output.batch(i);
    const float* values = row;
    logits.insert(logits.end(), values, values + classes);
  }
  for (const float value : logits) {
    if (!std::isfinite(value)) return Status(StatusCode::inference_failed, "the output is not finite");
  }
  return logits;
}

Result<std::vector<float>> Classifier::logits(const std::vector<std::uint8_t>& pixels) const {
  const Result<PreparedInput> input = prepare(pixels);
  if (!input.ok()) return input.status();
  return infer(input.value());
}

Result<std::vector<Score>> Classifier::classify(const Image& image, int top) const {
  const Result<std::vector<std::uint8_t>> pixels = fit_to_input(image, impl_->manifest.input);
  if (!pixels.ok()) return pixels.status();
  const Result<std::vector<float>> output = logits(pixels.value());
  if (!output.ok()) return output.status();
  const std::vector<double> probabilities = softmax(output.value());
  std::vector<std::size_t> order(probabilities.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return probabilities[a] > probabilities[b]; });
  order.resize(std::min(order.size(), static_cast<std::size_t>(std::max(top, 0))));
  std::vector<Score> scores;
  for (const std::size_t i : order) {
    scores.push_back({static_cast<int>(i), impl_->manifest.classes[i], probabilities[i]});
  }
  return scores;
}

Result<std::vector<std::uint8_t>> fit_to_input(const Image& image, const InputSpec& input) {
  int width = input.width;
  int height = input.height;
  if (input.resize == ResizeMode::shorter_side_crop && image.width > 0 && image.height > 0) {
    // torchvision's Resize(int): the longer side is rounded down.
    const std::int64_t side = input.shorter_side;
    const bool wide = image.width > image.height;
    width = static_cast<int>(wide ? side * image.width / image.height : side);
    height = static_cast<int>(wide ? side : side * image.height / image.width);
  }
  Result<Image> fitted = resize_image(image, width, height);
  if (fitted.ok() && input.resize == ResizeMode::shorter_side_crop) {
    fitted = center_crop(fitted.value(), input.width, input.height);
  }
  if (!fitted.ok()) return fitted.status();
  const std::vector<std::uint8_t>& rgb = fitted.value().rgb;
  const std::size_t plane = rgb.size() / 3;
  std::vector<std::uint8_t> pixels(rgb.size());
  for (std::size_t i = 0; i < rgb.size(); ++i) pixels[i % 3 * plane + i / 3] = rgb[i];
  return pixels;
}

std::vector<double> softmax(const std::vector<float>& logits) {
  std::vector<double> out(logits.begin(), logits.end());
  if (out.empty()) return out;
  const double largest = *std::max_element(out.begin(), out.end());
  double sum = 0.0;
  for (double& value : out) sum += value = std::exp(value - largest);
  for (double& value : out) value /= sum;
  return out;
}

const char* ncnn_version() { return NCNN_VERSION_STRING; }

}  // namespace sweep_engine

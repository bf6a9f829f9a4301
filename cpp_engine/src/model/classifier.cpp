#include "sweep_engine/classifier.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <new>
#include <numeric>

#include <cpu.h>
#include <datareader.h>
#include <net.h>

#include "model/checked_files.h"
#include "model/graph.h"
#include "onednn/executor.h"
#include "sweep_engine/host.h"
#include "sweep_engine/json.h"

#if !NCNN_BATCH
#error "the engine requires ncnn 20260617 or newer, built with NCNN_BATCH=ON (the default)"
#endif

namespace sweep_engine {

namespace {

Status invalid_model(const std::string& message) { return {StatusCode::model_invalid, message}; }

/// Limits ncnn to the checked bytes of an open file.
class BoundedReader : public ncnn::DataReader {
 public:
  BoundedReader(std::FILE* file, std::uint64_t bytes) : file_(file), left_(bytes) {}

  std::size_t read(void* out, std::size_t size) const override {
    if (size > left_) return 0;
    const std::size_t got = std::fread(out, 1, size, file_);
    left_ -= got;
    return got;
  }

  [[nodiscard]] std::uint64_t left() const { return left_; }

 private:
  std::FILE* file_;
  mutable std::uint64_t left_;
};

ncnn::Option options_for(Precision precision, int num_threads) {
  ncnn::Option option;
  option.num_threads = num_threads;
  // On x86, fp16 options only round the fully connected layer's weights: no speedup, an error of 1e-4.
  option.use_fp16_packed = false;
  option.use_fp16_storage = false;
  option.use_fp16_arithmetic = false;
  option.use_bf16_packed = precision == Precision::bf16;
  option.use_bf16_storage = precision == Precision::bf16;
  return option;
}

Result<Graph> checked_graph(const Manifest& manifest, const std::string& text) {
  Result<Graph> graph = parse_graph(text);
  if (!graph.ok()) return graph;
  const Shape input{3, manifest.input.width, manifest.input.height, manifest.input.channels};
  const Result<Shape> output = infer_shapes(graph.value(), manifest.input.blob, input, manifest.output_blob);
  if (!output.ok()) return output.status();
  const Shape expected{1, static_cast<int>(manifest.classes.size()), 1, 1};
  if (!(output.value() == expected)) {
    return invalid_model("model.json declares " + std::to_string(manifest.classes.size()) +
                         " classes, but the network has " + std::to_string(output.value().total()) +
                         " outputs");
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
  ncnn::Net net;                             ///< empty if oneDNN runs the network
  std::unique_ptr<onednn::Executor> onednn;  ///< null if ncnn runs it
  std::int64_t macs = 0;
};

Classifier::Classifier(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Classifier::~Classifier() = default;
Classifier::Classifier(Classifier&&) noexcept = default;
Classifier& Classifier::operator=(Classifier&&) noexcept = default;

const Manifest& Classifier::manifest() const { return impl_->manifest; }
std::int64_t Classifier::macs() const { return impl_->macs; }
Kernels Classifier::kernels() const { return impl_->onednn != nullptr ? Kernels::onednn : Kernels::ncnn; }

namespace {

Status run_self_test(const Classifier& classifier) {
  const Result<Parity> parity = measure_parity(classifier);
  if (!parity.ok()) return parity.status();
  const double tolerance = classifier.manifest().self_test_tolerance;
  if (parity.value().max_abs <= tolerance) return {};
  return invalid_model("self-test failed: the logits differ from model.json by up to " +
                       Json(parity.value().max_abs).text() + ", the tolerance is " + Json(tolerance).text() +
                       ". The files belong to different models, or " + kernels_name(classifier.kernels()) +
                       " computes incorrectly on this processor");
}

template <typename Number>
std::ptrdiff_t top1(const std::vector<Number>& logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

/// Kernels that were the fastest on another processor need not be so on this one.
bool is_onednn_wanted(const Manifest& manifest, Kernels kernels) {
  if (kernels != Kernels::automatic) return kernels == Kernels::onednn;
  return manifest.tuned_for_onednn && manifest.tuned_for == processor_name();
}

Status load_ncnn(ncnn::Net& net, const Graph& graph, const Manifest& manifest, std::FILE* bin,
                 const ClassifierOptions& options) {
  net.opt = options_for(manifest.precision, options.num_threads);
  std::rewind(bin);
  const BoundedReader reader(bin, manifest.bin.bytes);
  if (net.load_param_mem(write_graph(graph).c_str()) != 0) return invalid_model("ncnn rejected model.param");
  if (net.load_model(reader) != 0 || reader.left() != 0) return invalid_model("ncnn rejected model.bin");
  return {};
}

/// @param output  fp32 [channels, height, width]
void normalize(const Manifest& manifest, const std::vector<std::uint8_t>& pixels, ncnn::Mat& output) {
  const NormalizationSpec& norm = manifest.normalization;
  const auto channels = static_cast<std::size_t>(manifest.input.channels);
  const bool has_mean_image = norm.mean.size() != channels;
  const std::size_t plane = pixels.size() / channels;
  for (std::size_t c = 0; c < channels; ++c) {
    float* values = output.channel(static_cast<int>(c));
    const std::size_t begin = c * plane;
    for (std::size_t i = 0; i < plane; ++i) {
      // The same operations in the same order as in training, so that the results are bit-identical.
      const float mean = norm.mean[has_mean_image ? begin + i : c];
      values[i] = (static_cast<float>(pixels[begin + i]) / 255.0F - mean) / norm.std[c];
    }
  }
}

/// @param values  receives fp32 [images, channels, height, width]
Status create_images(const InputSpec& spec, std::size_t images, ncnn::Mat& values) {
  if (images == 0) return {StatusCode::invalid_argument, "a batch needs at least one image"};
  values.create(spec.width, spec.height, spec.channels, sizeof(float), 1, static_cast<int>(images));
  if (values.empty()) return {StatusCode::out_of_memory, "not enough memory for the input"};
  return {};
}

Result<std::vector<float>> run_ncnn(const ncnn::Net& net, const Manifest& manifest, const ncnn::Mat& images) {
  // One extractor per query: an extractor caches its result and ignores a second input.
  ncnn::Extractor extractor = net.create_extractor();
  ncnn::Mat output;
  int code = extractor.input(manifest.input.blob.c_str(), images);
  if (code == 0) code = extractor.extract(manifest.output_blob.c_str(), output);
  if (code != 0) return Status(StatusCode::inference_failed, "ncnn returned error " + std::to_string(code));
  const std::size_t classes = manifest.classes.size();
  if (output.dims != 1 || static_cast<std::size_t>(output.w) != classes || output.n != images.n) {
    return Status(StatusCode::inference_failed,
                  "the network output does not have " + std::to_string(classes) + " logits per image");
  }
  std::vector<float> logits;
  logits.reserve(classes * static_cast<std::size_t>(output.n));
  for (int i = 0; i < output.n; ++i) {
    const ncnn::Mat row = output.batch(i);
    const float* values = row;
    logits.insert(logits.end(), values, values + classes);
  }
  return logits;
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
    const Result<std::string> text = read_checked_text(folder, impl->manifest.param);
    if (!text.ok()) return text.status();
    const Result<Graph> graph = checked_graph(impl->manifest, text.value());
    if (!graph.ok()) return graph.status();
    const Result<std::shared_ptr<std::FILE>> bin = open_checked_file(folder, impl->manifest.bin);
    if (!bin.ok()) return bin.status();
    const Precision precision = impl->manifest.precision;
    const Status weights =
        check_weights(graph.value(), bin.value().get(), impl->manifest.bin.bytes, precision);
    if (!weights.ok()) return weights;

    impl->macs = graph.value().macs;
    if (is_onednn_wanted(impl->manifest, options.kernels)) {
      Result<std::unique_ptr<onednn::Executor>> executor = onednn::Executor::load(
          graph.value(), bin.value().get(), precision, impl->manifest.output_blob, options.num_threads);
      if (executor.ok()) {
        impl->onednn = std::move(executor).value();
      } else if (options.kernels == Kernels::onednn || executor.status().code() != StatusCode::unsupported) {
        return executor.status();
      }
    }
    if (impl->onednn == nullptr) {
      const Status loaded = load_ncnn(impl->net, graph.value(), impl->manifest, bin.value().get(), options);
      if (!loaded.ok()) return loaded;
    }
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

Result<PreparedInput> Classifier::prepare_batch(const std::vector<std::vector<std::uint8_t>>& images) const {
  const InputSpec& spec = impl_->manifest.input;
  for (const std::vector<std::uint8_t>& pixels : images) {
    if (pixels.size() == spec.size()) continue;
    return Status(StatusCode::invalid_argument, "the network input has " + std::to_string(spec.size()) +
                                                    " pixel values (channels x height x width), got " +
                                                    std::to_string(pixels.size()));
  }
  PreparedInput input;
  ncnn::Mat& values = input.data_->values;
  const Status created = create_images(spec, images.size(), values);
  if (!created.ok()) return created;
  for (std::size_t i = 0; i < images.size(); ++i) {
    ncnn::Mat one = values.batch(static_cast<int>(i));
    normalize(impl_->manifest, images[i], one);
  }
  return input;
}

Result<PreparedInput> Classifier::prepare_normalized(const float* values, int images) const {
  PreparedInput input;
  const Status created = create_images(impl_->manifest.input, static_cast<std::size_t>(std::max(images, 0)),
                                       input.data_->values);
  if (!created.ok()) return created;
  for (int i = 0; i < images; ++i) {
    ncnn::Mat one = input.data_->values.batch(i);
    for (int c = 0; c < one.c; ++c) {
      float* plane = one.channel(c);
      std::copy(values, values + one.w * one.h, plane);
      values += one.w * one.h;
    }
  }
  return input;
}

Result<std::vector<float>> Classifier::infer(const PreparedInput& input) const {
  const ncnn::Mat& images = input.data_->values;
  Result<std::vector<float>> logits =
      impl_->onednn == nullptr ? run_ncnn(impl_->net, impl_->manifest, images)
                               : impl_->onednn->run({images, images.n, images.cstep, images.nstep});
  if (!logits.ok()) return logits;
  for (const float value : logits.value()) {
    if (!std::isfinite(value))
      return Status(StatusCode::inference_failed, "the network output is not finite");
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
  scores.reserve(order.size());
  for (const std::size_t i : order) {
    scores.push_back({static_cast<int>(i), impl_->manifest.classes[i], probabilities[i]});
  }
  return scores;
}

Result<Parity> measure_parity(const Classifier& classifier) {
  const Manifest& manifest = classifier.manifest();
  Parity parity;
  for (const std::vector<double>& expected : manifest.self_test_logits) {
    const Result<std::vector<float>> got =
        classifier.logits(self_test_pattern(manifest.input, parity.images++));
    if (!got.ok()) return got.status();
    if (top1(got.value()) == top1(expected)) ++parity.same_top1;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const double difference = std::fabs(expected[i] - static_cast<double>(got.value()[i]));
      parity.max_abs = std::max(parity.max_abs, difference);
      parity.mean_abs += difference;
    }
  }
  parity.mean_abs /= parity.images * static_cast<double>(manifest.classes.size());
  return parity;
}

Result<std::vector<std::uint8_t>> fit_to_input(const Image& image, const InputSpec& input) {
  const Result<Image> fitted =
      input.resize == ResizeMode::shorter_side_crop
          ? resize_and_center_crop(image, input.shorter_side, input.width, input.height)
          : resize_image(image, input.width, input.height);
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

const char* kernels_name(Kernels kernels) {
  switch (kernels) {
    case Kernels::automatic: return "auto";
    case Kernels::ncnn: return "ncnn";
    case Kernels::onednn: return "onednn";
  }
  return "unknown";
}

Result<Kernels> parse_kernels(const std::string& name) {
  for (const Kernels kernels : {Kernels::automatic, Kernels::ncnn, Kernels::onednn}) {
    if (name == kernels_name(kernels)) return kernels;
  }
  return Status(StatusCode::invalid_argument,
                "kernels must be auto, ncnn or onednn, got " + Json(name).text());
}

const char* ncnn_version() { return NCNN_VERSION_STRING; }

std::string onednn_version() { return onednn::library_version(); }

}  // namespace sweep_engine

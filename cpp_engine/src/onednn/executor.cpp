#include "onednn/executor.h"

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <unordered_map>

#include <cpu.h>

#include "onednn/activations.h"
#include "onednn/api_versions.h"
#include "onednn/network.h"

namespace sweep_engine::onednn {

namespace {

using dnnl::memory;
using Arguments = std::unordered_map<int, memory>;

constexpr std::size_t max_batch_sizes = 8;

/// Set the number of OpenMP threads of this thread, which oneDNN uses, for the duration of a call.
class ThreadLimit {
 public:
  explicit ThreadLimit(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~ThreadLimit() { omp_set_num_threads(before_); }
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;

 private:
  int before_;
};

memory::data_type data_type(Format format) {
  switch (format) {
    case Format::fp32: return memory::data_type::f32;
    case Format::bf16: return memory::data_type::bf16;
    case Format::s8: return memory::data_type::s8;
    case Format::u8: return memory::data_type::u8;
  }
  return memory::data_type::f32;
}

/// The constant arguments of an operation, in the layout of its kernel.
struct PackedWeights {
  memory weights;
  memory bias;
  memory factors;  ///< int8 with oneDNN 3
};

/// The kernels for one number of images.
struct Plan {
  int images = 1;
  std::vector<dnnl::primitive> kernels;  ///< per operation; none for a mean
  std::vector<MemoryDesc> scratchpads;
  std::vector<MemoryDesc> values;
  std::vector<std::size_t> offsets;  ///< of each value in a workspace
  std::size_t scratchpad_offset = 0;
  std::size_t workspace_bytes = 0;
};

/// Memory of one execution.
struct Workspace {
  std::vector<char> storage;
  char* begin = nullptr;  ///< aligned
  std::vector<Arguments> arguments;
};

class OnednnExecutor : public Executor {
 public:
  OnednnExecutor(Network network, int num_threads)
      : network_(std::move(network)), num_threads_(num_threads), engine_(dnnl::engine::kind::cpu, 0) {}

  Status prepare(std::FILE* bin);
  Result<std::vector<float>> run(const Images& images) const override;

 private:
  /// A plan with the workspaces that are not in use.
  struct Prepared {
    Plan plan;
    std::mutex guard;
    std::vector<std::unique_ptr<Workspace>> idle;
  };

  const Value& value(int index) const { return network_.value(index); }
  Dims dims_of(int index, int images) const;
  MemoryDesc desc_of(int index, int images) const;
  Dims weight_dims(const Operation& operation) const;
  std::vector<float> factors_of(const Operation& operation) const;
  dnnl::primitive_attr attributes_of(const Operation& operation, int images) const;
  MemoryDesc weights_desc(std::size_t index) const;
  bool plan_kernels(Plan& plan, std::vector<MemoryDesc>* weight_layouts) const;
  Status pack(std::FILE* bin, std::size_t index, const MemoryDesc& layout);
  std::shared_ptr<Prepared> find_plan(int images) const;
  std::unique_ptr<Workspace> make_workspace(const Plan& plan) const;
  void execute(const Plan& plan, Workspace& workspace, const Images& images) const;

  Network network_;
  int num_threads_;
  dnnl::engine engine_;
  std::vector<PackedWeights> weights_;
  mutable std::mutex guard_;
  mutable std::map<int, std::shared_ptr<Prepared>> plans_;  ///< by number of images; null: no kernels
};

Dims OnednnExecutor::dims_of(int index, int images) const {
  const Shape& shape = value(index).shape;
  if (shape.dims == 1) return {images, shape.w};
  return {images, shape.c, shape.h, shape.w};
}

MemoryDesc OnednnExecutor::desc_of(int index, int images) const {
  const bool is_vector = value(index).shape.dims == 1;
  return {dims_of(index, images), data_type(value(index).format),
          is_vector ? memory::format_tag::nc : memory::format_tag::nhwc};
}

Dims OnednnExecutor::weight_dims(const Operation& operation) const {
  Dims dims{static_cast<memory::dim>(operation.weights.bias.size()), dims_of(operation.input, 1)[1]};
  if (operation.kind == Operation::Kind::convolution)
    dims.insert(dims.end(), {operation.kernel[0], operation.kernel[1]});
  return dims;
}

/// Factors that map an int8 convolution's sums to the stored output.
std::vector<float> OnednnExecutor::factors_of(const Operation& operation) const {
  std::vector<float> factors;
  for (const float scale : operation.weights.scales) {
    factors.push_back(value(operation.output).scale / (value(operation.input).scale * scale));
  }
  return factors;
}

dnnl::primitive_attr OnednnExecutor::attributes_of(const Operation& operation, int images) const {
  dnnl::primitive_attr attributes;
  // A workspace of the caller, because the default one must not be used by several threads.
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (operation.kind != Operation::Kind::convolution) return attributes;
  if (!operation.weights.scales.empty()) set_output_factors(attributes, factors_of(operation));
  dnnl::post_ops post_ops;
  if (operation.accumulates) {
    post_ops.append_sum(value(operation.output).scale / value(operation.residual).scale);
  } else if (operation.residual >= 0) {
    post_ops.append_binary(dnnl::algorithm::binary_add, desc_of(operation.residual, images));
  }
  if (operation.has_relu) append_relu(post_ops);
  attributes.set_post_ops(post_ops);
  return attributes;
}

/// The layout in which the weights were packed, or any layout before that.
MemoryDesc OnednnExecutor::weights_desc(std::size_t index) const {
  if (index < weights_.size()) return weights_[index].weights.get_desc();
  const Operation& operation = network_.operations[index];
  const bool is_int8 = !operation.weights.scales.empty();
  const auto type = is_int8 ? memory::data_type::s8 : data_type(value(operation.input).format);
  return {weight_dims(operation), type, memory::format_tag::any};
}

/// @param weight_layouts  receives the layouts of the weights; null if they are packed
/// @returns false if oneDNN has no kernel for an operation
bool OnednnExecutor::plan_kernels(Plan& plan, std::vector<MemoryDesc>* weight_layouts) const {
  for (int i = 0; i < static_cast<int>(network_.values.size()); ++i) {
    plan.values.push_back(desc_of(i, plan.images));
  }
  for (std::size_t i = 0; i < network_.operations.size(); ++i) {
    const Operation& operation = network_.operations[i];
    const MemoryDesc& input = plan.values[static_cast<std::size_t>(operation.input)];
    const MemoryDesc& output = plan.values[static_cast<std::size_t>(operation.output)];
    const dnnl::primitive_attr attributes = attributes_of(operation, plan.images);
    const Window window{{operation.kernel[0], operation.kernel[1]},
                        {operation.stride[0], operation.stride[1]},
                        {operation.pad_before[0], operation.pad_before[1]},
                        {operation.pad_after[0], operation.pad_after[1]}};
    const MemoryDesc bias({static_cast<memory::dim>(operation.weights.bias.size())}, memory::data_type::f32,
                          memory::format_tag::x);
    MemoryDesc layout;
    MemoryDesc scratchpad;
    dnnl::primitive kernel;
    if (operation.kind == Operation::Kind::convolution) {
      const auto found =
          describe_convolution(engine_, input, weights_desc(i), bias, output, window, attributes);
      if (!found) return false;
      layout = found.weights_desc();
      scratchpad = found.scratchpad_desc();
      kernel = dnnl::convolution_forward(found);
    } else if (operation.kind == Operation::Kind::linear) {
      const auto found = describe_linear(engine_, input, weights_desc(i), bias, output, attributes);
      if (!found) return false;
      layout = found.weights_desc();
      scratchpad = found.scratchpad_desc();
      kernel = dnnl::inner_product_forward(found);
    } else if (operation.kind == Operation::Kind::max_pool) {
      const auto found = describe_max_pool(engine_, input, output, window, attributes);
      if (!found) return false;
      scratchpad = found.scratchpad_desc();
      kernel = dnnl::pooling_forward(found);
    }
    if (weight_layouts != nullptr) weight_layouts->push_back(layout);
    plan.kernels.push_back(kernel);
    plan.scratchpads.push_back(scratchpad);
  }
  std::vector<std::size_t> bytes;
  for (const MemoryDesc& desc : plan.values) bytes.push_back(desc.get_size());
  plan.offsets = place_values(network_, bytes, plan.scratchpad_offset);
  plan.workspace_bytes = plan.scratchpad_offset;
  for (const MemoryDesc& desc : plan.scratchpads)
    plan.workspace_bytes = std::max(plan.workspace_bytes, plan.scratchpad_offset + desc.get_size());
  return true;
}

memory copy_to_memory(const std::vector<float>& numbers, const dnnl::engine& engine) {
  const MemoryDesc desc({static_cast<memory::dim>(numbers.size())}, memory::data_type::f32,
                        memory::format_tag::x);
  memory copy(desc, engine);
  std::memcpy(copy.get_data_handle(), numbers.data(), numbers.size() * sizeof(float));
  return copy;
}

Status OnednnExecutor::pack(std::FILE* bin, std::size_t index, const MemoryDesc& layout) {
  const Operation& operation = network_.operations[index];
  const Weights& source = operation.weights;
  PackedWeights& packed = weights_[index];
  if (source.bias.empty()) return {};
  const bool is_int8 = !source.scales.empty();
  const Dims dims = weight_dims(operation);
  std::vector<float> numbers;
  std::vector<std::int8_t> bytes;
  if (!(is_int8 ? read_int8_weights(network_, operation, bin, bytes)
                : read_weights(network_, operation, bin, numbers))) {
    return {StatusCode::io_error, "model.bin: incomplete read"};
  }
  memory plain({dims, is_int8 ? memory::data_type::s8 : memory::data_type::f32,
                dims.size() == 2 ? memory::format_tag::oi : memory::format_tag::oihw},
               engine_, is_int8 ? static_cast<void*>(bytes.data()) : static_cast<void*>(numbers.data()));
  packed.weights = memory(layout, engine_);
  dnnl::stream stream(engine_);
  dnnl::reorder(plain, packed.weights).execute(stream, plain, packed.weights);
  stream.wait();
  std::vector<float> bias = source.bias;
  if (is_int8) {
    const std::vector<float> factors = factors_of(operation);
    for (std::size_t c = 0; c < bias.size(); ++c) {
      bias[c] *= value(operation.output).scale / (factors_are_arguments ? 1.0F : factors[c]);
    }
    if (factors_are_arguments) packed.factors = copy_to_memory(factors, engine_);
  }
  packed.bias = copy_to_memory(bias, engine_);
  return {};
}

Status OnednnExecutor::prepare(std::FILE* bin) {
  const ThreadLimit limit(num_threads_);
  for (const Operation& operation : network_.operations) {
    if (operation.kind == Operation::Kind::linear && value(operation.input).shape.dims != 1)
      return {StatusCode::unsupported,
              "not supported with oneDNN: a fully connected layer without a mean before it"};
  }
  auto prepared = std::make_shared<Prepared>();
  std::vector<MemoryDesc> layouts;
  if (!plan_kernels(prepared->plan, &layouts))
    return {StatusCode::unsupported, "oneDNN has no kernel for this network on this processor"};
  weights_.resize(network_.operations.size());
  for (std::size_t i = 0; i < layouts.size(); ++i) {
    Status status = pack(bin, i, layouts[i]);
    if (!status.ok()) return status;
  }
  plans_[1] = std::move(prepared);
  return {};
}

std::shared_ptr<OnednnExecutor::Prepared> OnednnExecutor::find_plan(int images) const {
  const std::lock_guard<std::mutex> lock(guard_);
  const auto found = plans_.find(images);
  if (found != plans_.end()) return found->second;
  if (plans_.size() >= max_batch_sizes) plans_.erase(std::next(plans_.find(1)), plans_.end());
  auto prepared = std::make_shared<Prepared>();
  prepared->plan.images = images;
  if (!plan_kernels(prepared->plan, nullptr)) prepared = nullptr;
  return plans_[images] = prepared;
}

std::unique_ptr<Workspace> OnednnExecutor::make_workspace(const Plan& plan) const {
  auto workspace = std::make_unique<Workspace>();
  workspace->storage.resize(plan.workspace_bytes + alignment);
  const auto address = reinterpret_cast<std::uintptr_t>(workspace->storage.data());
  workspace->begin = workspace->storage.data() + (alignment - address % alignment) % alignment;
  char* scratchpad = workspace->begin + plan.scratchpad_offset;
  std::vector<memory> values;
  for (std::size_t i = 0; i < plan.values.size(); ++i) {
    values.emplace_back(plan.values[i], engine_, workspace->begin + plan.offsets[i]);
  }
  for (std::size_t i = 0; i < network_.operations.size(); ++i) {
    const Operation& operation = network_.operations[i];
    Arguments arguments{{DNNL_ARG_SRC, values[static_cast<std::size_t>(operation.input)]},
                        {DNNL_ARG_DST, values[static_cast<std::size_t>(operation.output)]}};
    if (plan.scratchpads[i].get_size() > 0)
      arguments[DNNL_ARG_SCRATCHPAD] = memory(plan.scratchpads[i], engine_, scratchpad);
    if (weights_[i].bias) {
      arguments[DNNL_ARG_WEIGHTS] = weights_[i].weights;
      arguments[DNNL_ARG_BIAS] = weights_[i].bias;
    }
    if (weights_[i].factors) arguments[factors_argument] = weights_[i].factors;
    if (operation.residual >= 0 && !operation.accumulates) {
      arguments[DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1] =
          values[static_cast<std::size_t>(operation.residual)];
    }
    workspace->arguments.push_back(std::move(arguments));
  }
  return workspace;
}

void OnednnExecutor::execute(const Plan& plan, Workspace& workspace, const Images& images) const {
  write_input(images, value(0), workspace.begin + plan.offsets[0]);
  dnnl::stream stream(engine_);
  for (std::size_t i = 0; i < network_.operations.size(); ++i) {
    if (network_.operations[i].kind == Operation::Kind::mean) {
      stream.wait();
      const Operation& operation = network_.operations[i];
      const char* from = workspace.begin + plan.offsets[static_cast<std::size_t>(operation.input)];
      char* to = workspace.begin + plan.offsets[static_cast<std::size_t>(operation.output)];
      write_means(from, value(operation.input), plan.images, reinterpret_cast<float*>(to));
    } else {
      plan.kernels[i].execute(stream, workspace.arguments[i]);
    }
  }
  stream.wait();
}

Result<std::vector<float>> OnednnExecutor::run(const Images& images) const {
  try {
    const ThreadLimit limit(num_threads_);
    const std::shared_ptr<Prepared> prepared = find_plan(images.count);
    std::vector<float> logits;
    if (prepared == nullptr) {
      for (int i = 0; i < images.count; ++i) {
        Result<std::vector<float>> one =
            run({images.values + static_cast<std::size_t>(i) * images.image_stride, 1, images.plane_stride,
                 images.image_stride});
        if (!one.ok()) return one;
        logits.insert(logits.end(), one.value().begin(), one.value().end());
      }
      return logits;
    }
    std::unique_ptr<Workspace> workspace;
    {
      const std::lock_guard<std::mutex> lock(prepared->guard);
      if (!prepared->idle.empty()) {
        workspace = std::move(prepared->idle.back());
        prepared->idle.pop_back();
      }
    }
    if (workspace == nullptr) workspace = make_workspace(prepared->plan);
    execute(prepared->plan, *workspace, images);
    const auto output = static_cast<std::size_t>(network_.operations.back().output);
    const float* begin = reinterpret_cast<const float*>(workspace->begin + prepared->plan.offsets[output]);
    logits.assign(begin, begin + prepared->plan.values[output].get_size() / sizeof(float));
    const std::lock_guard<std::mutex> lock(prepared->guard);
    prepared->idle.push_back(std::move(workspace));
    return logits;
  } catch (const dnnl::error& error) {
    return Status(StatusCode::inference_failed, std::string("oneDNN: ") + error.what());
  }
}

}  // namespace

std::string library_version() {
  const dnnl_version_t* version = dnnl::version();
  return std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
         std::to_string(version->patch);
}

Result<std::unique_ptr<Executor>> Executor::load(const Graph& graph, std::FILE* bin, Precision precision,
                                                 const std::string& output_blob, int num_threads) {
  // In oneDNN 2.6 the addition of a shortcut is wrong in some kernels for SSE4.1.
  if (ncnn::cpu_support_x86_avx2() == 0)
    return Status(StatusCode::unsupported, "oneDNN's kernels are used on processors with AVX2 only");
  Result<Network> network = fuse_layers(graph, bin, precision, output_blob);
  if (!network.ok()) return network.status();
  try {
    auto executor = std::make_unique<OnednnExecutor>(std::move(network).value(), num_threads);
    Status status = executor->prepare(bin);
    if (!status.ok()) return status;
    return std::unique_ptr<Executor>(std::move(executor));
  } catch (const dnnl::error& error) {
    return Status(StatusCode::unsupported, std::string("oneDNN: ") + error.what());
  }
}

}  // namespace sweep_engine::onednn

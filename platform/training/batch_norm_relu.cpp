// Batch normalization, the sum with a shortcut and the rectifier: each direction in two passes over memory.
//
// PyTorch computes them one after another, each reading and writing the whole activation: on a CPU that is
// memory traffic and little else. Here the forward pass reads the input once for its statistics and once to
// write the output; the backward pass recomputes the rectifier's mask instead of reading it.
//
// Activations are matrices [rows, channels] in row-major order: NCHW in the channels_last format, with
// rows = N*H*W and channels a multiple of 16. A chunk of rows is one thread's unit of work. Sums are taken
// within a chunk, then over the chunks in their order, so that no result depends on the number of threads.
//
// Compiled by platform/training/native.py, called by platform/training/fused_norm.py; no other file knows it.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace {

// 32 KiB of bf16: the second reading of a chunk comes from L1 or L2.
constexpr int64_t kChunkElements = 16384;

struct BFloat16 {
  uint16_t bits;
};

inline float widen(float value) { return value; }
inline float widen(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

inline void narrow(float value, float& out) { out = value; }
inline void narrow(float value, BFloat16& out) {  // to the nearest, ties to even; a NaN stays one
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  out.bits = static_cast<uint16_t>(value == value ? rounded : 0x7fc0U);
}

enum class Kind : int32_t { kPlain = 0, kRectified = 1, kAddedAndRectified = 2 };

struct Shape {
  int64_t rows;
  int64_t channels;

  int64_t chunk_rows() const { return std::max<int64_t>(1, kChunkElements / channels); }
  int64_t chunks() const { return (rows + chunk_rows() - 1) / chunk_rows(); }
  int64_t begin(int64_t chunk) const { return chunk * chunk_rows(); }
  int64_t rows_of(int64_t chunk) const { return std::min(chunk_rows(), rows - begin(chunk)); }
};

// What the forward pass leaves for the backward pass; each [channels].
struct Saved {
  float* mean;
  float* rstd;
  float* scale;  // weight * rstd
  float* shift;  // bias - mean * scale

  Saved(float* memory, int64_t channels)
      : mean(memory), rstd(memory + channels), scale(memory + 2 * channels), shift(memory + 3 * channels) {}
};

// Moves a pointer that may be null: not every kind of pass has every operand.
template <class T>
T* moved(T* pointer, int64_t by) {
  return pointer == nullptr ? nullptr : pointer + by;
}

// The numbers of kWidth neighboring channels, copied: the compiler knows that no output overlaps them.
template <int kWidth>
struct Lanes {
  float value[kWidth];

  explicit Lanes(const float* memory) { std::copy_n(memory, kWidth, value); }
  float operator[](int lane) const { return value[lane]; }
};

// Calls work(offset of the first element, rows, first channel, chunk) for each chunk and kWidth channels.
template <int kWidth, class Work>
void for_each_block(const Shape& shape, int threads, const Work& work) {
  const int64_t chunks = shape.chunks();
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    for (int64_t c = 0; c < shape.channels; c += kWidth) {
      work(shape.begin(chunk) * shape.channels + c, shape.rows_of(chunk), c, chunk);
    }
  }
}

// The functions below treat kWidth neighboring channels of one chunk: kWidth accumulators fit the registers.

// Mean and sum of squared deviations: by a second pass, since the difference of sums would lose digits.
template <int kWidth, class T>
void chunk_statistics(const T* x, int64_t rows, int64_t stride, float* mean, float* squares) {
  float sum[kWidth] = {};
  for (int64_t row = 0; row < rows; ++row) {
    const T* const in = x + row * stride;
    for (int i = 0; i < kWidth; ++i) sum[i] += widen(in[i]);
  }
  float center[kWidth];
  for (int i = 0; i < kWidth; ++i) center[i] = sum[i] / static_cast<float>(rows);
  float deviations[kWidth] = {};
  for (int64_t row = 0; row < rows; ++row) {
    const T* const in = x + row * stride;
    for (int i = 0; i < kWidth; ++i) {
      const float deviation = widen(in[i]) - center[i];
      deviations[i] += deviation * deviation;
    }
  }
  std::copy_n(center, kWidth, mean);
  std::copy_n(deviations, kWidth, squares);
}

template <int kWidth, class T, Kind kKind>
void chunk_forward(const T* x, const T* shortcut, T* y, int64_t rows, int64_t stride, const float* scale,
                   const float* shift) {
  const Lanes<kWidth> factor(scale);
  const Lanes<kWidth> offset(shift);
  for (int64_t row = 0; row < rows; ++row) {
    const T* const in = x + row * stride;
    const T* const added = kKind == Kind::kAddedAndRectified ? shortcut + row * stride : in;
    T* const out = y + row * stride;
#pragma omp simd
    for (int i = 0; i < kWidth; ++i) {
      float value = widen(in[i]) * factor[i] + offset[i];
      if (kKind == Kind::kAddedAndRectified) value += widen(added[i]);
      if (kKind != Kind::kPlain) value = value < 0 ? 0.0F : value;  // a NaN passes
      narrow(value, out[i]);
    }
  }
}

// Sums over the rows of dz, the gradient behind the rectifier, and of dz * (x - mean). With a shortcut, dz is
// its gradient as well: it is written, and read again by chunk_gradient.
template <int kWidth, class T, Kind kKind>
void chunk_gradient_sums(const T* x, const T* y, const T* dy, T* dshortcut, int64_t rows, int64_t stride,
                         const float* mean, const float* scale, const float* shift, float* sums,
                         float* products) {
  const Lanes<kWidth> center(mean);
  const Lanes<kWidth> factor(scale);
  const Lanes<kWidth> offset(shift);
  float sum[kWidth] = {};
  float product[kWidth] = {};
  for (int64_t row = 0; row < rows; ++row) {
    const T* const in = x + row * stride;
    const T* const out = kKind == Kind::kAddedAndRectified ? y + row * stride : in;
    const T* const gradient = dy + row * stride;
    T* const passed_on = kKind == Kind::kAddedAndRectified ? dshortcut + row * stride : nullptr;
#pragma omp simd
    for (int i = 0; i < kWidth; ++i) {
      const float value = widen(in[i]);
      float dz = widen(gradient[i]);
      if (kKind == Kind::kRectified) dz = value * factor[i] + offset[i] <= 0 ? 0.0F : dz;
      if (kKind == Kind::kAddedAndRectified) {
        dz = widen(out[i]) <= 0 ? 0.0F : dz;
        narrow(dz, passed_on[i]);
      }
      sum[i] += dz;
      product[i] += dz * (value - center[i]);
    }
  }
  std::copy_n(sum, kWidth, sums);
  std::copy_n(product, kWidth, products);
}

// dx = scale * dz + slope * x + level
template <int kWidth, class T, Kind kKind>
void chunk_gradient(const T* x, const T* dz_or_dy, T* dx, int64_t rows, int64_t stride, const float* scale,
                    const float* shift, const float* slope, const float* level) {
  const Lanes<kWidth> factor(scale);
  const Lanes<kWidth> offset(shift);
  const Lanes<kWidth> slopes(slope);
  const Lanes<kWidth> levels(level);
  for (int64_t row = 0; row < rows; ++row) {
    const T* const in = x + row * stride;
    const T* const gradient = dz_or_dy + row * stride;
    T* const out = dx + row * stride;
#pragma omp simd
    for (int i = 0; i < kWidth; ++i) {
      const float value = widen(in[i]);
      float dz = widen(gradient[i]);
      if (kKind == Kind::kRectified) dz = value * factor[i] + offset[i] <= 0 ? 0.0F : dz;
      narrow(factor[i] * dz + (slopes[i] * value + levels[i]), out[i]);
    }
  }
}

// Scratch memory: of each chunk two sums per channel, then two numbers per channel.
struct Scratch {
  float* sums;
  int64_t channels;

  float* first(int64_t chunk) const { return sums + 2 * chunk * channels; }
  float* second(int64_t chunk) const { return first(chunk) + channels; }
};

constexpr int64_t kGroup = 16;  // channels whose chunks are added up together, in double precision

// Joins the chunks' means and squared deviations (Chan, Golub and LeVeque 1983), and the running statistics
// follow: their variance is the unbiased one, as PyTorch's.
void join_statistics(const Shape& shape, const Scratch& scratch, const float* weight, const float* bias,
                     double eps, float* running_mean, float* running_var, double momentum,
                     const Saved& saved) {
  const auto all_rows = static_cast<double>(shape.rows);
  for (int64_t c = 0; c < shape.channels; c += kGroup) {
    double mean[kGroup] = {};
    double squares[kGroup] = {};
    double count = 0;
    for (int64_t chunk = 0; chunk < shape.chunks(); ++chunk) {
      const auto rows = static_cast<double>(shape.rows_of(chunk));
      const double total = count + rows;
      for (int64_t i = 0; i < kGroup; ++i) {
        const double difference = static_cast<double>(scratch.first(chunk)[c + i]) - mean[i];
        mean[i] += difference * (rows / total);
        squares[i] += static_cast<double>(scratch.second(chunk)[c + i]) +
                      difference * difference * (count * rows / total);
      }
      count = total;
    }
    for (int64_t i = 0; i < kGroup; ++i) {
      const double rstd = 1 / std::sqrt(squares[i] / all_rows + eps);
      const double scale = static_cast<double>(weight[c + i]) * rstd;
      saved.mean[c + i] = static_cast<float>(mean[i]);
      saved.rstd[c + i] = static_cast<float>(rstd);
      saved.scale[c + i] = static_cast<float>(scale);
      saved.shift[c + i] = static_cast<float>(static_cast<double>(bias[c + i]) - mean[i] * scale);
      const auto follow = [momentum](float& running, double value) {
        running = static_cast<float>((1 - momentum) * static_cast<double>(running) + momentum * value);
      };
      follow(running_mean[c + i], mean[i]);
      follow(running_var[c + i], squares[i] / (all_rows - 1));
    }
  }
}

template <int kWidth, class T, Kind kKind>
void forward(const Shape& shape, const T* x, const T* shortcut, T* y, const float* weight, const float* bias,
             double eps, float* running_mean, float* running_var, double momentum, const Saved& saved,
             const Scratch& scratch, int threads) {
  const int64_t stride = shape.channels;
  for_each_block<kWidth>(shape, threads, [&](int64_t at, int64_t rows, int64_t c, int64_t chunk) {
    chunk_statistics<kWidth>(x + at, rows, stride, scratch.first(chunk) + c, scratch.second(chunk) + c);
  });
  join_statistics(shape, scratch, weight, bias, eps, running_mean, running_var, momentum, saved);
  for_each_block<kWidth>(shape, threads, [&](int64_t at, int64_t rows, int64_t c, int64_t) {
    chunk_forward<kWidth, T, kKind>(x + at, moved(shortcut, at), y + at, rows, stride, saved.scale + c,
                                    saved.shift + c);
  });
}

template <int kWidth, class T, Kind kKind>
void backward(const Shape& shape, const T* x, const T* y, const T* dy, T* dx, T* dshortcut,
              const Saved& saved, float* dweight, float* dbias, const Scratch& scratch, int threads) {
  const int64_t stride = shape.channels;
  const int64_t chunks = shape.chunks();
  for_each_block<kWidth>(shape, threads, [&](int64_t at, int64_t rows, int64_t c, int64_t chunk) {
    chunk_gradient_sums<kWidth, T, kKind>(x + at, moved(y, at), dy + at, moved(dshortcut, at), rows, stride,
                                          saved.mean + c, saved.scale + c, saved.shift + c,
                                          scratch.first(chunk) + c, scratch.second(chunk) + c);
  });
  float* const slope = scratch.first(chunks);
  float* const level = scratch.second(chunks);
  const auto all_rows = static_cast<double>(shape.rows);
  for (int64_t c = 0; c < stride; c += kGroup) {
    double sum[kGroup] = {};
    double product[kGroup] = {};
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      for (int64_t i = 0; i < kGroup; ++i) {
        sum[i] += static_cast<double>(scratch.first(chunk)[c + i]);
        product[i] += static_cast<double>(scratch.second(chunk)[c + i]);
      }
    }
    for (int64_t i = 0; i < kGroup; ++i) {
      const auto rstd = static_cast<double>(saved.rstd[c + i]);
      const auto scale = static_cast<double>(saved.scale[c + i]);
      const double steep = -scale * product[i] * rstd * rstd / all_rows;
      dbias[c + i] = static_cast<float>(sum[i]);
      dweight[c + i] = static_cast<float>(product[i] * rstd);
      slope[c + i] = static_cast<float>(steep);
      level[c + i] =
          static_cast<float>(-scale * sum[i] / all_rows - steep * static_cast<double>(saved.mean[c + i]));
    }
  }
  const T* const gradient = kKind == Kind::kAddedAndRectified ? dshortcut : dy;
  for_each_block<kWidth>(shape, threads, [&](int64_t at, int64_t rows, int64_t c, int64_t) {
    chunk_gradient<kWidth, T, kKind>(x + at, gradient + at, dx + at, rows, stride, saved.scale + c,
                                     saved.shift + c, slope + c, level + c);
  });
}

// Calls `work` with the constants that the loops are compiled for.
template <class Work>
void with_constants(int64_t channels, int32_t kind, const Work& work) {
  const auto with_width = [&](auto kind_constant) {
    if (channels % 64 == 0) {
      work(std::integral_constant<int, 64>(), kind_constant);
    } else if (channels % 32 == 0) {
      work(std::integral_constant<int, 32>(), kind_constant);
    } else {
      work(std::integral_constant<int, 16>(), kind_constant);
    }
  };
  switch (static_cast<Kind>(kind)) {
    case Kind::kPlain: return with_width(std::integral_constant<Kind, Kind::kPlain>());
    case Kind::kRectified: return with_width(std::integral_constant<Kind, Kind::kRectified>());
    case Kind::kAddedAndRectified:
      return with_width(std::integral_constant<Kind, Kind::kAddedAndRectified>());
  }
}

template <class T>
void forward_of(int64_t rows, int64_t channels, int32_t kind, const void* x, const void* shortcut, void* y,
                const float* weight, const float* bias, double eps, float* running_mean, float* running_var,
                double momentum, float* saved, float* scratch, int32_t threads) {
  with_constants(channels, kind, [&](auto width, auto kind_constant) {
    forward<width(), T, kind_constant()>({rows, channels}, static_cast<const T*>(x),
                                         static_cast<const T*>(shortcut), static_cast<T*>(y), weight, bias,
                                         eps, running_mean, running_var, momentum, {saved, channels},
                                         {scratch, channels}, threads);
  });
}

template <class T>
void backward_of(int64_t rows, int64_t channels, int32_t kind, const void* x, const void* y, const void* dy,
                 void* dx, void* dshortcut, float* saved, float* dweight, float* dbias, float* scratch,
                 int32_t threads) {
  with_constants(channels, kind, [&](auto width, auto kind_constant) {
    backward<width(), T, kind_constant()>({rows, channels}, static_cast<const T*>(x),
                                          static_cast<const T*>(y), static_cast<const T*>(dy),
                                          static_cast<T*>(dx), static_cast<T*>(dshortcut), {saved, channels},
                                          dweight, dbias, {scratch, channels}, threads);
  });
}

}  // namespace

extern "C" {

// Floats of scratch memory that either direction needs.
int64_t batch_norm_scratch(int64_t rows, int64_t channels) {
  return 2 * channels * (Shape{rows, channels}.chunks() + 1);
}

// `kind` as in Kind; without a shortcut, `shortcut`, `dshortcut` and the backward pass's `y` are null.
// `saved` is [4, channels]. Without rows > 1 the unbiased variance does not exist: the caller sees to that.
void batch_norm_forward_f32(int64_t rows, int64_t channels, int32_t kind, const void* x, const void* shortcut,
                            void* y, const float* weight, const float* bias, double eps, float* running_mean,
                            float* running_var, double momentum, float* saved, float* scratch,
                            int32_t threads) {
  forward_of<float>(rows, channels, kind, x, shortcut, y, weight, bias, eps, running_mean, running_var,
                    momentum, saved, scratch, threads);
}

void batch_norm_forward_bf16(int64_t rows, int64_t channels, int32_t kind, const void* x,
                             const void* shortcut, void* y, const float* weight, const float* bias,
                             double eps, float* running_mean, float* running_var, double momentum,
                             float* saved, float* scratch, int32_t threads) {
  forward_of<BFloat16>(rows, channels, kind, x, shortcut, y, weight, bias, eps, running_mean, running_var,
                       momentum, saved, scratch, threads);
}

void batch_norm_backward_f32(int64_t rows, int64_t channels, int32_t kind, const void* x, const void* y,
                             const void* dy, void* dx, void* dshortcut, float* saved, float* dweight,
                             float* dbias, float* scratch, int32_t threads) {
  backward_of<float>(rows, channels, kind, x, y, dy, dx, dshortcut, saved, dweight, dbias, scratch, threads);
}

void batch_norm_backward_bf16(int64_t rows, int64_t channels, int32_t kind, const void* x, const void* y,
                              const void* dy, void* dx, void* dshortcut, float* saved, float* dweight,
                              float* dbias, float* scratch, int32_t threads) {
  backward_of<BFloat16>(rows, channels, kind, x, y, dy, dx, dshortcut, saved, dweight, dbias, scratch,
                        threads);
}

}  // extern "C"

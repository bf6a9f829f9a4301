#include "sweep_engine/benchmark.h"

#include <algorithm>
#include <chrono>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SWEEP_ENGINE_X86 1
#include <immintrin.h>
#endif

namespace sweep_engine {

#ifdef SWEEP_ENGINE_X86

namespace {

// Twelve independent accumulators hide the instruction latency (up to 5 cycles at two per cycle).
constexpr int accumulators = 12;
constexpr int steps = 20000;
constexpr int repetitions = 40;

// NOLINTBEGIN(bugprone-macro-parentheses): the arguments are types, variables and macro names.

// One step of one accumulator. The empty assembly prevents the compiler from folding the loop.
#define SWEEP_ENGINE_STEP(sum, instruction) \
  do {                                      \
    sum = instruction;                      \
    asm volatile("" : "+v"(sum));           \
  } while (false)

// The accumulators are separate variables because an array would be kept in memory and add memory traffic.
#define SWEEP_ENGINE_CHAIN(name, isa, vector, zero, operand, instruction) \
  __attribute__((target(isa), noinline)) void name() {                    \
    vector a = zero, b = zero, c = zero, d = zero, e = zero, f = zero;    \
    vector g = zero, h = zero, j = zero, k = zero, l = zero, m = zero;    \
    auto x = operand;                                                     \
    asm volatile("" : "+v"(x));                                           \
    for (int i = 0; i < steps; ++i) {                                     \
      SWEEP_ENGINE_STEP(a, instruction(a));                               \
      SWEEP_ENGINE_STEP(b, instruction(b));                               \
      SWEEP_ENGINE_STEP(c, instruction(c));                               \
      SWEEP_ENGINE_STEP(d, instruction(d));                               \
      SWEEP_ENGINE_STEP(e, instruction(e));                               \
      SWEEP_ENGINE_STEP(f, instruction(f));                               \
      SWEEP_ENGINE_STEP(g, instruction(g));                               \
      SWEEP_ENGINE_STEP(h, instruction(h));                               \
      SWEEP_ENGINE_STEP(j, instruction(j));                               \
      SWEEP_ENGINE_STEP(k, instruction(k));                               \
      SWEEP_ENGINE_STEP(l, instruction(l));                               \
      SWEEP_ENGINE_STEP(m, instruction(m));                               \
    }                                                                     \
  }

// NOLINTEND(bugprone-macro-parentheses)

#define SWEEP_ENGINE_FMA_256(sum) _mm256_fmadd_ps(x, x, sum)
#define SWEEP_ENGINE_FMA_512(sum) _mm512_fmadd_ps(x, x, sum)
#define SWEEP_ENGINE_VNNI_512(sum) _mm512_dpbusd_epi32(sum, x, x)
#define SWEEP_ENGINE_BF16_512(sum) _mm512_dpbf16_ps(sum, x, x)

SWEEP_ENGINE_CHAIN(fma_256, "avx2,fma", __m256, _mm256_setzero_ps(), _mm256_set1_ps(0.5F),
                   SWEEP_ENGINE_FMA_256)
SWEEP_ENGINE_CHAIN(fma_512, "avx512f", __m512, _mm512_setzero_ps(), _mm512_set1_ps(0.5F),
                   SWEEP_ENGINE_FMA_512)
SWEEP_ENGINE_CHAIN(vnni_512, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), _mm512_set1_epi8(1),
                   SWEEP_ENGINE_VNNI_512)
SWEEP_ENGINE_CHAIN(bf16_512, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(),
                   reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3F00)), SWEEP_ENGINE_BF16_512)

/// Highest rate of several repetitions, in 1e9 operations per second.
/// @param operations  per instruction
double best_gflops(void (*chain)(), int operations) {
  double best_s = 1e9;
  for (int i = 0; i < repetitions; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    chain();
    best_s =
        std::min(best_s, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return 1e-9 * operations * accumulators * steps / best_s;
}

}  // namespace

std::optional<double> measure_peak_gflops(Precision precision) {
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") != 0;
  switch (precision) {
    case Precision::fp32:
    case Precision::fp16:  // computed in fp32
      if (avx512) return best_gflops(&fma_512, 2 * 16);
      if (__builtin_cpu_supports("fma") != 0) return best_gflops(&fma_256, 2 * 8);
      return std::nullopt;
    case Precision::bf16:
      if (avx512 && __builtin_cpu_supports("avx512bf16") != 0) return best_gflops(&bf16_512, 2 * 32);
      return std::nullopt;
    case Precision::int8:
      if (avx512 && __builtin_cpu_supports("avx512vnni") != 0) return best_gflops(&vnni_512, 2 * 64);
      return std::nullopt;
  }
  return std::nullopt;
}

#else

std::optional<double> measure_peak_gflops(Precision) { return std::nullopt; }

#endif

}  // namespace sweep_engine

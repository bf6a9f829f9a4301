#include "sweep_engine/progress.h"

#include <utility>

#include "benchmark/clocks.h"

namespace sweep_engine {

namespace {

constexpr double report_every_ms = 1000.0;

}  // namespace

ProgressCounter::ProgressCounter(Progress progress, std::string before, std::string after)
    : progress_(std::move(progress)),
      before_(std::move(before)),
      after_(std::move(after)),
      reported_ms_(-report_every_ms) {
  update(0);
}

void ProgressCounter::update(std::size_t done) {
  const double now = wall_ms();
  if (now - reported_ms_ < report_every_ms) return;
  reported_ms_ = now;
  progress_(before_ + std::to_string(done) + after_);
}

}  // namespace sweep_engine

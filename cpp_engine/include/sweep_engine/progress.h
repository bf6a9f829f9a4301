#pragma once

#include <cstddef>
#include <functional>
#include <string>

namespace sweep_engine {

/// Callback for progress messages of one line.
using Progress = std::function<void(const std::string&)>;

/// Reports a number at the start and then at most once a second, as in `measuring accuracy in int8: 400 of
/// 1000 images`. Used by one thread.
class ProgressCounter {
 public:
  /// @param before  text before the number, as in `measuring accuracy in int8: `
  /// @param after   text after the number, as in ` of 1000 images` or ` %`
  ProgressCounter(Progress progress, std::string before, std::string after);
  void update(std::size_t done);

 private:
  Progress progress_;
  std::string before_;
  std::string after_;
  double reported_ms_ = 0.0;
};

}  // namespace sweep_engine

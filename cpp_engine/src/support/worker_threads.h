#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "sweep_engine/status.h"

namespace sweep_engine {

/// Threads that live as long as the benchmark and are all given the same job: starting new ones for each turn
/// would start new OpenMP teams with them.
class WorkerThreads {
 public:
  WorkerThreads() = default;
  ~WorkerThreads();
  WorkerThreads(const WorkerThreads&) = delete;
  WorkerThreads& operator=(const WorkerThreads&) = delete;

  /// Start `size` threads; fails where the system allows no more.
  Status start(int size);
  /// Run `job(0)` to `job(size - 1)`, each in its thread, and wait for all of them.
  void run(const std::function<void(int)>& job);

 private:
  void work(int number);

  std::mutex guard_;
  std::condition_variable changed_;
  const std::function<void(int)>* job_ = nullptr;
  long turn_ = 0;
  int busy_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace sweep_engine

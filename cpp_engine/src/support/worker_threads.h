#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "sweep_engine/status.h"

namespace sweep_engine {

/// Persistent threads that all run the same job. New threads in every round would create new OpenMP teams.
class WorkerThreads {
 public:
  WorkerThreads() = default;
  ~WorkerThreads();
  WorkerThreads(const WorkerThreads&) = delete;
  WorkerThreads& operator=(const WorkerThreads&) = delete;

  /// Start `size` threads; fails if the system does not allow that many.
  Status start(int size);
  /// Run `job(i)` in every thread i = 0 to size - 1 and wait for all of them.
  void run(const std::function<void(int)>& job);

 private:
  void work(int index);

  std::mutex guard_;
  std::condition_variable changed_;
  const std::function<void(int)>* job_ = nullptr;
  long round_ = 0;
  int busy_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace sweep_engine

#include "support/worker_threads.h"

#include <string>
#include <system_error>

namespace sweep_engine {

WorkerThreads::~WorkerThreads() {
  {
    const std::lock_guard<std::mutex> lock(guard_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

Status WorkerThreads::start(int size) {
  for (int index = 0; index < size; ++index) {
    try {
      threads_.emplace_back(&WorkerThreads::work, this, index);
    } catch (const std::system_error&) {
      return {StatusCode::unsupported,
              "started only " + std::to_string(index) + " of " + std::to_string(size) + " worker threads"};
    }
  }
  return {};
}

void WorkerThreads::run(const std::function<void(int)>& job) {
  std::unique_lock<std::mutex> lock(guard_);
  job_ = &job;
  busy_ = static_cast<int>(threads_.size());
  ++round_;
  changed_.notify_all();
  changed_.wait(lock, [&] { return busy_ == 0; });
  job_ = nullptr;
}

void WorkerThreads::work(int index) {
  long seen = 0;
  std::unique_lock<std::mutex> lock(guard_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || round_ != seen; });
    if (stopping_) return;
    seen = round_;
    const std::function<void(int)>& job = *job_;
    lock.unlock();
    job(index);
    lock.lock();
    if (--busy_ == 0) changed_.notify_all();
  }
}

}  // namespace sweep_engine

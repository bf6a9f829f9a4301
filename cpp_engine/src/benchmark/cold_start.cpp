#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

#include "benchmark/clocks.h"
#include "sweep_engine/benchmark.h"
#include "sweep_engine/classifier.h"
#include "sweep_engine/host.h"

namespace sweep_engine {

namespace {

Result<ColdStart> load_and_run_once(const std::string& folder, const ClassifierOptions& options) {
  ColdStart cold;
  const double begin = wall_ms();
  const Result<Classifier> model = Classifier::load(folder, options);
  cold.load_ms = wall_ms() - begin;
  if (!model.ok()) return model.status();
  const Result<PreparedInput> input =
      model.value().prepare(self_test_pattern(model.value().manifest().input, 0));
  if (!input.ok()) return input.status();
  const double first_begin = wall_ms();
  const Result<std::vector<float>> logits = model.value().infer(input.value());
  cold.first_inference_ms = wall_ms() - first_begin;
  if (!logits.ok()) return logits.status();
  cold.peak_rss_mb = peak_rss_mb();
  return cold;
}

/// Memory that the child process shares with its parent.
struct Answer {
  bool is_complete = false;
  StatusCode code = StatusCode::ok;
  char message[4096] = {};
  ColdStart cold;
};

}  // namespace

Result<ColdStart> measure_cold_start(const std::string& folder, ClassifierOptions options) {
  options.self_test = false;
  void* memory = ::mmap(nullptr, sizeof(Answer), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return Status(StatusCode::io_error, std::string("mmap: ") + std::strerror(errno));
  const std::unique_ptr<Answer, void (*)(Answer*)> answer(
      new (memory) Answer, [](Answer* shared) { ::munmap(shared, sizeof *shared); });
  const pid_t child = ::fork();
  if (child < 0) return Status(StatusCode::io_error, std::string("fork: ") + std::strerror(errno));
  if (child == 0) {
    const Result<ColdStart> cold = load_and_run_once(folder, options);
    if (cold.ok()) answer->cold = cold.value();
    answer->code = cold.status().code();
    std::snprintf(answer->message, sizeof answer->message, "%s", cold.status().message().c_str());
    answer->is_complete = true;
    ::_exit(0);
  }
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  if (!answer->is_complete) {
    return Status(StatusCode::inference_failed,
                  "the process that loads the model terminated without a result");
  }
  if (answer->code != StatusCode::ok) return Status(answer->code, answer->message);
  return answer->cold;
}

}  // namespace sweep_engine

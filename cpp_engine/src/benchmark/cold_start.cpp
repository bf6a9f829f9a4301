#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

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

}  // namespace

Result<ColdStart> measure_cold_start(const std::string& folder, ClassifierOptions options) {
  options.self_test = false;
  int ends[2];
  if (::pipe(ends) != 0) return Status(StatusCode::io_error, std::string("pipe: ") + std::strerror(errno));
  const pid_t child = ::fork();
  if (child < 0) return Status(StatusCode::io_error, std::string("fork: ") + std::strerror(errno));
  if (child == 0) {
    ::close(ends[0]);
    const Result<ColdStart> cold = load_and_run_once(folder, options);
    // The first byte is 'v' (value) or the status code.
    std::string message(1, cold.ok() ? 'v' : static_cast<char>('A' + static_cast<int>(cold.status().code())));
    if (cold.ok()) {
      message.append(reinterpret_cast<const char*>(&cold.value()), sizeof(ColdStart));
    } else {
      message += cold.status().message();
    }
    const bool is_sent =
        ::write(ends[1], message.data(), message.size()) == static_cast<ssize_t>(message.size());
    ::_exit(is_sent ? 0 : 1);
  }
  ::close(ends[1]);
  std::string message;
  char buffer[4096];
  ssize_t got = 0;
  while ((got = ::read(ends[0], buffer, sizeof buffer)) > 0 || (got < 0 && errno == EINTR)) {
    if (got > 0) message.append(buffer, static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  int exit_status = 0;
  ::waitpid(child, &exit_status, 0);
  if (message.empty()) {
    return Status(StatusCode::inference_failed,
                  "the process that loads the model terminated without a result");
  }
  if (message[0] != 'v') return Status(static_cast<StatusCode>(message[0] - 'A'), message.substr(1));
  ColdStart cold;
  if (message.size() != 1 + sizeof cold) {
    return Status(StatusCode::inference_failed,
                  "the process that loads the model returned an incomplete result");
  }
  std::memcpy(&cold, message.data() + 1, sizeof cold);
  return cold;
}

}  // namespace sweep_engine

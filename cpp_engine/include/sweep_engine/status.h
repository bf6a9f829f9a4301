#pragma once

#include <optional>
#include <string>
#include <utility>

namespace sweep_engine {

/// What kind of thing went wrong. The library never prints, throws or aborts: it returns one of these.
enum class StatusCode {
  ok,
  invalid_argument,  ///< the caller asked for something that is not allowed
  io_error,          ///< a file is missing, unreadable, or not a regular file
  model_invalid,     ///< a model folder is damaged, inconsistent, or not of a known schema
  image_invalid,     ///< an image is damaged, too large, or not of a known format
  unsupported,       ///< well-formed, but this build or this processor cannot do it
  inference_failed,  ///< ncnn returned an error, or the output is not finite
  out_of_memory,
};

/// The code as a word, for JSON records and messages.
inline const char* status_code_name(StatusCode code) {
  switch (code) {
    case StatusCode::ok: return "ok";
    case StatusCode::invalid_argument: return "invalid_argument";
    case StatusCode::io_error: return "io_error";
    case StatusCode::model_invalid: return "model_invalid";
    case StatusCode::image_invalid: return "image_invalid";
    case StatusCode::unsupported: return "unsupported";
    case StatusCode::inference_failed: return "inference_failed";
    case StatusCode::out_of_memory: return "out_of_memory";
  }
  return "unknown";
}

/// Success, or a code with a message: the rule, what was got, and the next step.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::ok; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::ok;
  std::string message_;
};

/// A value, or the Status that says why there is none. `value()` may only be called when `ok()`.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(std::move(status)) {  // NOLINT(google-explicit-constructor)
    if (status_.ok()) status_ = Status(StatusCode::invalid_argument, "a Result needs a value or an error");
  }

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  const T& value() const& { return *value_; }
  T& value() & { return *value_; }
  T&& value() && { return std::move(*value_); }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace sweep_engine

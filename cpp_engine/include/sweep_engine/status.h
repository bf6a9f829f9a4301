#pragma once

#include <optional>
#include <string>
#include <utility>

namespace sweep_engine {

/// Category of an error. The library never prints, throws or aborts; it returns a Status.
enum class StatusCode {
  ok,
  invalid_argument,  ///< an argument is out of range or inconsistent
  io_error,          ///< a file is missing, unreadable or not a regular file
  model_invalid,     ///< a model folder is damaged, inconsistent or has an unknown schema version
  image_invalid,     ///< an image is damaged, too large or has an unknown format
  unsupported,       ///< not supported by this build or this machine
  inference_failed,  ///< ncnn returned an error or the output is not finite
  out_of_memory,
};

/// Name of a code, for JSON records and messages.
[[nodiscard]] inline const char* status_code_name(StatusCode code) {
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

/// Success, or an error code with a message.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  [[nodiscard]] bool ok() const { return code_ == StatusCode::ok; }
  [[nodiscard]] StatusCode code() const { return code_; }
  [[nodiscard]] const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::ok;
  std::string message_;
};

/// A value, or the Status of the error. `value()` may be called only if `ok()`.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(std::move(status)) {  // NOLINT(google-explicit-constructor)
    if (status_.ok())
      status_ = Status(StatusCode::invalid_argument, "a Result without a value needs an error");
  }

  [[nodiscard]] bool ok() const { return value_.has_value(); }
  [[nodiscard]] const Status& status() const { return status_; }
  [[nodiscard]] const T& value() const& { return *value_; }
  T& value() & { return *value_; }
  T&& value() && { return std::move(*value_); }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace sweep_engine

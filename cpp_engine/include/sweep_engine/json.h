// A JSON parser and writer of its own, because replacing it with nlohmann-json costs more than it saves: a
// second pinned download in the build, a header of 25,000 lines in most translation units, and still a SAX
// handler of our own, since the library does not throw and model.json needs errors with line and column, a
// depth limit and rejection of duplicate keys. tests/damaged_models.cpp fuzzes the parser under sanitizers.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sweep_engine/status.h"

namespace sweep_engine {

/// A JSON value (RFC 8259). Objects keep the order of their members.
class Json {
 public:
  enum class Kind { null, boolean, number, string, array, object };
  using Member = std::pair<std::string, Json>;

  Json() = default;
  Json(bool value) : kind_(Kind::boolean), boolean_(value) {}                  // NOLINT
  Json(double value) : kind_(Kind::number), number_(value) {}                  // NOLINT
  Json(int value) : Json(static_cast<double>(value)) {}                        // NOLINT
  Json(std::int64_t value) : Json(static_cast<double>(value)) {}               // NOLINT
  Json(std::size_t value) : Json(static_cast<double>(value)) {}                // NOLINT
  Json(std::string value) : kind_(Kind::string), string_(std::move(value)) {}  // NOLINT
  Json(std::string_view value) : Json(std::string(value)) {}                   // NOLINT
  Json(const char* value) : Json(std::string(value)) {}                        // NOLINT

  static Json array();
  static Json array(const std::vector<double>& values);
  static Json object();

  [[nodiscard]] bool is(Kind kind) const { return kind_ == kind; }
  [[nodiscard]] bool boolean() const { return boolean_; }
  [[nodiscard]] double number() const { return number_; }
  [[nodiscard]] const std::string& string() const { return string_; }
  [[nodiscard]] const std::vector<Json>& items() const { return items_; }

  /// The member with this key, or nullptr (also if this is not an object).
  [[nodiscard]] const Json* find(std::string_view key) const;
  /// Set a member of an object, replacing an existing one with the same key.
  Json& set(std::string key, Json value);
  /// Append to an array.
  Json& add(Json value);

  /// Serialize with `indent` spaces per level, or on one line if it is negative. Numbers round-trip exactly;
  /// numbers that are not finite become null.
  [[nodiscard]] std::string text(int indent = -1) const;

 private:
  void write(std::string& out, int indent, int level) const;

  Kind kind_ = Kind::null;
  bool boolean_ = false;
  double number_ = 0.0;
  std::string string_;
  std::vector<Json> items_;
  std::vector<Member> members_;
};

/// Parse one JSON document strictly: no comments, trailing commas, NaN or duplicate keys, valid UTF-8, at
/// most 64 levels. Errors are `invalid_argument` with line and column.
Result<Json> parse_json(std::string_view text);

}  // namespace sweep_engine

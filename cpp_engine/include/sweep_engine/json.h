#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sweep_engine/status.h"

namespace sweep_engine {

/// A JSON value (RFC 8259). Object members keep their order; a key given twice is refused when read.
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

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool boolean() const { return boolean_; }
  double number() const { return number_; }
  const std::string& string() const { return string_; }
  const std::vector<Json>& items() const { return items_; }
  const std::vector<Member>& members() const { return members_; }

  /// The member of that name, or nullptr (also when this is not an object).
  const Json* find(std::string_view key) const;
  /// Set a member of an object, replacing one of the same name.
  Json& set(std::string key, Json value);
  /// Append to an array.
  Json& add(Json value);

  /// The text; `indent` spaces a level, or one line when negative. Numbers read back equal; a number that is
  /// not finite becomes null, since JSON has no word for it.
  std::string text(int indent = -1) const;

 private:
  void write(std::string& out, int indent, int level) const;

  Kind kind_ = Kind::null;
  bool boolean_ = false;
  double number_ = 0.0;
  std::string string_;
  std::vector<Json> items_;
  std::vector<Member> members_;
};

/// Read one JSON document, strictly: no comments, no trailing commas, no NaN, valid UTF-8, at most 64 levels.
/// A mistake is reported with its line and column as `invalid_argument`.
Result<Json> parse_json(std::string_view text);

}  // namespace sweep_engine

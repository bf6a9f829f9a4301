#include "sweep_engine/json.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace sweep_engine {

namespace {

constexpr int max_levels = 64;

void append_utf8(std::string& out, std::uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | (code >> 12));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (code >> 18));
    out += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

/// Length of the valid UTF-8 sequence at `at`; 0 for overlong forms, surrogates and code points above
/// U+10FFFF.
std::size_t utf8_length(std::string_view text, std::size_t at) {
  const unsigned first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || at + length > text.size()) return 0;
  std::uint32_t code = first & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    const unsigned next = static_cast<unsigned char>(text[at + i]);
    if ((next & 0xC0U) != 0x80) return 0;
    code = code << 6 | (next & 0x3FU);
  }
  const std::uint32_t least = length == 4 ? 0x10000 : length == 3 ? 0x800 : 0x80;
  return code < least || (code >= 0xD800 && code <= 0xDFFF) || code > 0x10FFFF ? 0 : length;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<Json> document() {
    Json value;
    skip_space();
    if (!parse_value(value, 0)) return failure();
    skip_space();
    if (at_ != text_.size()) {
      fail("unexpected text after the document");
      return failure();
    }
    return value;
  }

 private:
  [[nodiscard]] Status failure() const {
    std::size_t line = 1;
    std::size_t column = 1;
    for (std::size_t i = 0; i < at_ && i < text_.size(); ++i) {
      column = text_[i] == '\n' ? 1 : column + 1;
      line += text_[i] == '\n' ? 1U : 0U;
    }
    return {StatusCode::invalid_argument,
            "line " + std::to_string(line) + ", column " + std::to_string(column) + ": " + error_};
  }

  bool fail(const char* message) {
    error_ = message;
    return false;
  }

  [[nodiscard]] char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void skip_space() {
    while (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') ++at_;
  }

  bool take(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  bool parse_value(Json& out, int level) {
    if (level > max_levels) return fail("more than 64 nested levels");
    if (at_ >= text_.size()) return fail("unexpected end of text, expected a value");
    switch (peek()) {
      case '{': return parse_object(out, level);
      case '[': return parse_array(out, level);
      case '"': {
        std::string value;
        if (!parse_string(value)) return false;
        out = Json(std::move(value));
        return true;
      }
      default: break;
    }
    if (take("true")) return out = Json(true), true;
    if (take("false")) return out = Json(false), true;
    if (take("null")) return out = Json(), true;
    return parse_number(out);
  }

  bool parse_object(Json& out, int level) {
    out = Json::object();
    ++at_;
    skip_space();
    if (peek() == '}') return ++at_, true;
    while (true) {
      if (peek() != '"') return fail("expected a key in double quotes");
      std::string key;
      if (!parse_string(key)) return false;
      if (out.find(key) != nullptr) return fail("duplicate key in an object");
      skip_space();
      if (peek() != ':') return fail("expected ':' after a key");
      ++at_;
      skip_space();
      Json value;
      if (!parse_value(value, level + 1)) return false;
      out.set(std::move(key), std::move(value));
      skip_space();
      if (peek() == '}') return ++at_, true;
      if (peek() != ',') return fail("expected ',' or '}'");
      ++at_;
      skip_space();
    }
  }

  bool parse_array(Json& out, int level) {
    out = Json::array();
    ++at_;
    skip_space();
    if (peek() == ']') return ++at_, true;
    while (true) {
      Json value;
      if (!parse_value(value, level + 1)) return false;
      out.add(std::move(value));
      skip_space();
      if (peek() == ']') return ++at_, true;
      if (peek() != ',') return fail("expected ',' or ']'");
      ++at_;
      skip_space();
    }
  }

  bool parse_hex4(std::uint32_t& code) {
    code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char digit = peek();
      code <<= 4;
      if (digit >= '0' && digit <= '9') {
        code |= static_cast<std::uint32_t>(digit - '0');
      } else if (digit >= 'a' && digit <= 'f') {
        code |= static_cast<std::uint32_t>(digit - 'a' + 10);
      } else if (digit >= 'A' && digit <= 'F') {
        code |= static_cast<std::uint32_t>(digit - 'A' + 10);
      } else {
        return fail("expected four hexadecimal digits after \\u");
      }
    }
    return true;
  }

  bool parse_escape(std::string& out) {
    const char kind = peek();
    ++at_;
    switch (kind) {
      case '"': out += '"'; return true;
      case '\\': out += '\\'; return true;
      case '/': out += '/'; return true;
      case 'b': out += '\b'; return true;
      case 'f': out += '\f'; return true;
      case 'n': out += '\n'; return true;
      case 'r': out += '\r'; return true;
      case 't': out += '\t'; return true;
      case 'u': {
        std::uint32_t code = 0;
        if (!parse_hex4(code)) return false;
        if (code >= 0xDC00 && code <= 0xDFFF) return fail("unpaired low surrogate");
        if (code >= 0xD800 && code <= 0xDBFF) {
          std::uint32_t low = 0;
          if (!take("\\u")) return fail("unpaired high surrogate");
          if (!parse_hex4(low)) return false;
          if (low < 0xDC00 || low > 0xDFFF) return fail("unpaired high surrogate");
          code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        append_utf8(out, code);
        return true;
      }
      default: return fail("unknown escape in a string");
    }
  }

  bool parse_string(std::string& out) {
    ++at_;
    while (true) {
      if (at_ >= text_.size()) return fail("unterminated string");
      const char c = peek();
      if (c == '"') return ++at_, true;
      if (c == '\\') {
        ++at_;
        if (!parse_escape(out)) return false;
        continue;
      }
      if (static_cast<unsigned char>(c) < 0x20) return fail("control character in a string");
      const std::size_t length = utf8_length(text_, at_);
      if (length == 0) return fail("invalid UTF-8");
      out += text_.substr(at_, length);
      at_ += length;
    }
  }

  bool digits() {
    const std::size_t start = at_;
    while (peek() >= '0' && peek() <= '9') ++at_;
    return at_ > start;
  }

  bool parse_number(Json& out) {
    const std::size_t start = at_;
    if (peek() == '-') ++at_;
    if (peek() == '0') {
      ++at_;
    } else if (!digits()) {
      at_ = start;
      return fail("expected a value");
    }
    if (peek() == '.') {
      ++at_;
      if (!digits()) return fail("expected a digit after '.'");
    }
    if (peek() == 'e' || peek() == 'E') {
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      if (!digits()) return fail("expected a digit in the exponent");
    }
    const double value = std::strtod(std::string(text_.substr(start, at_ - start)).c_str(), nullptr);
    if (!std::isfinite(value)) return fail("number out of range");
    out = Json(value);
    return true;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::string error_ = "invalid JSON";
};

void write_string(std::string& out, const std::string& text) {
  out += '"';
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    const std::size_t length = utf8_length(text, i);
    if (length == 0) {  // e.g. a file name in another encoding
      out += "\\ufffd";
      ++i;
      continue;
    }
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      out += escaped;
    } else {
      out.append(text, i, length);
    }
    i += length;
  }
  out += '"';
}

void write_number(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char text[32];
  for (int digits = 6; digits <= 17; ++digits) {  // shortest representation that round-trips
    std::snprintf(text, sizeof text, "%.*g", digits, value);
    if (std::strtod(text, nullptr) == value) break;
  }
  out += text;
}

}  // namespace

Result<Json> parse_json(std::string_view text) { return Parser(text).document(); }

Json Json::array() {
  Json value;
  value.kind_ = Kind::array;
  return value;
}

Json Json::array(const std::vector<double>& values) {
  Json list = array();
  for (const double value : values) list.add(value);
  return list;
}

Json Json::object() {
  Json value;
  value.kind_ = Kind::object;
  return value;
}

const Json* Json::find(std::string_view key) const {
  for (const Member& member : members_) {
    if (member.first == key) return &member.second;
  }
  return nullptr;
}

Json& Json::set(std::string key, Json value) {
  for (Member& member : members_) {
    if (member.first == key) {
      member.second = std::move(value);
      return *this;
    }
  }
  members_.emplace_back(std::move(key), std::move(value));
  return *this;
}

Json& Json::add(Json value) {
  items_.push_back(std::move(value));
  return *this;
}

std::string Json::text(int indent) const {
  std::string out;
  write(out, indent, 0);
  return out;
}

void Json::write(std::string& out, int indent, int level) const {
  const auto new_line = [&](int depth) {
    if (indent < 0) return;
    out += '\n';
    out.append(static_cast<std::size_t>(indent) * static_cast<std::size_t>(depth), ' ');
  };
  switch (kind_) {
    case Kind::null: out += "null"; break;
    case Kind::boolean: out += boolean_ ? "true" : "false"; break;
    case Kind::number: write_number(out, number_); break;
    case Kind::string: write_string(out, string_); break;
    case Kind::array: {
      out += '[';
      bool nested = false;
      for (std::size_t i = 0; i < items_.size(); ++i) {
        nested = items_[i].kind_ == Kind::object || items_[i].kind_ == Kind::array;
        if (i > 0) out += indent < 0 || nested ? "," : ", ";
        if (nested) new_line(level + 1);
        items_[i].write(out, indent, level + 1);
      }
      if (nested) new_line(level);
      out += ']';
      break;
    }
    case Kind::object: {
      out += '{';
      for (std::size_t i = 0; i < members_.size(); ++i) {
        if (i > 0) out += ',';
        new_line(level + 1);
        write_string(out, members_[i].first);
        out += indent < 0 ? ":" : ": ";
        members_[i].second.write(out, indent, level + 1);
      }
      if (!members_.empty()) new_line(level);
      out += '}';
      break;
    }
  }
}

}  // namespace sweep_engine

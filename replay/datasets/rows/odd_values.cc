#include "replay/datasets/rows/odd_values.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "common/base/text.h"
#include "common/text/unicode.h"
#include "replay/datasets/rows/line_reader.h"

namespace plumb::replay {
namespace {

constexpr size_t kShown = 40;

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

// -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?
bool IsJsonNumber(std::string_view t, bool& whole) {
  size_t i = t.starts_with('-') ? 1 : 0;
  const auto digits = [&] {
    const size_t from = i;
    while (i < t.size() && IsDigit(t[i])) ++i;
    return i > from;
  };
  const size_t first = i;
  if (!digits() || (t[first] == '0' && i > first + 1)) return false;
  whole = i == t.size();
  if (i < t.size() && t[i] == '.' && (++i, !digits())) return false;
  if (i < t.size() && (t[i] == 'e' || t[i] == 'E')) {
    ++i;
    if (i < t.size() && (t[i] == '+' || t[i] == '-')) ++i;
    if (!digits()) return false;
  }
  return i == t.size();
}

bool IsLong(std::string_view number) {
  bool whole = false;
  if (!IsJsonNumber(number, whole)) return false;
  const char *begin = number.data(), *end = begin + number.size();
  if (whole) {
    int64_t narrow = 0;
    uint64_t wide = 0;
    return std::from_chars(begin, end, narrow).ec != std::errc() &&
           std::from_chars(begin, end, wide).ec != std::errc();
  }
  return !std::isfinite(std::strtod(std::string(number).c_str(), nullptr));
}

bool IsNotANumber(std::string_view word) {
  if (word.starts_with('-')) word.remove_prefix(1);
  return word == "NaN" || word == "nan" || word == "Infinity" || word == "inf" || word == "Inf";
}

int HexValue(std::string_view four) {
  int value = -1;
  if (four.size() == 4 &&
      std::from_chars(four.data(), four.data() + 4, value, 16).ptr != four.data() + 4)
    value = -1;
  return value;
}

class Mender {
 public:
  Mender(std::string_view row, std::string& out) : row_(row), out_(out) {}

  std::vector<OddValue> Run() {
    out_.clear();
    out_.reserve(row_.size() + 64);
    while (at_ < row_.size()) {
      const char c = row_[at_];
      if (c == '"') {
        Text();
        continue;
      }
      if (c == '{' || c == '[') {
        ++depth_;
        key_ = depth_ == 1 && c == '{';
      } else if (c == '}' || c == ']') {
        --depth_;
      } else if (c == ',' && depth_ == 1) {
        key_ = true;
      } else if (c == ':' && depth_ == 1) {
        key_ = false;
      } else if (c != ',' && c != ':' && !IsBlank(c)) {
        Word();
        continue;
      }
      out_.push_back(c);
      ++at_;
    }
    return std::move(found_);
  }

 private:
  void Found(OddKind kind, std::string_view value) {
    std::string shown(value.substr(0, kShown));
    if (value.size() > kShown) shown += "...";
    RepairUtf8(shown);
    found_.push_back({column_, kind, std::move(shown)});
  }

  // A number or a bare word.
  void Word() {
    const size_t from = at_;
    while (at_ < row_.size() && !IsBlank(row_[at_]) &&
           std::string_view(",:{}[]\"").find(row_[at_]) == std::string_view::npos)
      ++at_;
    const std::string_view word = row_.substr(from, at_ - from);
    if (IsNotANumber(word)) {
      Found(OddKind::kNotANumber, word);
      out_ += "null";
    } else if (word == "Binary") {
      Found(OddKind::kBinary, word);
      out_ += "null";
    } else if (IsLong(word)) {
      Found(OddKind::kLongNumber, word);
      out_.append("\"").append(word).append("\"");
    } else {
      out_ += word;
    }
  }

  void Text() {
    const size_t from = ++at_;
    while (at_ < row_.size() && row_[at_] != '"') at_ += row_[at_] == '\\' ? 2 : 1;
    at_ = std::min(at_, row_.size());
    std::string text(row_.substr(from, at_ - from));
    if (key_ && depth_ == 1) column_ = text;
    if (!IsUtf8(text)) {
      RepairUtf8(text);
      if (key_ && depth_ == 1) column_ = text;
      Found(OddKind::kBadUtf8, text);
    }
    out_.push_back('"');
    Escapes(text);
    if (at_ < row_.size()) out_.push_back('"'), ++at_;
  }

  void Escapes(std::string_view text) {
    for (size_t i = 0; i < text.size();) {
      const size_t next = std::min(text.find('\\', i), text.size());
      out_.append(text.substr(i, next - i));
      if (next == text.size()) return;
      i = next;
      const auto unit = [&](size_t at) {
        return at + 6 <= text.size() && text[at] == '\\' && text[at + 1] == 'u'
                   ? HexValue(text.substr(at + 2, 4))
                   : -1;
      };
      const int here = unit(i), then = unit(i + 6);
      const bool high = here >= 0xD800 && here < 0xDC00, low = here >= 0xDC00 && here < 0xE000;
      if (high && then >= 0xDC00 && then < 0xE000) {
        out_.append(text.substr(i, 12));
        i += 12;
      } else if (high || low) {
        Found(OddKind::kLoneSurrogate, text.substr(i, 6));
        out_ += "\\ufffd";
        i += 6;
      } else {
        out_.append(text.substr(i, 2));
        i += 2;
      }
    }
  }

  const std::string_view row_;
  std::string& out_;
  std::vector<OddValue> found_;
  std::string column_;
  size_t at_ = 0;
  int depth_ = 0;
  bool key_ = false;
};

}  // namespace

std::vector<OddValue> MendRow(std::string_view row, std::string& mended) {
  return Mender(row, mended).Run();
}

std::string Describe(const OddValue& odd) {
  const std::string column = "column '" + odd.column + "' holds ";
  switch (odd.kind) {
    case OddKind::kNotANumber: return column + odd.value;
    case OddKind::kLongNumber: return column + odd.value + ", a number beyond 64 bits";
    case OddKind::kLoneSurrogate: return column + odd.value + ", half of a surrogate pair";
    case OddKind::kBadUtf8: return column + "a text that is not valid UTF-8: \"" + odd.value + "\"";
    case OddKind::kBinary: return column + "binary data that is no text";
  }
  return column;
}

const char* Advice(OddKind kind) {
  switch (kind) {
    case OddKind::kNotANumber:
      return "JSON has no such value: write null (pandas: to_json, or df.where(df.notna(), None))";
    case OddKind::kLongNumber: return "write a smaller one, or a text where one will do";
    case OddKind::kLoneSurrogate:
      return "a text was cut within a character: cut texts by characters, or write them with "
             "errors=\"replace\"";
    case OddKind::kBadUtf8: return "write the file as UTF-8 (iconv -f LATIN1 -t UTF-8)";
    case OddKind::kBinary:
      return "name a column of text (--map prompt=COLUMN, in a recipe data.map)";
  }
  return "";
}

const char* WhatWasDone(OddKind kind) {
  switch (kind) {
    case OddKind::kNotANumber: return "NaN or Infinity in other columns, taken as null";
    case OddKind::kLongNumber:
      return "numbers beyond 64 bits in other columns or answers, taken as text";
    case OddKind::kLoneSurrogate:
      return "halves of surrogate pairs in other columns, replaced by U+FFFD";
    case OddKind::kBadUtf8:
      return "texts that are not UTF-8 in other columns, their bytes replaced by U+FFFD";
    case OddKind::kBinary: return "binary values in other columns, left out (null)";
  }
  return "";
}

}  // namespace plumb::replay

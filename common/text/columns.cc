#include "common/text/columns.h"

#include <utf8proc.h>

#include <algorithm>

#include "common/text/unicode.h"

namespace plumb {
namespace {

constexpr char32_t kReplacement = 0xFFFD, kReturn = 0x23CE, kPictures = 0x2400, kEllipsis = 0x2026;

// Selects a form of the character before it, with a width of its own on some terminals.
bool IsVariationSelector(char32_t code) {
  return (code >= 0xFE00 && code <= 0xFE0F) || (code >= 0xE0100 && code <= 0xE01EF);
}

bool TurnsDirection(char32_t code) {
  return code == 0x061C || code == 0x200E || code == 0x200F || (code >= 0x202A && code <= 0x202E) ||
         (code >= 0x2066 && code <= 0x2069);
}

}  // namespace

int ColumnsOf(char32_t code) {
  if (code == kNotACharacter) return 1;
  return std::clamp(utf8proc_charwidth(static_cast<utf8proc_int32_t>(code)), 0, 2);
}

int ColumnsOf(std::string_view text) {
  int columns = 0;
  for (size_t at = 0; at < text.size();) {
    const Character c = DecodeUtf8(text, at);
    columns += ColumnsOf(c.code);
    at += c.bytes;
  }
  return columns;
}

std::string PrintableLine(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Character c = DecodeUtf8(text, at);
    at += c.bytes;
    if (c.code == '\n') AppendUtf8(kReturn, out);
    else if (c.code == '\t') out += ' ';
    else if (c.code < 0x20) AppendUtf8(kPictures + c.code, out);
    else if (c.code == 0x7F) AppendUtf8(kPictures + 0x21, out);
    else if (c.code == kNotACharacter || TurnsDirection(c.code) || c.code == 0x2028 ||
             c.code == 0x2029 || (c.code >= 0x80 && c.code < 0xA0))
      AppendUtf8(kReplacement, out);
    else if (!IsVariationSelector(c.code)) AppendUtf8(c.code, out);
  }
  return out;
}

std::string PrintableLines(std::string_view text) {
  std::string out;
  for (size_t from = 0; from <= text.size();) {
    const size_t end = std::min(text.find('\n', from), text.size());
    out += (from > 0 ? "\n" : "") + PrintableLine(text.substr(from, end - from));
    from = end + 1;
  }
  return out;
}

std::string Shortened(std::string_view text, int columns) {
  if (columns <= 0) return "";
  int used = 0;
  size_t fits = 0;  // bytes that leave room for the ellipsis
  for (size_t at = 0; at < text.size();) {
    const Character c = DecodeUtf8(text, at);
    const int wide = ColumnsOf(c.code);
    if (used + wide > columns) {
      std::string out(text.substr(0, fits));
      AppendUtf8(kEllipsis, out);
      return out;
    }
    used += wide;
    at += c.bytes;
    if (used <= columns - 1) fits = at;
  }
  return std::string(text);
}

std::string Padded(std::string_view text, int columns, bool right) {
  std::string out = Shortened(text, columns);
  const int missing = columns - ColumnsOf(out);
  if (missing > 0) out.insert(right ? 0 : out.size(), static_cast<size_t>(missing), ' ');
  return out;
}

}  // namespace plumb

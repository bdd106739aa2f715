// Letters, digits and white space of ASCII, whatever the locale: what the parsers here share.
// Thread safety: pure functions. Characters beyond ASCII: common/text/unicode.h.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace plumb {

constexpr bool IsDigit(char c) { return c >= '0' && c <= '9'; }
constexpr bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
constexpr bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
constexpr char LowerAscii(char c) {
  return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}
std::string LowerAscii(std::string_view s);
// Without the white space and the characters of `also` at both ends.
std::string_view Trim(std::string_view s, std::string_view also = "");
// Two lower-case digits a byte.
std::string Hex(std::span<const std::byte> bytes);
std::string Join(const std::vector<std::string>& words, std::string_view between = ", ");

}  // namespace plumb

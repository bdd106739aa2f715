// A number out of a text.
//
// Thread safety: a pure function. Errors: none.
#pragma once

#include <charconv>
#include <optional>
#include <string_view>
#include <system_error>

namespace plumb {

// The number that the whole text is, as std::from_chars reads it: without white space or a plus in
// front, whatever the locale. None where it is no number, or one that does not fit.
template <class Number>
std::optional<Number> ParseNumber(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

}  // namespace plumb

// Text and numbers as they stand on a page.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <string_view>

namespace plumb::run {

// Text that is safe inside an element and inside a quoted attribute. Control characters are shown,
// not executed.
std::string EscapeHtml(std::string_view text);

// Bytes that are no UTF-8 become U+FFFD.
std::string ValidUtf8(std::string_view bytes);

// At most `limit` bytes of valid UTF-8, cut between characters; what was left out is said in `note`
// ("1 234 bytes more"), else it is empty.
std::string CutText(std::string_view text, size_t limit, std::string& note);

std::string Format(const char* format, double value);

// 1234567 -> 1 234 567, with no-break spaces.
std::string Grouped(double value);

// 61.5 -> "61.5 s", 3700 -> "61 min 40 s".
std::string DurationText(double seconds);

// Seconds since 1970 -> "2026-11-29 18:05 UTC"; empty for 0 and what is no time.
std::string DateText(double wall_s);

}  // namespace plumb::run

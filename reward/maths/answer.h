// Finding the answer in a completion and deciding whether it is the right one.
//
// Purpose: the `answer` rule of R1-style training. Numbers are compared exactly, as rationals of
// any size, never as floating point.
// Thread safety: pure functions. Cost: linear in the text; numbers longer than 400 digits are
// compared as text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace plumb::reward {

enum class Fallback : uint8_t {
  kNone = 0,        // no marker, no answer
  kLastNumber = 1,  // no marker: the last number of the text
};

// What a model says when it has thought: the text behind the last </think>, the whole text where
// there is none (a template may have written <think> into the prompt, and then the answer has
// </think> alone). nullopt: a <think> that is not closed behind it: still thinking, no answer.
std::optional<std::string_view> AfterThinking(std::string_view text);

// The answer as written, looked for behind the thinking: inside the last <answer>..</answer>, else
// inside the last \boxed{..} or \fbox{..}, else behind "####" at a line's start. Blank ones are
// passed over; a box inside the tags is unwrapped. nullopt: none.
// "####" is GSM8K's mark and a heading of Markdown: up to 200 bytes behind it count on the last
// line; on a line with text below it only a value (a number, with a unit, or signs). At the very
// end of the last line a number behind "####" counts too. A heading of any level that announces
// the answer ("### Final Answer") counts with what it says itself ("### Answer: 42"), else with the
// paragraph below it, a value or up to four words.
std::optional<std::string> ExtractAnswer(std::string_view text, Fallback fallback);

// An exact number: sign, numerator and denominator as decimal digits without leading zeros, and
// whether it was written as a percentage ("50%" keeps 50/1 and percent).
struct Rational {
  bool negative = false;
  std::string numerator;    // "0" for zero
  std::string denominator;  // never "0"
  bool percent = false;
};
// The whole of `text` as one number: thousands commas, currency signs, percent, leading and
// trailing zeros, U+2212 minus, a/b, \frac{a}{b}, mixed numbers "1 1/2", 1.5e3, LaTeX wrappers
// ($..$, \text{..}, \left, \!). nullopt: it is not one number (division by zero included).
std::optional<Rational> ParseRational(std::string_view text);
bool Equal(const Rational& a, const Rational& b);

// Whether `answer` says the same as `truth`. Numbers as rationals; a percentage equals the plain
// number (50% = 50) and its hundredth (50% = 0.5) when only one side has the sign. When the truth
// is a number and the answer is words with exactly one number ("18 dollars", "x = 18"), that number
// counts. A truth that is a worked solution is first reduced by ExtractAnswer. Otherwise text:
// ASCII case, white space, outer punctuation and LaTeX wrappers ignored.
bool SameAnswer(std::string_view answer, std::string_view truth);

}  // namespace plumb::reward

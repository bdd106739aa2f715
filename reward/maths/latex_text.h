// Spellings of mathematics brought to one: LaTeX, Unicode and plain text in, a small LaTeX dialect
// in ASCII out.
//
// Purpose: what math_expression and math_answer read. After PlainLatex() there are
//   no spacing, size or style commands (\, \left \displaystyle \mathbf), no $..$, \(..\), \[..\]
//   around or inside; one spelling a thing: \frac (not \dfrac), * (\times, \cdot, U+00D7), /
//   (\div), <= >= != < >, \pi, \infty, \degree (^\circ, U+00B0), \emptyset, \cup, \in, \pm, \mp,
//   \sqrt, - (every Unicode minus and dash), | (\lvert, \mid), ^{12} (U+00B9 U+00B2) and _{1}
//   (U+2081), \frac{1}{2} (U+00BD), 3*10^8 (3 x 10^8), 1000 (1 000), \usd \eur \gbp \jpy \inr \cent
//   for currency signs, % for \%; \text{..} for every box of words (\mbox, \textrm, \mathrm of more
//   than one letter, \operatorname of an unknown name).
// A $ is a currency sign when it is escaped or has no partner, else a delimiter.
// Thread safety: pure functions. Cost: linear.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace plumb::reward {

// Longer text is no answer: PlainLatex() cuts it here, math_answer.h does not read it.
inline constexpr size_t kMaxAnswerBytes = 2000;

std::string PlainLatex(std::string_view text);

// A number whose thousands are set apart by spaces, "1 000 000" (also U+00A0, U+2009, U+202F): its
// bytes; 0: none begins here. REQUIRES: at < s.size().
size_t SpacedThousands(std::string_view s, size_t at);

// Without the emphasis of Markdown around all of it (** __ * _ `) and without outer white space.
std::string_view WithoutMarkup(std::string_view text);

// The text between the brace at `open` and its partner, escaped braces skipped; none if it is never
// closed.
std::optional<std::string_view> BracedText(std::string_view text, size_t open);

// Inside the last closed \boxed{..} or \fbox{..} that is not blank (innermost of nested ones);
// \boxed followed by one word counts too.
std::optional<std::string> LastBox(std::string_view text);

// For comparing words: \text unwrapped, white space collapsed, outer punctuation removed, ASCII
// letters lowered.
std::string CanonicalWords(std::string_view plain);

}  // namespace plumb::reward

// Which of the lettered options an answer names: the `multiple_choice` rule.
//
// Purpose: "(B)", "B.", "**B**", "Answer: B", "the correct option is (b)", "\boxed{B}",
// "<answer>B</answer>", "B) Paris", and the text of an option alone, all say B. Several different
// letters with equal standing say nothing. Where it looks, behind the thinking, first hit counts:
// where ExtractAnswer() finds one (reward/maths/answer.h); behind the last "answer is", "answer:",
// "option is", "I would go with" and their like (also of Chinese, Japanese, Korean and six
// languages of Europe) or the last sentence "B is the correct answer", "B is right", whichever
// stands later, unless it doubts or denies; the whole text if it is a letter with brackets, stops
// or the option's text behind it; a last line such as "Therefore B" or "B", a first line that is a
// letter alone; the only letter in brackets of the text; a text that is one option's text, or holds
// exactly one option's text as whole words. All but the first look at the last 16 KiB. A lone
// letter within prose does not count ("A dog barks"). Options come from the row: a column `choices`
// or `options`, a list of texts, or {"text": [..], "label": [..]}, or an object of letter to text;
// else from lines "A) ..", "(A) ..", "A. ..", "A: .." of the prompt. Thread safety: pure functions.
// Cost: linear in the text.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace plumb::reward {

struct Choice {
  char letter = 'A';
  std::string text;  // may be empty
};

// The options of a row; empty where it has none. `extra_json`: the row's other columns, may be
// empty.
std::vector<Choice> ReadChoices(std::string_view prompt, const std::string& extra_json);

// The letter, upper case, within A..`last`; none if the text names none, or more than one.
std::optional<char> FindChoice(std::string_view text, const std::vector<Choice>& choices,
                               char last);

}  // namespace plumb::reward

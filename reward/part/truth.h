// What of a row counts as right: one text, or several of which each will do.
//
// Purpose: data sets have aliases (["4", "four"]) where a rule compares with one text. The record
// keeps a ground truth that is a list or an object as its JSON text, and the column it was read
// from beside it with its type (Prompt::extra_json): that column tells a list from the text "[1,
// 2]", which is an interval. Thread safety: pure functions. Errors: none is thrown; `why` says what
// is wrong with the row, and what to do.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/record/trajectory.h"

namespace plumb::reward {

// The ground truth; the elements of one that is a list: texts, numbers, true and false. Empty, and
// `why` says so: there is none, the list is empty or nested, or it is an object, whose keys are
// named. `quoted`: a text that is itself a list of JSON with a quoted text in it is one too; for
// rules to which '["4", "four"]' can mean nothing else.
std::vector<std::string> Truths(const Prompt& prompt, std::string* why, bool quoted = false);

// What a completion is compared with: Truths(), or with column != "" that column of the row's other
// columns, a text, a number or a list of them. Empty: the row has none, and `why` says so.
std::vector<std::string> References(const Prompt& prompt, const std::string& column,
                                    std::string* why);

// Columns of the row in which something stands and that usually hold the right answer, where none
// is named (data.map.answer); the likeliest first.
std::vector<std::string> UsualTruths(const Prompt& prompt);
// Of a prompt without a ground truth: "; the column 'solution' looks like one: data.map = { answer
// = "solution" }". Empty: none does.
std::string TruthAdvice(const Prompt& prompt);

// What of `completion` is compared with them: what stands behind its thinking
// (reward/maths/answer.h), nothing where that does not end; all of it if one of them has </think>
// itself.
std::string_view Compared(std::string_view completion, const std::vector<std::string>& truths);

}  // namespace plumb::reward

// Cuts the text of a maths answer at separators that stand outside brackets.
//
// Purpose: the scanning under math_object.cc. Texts are of PlainLatex(): commands spelt one way,
// relations as <=, >=, !=.
// Thread safety: pure functions. Ownership: parts are views into the text. Errors: none.
#pragma once

#include <string_view>
#include <vector>

namespace plumb::reward::math_split {

struct Parts {
  std::vector<std::string_view> parts;
  std::vector<std::string_view> signs;  // between them
};
// How many bytes of separator stand at place `i`; 0: none.
using Sign = size_t (*)(std::string_view s, size_t i);
// `thousands`: the commas of "1,234" are no separators.
Parts Split(std::string_view s, bool thousands, Sign sign);

size_t ListSign(std::string_view s, size_t i);      // , ; and or
size_t UnionSign(std::string_view s, size_t i);     // \cup U
size_t WithoutSign(std::string_view s, size_t i);   // \setminus \backslash
size_t RelationSign(std::string_view s, size_t i);  // = < > <= >= != \in

// Bytes of the opening (positive) or closing (negative) bracket at `i`, \begin and \end among them;
// 0: none.
int Bracket(std::string_view s, size_t i);

// Whether the bracket at the start closes at the very end.
bool Encloses(std::string_view s);

}  // namespace plumb::reward::math_split

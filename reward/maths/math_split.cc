#include "reward/maths/math_split.h"

#include <algorithm>
#include <cstdlib>

#include "common/base/text.h"

namespace plumb::reward::math_split {
namespace {

// Bytes of a number with thousands commas at `i`, so that they are not taken for separators.
size_t GroupedNumber(std::string_view s, size_t i) {
  if (!IsDigit(s[i]) || s[i] == '0' || (i > 0 && (IsDigit(s[i - 1]) || s[i - 1] == '.'))) return 0;
  size_t end = i;
  while (end < s.size() && IsDigit(s[end])) ++end;
  if (end - i > 3) return 0;
  const size_t first = end;
  while (end + 3 < s.size() && s[end] == ',' && IsDigit(s[end + 1]) && IsDigit(s[end + 2]) &&
         IsDigit(s[end + 3]) && (end + 4 == s.size() || !IsDigit(s[end + 4]))) {
    end += 4;
  }
  return end > first ? end - i : 0;
}

}  // namespace

int Bracket(std::string_view s, size_t i) {
  switch (s[i]) {
    case '(':
    case '[':
    case '{': return 1;
    case ')':
    case ']':
    case '}': return -1;
    case '\\':
      if (s.substr(i).starts_with("\\{")) return 2;
      if (s.substr(i).starts_with("\\}")) return -2;
      if (s.substr(i).starts_with("\\begin")) return 6;
      if (s.substr(i).starts_with("\\end")) return -4;
      return 0;
    default: return 0;
  }
}

Parts Split(std::string_view s, bool thousands, Sign sign) {
  Parts out;
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i < s.size();) {
    if (depth == 0) {
      if (const size_t size = sign(s, i); size > 0) {
        out.parts.push_back(Trim(s.substr(begin, i - begin)));
        out.signs.push_back(s.substr(i, size));
        begin = i += size;
        continue;
      }
    }
    if (const int bracket = Bracket(s, i); bracket != 0) {
      depth = std::max(0, depth + (bracket > 0 ? 1 : -1));
      i += static_cast<size_t>(std::abs(bracket));
      continue;
    }
    const size_t grouped = thousands ? GroupedNumber(s, i) : 0;
    i += std::max<size_t>(grouped, 1);
  }
  out.parts.push_back(Trim(s.substr(begin)));
  return out;
}

size_t ListSign(std::string_view s, size_t i) {
  if (s[i] == ',' || s[i] == ';') return 1;
  for (std::string_view word : {" or ", " and ", "\\text{or}", "\\text{and}", "\\text{ or }",
                                "\\text{ and }", "\\text{or }", "\\text{and }", "\\text{ or}",
                                "\\text{ and}", "\\vee", "\\wedge", "\\lor", "\\land"}) {
    if (s.substr(i).starts_with(word)) return word.size();
  }
  return 0;
}
size_t UnionSign(std::string_view s, size_t i) {
  if (s.substr(i).starts_with("\\cup")) return 4;
  if (s.substr(i).starts_with(" U ")) return 3;
  return s[i] == 'U' && i > 0 && (s[i - 1] == ')' || s[i - 1] == ']') ? 1 : 0;
}
size_t WithoutSign(std::string_view s, size_t i) {
  for (std::string_view word : {"\\setminus", "\\backslash"}) {
    if (s.substr(i).starts_with(word)) return word.size();
  }
  return 0;
}
size_t RelationSign(std::string_view s, size_t i) {
  for (std::string_view sign : {"<=", ">=", "!="}) {
    if (s.substr(i).starts_with(sign)) return 2;
  }
  if (s[i] == '=' || s[i] == '<' || s[i] == '>') return 1;
  return s.substr(i).starts_with("\\in") && (i + 3 == s.size() || !IsLetter(s[i + 3])) ? 3 : 0;
}

bool Encloses(std::string_view s) {
  int depth = 0;
  for (size_t i = 0; i < s.size();) {
    const int bracket = Bracket(s, i);
    i += bracket == 0 ? 1 : static_cast<size_t>(std::abs(bracket));
    if (bracket > 0) ++depth;
    if (bracket < 0 && --depth == 0) return i == s.size();
    if (depth == 0) return false;
  }
  return false;
}

}  // namespace plumb::reward::math_split

#include "reward/maths/answer.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <vector>

#include "common/base/text.h"
#include "common/text/words.h"
#include "reward/maths/latex_text.h"
#include "reward/maths/units.h"

namespace plumb::reward {
namespace {

constexpr size_t kMaxDigits = 400;
constexpr size_t kLongestRest = 200;  // of a line behind ####
constexpr std::string_view kSpaces = " \n\t\r\f\v";

void ReplaceAll(std::string* s, std::string_view from, std::string_view to) {
  if (s->find(from) == std::string::npos) return;
  std::string out;
  out.reserve(s->size());
  size_t at = 0;
  for (size_t hit; (hit = s->find(from, at)) != std::string::npos; at = hit + from.size()) {
    out.append(*s, at, hit - at).append(to);
  }
  *s = out.append(*s, at, std::string::npos);
}

std::string Unbox(std::string_view text) {
  if (auto boxed = LastBox(text)) return *boxed;
  return std::string(Trim(text));
}

// Removes \name{...} keeping (or dropping) what is inside.
void Unwrap(std::string* s, std::string_view name, bool keep) {
  for (size_t at = 0; (at = s->find(name, at)) != std::string::npos;) {
    const auto inside = BracedText(*s, at + name.size());
    if (!inside) {
      at += name.size();
      continue;
    }
    const std::string text(*inside);
    s->replace(at, name.size() + text.size() + 2, keep ? text : std::string());
  }
}

// Spelling that does not change what is meant: LaTeX spacing and wrappers, Unicode signs.
std::string Plain(std::string_view text) {
  std::string s(WithoutMarkup(text.substr(0, 4096)));
  ReplaceAll(&s, "\xE2\x88\x92", "-");  // U+2212 minus
  ReplaceAll(&s, "\xEF\xB9\xA3", "-");  // U+FE63
  ReplaceAll(&s, "\xEF\xBC\x8D", "-");  // U+FF0D
  ReplaceAll(&s, "\xE2\x80\x93", "-");  // U+2013 en dash
  ReplaceAll(&s, "\xE2\x81\x84", "/");  // U+2044 fraction slash
  ReplaceAll(&s, "\xC2\xA0", " ");
  ReplaceAll(&s, "\xE2\x80\xAF", " ");
  ReplaceAll(&s, "{,}", ",");
  for (std::string_view skip :
       {"\\!", "\\,", "\\;", "\\:", "\\left", "\\right", "\\displaystyle"}) {
    ReplaceAll(&s, skip, "");
  }
  ReplaceAll(&s, "\\ ", " ");
  ReplaceAll(&s, "\\dfrac", "\\frac");
  ReplaceAll(&s, "\\tfrac", "\\frac");
  ReplaceAll(&s, "\\%", "%");
  ReplaceAll(&s, "\\$", "$");
  ReplaceAll(&s, "\\(", "");
  ReplaceAll(&s, "\\)", "");
  ReplaceAll(&s, "\\[", "");
  ReplaceAll(&s, "\\]", "");
  for (std::string_view wrap : {"\\text", "\\mathrm", "\\mathbf", "\\textbf", "\\mbox"})
    Unwrap(&s, wrap, true);
  for (std::string_view degree : {"^{\\circ}", "^\\circ", "\xC2\xB0"}) ReplaceAll(&s, degree, "");
  ReplaceAll(&s, "**", "");
  return std::string(Trim(s));
}

constexpr std::string_view kCurrency[] = {
    "$", "USD", "EUR", "GBP", "\xE2\x82\xAC", "\xC2\xA3", "\xC2\xA5", "\xE2\x82\xB9"};

void StripCurrency(std::string_view* s) {
  for (bool again = true; again;) {
    again = false;
    *s = Trim(*s);
    for (std::string_view sign : kCurrency) {
      if (s->starts_with(sign)) s->remove_prefix(sign.size()), again = true;
      if (s->ends_with(sign)) s->remove_suffix(sign.size()), again = true;
    }
  }
}

std::string NoLeadingZeros(std::string digits) {
  const size_t first = digits.find_first_not_of('0');
  return first == std::string::npos ? "0" : digits.substr(first);
}

std::string Multiply(const std::string& a, const std::string& b) {
  std::vector<uint32_t> out(a.size() + b.size(), 0);
  for (size_t i = a.size(); i-- > 0;) {
    uint32_t carry = 0;
    for (size_t j = b.size(); j-- > 0;) {
      const auto digit = [](char c) { return static_cast<uint32_t>(c - '0'); };
      const uint32_t sum = out[i + j + 1] + digit(a[i]) * digit(b[j]) + carry;
      out[i + j + 1] = sum % 10;
      carry = sum / 10;
    }
    out[i] += carry;
  }
  std::string digits;
  for (uint32_t d : out) digits.push_back(static_cast<char>('0' + d));
  return NoLeadingZeros(std::move(digits));
}

std::string Add(const std::string& a, const std::string& b) {
  std::string out;
  int carry = 0;
  for (size_t i = 0; i < std::max(a.size(), b.size()) || carry; ++i) {
    int sum = carry;
    if (i < a.size()) sum += a[a.size() - 1 - i] - '0';
    if (i < b.size()) sum += b[b.size() - 1 - i] - '0';
    out.push_back(static_cast<char>('0' + sum % 10));
    carry = sum / 10;
  }
  std::reverse(out.begin(), out.end());
  return NoLeadingZeros(std::move(out));
}

// Unsigned decimal with optional proper thousands commas, fraction and exponent, at the start of
// `s`. Returns the bytes used, 0 if there is none.
size_t ScanDecimal(std::string_view s, Rational* out) {
  std::string whole, fraction;
  size_t i = 0;
  while (i < s.size() && IsDigit(s[i])) whole.push_back(s[i++]);
  if (!whole.empty() && whole.size() <= 3) {
    while (i + 3 < s.size() && s[i] == ',' && IsDigit(s[i + 1]) && IsDigit(s[i + 2]) &&
           IsDigit(s[i + 3]) && (i + 4 == s.size() || !IsDigit(s[i + 4]))) {
      whole.append(s.substr(i + 1, 3));
      i += 4;
    }
  }
  if (i + 1 < s.size() && s[i] == '.' && IsDigit(s[i + 1])) {
    ++i;
    while (i < s.size() && IsDigit(s[i])) fraction.push_back(s[i++]);
  } else if (!whole.empty() && i + 1 == s.size() && s[i] == '.') {
    ++i;  // "5."
  }
  if (whole.empty() && fraction.empty()) return 0;
  int exponent = 0;
  if (i + 1 < s.size() && (s[i] == 'e' || s[i] == 'E')) {
    size_t j = i + 1;
    const bool negative = s[j] == '-';
    if (s[j] == '-' || s[j] == '+') ++j;
    size_t digits = 0;
    int value = 0;
    while (j < s.size() && IsDigit(s[j]) && digits < 4)
      value = value * 10 + (s[j++] - '0'), ++digits;
    if (digits > 0 && digits < 4) {
      exponent = negative ? -value : value;
      i = j;
    }
  }
  if (whole.size() + fraction.size() > kMaxDigits ||
      std::abs(exponent) > static_cast<int>(kMaxDigits))
    return 0;
  out->numerator = whole + fraction;
  out->denominator.assign(1, '1').append(fraction.size(), '0');
  (exponent >= 0 ? out->numerator : out->denominator)
      .append(static_cast<size_t>(std::abs(exponent)), '0');
  out->numerator = NoLeadingZeros(out->numerator);
  return i;
}

std::optional<Rational> Divide(const Rational& a, const Rational& b) {
  if (b.numerator == "0") return std::nullopt;
  Rational out;
  out.negative = a.negative != b.negative;
  out.numerator = Multiply(a.numerator, b.denominator);
  out.denominator = Multiply(a.denominator, b.numerator);
  return out;
}

std::optional<Rational> ParseSigned(std::string_view s);

// \frac{a}{b}, \frac12, \frac1{2} at the start; `used` bytes.
std::optional<Rational> ParseFrac(std::string_view s, size_t* used) {
  if (!s.starts_with("\\frac")) return std::nullopt;
  size_t at = 5;
  std::optional<Rational> parts[2];
  for (auto& part : parts) {
    while (at < s.size() && IsSpace(s[at])) ++at;
    if (const auto inside = BracedText(s, at)) {
      part = ParseSigned(Trim(*inside));
      at += inside->size() + 2;
    } else if (at < s.size() && IsDigit(s[at])) {
      part = ParseSigned(s.substr(at, 1));
      ++at;
    }
    if (!part) return std::nullopt;
  }
  *used = at;
  return Divide(*parts[0], *parts[1]);
}

std::optional<Rational> ParseSigned(std::string_view s) {
  bool negative = false;
  s = Trim(s);
  if (!s.empty() && (s.front() == '-' || s.front() == '+')) {
    negative = s.front() == '-';
    s.remove_prefix(1);
    StripCurrency(&s);  // "-$5"
  }
  Rational first;
  size_t used = 0;
  if (auto frac = ParseFrac(s, &used)) {
    first = *frac;
  } else {
    used = ScanDecimal(s, &first);
    if (used == 0) return std::nullopt;
  }
  std::string_view rest = s.substr(used);
  std::string_view next = Trim(rest);
  if (!next.empty()) {
    const bool integer = first.denominator == "1";
    if (next.front() == '/') {
      const auto below = ParseSigned(next.substr(1));
      if (!below || Trim(next.substr(1)).find('/') != std::string_view::npos) return std::nullopt;
      const auto quotient = Divide(first, *below);
      if (!quotient) return std::nullopt;
      first = *quotient;
    } else if (integer && (next.starts_with("\\frac") ||
                           (next.size() != rest.size() && IsDigit(next.front())))) {
      // Mixed number: "1 1/2", "1\frac{1}{2}".
      const auto part = ParseSigned(next);
      if (!part || part->denominator == "1" ||
          (!next.starts_with("\\frac") && next.find('/') == std::string_view::npos)) {
        return std::nullopt;
      }
      const std::string whole = Multiply(first.numerator, part->denominator);
      first.numerator = Add(whole, part->numerator);
      first.denominator = part->denominator;
    } else {
      return std::nullopt;
    }
  }
  first.negative = first.negative != negative;
  if (first.numerator == "0") first.negative = false;
  if (first.numerator.size() + first.denominator.size() > 4 * kMaxDigits) return std::nullopt;
  return first;
}

struct Found {
  size_t begin, end;
};

// Numbers as they stand in prose: optional sign, digits, and a directly joined "/digits"; the last
// at the end.
std::vector<Found> FindNumbers(std::string_view s) {
  std::vector<Found> out;
  for (size_t i = 0; i < s.size();) {
    const bool dot =
        s[i] == '.' && i + 1 < s.size() && IsDigit(s[i + 1]) && (i == 0 || !IsDigit(s[i - 1]));
    if (!IsDigit(s[i]) && !dot) {
      ++i;
      continue;
    }
    Rational ignored;
    // A sentence's full stop is not the number's: scan as if something followed.
    size_t used = ScanDecimal(s.substr(i), &ignored);
    if (used == 0) {  // longer than we compare: skip its digits
      while (i < s.size() && (IsDigit(s[i]) || s[i] == '.')) ++i;
      continue;
    }
    size_t begin = i, end = i + used;
    if (s[end - 1] == '.') --end;
    if (end + 1 < s.size() && s[end] == '/' && IsDigit(s[end + 1])) {
      const size_t more = ScanDecimal(s.substr(end + 1), &ignored);
      if (more > 0) end += 1 + more;
      if (s[end - 1] == '.') --end;
    }
    size_t sign = begin;
    while (sign > 0 && s[sign - 1] == '$') --sign;
    // A minus is a sign only when it does not join two things: "10-3" is two numbers.
    if (sign > 0 && s[sign - 1] == '-' &&
        (sign == 1 || IsSpace(s[sign - 2]) || s[sign - 2] == '(' || s[sign - 2] == '=')) {
      begin = sign - 1;
    }
    i = end;
    if (end < s.size() && s[end] == '%') {
      end += 1;
    } else if (end + 1 < s.size() && s[end] == ' ' && s[end + 1] == '%') {
      end += 2;
    }
    out.push_back({begin, end});
  }
  return out;
}

std::string Canonical(std::string_view text) {
  std::string s = Plain(text);
  ReplaceAll(&s, "$", "");
  std::string out;
  bool space = false;
  for (char c : s) {
    if (IsSpace(c)) {
      space = !out.empty();
      continue;
    }
    if (space) out.push_back(' ');
    space = false;
    out.push_back(LowerAscii(c));
  }
  static constexpr std::string_view kOuter = ".,;:!?\"'`";
  size_t begin = 0, end = out.size();
  while (begin < end && kOuter.find(out[begin]) != std::string_view::npos) ++begin;
  while (end > begin &&
         (kOuter.find(out[end - 1]) != std::string_view::npos || out[end - 1] == ' '))
    --end;
  return out.substr(begin, end - begin);
}

// Inside the last complete <answer>..</answer> that is not blank.
std::optional<std::string> LastTagged(std::string_view text) {
  // Only the last few are tried: a text of nothing but empty ones must not cost quadratic time.
  for (int tries = 0; tries < 8; ++tries) {
    const size_t close = text.rfind("</answer>");
    if (close == std::string_view::npos) return std::nullopt;
    text = text.substr(0, close);
    const size_t open = text.rfind("<answer>");
    if (open == std::string_view::npos) return std::nullopt;
    const std::string_view inside = Trim(text.substr(open + 8));
    if (!inside.empty()) return Unbox(inside);
    text = text.substr(0, open);
  }
  return std::nullopt;
}

// What stands on the line at the start; `rest` becomes what stands below it.
std::string_view TakeLine(std::string_view* rest) {
  const size_t end = std::min(rest->find('\n'), rest->size());
  const std::string_view line = rest->substr(0, end);
  rest->remove_prefix(std::min(end + 1, rest->size()));
  return line;
}

// "Final answer", "**Answer:**", "The answer is" at the start of a line: removed, with the signs
// around it.
std::string_view WithoutAnnouncement(std::string_view line) {
  const auto drop = [](std::string_view s) {
    while (!s.empty() &&
           (IsSpace(s.front()) || s.front() == '*' || s.front() == ':' || s.front() == '_'))
      s.remove_prefix(1);
    return s;
  };
  bool named = false;
  const std::string_view whole = line;
  line = drop(line);
  for (std::string_view word : {"the", "my", "so", "final", "correct", "answer", "is"}) {
    if (line.size() < word.size() || LowerAscii(line.substr(0, word.size())) != word) continue;
    const std::string_view behind = line.substr(word.size());
    if (!behind.empty() && !IsSpace(behind.front()) && behind.front() != ':' &&
        behind.front() != '*' && behind.front() != '_')
      continue;
    named = named || word == "answer";
    line = drop(behind);
  }
  return named ? line : whole;
}

// A number, a few signs of mathematics, or a number with a unit: no heading.
bool ReadsAsValue(std::string_view rest) {
  if (ParseRational(rest)) return true;
  Rational ignored;
  const size_t number = ScanDecimal(rest, &ignored);
  if (number > 0 && ReadUnit(PlainLatex(rest.substr(number)))) return true;
  size_t run = 0;
  bool command = false, any = false;
  for (char c : rest) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    command = c == '\\' || (command && letter);
    run = letter && !command ? run + 1 : 0;
    if (run > 2) return false;  // a word
    any = any || IsDigit(c) || c == '$' || c == '\\';
  }
  // "1. a)", "2) b": an item of a list.
  const bool item = number > 0 && number < rest.size() &&
                    (rest[number] == ')' || rest[number] == ':' || rest[number - 1] == '.');
  return any && !item;
}

// What stands below a heading that announces the answer: a value or a few words; none for prose.
std::optional<std::string> Announcement(std::string_view below) {
  const size_t begin = below.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return std::nullopt;
  below = below.substr(begin, kLongestRest + 1);
  const std::string_view paragraph =
      Trim(below.substr(0, std::min(below.find("\n\n"), below.find("\n#"))));
  const bool few = SpacedWords(paragraph).size() <= 4;
  if (paragraph.size() > kLongestRest || !(few || ReadsAsValue(WithoutAnnouncement(paragraph))))
    return std::nullopt;
  return std::string(paragraph);
}

// Behind "####" as GSM8K ends its solutions. A heading of Markdown looks alike: it stands above
// text and reads in words. A heading that announces the answer ("### Final Answer") stands for what
// is below it.
std::optional<std::string> BehindHashes(std::string_view text) {
  std::optional<std::string> last;
  bool code = false;  // between ``` a # begins a comment
  for (std::string_view rest = Trim(text); !rest.empty();) {
    std::string_view line = TakeLine(&rest);
    const size_t begin = line.find_first_not_of(kSpaces);
    if (begin == std::string_view::npos) continue;
    if (line.substr(begin).starts_with("```")) code = !code;
    const bool below = rest.find_first_not_of(kSpaces) != std::string_view::npos;
    if (line[begin] != '#') {
      // "= 72 #### 72" at the very end, where lines were joined.
      const size_t joined = below ? std::string_view::npos : line.rfind("####");
      if (joined == std::string_view::npos || line[joined - 1] == '#') continue;
      if (ParseRational(line.substr(joined + 4))) last = Trim(line.substr(joined + 4));
      continue;
    }
    const size_t level = std::min(line.find_first_not_of('#', begin), line.size()) - begin;
    line = Trim(line.substr(begin + level));
    if (level > 6 || (code && level != 4) || line.empty() || line.size() > kLongestRest) continue;
    const std::string_view said = Trim(WithoutAnnouncement(line));
    if (said.find_first_not_of("*_:. ") == std::string_view::npos) {
      if (auto announced = Announcement(rest)) last = announced;
    } else if ((level == 4 || said.size() < line.size()) && (!below || ReadsAsValue(said))) {
      last = said;
    }
  }
  return last;
}

}  // namespace

std::optional<std::string_view> AfterThinking(std::string_view text) {
  const size_t close = text.rfind("</think>");
  if (close != std::string_view::npos) text.remove_prefix(close + 8);
  if (text.find("<think>") != std::string_view::npos) return std::nullopt;
  return text;
}

std::optional<std::string> ExtractAnswer(std::string_view text, Fallback fallback) {
  const auto behind = AfterThinking(text);
  if (!behind) return std::nullopt;
  text = *behind;
  if (auto tagged = LastTagged(text)) return tagged;
  if (auto boxed = LastBox(text)) return boxed;
  if (auto hashed = BehindHashes(text)) return hashed;
  if (fallback == Fallback::kLastNumber) {
    const std::string_view tail = text.substr(text.size() > 4000 ? text.size() - 4000 : 0);
    const std::string plain = Plain(tail);
    const auto numbers = FindNumbers(plain);
    if (!numbers.empty())
      return plain.substr(numbers.back().begin, numbers.back().end - numbers.back().begin);
  }
  return std::nullopt;
}

std::optional<Rational> ParseRational(std::string_view text) {
  if (text.size() > 4096) return std::nullopt;
  const std::string plain = Plain(text);
  std::string_view s = plain;
  StripCurrency(&s);
  bool percent = false;
  if (s.ends_with('%')) {
    percent = true;
    s.remove_suffix(1);
    StripCurrency(&s);
  }
  if (s.size() > 1 && s.ends_with('.')) s.remove_suffix(1);
  std::string joined(s);
  const size_t digits = !s.empty() && (s[0] == '-' || s[0] == '+') ? 1 : 0;
  if (digits < s.size()) {  // 1 000 000
    const size_t spaced = SpacedThousands(s, digits);
    std::string whole;
    for (char c : s.substr(digits, spaced)) {
      if (IsDigit(c)) whole += c;
    }
    joined.replace(digits, spaced, whole);
  }
  auto value = ParseSigned(joined);
  if (value) value->percent = percent;
  return value;
}

bool Equal(const Rational& a, const Rational& b) {
  if (a.negative != b.negative) return false;
  return Multiply(a.numerator, b.denominator) == Multiply(b.numerator, a.denominator);
}

bool SameAnswer(std::string_view answer, std::string_view truth) {
  std::string reduced;
  truth = AfterThinking(truth).value_or(truth);
  if (auto found = ExtractAnswer(truth, Fallback::kNone)) {
    reduced = *found;
    truth = reduced;
  }
  const auto expected = ParseRational(truth);
  if (!expected) {
    const std::string wanted = Canonical(truth);
    return !wanted.empty() && Canonical(answer) == wanted;
  }
  auto given = ParseRational(answer);
  if (!given) {
    const std::string plain = Plain(answer);
    // After an equals sign stands what was worked out: "3 * 6 = 18".
    const size_t equals = plain.rfind('=');
    const std::string_view tail = equals == std::string::npos
                                      ? std::string_view(plain)
                                      : std::string_view(plain).substr(equals + 1);
    given = ParseRational(tail);
    if (!given) {
      const auto numbers = FindNumbers(tail);
      // "[1,100]" is no number with a comma.
      const auto bracketed = [&](const Found& n) {
        const std::string_view number = tail.substr(n.begin, n.end - n.begin);
        return number.find(',') != std::string_view::npos && n.begin > 0 && n.end < tail.size() &&
               std::string_view("([{").find(tail[n.begin - 1]) != std::string_view::npos &&
               std::string_view(")]}").find(tail[n.end]) != std::string_view::npos;
      };
      if (numbers.size() == 1 && !bracketed(numbers[0])) {
        given = ParseRational(tail.substr(numbers[0].begin, numbers[0].end - numbers[0].begin));
      }
    }
    if (!given) return false;
  }
  if (Equal(*given, *expected)) return true;
  if (given->percent == expected->percent) return false;
  Rational hundredth = given->percent ? *given : *expected;
  hundredth.denominator += "00";
  return Equal(hundredth, given->percent ? *expected : *given);
}

}  // namespace plumb::reward

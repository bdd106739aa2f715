#include "reward/maths/latex_text.h"

#include <algorithm>
#include <span>
#include <utility>

#include "common/base/text.h"

namespace plumb::reward {
namespace {

using Spelling = std::pair<std::string_view, std::string_view>;

// Unicode to the dialect. Longest first where one begins another (none does in UTF-8).
constexpr Spelling kUnicode[] = {
    {"\u2212", "-"},
    {"\u2013", "-"},
    {"\u2014", "-"},
    {"\uFE63", "-"},
    {"\uFF0D", "-"},
    {"\u2010", "-"},
    {"\u2011", "-"},
    {"\u00D7", "*"},
    {"\u22C5", "*"},
    {"\u00B7", "*"},
    {"\u2219", "*"},
    {"\u2217", "*"},
    {"\u2062", "*"},
    {"\u00F7", "/"},
    {"\u2044", "/"},
    {"\u2215", "/"},
    {"\u2264", "<="},
    {"\u2A7D", "<="},
    {"\u2265", ">="},
    {"\u2A7E", ">="},
    {"\u2260", "!="},
    {"\u00B1", "\\pm "},
    {"\u2213", "\\mp "},
    {"\u221E", "\\infty "},
    {"\u03C0", "\\pi "},
    {"\u00B0", "\\degree "},
    {"\u00BA", "\\degree "},
    {"\u222A", "\\cup "},
    {"\u2229", "\\cap "},
    {"\u2208", "\\in "},
    {"\u2205", "\\emptyset "},
    {"\u211D", "\\R "},
    {"\u1D40", "^T"},
    {"\u00BD", "\\frac{1}{2}"},
    {"\u2153", "\\frac{1}{3}"},
    {"\u2154", "\\frac{2}{3}"},
    {"\u00BC", "\\frac{1}{4}"},
    {"\u00BE", "\\frac{3}{4}"},
    {"\u2155", "\\frac{1}{5}"},
    {"\u215B", "\\frac{1}{8}"},
    {"\u03B1", "\\alpha "},
    {"\u03B2", "\\beta "},
    {"\u03B3", "\\gamma "},
    {"\u03B4", "\\delta "},
    {"\u03B8", "\\theta "},
    {"\u03BB", "\\lambda "},
    {"\u03BC", "\\mu "},
    {"\u00B5", "\\mu "},
    {"\u03C6", "\\phi "},
    {"\u03C9", "\\omega "},
    {"\u03C3", "\\sigma "},
    {"\u20AC", "\\eur "},
    {"\u00A3", "\\gbp "},
    {"\u00A5", "\\jpy "},
    {"\u20B9", "\\inr "},
    {"\u00A2", "\\cent "},
    {"\u2032", "'"},
    {"\u2033", "''"},
    {"\u2019", "'"},
    {"\u00A0", " "},
    {"\u202F", " "},
    {"\u2009", " "},
    {"\u200B", ""},
    {"\u2061", ""},
    {"\uFEFF", ""},
    {"\u201C", "\""},
    {"\u201D", "\""},
    {"\u221A", "\\sqrt "},
    {"\u22C3", "\\cup "},
    {"\u2248", "\\approx "},
    {"\u2103", "\\text{ degC}"},
    {"\u2109", "\\text{ degF}"},
    {"\uFF08", "("},
    {"\uFF09", ")"},
    {"\uFF0C", ","},
    {"\uFF05", "%"},
    {"\uFF1D", "="},
};

// Raised and lowered signs; those of one run belong to one power or index.
constexpr Spelling kRaised[] = {{"\u2070", "0"}, {"\u00B9", "1"}, {"\u00B2", "2"}, {"\u00B3", "3"},
                                {"\u2074", "4"}, {"\u2075", "5"}, {"\u2076", "6"}, {"\u2077", "7"},
                                {"\u2078", "8"}, {"\u2079", "9"}, {"\u207B", "-"}, {"\u207A", "+"},
                                {"\u207F", "n"}, {"\u02E3", "x"}};
constexpr Spelling kLowered[] = {{"\u2080", "0"}, {"\u2081", "1"}, {"\u2082", "2"}, {"\u2083", "3"},
                                 {"\u2084", "4"}, {"\u2085", "5"}, {"\u2086", "6"}, {"\u2087", "7"},
                                 {"\u2088", "8"}, {"\u2089", "9"}, {"\u2099", "n"}};

// Commands to the dialect; "" drops the command.
constexpr Spelling kCommands[] = {
    {"dfrac", "\\frac"},
    {"tfrac", "\\frac"},
    {"cfrac", "\\frac"},
    {"big", ""},
    {"Big", ""},
    {"bigl", ""},
    {"bigr", ""},
    {"Bigl", ""},
    {"Bigr", ""},
    {"bigg", ""},
    {"Bigg", ""},
    {"displaystyle", ""},
    {"textstyle", ""},
    {"scriptstyle", ""},
    {"limits", ""},
    {"nolimits", ""},
    {"quad", " "},
    {"qquad", " "},
    {"cdot", "*"},
    {"times", "*"},
    {"ast", "*"},
    {"div", "/"},
    {"le", "<="},
    {"leq", "<="},
    {"leqslant", "<="},
    {"ge", ">="},
    {"geq", ">="},
    {"geqslant", ">="},
    {"ne", "!="},
    {"neq", "!="},
    {"lt", "<"},
    {"gt", ">"},
    {"varnothing", "\\emptyset "},
    {"bigcup", "\\cup "},
    {"lvert", "|"},
    {"rvert", "|"},
    {"vert", "|"},
    {"mid", "|"},
    {"lbrace", "\\{"},
    {"rbrace", "\\}"},
    {"lbrack", "["},
    {"rbrack", "]"},
    {"lparen", "("},
    {"rparen", ")"},
    {"langle", "("},
    {"rangle", ")"},
    {"equiv", "="},
    {"colon", ":"},
    {"dots", "..."},
    {"ldots", "..."},
    {"cdots", "..."},
    {"prime", "'"},
    {"mathbb", ""},
    {"dollar", "\\usd "},
    {"pounds", "\\gbp "},
    {"euro", "\\eur "},
    {"degrees", "\\degree "},
    {"varphi", "\\phi "},
    {"varepsilon", "\\epsilon "},
    {"vartheta", "\\theta "},
    {"arcsin", "\\asin "},
    {"arccos", "\\acos "},
    {"arctan", "\\atan "},
    {"tan", "\\tan "},
    {"dbinom", "\\binom"},
    {"tbinom", "\\binom"},
    {"implies", " "},
    {"boxed", ""},
    {"fbox", ""},
    {"mathit", ""},
    {"mathbf", ""},
    {"boldsymbol", ""},
    {"bm", ""},
    {"mathcal", ""},
    {"vec", ""},
    {"overrightarrow", ""},
    {"ensuremath", ""},
    {"rm", ""},
    {"thinspace", ""},
    {"hfill", ""},
    {"bf", ""},
    {"it", ""},
    {"sf", ""},
    {"tt", ""},
    {"em", ""},
    {"cal", ""},
    {"bfseries", ""},
    {"itshape", ""},
    {"large", ""},
    {"Large", ""},
    {"LARGE", ""},
    {"huge", ""},
    {"Huge", ""},
    {"small", ""},
    {"underline", ""},
    {"mathop", ""},
};
constexpr std::string_view kWordBoxes[] = {
    "text",   "textrm",       "textnormal", "textit", "textbf", "texttt", "textsf", "mbox",  "hbox",
    "mathrm", "operatorname", "mathsf",     "mathtt", "emph",   "textup", "textsc", "textsl"};
constexpr std::string_view kFunctionNames[] = {"sin",    "cos",    "tan",   "cot", "sec",
                                               "csc",    "ln",     "log",   "exp", "sqrt",
                                               "arcsin", "arccos", "arctan"};

bool Among(std::string_view name, std::span<const std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Three digits and then no more: what may follow a thin space or a braced comma inside a number.
bool ThousandsAt(std::string_view s, size_t at) {
  return at + 3 <= s.size() && IsDigit(s[at]) && IsDigit(s[at + 1]) && IsDigit(s[at + 2]) &&
         (at + 3 == s.size() || !IsDigit(s[at + 3]));
}

// A run of the table's signs at `i`, joined; `used` bytes.
std::string Run(std::string_view s, size_t i, std::span<const Spelling> table, size_t* used) {
  std::string out;
  const size_t begin = i;
  for (bool again = true; again;) {
    again = false;
    for (const auto& [from, to] : table) {
      if (!s.substr(i).starts_with(from)) continue;
      out += to;
      i += from.size();
      again = true;
    }
  }
  *used = i - begin;
  return out;
}

// "3 x 10^8" at the x: the bytes up to the 10; 0: it is a letter.
size_t TimesTenAt(std::string_view s, size_t i, std::string_view before) {
  const size_t digit = before.find_last_not_of(' ');
  if (s[i] != 'x' && s[i] != 'X') return 0;
  if (digit == std::string_view::npos || !IsDigit(before[digit])) return 0;
  const size_t ten = std::min(s.find_first_not_of(' ', i + 1), s.size());
  if (!s.substr(ten).starts_with("10")) return 0;
  size_t raised = 0;
  Run(s, ten + 2, kRaised, &raised);
  const std::string_view behind = s.substr(ten + 2);
  return raised > 0 || behind.starts_with("^") || behind.starts_with("**") ? ten - i : 0;
}

// One command at the backslash `at`; appends its meaning, returns the place behind it.
size_t Command(std::string_view s, size_t at, std::string* out, int depth);

void Append(std::string_view s, std::string* out, int depth, bool dollar_pairs) {
  for (size_t i = 0; i < s.size();) {
    const char c = s[i];
    if (c == '\\') {
      i = Command(s, i, out, depth);
    } else if (c == '$') {
      if (!dollar_pairs) *out += "\\usd ";
      ++i;
    } else if (c == '^') {
      // ^\circ and ^{\circ} are a degree sign, not a power.
      static constexpr std::string_view kCircle[] = {
          "^\\circ", "^{\\circ}", "^{ \\circ }", "^ \\circ", "^{\\degree}", "^\\degree", "^{o}"};
      std::string_view hit;
      for (std::string_view circle : kCircle) {
        if (s.substr(i).starts_with(circle)) hit = circle;
      }
      *out += hit.empty() ? "^" : "\\degree ";
      i += std::max<size_t>(hit.size(), 1);
    } else if (s.substr(i).starts_with("{,}")) {
      *out += ',';
      i += 3;
    } else if (c == '~') {
      // 1~000
      if (!(out->size() > 0 && IsDigit(out->back()) && ThousandsAt(s, i + 1))) *out += ' ';
      ++i;
    } else if (c == '*' && i + 1 < s.size() && s[i + 1] == '*') {
      // Bold in Markdown at an end, a power in code between two things.
      const bool power = !Trim(s.substr(0, i)).empty() && !Trim(s.substr(i + 2)).empty() &&
                         s.find("**", i + 2) == std::string_view::npos &&
                         s.substr(0, i).find("**") == std::string_view::npos;
      if (power) *out += '^';
      i += 2;
    } else if (const size_t spaced = SpacedThousands(s, i); spaced > 0) {
      for (char digit : s.substr(i, spaced)) {
        if (IsDigit(digit)) *out += digit;
      }
      i += spaced;
    } else if (const size_t times = TimesTenAt(s, i, *out); times > 0) {
      *out += '*';
      i += times;
    } else if (static_cast<unsigned char>(c) >= 0x80) {
      size_t raised = 0, lowered = 0;
      const std::string power = Run(s, i, kRaised, &raised), index = Run(s, i, kLowered, &lowered);
      if (raised + lowered > 0) {
        *out += (raised > 0 ? "^{" + power : "_{" + index) + "}";
        i += raised + lowered;
        continue;
      }
      std::string_view with, found;
      for (const auto& [from, to] : kUnicode) {
        if (s.substr(i).starts_with(from) && from.size() > found.size()) found = from, with = to;
      }
      if (found.empty()) {
        *out += c;
        ++i;
      } else {
        *out += with;
        i += found.size();
      }
    } else if (c == '<' || c == '>' || c == '!') {
      *out += c;
      if (i + 1 < s.size() && s[i + 1] == '=') *out += '=', ++i;
      ++i;
    } else {
      *out += IsSpace(c) ? ' ' : c;
      ++i;
    }
  }
}

size_t Command(std::string_view s, size_t at, std::string* out, int depth) {
  size_t end = at + 1;
  while (end < s.size() && IsLetter(s[end])) ++end;
  if (end == at + 1) {  // a sign after the backslash
    if (end == s.size()) return end;
    switch (s[end]) {
      case '!': return end + 1;
      case ',':
      case ';':
      case ':':
      case ' ':
      case '>':
        // A thin space between digits groups thousands.
        if (!(out->size() > 0 && IsDigit(out->back()) && ThousandsAt(s, end + 1))) *out += ' ';
        return end + 1;
      case '(':
      case ')':
      case '[':
      case ']': *out += ' '; return end + 1;
      case '%': *out += '%'; return end + 1;
      case '$': *out += "\\usd "; return end + 1;
      case '{': *out += "\\{"; return end + 1;
      case '}': *out += "\\}"; return end + 1;
      case '|': *out += '|'; return end + 1;
      case '\\': *out += "\\\\"; return end + 1;
      case '&':
      case '#':
      case '_': *out += s[end]; return end + 1;
      default: return end;
    }
  }
  const std::string_view name = s.substr(at + 1, end - at - 1);
  if (Among(name, kWordBoxes)) {
    size_t open = end;
    while (open < s.size() && IsSpace(s[open])) ++open;
    const auto inside = BracedText(s, open);
    if (!inside) return end;
    const size_t behind = open + inside->size() + 2;
    const std::string_view words = Trim(*inside);
    if (Among(words, kFunctionNames)) {
      *out += "\\";
      *out += words;
      *out += ' ';
    } else if (words.size() <= 1 && !name.starts_with("text") && name != "mbox") {
      *out += words;  // \mathrm{e}, \mathrm{i}
    } else if (depth >= 8 || words.find_first_of("0123456789\\^") != std::string_view::npos) {
      // A box around mathematics: \text{5 cm}, \mathrm{m^2}, \text{(B)} stays words below.
      *out += ' ';
      if (depth < 8) Append(words, out, depth + 1, true);
      *out += ' ';
    } else {
      *out += "\\text{";
      for (char c : *inside) {
        if (c != '{' && c != '}' && c != '$') *out += c;
      }
      *out += "}";
    }
    return behind;
  }
  if (name == "color" || name == "textcolor") {  // its first brace names a colour
    const auto inside = BracedText(s, end);
    return inside ? end + inside->size() + 2 : end;
  }
  if (name == "phantom" || name == "hspace" || name == "vspace") {
    const auto inside = BracedText(s, end);
    return inside ? end + inside->size() + 2 : end;
  }
  if (name == "mathbb") {  // \mathbb{R}: the name of a set
    const auto inside = BracedText(s, end);
    *out += "\\";
    if (inside) *out += std::string(*inside) + " ";
    return inside ? end + inside->size() + 2 : end;
  }
  if (name == "left" || name == "right") {
    if (end < s.size() && s[end] == '.') ++end;  // an invisible partner
    return end;
  }
  for (const auto& [from, to] : kCommands) {
    if (name == from) {
      *out += to;
      return end;
    }
  }
  *out += '\\';
  *out += name;
  // Keeps "\pi r" apart from "\pir"; a brace or digit follows \frac and \sqrt directly.
  if (end < s.size() && IsLetter(s[end])) *out += ' ';
  return end;
}

}  // namespace

size_t SpacedThousands(std::string_view s, size_t at) {
  const char before = at > 0 ? s[at - 1] : ' ';
  if (!IsDigit(s[at]) || s[at] == '0' || IsDigit(before) || before == '.' || before == ',')
    return 0;
  size_t end = at;
  while (end < s.size() && IsDigit(s[end])) ++end;
  if (end - at > 3) return 0;
  const size_t first = end;
  for (bool again = true; again;) {
    again = false;
    for (std::string_view space : {" ", "\u00A0", "\u202F", "\u2009"}) {
      if (!s.substr(end).starts_with(space) || !ThousandsAt(s, end + space.size())) continue;
      end += space.size() + 3;
      again = true;
      break;
    }
  }
  // "1 100/200" is a mixed number.
  const size_t next = std::min(s.find_first_not_of(' ', end), s.size());
  return end == first || (next < s.size() && s[next] == '/') ? 0 : end - at;
}

std::string_view WithoutMarkup(std::string_view s) {
  for (bool again = true; again;) {
    again = false;
    s = Trim(s);
    for (std::string_view mark : {"***", "**", "__", "*", "_", "`"}) {
      if (s.size() <= 2 * mark.size() || !s.starts_with(mark) || !s.ends_with(mark)) continue;
      const std::string_view inside = s.substr(mark.size(), s.size() - 2 * mark.size());
      if (inside.find(mark) != std::string_view::npos) continue;
      s = inside;
      again = true;
      break;
    }
  }
  return s;
}

std::string PlainLatex(std::string_view text) {
  std::string_view s = WithoutMarkup(text.substr(0, kMaxAnswerBytes));
  size_t dollars = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '\\') {
      ++i;
    } else if (s[i] == '$') {
      ++dollars;
    }
  }
  std::string out;
  out.reserve(s.size() + 16);
  Append(s, &out, 0, dollars % 2 == 0);
  std::string_view trimmed = Trim(out);
  // A sentence's full stop, a trailing line break, a list that ends in a comma.
  while (!trimmed.empty() &&
         (trimmed.back() == '.' || trimmed.back() == ',' || trimmed.back() == ';' ||
          trimmed.back() == ':') &&
         !trimmed.ends_with("..")) {
    trimmed = Trim(trimmed.substr(0, trimmed.size() - 1));
  }
  while (trimmed.ends_with("\\\\")) trimmed = Trim(trimmed.substr(0, trimmed.size() - 2));
  return std::string(trimmed);
}

std::optional<std::string_view> BracedText(std::string_view text, size_t open) {
  if (open >= text.size() || text[open] != '{') return std::nullopt;
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && --depth == 0) {
      return text.substr(open + 1, i - open - 1);
    }
  }
  return std::nullopt;
}

std::optional<std::string> LastBox(std::string_view text) {
  // Only the last few candidates are tried: a text of nothing but unclosed boxes must not cost
  // quadratic time.
  size_t end = text.size();
  for (int tries = 0; tries < 8 && end > 0; ++tries) {
    const std::string_view before = text.substr(0, end);
    const size_t boxed = before.rfind("\\boxed"), framed = before.rfind("\\fbox");
    size_t at = boxed;
    if (at == std::string_view::npos || (framed != std::string_view::npos && framed > at))
      at = framed;
    if (at == std::string_view::npos) return std::nullopt;
    size_t open = at + (text.substr(at).starts_with("\\fbox") ? 5 : 6);
    const size_t name_end = open;
    while (open < text.size() && IsSpace(text[open])) ++open;
    if (const auto inside = BracedText(text, open)) {
      if (!Trim(*inside).empty()) return std::string(Trim(*inside));
      end = at;
      continue;
    }
    if (open > name_end && open < text.size() && text[open] != '{') {  // \boxed 5
      size_t stop = open;
      while (stop < text.size() && !IsSpace(text[stop]) && text[stop] != '$') ++stop;
      return std::string(text.substr(open, stop - open));
    }
    end = at;
  }
  return std::nullopt;
}

std::string CanonicalWords(std::string_view plain) {
  std::string out;
  bool space = false;
  for (size_t i = 0; i < plain.size(); ++i) {
    const char c = plain[i];
    if (plain.substr(i).starts_with("\\text{")) {
      i += 5;
      space = true;
      continue;
    }
    if (c == '{' || c == '}') continue;
    if (IsSpace(c)) {
      space = true;
      continue;
    }
    if (space && !out.empty()) out += ' ';
    space = false;
    out += LowerAscii(c);
  }
  static constexpr std::string_view kOuter = ".,;:!?\"'`* ";
  const size_t begin = out.find_first_not_of(kOuter);
  if (begin == std::string::npos) return "";
  return out.substr(begin, out.find_last_not_of(kOuter) - begin + 1);
}

}  // namespace plumb::reward

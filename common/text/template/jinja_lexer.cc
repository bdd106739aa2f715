#include "common/text/template/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "common/base/error.h"
#include "common/base/text.h"
#include "common/text/template/jinja_value.h"
#include "common/text/unicode.h"

namespace plumb::jinja {

void SyntaxError(const std::string& what, int line) {
  throw Error(ErrorCode::kCorruption, what, "chat template, line " + std::to_string(line));
}

namespace {

constexpr size_t kMaxTokens = 200000;

bool IsNameStart(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }

class Lexer {
 public:
  explicit Lexer(std::string_view raw) {
    source_.reserve(raw.size());
    for (size_t i = 0; i < raw.size(); ++i) {
      if (raw[i] != '\r') {
        source_ += raw[i];
      } else {
        source_ += '\n';
        if (i + 1 < raw.size() && raw[i + 1] == '\n') ++i;
      }
    }
    // as jinja2 does without keep_trailing_newline
    if (!source_.empty() && source_.back() == '\n') source_.pop_back();
  }

  std::vector<Token> Run() {
    while (at_ < source_.size()) Data();
    Add(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view Rest() const { return std::string_view(source_).substr(at_); }

  void Add(TokenType type, std::string text) {
    if (tokens_.size() >= kMaxTokens) SyntaxError("the template is too long", line_);
    tokens_.push_back({type, std::move(text), line_});
  }
  void Advance(size_t n) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_),
                                         source_.begin() + static_cast<ptrdiff_t>(at_ + n), '\n'));
    at_ += n;
  }
  void SkipWhitespace() {
    size_t n = 0;
    const std::string_view rest = Rest();
    while (n < rest.size()) {
      const size_t w = WhitespaceBytes(rest, n);
      if (w == 0) break;
      n += w;
    }
    Advance(n);
  }

  // Text up to the next tag, trimmed as the tag asks for, then the tag.
  void Data() {
    size_t tag = at_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        tag = source_.size();
        break;
      }
      const char next = source_[tag + 1];
      if (next == '{' || next == '%' || next == '#') break;
    }
    std::string_view text = std::string_view(source_).substr(at_, tag - at_);
    const bool at_end = tag == source_.size();
    const char kind = at_end ? 0 : source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    const size_t length = text.size();
    if (!at_end && sign == '-') {
      text = StripRight(text);
    } else if (!at_end && sign != '+' && kind != '{') {
      const size_t newline = text.rfind('\n');
      const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line_begin > 0 || line_starting_) && StripRight(text.substr(line_begin)).empty())
        text = text.substr(0, line_begin);
    }
    if (!text.empty()) Add(TokenType::kData, std::string(text));
    Advance(length);
    line_starting_ = length > 0 ? source_[at_ - 1] == '\n' : line_starting_;
    if (at_end) return;
    const size_t begin = at_;
    Advance(2 + (sign == '-' || sign == '+' ? 1 : 0));
    if (kind == '#') Comment();
    else if (kind == '{') Expression("}}", TokenType::kVariableBegin, TokenType::kVariableEnd);
    else if (!Raw()) Expression("%}", TokenType::kBlockBegin, TokenType::kBlockEnd);
    PLUMB_CHECK(at_ > begin, "the lexer stands still");
    line_starting_ = source_[at_ - 1] == '\n';
  }

  // After the end of a tag: what `-`, `+` and trim_blocks take with it.
  void AfterTag(char sign, bool trims_newline) {
    if (sign == '-') SkipWhitespace();
    else if (sign != '+' && trims_newline && at_ < source_.size() && source_[at_] == '\n')
      Advance(1);
  }

  void Comment() {
    const int line = line_;
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) SyntaxError("a comment {# has no end #}", line);
    const char sign = end > at_ ? source_[end - 1] : '\0';
    Advance(end + 2 - at_);
    AfterTag(sign, true);
  }

  // {% raw %} ... {% endraw %}: returns whether one stood here.
  bool Raw() {
    const auto tag = [&](std::string_view name, size_t from, size_t& end, char& sign) {
      size_t p = from;
      while (p < source_.size() && std::isspace(static_cast<unsigned char>(source_[p]))) ++p;
      if (source_.compare(p, name.size(), name) != 0) return false;
      p += name.size();
      while (p < source_.size() && std::isspace(static_cast<unsigned char>(source_[p]))) ++p;
      sign = '\0';
      if (p < source_.size() && (source_[p] == '-' || source_[p] == '+')) sign = source_[p++];
      if (source_.compare(p, 2, "%}") != 0) return false;
      end = p + 2;
      return true;
    };
    size_t end = 0;
    char sign = '\0';
    if (!tag("raw", at_, end, sign)) return false;
    const int line = line_;
    Advance(end - at_);
    AfterTag(sign, false);
    for (size_t p = at_; (p = source_.find("{%", p)) != std::string::npos; p += 2) {
      const char before = p + 2 < source_.size() ? source_[p + 2] : '\0';
      if (!tag("endraw", p + 2 + (before == '-' || before == '+' ? 1 : 0), end, sign)) continue;
      std::string_view text = std::string_view(source_).substr(at_, p - at_);
      if (before == '-') {
        text = StripRight(text);
      } else if (before != '+') {
        const size_t newline = text.rfind('\n');
        if (newline != std::string_view::npos && StripRight(text.substr(newline + 1)).empty())
          text = text.substr(0, newline + 1);
      }
      if (!text.empty()) Add(TokenType::kData, std::string(text));
      Advance(end - at_);
      AfterTag(sign, true);
      return true;
    }
    SyntaxError("{% raw %} has no {% endraw %}", line);
  }

  void Expression(std::string_view close, TokenType begin_type, TokenType end_type) {
    const int line = line_;
    Add(begin_type, "");
    std::string open;  // brackets not closed yet: a }} inside them belongs to them
    for (;;) {
      SkipWhitespace();
      if (at_ >= source_.size())
        SyntaxError("a tag that begins here has no end " + std::string(close), line);
      const std::string_view rest = Rest();
      if (open.empty()) {
        const bool sign = rest[0] == '-' || (rest[0] == '+' && close == "%}");
        if (rest.substr(sign ? 1 : 0).starts_with(close)) {
          const char mark = sign ? rest[0] : '\0';
          Advance(close.size() + (sign ? 1 : 0));
          AfterTag(mark, close == "%}");
          Add(end_type, "");
          return;
        }
      }
      const char c = rest[0];
      if (IsNameStart(c)) {
        size_t n = 1;
        while (n < rest.size() && (IsNameStart(rest[n]) || IsDigit(rest[n]))) ++n;
        Add(TokenType::kName, std::string(rest.substr(0, n)));
        Advance(n);
      } else if (IsDigit(c)) {
        Number(rest);
      } else if (c == '"' || c == '\'') {
        String(rest);
      } else {
        Operator(rest, open);
      }
    }
  }

  void Number(std::string_view rest) {
    size_t n = 0;
    std::string digits;
    bool is_float = false;
    const auto run = [&] {
      while (n < rest.size() && (IsDigit(rest[n]) ||
                                 (rest[n] == '_' && n + 1 < rest.size() && IsDigit(rest[n + 1])))) {
        if (rest[n] != '_') digits += rest[n];
        ++n;
      }
    };
    run();
    if (n + 1 < rest.size() && rest[n] == '.' && IsDigit(rest[n + 1])) {
      is_float = true;
      digits += '.';
      ++n;
      run();
    }
    if (n < rest.size() && (rest[n] == 'e' || rest[n] == 'E')) {
      const size_t sign = n + 1 < rest.size() && (rest[n + 1] == '-' || rest[n + 1] == '+') ? 1 : 0;
      if (n + 1 + sign < rest.size() && IsDigit(rest[n + 1 + sign])) {
        is_float = true;
        digits += rest.substr(n, 1 + sign);
        n += 1 + sign;
        run();
      }
    }
    Add(is_float ? TokenType::kFloat : TokenType::kInteger, digits);
    Advance(n);
  }

  void String(std::string_view rest) {
    const char quote = rest[0];
    std::string out;
    for (size_t i = 1; i < rest.size(); ++i) {
      if (rest[i] == quote) {
        Add(TokenType::kString, std::move(out));
        Advance(i + 1);
        return;
      }
      if (rest[i] != '\\' || i + 1 >= rest.size()) {
        out += rest[i];
        continue;
      }
      const char e = rest[++i];
      switch (e) {
        case 'n': out += '\n'; break;
        case 't': out += '\t'; break;
        case 'r': out += '\r'; break;
        case 'b': out += '\b'; break;
        case 'f': out += '\f'; break;
        case 'v': out += '\v'; break;
        case 'a': out += '\a'; break;
        case '\\':
        case '\'':
        case '"': out += e; break;
        case '\n': break;
        case 'x':
        case 'u':
        case 'U': {
          const size_t want = e == 'x' ? 2 : e == 'u' ? 4 : 8;
          uint32_t code = 0;
          size_t got = 0;
          while (got < want && i + 1 < rest.size() &&
                 std::isxdigit(static_cast<unsigned char>(rest[i + 1]))) {
            const char h = rest[++i];
            code = code * 16 + static_cast<uint32_t>(IsDigit(h) ? h - '0' : (h | 32) - 'a' + 10);
            ++got;
          }
          if (got != want || code > 0x10FFFF)
            SyntaxError(std::string("a bad escape \\") + e + " in a string", line_);
          AppendUtf8(code, out);
          break;
        }
        default:
          if (e >= '0' && e <= '7') {
            uint32_t code = static_cast<uint32_t>(e - '0');
            for (int k = 0;
                 k < 2 && i + 1 < rest.size() && rest[i + 1] >= '0' && rest[i + 1] <= '7'; ++k) {
              code = code * 8 + static_cast<uint32_t>(rest[++i] - '0');
            }
            AppendUtf8(code, out);
          } else {
            out += '\\';
            out += e;
          }
      }
    }
    SyntaxError("a string has no end", line_);
  }

  void Operator(std::string_view rest, std::string& open) {
    constexpr std::array<std::string_view, 6> kTwo = {"//", "**", "==", "!=", ">=", "<="};
    size_t n = 1;
    for (const std::string_view two : kTwo) {
      if (rest.starts_with(two)) n = 2;
    }
    const char c = rest[0];
    if (std::string_view("+-/*%~[](){}><=.:|,;!").find(c) == std::string_view::npos ||
        (c == '!' && n == 1)) {
      SyntaxError(std::string("an unexpected character '") + c + "'", line_);
    }
    if (c == '(' || c == '[' || c == '{') {
      open += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
      if (open.empty() || open.back() != c)
        SyntaxError(std::string("an unexpected '") + c + "'", line_);
      open.pop_back();
    }
    Add(TokenType::kOperator, std::string(rest.substr(0, n)));
    Advance(n);
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> Tokenize(std::string_view source) { return Lexer(source).Run(); }

}  // namespace plumb::jinja

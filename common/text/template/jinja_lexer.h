// Template text -> tokens, with Jinja's rules of white space as transformers sets them
// (trim_blocks, lstrip_blocks).
//
// Thread safety: pure function. Errors: kCorruption with the line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace plumb::jinja {

enum class TokenType {
  kData,           // text between tags, as it goes out
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kName,
  kString,  // `text` is the value, escapes resolved
  kInteger,
  kFloat,
  kOperator,  // `text` is the operator
  kEnd,
};

struct Token {
  TokenType type = TokenType::kEnd;
  std::string text;
  int line = 1;
};

// Always ends with one kEnd.
std::vector<Token> Tokenize(std::string_view source);

[[noreturn]] void SyntaxError(const std::string& what, int line);

}  // namespace plumb::jinja

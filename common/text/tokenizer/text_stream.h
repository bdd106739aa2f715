// Tokens -> text while they are drawn, in whole characters.
//
// Purpose: a token may end within a UTF-8 character. What is given out so far is always valid
// UTF-8 and never changes by later tokens; all of it together is what Tokenizer::Decode makes of
// the tokens. Where a tokenizer judges bytes by the row (byte fallback), a row is given out as it
// ends. Thread safety: none. Ownership: borrows the tokenizer. Errors: those of
// Tokenizer::MakeDecoder.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "common/text/tokenizer/tokenizer.h"
#include "common/text/unicode.h"

namespace plumb {

class TextStream {
 public:
  // `skip_special`: special tokens are not shown.
  explicit TextStream(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(tokenizer), skip_special_(skip_special), decoder_(tokenizer.MakeDecoder()) {}

  // What the token adds; may be empty.
  std::string Add(int32_t token);
  // What is left of a character that never became whole; the next text begins anew.
  std::string End();

 private:
  const Tokenizer& tokenizer_;
  const bool skip_special_;
  std::unique_ptr<TokenDecoder> decoder_;
};

// `text` for a terminal: control characters but line ends and tabs become U+FFFD, so that what a
// model writes cannot move the cursor, rename the window or answer for the person. A carriage
// return is one of them.
std::string ForTerminal(std::string_view text);

}  // namespace plumb

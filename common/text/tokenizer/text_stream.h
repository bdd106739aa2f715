// Tokens -> text while they are drawn, in whole characters.
//
// Purpose: a token may end within a UTF-8 character. What is given out so far is always valid
// UTF-8 and the longest beginning that no later token can change; all of it together is what
// Tokenizer::Decode makes of the tokens, with U+FFFD for every byte that belongs to no character.
// Thread safety: none. Ownership: borrows the tokenizer; holds at most three bytes between calls.
// Errors: those of Tokenizer::TokenBytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/text/tokenizer/tokenizer.h"

namespace plumb {

class TextStream {
 public:
  // `skip_special`: special tokens are not shown.
  explicit TextStream(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  // What the token adds; may be empty.
  std::string Add(int32_t token);
  // What is left of a character that never became whole; the next text begins anew.
  std::string End();

 private:
  const Tokenizer& tokenizer_;
  const bool skip_special_;
  std::string pending_;  // the beginning of a character
};

// How many bytes at the end of `text` begin a character that bytes to come may complete: 0 to 3.
size_t OpenBytes(std::string_view text);

// `text` for a terminal: control characters but line ends and tabs become U+FFFD, so that what a
// model writes cannot move the cursor, rename the window or answer for the person. A carriage
// return is one of them.
std::string ForTerminal(std::string_view text);

}  // namespace plumb

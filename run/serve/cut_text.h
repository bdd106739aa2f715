// The text of an answer while it is drawn, cut in front of the first stop string.
//
// Purpose: what is given out is whole characters and never taken back: the beginning of what may
// become a stop string is held until it is known. Special tokens are not shown. Thread safety:
// none. Ownership: borrows the tokenizer. Errors: none; stop strings must not be empty.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/text/tokenizer/text_stream.h"

namespace plumb::run {

class CutText {
 public:
  CutText(const Tokenizer& tokenizer, std::vector<std::string> stop);

  // What the token adds; nothing once it has stopped.
  std::string Add(int32_t token);
  // What was held back; the answer has ended.
  std::string End();
  bool stopped() const { return !found_.empty(); }
  const std::string& found() const { return found_; }  // the stop string; "": none

 private:
  std::string Take(const std::string& text);

  std::vector<std::string> stop_;
  TextStream stream_;
  std::string held_;
  std::string found_;
};

}  // namespace plumb::run

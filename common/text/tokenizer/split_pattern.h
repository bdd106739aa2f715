// The regular expressions by which tokenizer.json files cut a text, each known by its exact text
// and matched by a scanner of its own.
//
// Purpose: no expression of a file is ever run, so none can take more than linear time: a match
// looks at each of its characters at most three times, and a place without one is seen at once.
// Thread safety: const after construction. Bytes that are not UTF-8 are characters of no class.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/text/unicode.h"

namespace plumb {

class SplitPattern {
 public:
  // nullopt for an expression that is not on the list. Line ends may stand in it as they are or as
  // \r and \n.
  static std::optional<SplitPattern> FromRegex(std::string_view regex);
  // Matches `text` itself, which is not empty.
  static SplitPattern Literal(std::string text);

  // The end of the match that begins at `at` (< text.size()); `at` where none does.
  size_t Match(std::string_view text, size_t at) const {
    return scan_ == nullptr ? (text.substr(at).starts_with(literal_) ? at + literal_.size() : at)
                            : scan_(table_, text, at);
  }

  // Calls piece(from, to, whether it is a match) with ranges that make up `text`; what lies between
  // two matches is one range.
  template <class F>
  void Cut(std::string_view text, const F& piece) const {
    size_t gap = 0;
    for (size_t at = 0; at < text.size();) {
      const size_t end = Match(text, at);
      if (end == at) {
        at += DecodeUtf8(text, at).bytes;
        continue;
      }
      if (gap < at) piece(gap, at, false);
      piece(at, end, true);
      at = gap = end;
    }
    if (gap < text.size()) piece(gap, text.size(), false);
  }

 private:
  using Scan = size_t (*)(const uint8_t* table, std::string_view text, size_t at);
  SplitPattern() = default;

  Scan scan_ = nullptr;
  const uint8_t* table_ = nullptr;
  std::string literal_;
};

}  // namespace plumb

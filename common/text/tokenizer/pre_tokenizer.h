// Text -> words, the units that a model's tokens do not cross.
//
// Purpose: the steps of "pre_tokenizer" in tokenizer.json, each a scanner that looks at every
// character a bounded number of times. Thread safety: const after construction.
// Errors: kUnsupported naming the file, the key and what is not known.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/tokenizer/split_pattern.h"

namespace plumb {

class PreTokenizer {
 public:
  using Word = std::function<void(std::string_view)>;

  // From the object "pre_tokenizer" of tokenizer.json; null: the whole text is one word.
  static PreTokenizer FromJson(const nlohmann::ordered_json& j, const std::string& where);

  // Calls `word` with the pieces of `text`, none empty, in its order; they live until it returns.
  // `first`: the text begins where the whole input does.
  void Split(std::string_view text, bool first, const Word& word) const {
    if (!text.empty()) Run(0, text, first, word);
  }
  bool byte_level() const { return byte_level_; }  // words are bytes; else they are characters

 private:
  enum class Kind {
    kPattern,      // a match of `pattern`
    kBits,         // a character of one of `bits`; those in a row each by itself
    kWord,         // \w+|[^\w\s]+
    kMetaspace,    // space -> `text`, perhaps one in front; cut before it where `split`
    kPrefixSpace,  // a space in front, if there is none
  };
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
  enum class Prepend { kNever, kFirst, kAlways };
  struct Step {
    Kind kind = Kind::kPattern;
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;
    std::optional<SplitPattern> pattern;
    uint8_t bits = 0;
    bool ascii_signs = false;  // and the signs of ASCII
    std::string text;
    Prepend prepend = Prepend::kNever;
    bool split = false;
  };
  struct Reader;

  void Run(size_t step, std::string_view text, bool first, const Word& word) const;
  template <class Cutter>
  void Cut(size_t step, std::string_view text, bool first, const Word& word,
           const Cutter& cutter) const;

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace plumb

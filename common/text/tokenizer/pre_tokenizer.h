// Text -> words, the units that byte-pair merges do not cross.
//
// Purpose: the known patterns, each as a scanner of its own that looks at every character a bounded
// number of times; no regular expression of a file is ever run. Thread safety: pure functions.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace plumb {

struct PreTokenizer {
  enum class Pattern {
    kNone,    // the whole text is one word
    kGpt2,    // ByteLevel with its own pattern
    kQwen2,   // contractions in any case, a leading non-letter joins, digits one by one
    kLlama3,  // the same with digits by up to three
  };
  Pattern pattern = Pattern::kNone;
  bool split_digits = false;  // every digit is a text of its own before the pattern looks
  bool byte_level = false;    // words are bytes; else they are characters

  // From the object "pre_tokenizer" of tokenizer.json. kUnsupported naming what is not on the list.
  static PreTokenizer FromJson(const nlohmann::ordered_json& j, const std::string& where);

  // Calls `word` with consecutive pieces that make up `text`.
  void Split(std::string_view text, const std::function<void(std::string_view)>& word) const;
};

}  // namespace plumb

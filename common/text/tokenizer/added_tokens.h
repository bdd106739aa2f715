// Finds added tokens in a text, as Hugging Face's tokenizers do: from left to right, at every place
// the longest that starts there; a match may then ask for white space around it, or give way
// because it stands inside of a word.
//
// Purpose: tags such as <|im_end|> never go through merges. The tokens lie sorted, and a place
// narrows them down byte by byte: a text of n bytes costs at most n times the longest token
// (kMaxAddedTokenBytes), and nothing is kept but the tokens.
// Thread safety: const after Seal.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb {

inline constexpr size_t kMaxAddedTokenBytes = 1024;

struct AddedToken {
  std::string content;  // not empty
  int32_t id = -1;
  bool single_word = false;  // only where no letter, digit or underscore stands next to it
  bool lstrip = false;  // takes the white space before it along, which is no part of any token then
  bool rstrip = false;  // the same behind it
};

class AddedTokens {
 public:
  void Add(AddedToken token) { tokens_.push_back(std::move(token)); }
  // After the last Add, before the first Split. Of tokens with the same content the first stays.
  void Seal();

  // Calls token(id) and rest(text between) in the order of `text`; `rest` is never empty.
  template <class OnToken, class OnRest>
  void Split(std::string_view text, const OnToken& token, const OnRest& rest) const {
    size_t done = 0;
    std::pair<size_t, size_t> spaces = {1, 0};  // the white space that was looked at last
    for (size_t at = 0; at < text.size();) {
      if (by_first_[static_cast<unsigned char>(text[at])].second == 0) {
        ++at;
        continue;
      }
      const AddedToken* found = Match(text, at);
      if (found == nullptr) {
        ++at;
        continue;
      }
      size_t begin = at, end = at + found->content.size();
      at = end;
      if (found->single_word && InsideWord(text, begin, end)) continue;
      if (found->lstrip) begin = SpacesBefore(text, begin, done);
      if (found->rstrip) end = SpacesBehind(text, end, spaces);
      if (done < begin) rest(text.substr(done, begin - done));
      token(found->id);
      done = end;
    }
    if (done < text.size()) rest(text.substr(done));
  }

 private:
  // The longest token at text[at]; nullptr if none.
  const AddedToken* Match(std::string_view text, size_t at) const;
  static bool InsideWord(std::string_view text, size_t begin, size_t end);
  static size_t SpacesBefore(std::string_view text, size_t begin, size_t done);
  static size_t SpacesBehind(std::string_view text, size_t end, std::pair<size_t, size_t>& spaces);

  std::vector<AddedToken> tokens_;  // in the order of their bytes
  // [begin, end) of those that start with a byte.
  std::array<std::pair<uint32_t, uint32_t>, 256> by_first_{};
};

}  // namespace plumb

// Finds added tokens in a text: at every place the longest that starts there, from left to right.
//
// Purpose: tags such as <|im_end|> never go through merges. A trie over bytes: a text of n bytes costs at most n times the
// longest token. Thread safety: const after the last Add.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

namespace plumb::policy_model {

class AddedTokens {
 public:
  void Add(std::string_view content, int32_t id);

  // Calls token(id) and rest(text between) in the order of `text`; `rest` is never empty.
  template <class OnToken, class OnRest>
  void Split(std::string_view text, const OnToken& token, const OnRest& rest) const {
    size_t begin = 0;
    for (size_t at = 0; at < text.size();) {
      int32_t id = -1;
      const size_t bytes = starts_[static_cast<unsigned char>(text[at])] ? Match(text.substr(at), id) : 0;
      if (bytes == 0) {
        ++at;
        continue;
      }
      if (begin < at) rest(text.substr(begin, at - begin));
      token(id);
      at += bytes;
      begin = at;
    }
    if (begin < text.size()) rest(text.substr(begin));
  }

 private:
  struct Node {
    std::map<char, int32_t> next;
    int32_t id = -1;
  };
  // Bytes of the longest token at the start of `text` and its id; 0 if none.
  size_t Match(std::string_view text, int32_t& id) const;

  std::array<bool, 256> starts_{};
  std::vector<Node> nodes_ = std::vector<Node>(1);
};

}  // namespace plumb::policy_model

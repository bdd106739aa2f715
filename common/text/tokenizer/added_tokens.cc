#include "common/text/tokenizer/added_tokens.h"

#include "common/text/unicode.h"

namespace plumb {
namespace {

// Where the character before text[end] begins; `end` > `floor`.
size_t BeginOfLast(std::string_view text, size_t end, size_t floor) {
  size_t begin = end - 1;
  while (begin > floor && end - begin < 4 &&
         (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80)
    --begin;
  return begin + DecodeUtf8(text, begin).bytes == end ? begin : end - 1;
}

}  // namespace

void AddedTokens::Seal() {
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.content < b.content; });
  const auto twins =
      std::unique(tokens_.begin(), tokens_.end(),
                  [](const AddedToken& a, const AddedToken& b) { return a.content == b.content; });
  tokens_.erase(twins, tokens_.end());
  tokens_.shrink_to_fit();
  by_first_ = {};
  for (uint32_t i = 0; i < tokens_.size(); ++i) {
    auto& [begin, end] = by_first_[static_cast<unsigned char>(tokens_[i].content[0])];
    if (end == 0) begin = i;
    end = i + 1;
  }
}

const AddedToken* AddedTokens::Match(std::string_view text, size_t at) const {
  auto [low, high] = by_first_[static_cast<unsigned char>(text[at])];
  const AddedToken* best = nullptr;
  for (size_t depth = 1; low < high;
       ++depth) {  // tokens_[low, high) begin with text[at, at + depth)
    if (tokens_[low].content.size() == depth) best = &tokens_[low++];
    if (low == high || at + depth == text.size()) break;
    if (high - low == 1) {
      const std::string& only = tokens_[low].content;
      if (text.substr(at + depth).starts_with(std::string_view(only).substr(depth)))
        best = &tokens_[low];
      break;
    }
    const auto byte = static_cast<unsigned char>(text[at + depth]);
    const auto first = tokens_.begin();
    const auto less = [&](const AddedToken& t, unsigned char b) {
      return static_cast<unsigned char>(t.content[depth]) < b;
    };
    const auto more = [&](unsigned char b, const AddedToken& t) {
      return b < static_cast<unsigned char>(t.content[depth]);
    };
    const auto from = std::lower_bound(first + low, first + high, byte, less);
    const auto to = std::upper_bound(from, first + high, byte, more);
    low = static_cast<uint32_t>(from - first);
    high = static_cast<uint32_t>(to - first);
  }
  return best;
}

bool AddedTokens::InsideWord(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && IsWordCharacter(DecodeUtf8(text, BeginOfLast(text, begin, 0)).code)) return true;
  return end < text.size() && IsWordCharacter(DecodeUtf8(text, end).code);
}

size_t AddedTokens::SpacesBefore(std::string_view text, size_t begin, size_t done) {
  while (begin > done) {
    const size_t last = BeginOfLast(text, begin, done);
    if (ClassOf(DecodeUtf8(text, last).code) != CharacterClass::kSpace) break;
    begin = last;
  }
  return std::max(begin, done);
}

// Tokens that are white space themselves may each ask for all that follows: it is looked at once.
size_t AddedTokens::SpacesBehind(std::string_view text, size_t end,
                                 std::pair<size_t, size_t>& spaces) {
  if (end >= spaces.first && end <= spaces.second) return spaces.second;
  spaces.first = end;
  while (end < text.size()) {
    const Character c = DecodeUtf8(text, end);
    if (ClassOf(c.code) != CharacterClass::kSpace) break;
    end += c.bytes;
  }
  spaces.second = end;
  return end;
}

}  // namespace plumb

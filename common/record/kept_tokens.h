// Which tokens a sampling filter kept, for each token of an answer, in few bytes.
//
// Purpose: top-k, top-p and min-p cut the distribution that a token is drawn from. Its log-prob can
// be computed again only over the very same tokens, so the set itself is recorded: a threshold or a
// rank would give other sets wherever the learner's numbers differ from the actor's in their last
// bits. One set per token, one behind the other:
//   0                         every token
//   2n, then n numbers        n tokens: the first id, then each id minus the one before it minus 1
//   2n + 1, then n bytes      a bit a token: bit i % 8 of byte i / 8 is token i; the last is not 0
// Numbers are base 128, low digits first, the high bit of a byte says that more follow. The shorter
// form is taken: about two bytes a kept token of a large vocabulary (20 of 150,000: 40 bytes), at
// most vocabulary / 8 + 3.
// Thread safety: pure functions; a reader belongs to one thread. Ownership: readers borrow the
// bytes. Errors: kCorruption for bytes that are no such list.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace plumb {

// Sets of tokens in memory: bit j % 32 of word j / 32 for token j, (vocab + 31) / 32 words, the
// rest of the last word 0.
void AppendKeptTokens(std::span<const uint32_t> words, int64_t vocab, std::vector<uint8_t>& out);

class KeptTokensReader {
 public:
  explicit KeptTokensReader(std::span<const uint8_t> sets) : rest_(sets) {}
  bool done() const { return rest_.empty(); }
  // The bytes of the next set, checked. REQUIRES: !done().
  std::span<const uint8_t> Next();

 private:
  std::span<const uint8_t> rest_;
};

// Of the bytes of one set. No bytes at all mean every token, too.
bool KeepsEveryToken(std::span<const uint8_t> set);
bool Keeps(std::span<const uint8_t> set, int32_t token);
int64_t CountKept(std::span<const uint8_t> set);  // 0: every token
// Writes the set; kCorruption for a token that is not below `vocab`.
void UnpackKeptTokens(std::span<const uint8_t> set, int64_t vocab, std::span<uint32_t> words);

}  // namespace plumb

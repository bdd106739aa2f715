// Byte-pair merging of one word, with a cache of words.
//
// Purpose: the model of tokenizer.json: vocabulary, merges by rank, n log n in a word's length.
// Thread safety: Encode may be called concurrently (the cache is locked by shard); Add* before
// that, from one thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/mutex.h"

namespace plumb {

class BytePairs {
 public:
  // ignore_merges: a word that is a token is taken whole.
  BytePairs(bool byte_level, bool ignore_merges)
      : byte_level_(byte_level), ignore_merges_(ignore_merges) {
    byte_symbol_.fill(-1);
  }
  // What stands for characters without a token; `fuse`: one for all of them in a row.
  void SetUnknown(int32_t id, bool fuse) {
    unknown_ = id;
    fuse_unknown_ = fuse;
  }
  // `bytes`: as it stands in a text. kCorruption when ids or bytes repeat.
  void AddToken(std::string bytes, int32_t id, const std::string& where);
  // Merges in order of rank; both halves and the result have to be tokens (kCorruption).
  void AddMerge(std::string_view left, std::string_view right, const std::string& where);

  int32_t Find(std::string_view bytes) const;  // -1 if none
  // Appends the ids of `word`. kInvalidArgument naming a character without a token, where no token
  // stands for unknown ones.
  void Encode(std::string_view word, std::vector<int32_t>& out) const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  template <class V>
  using ByText = std::unordered_map<std::string, V, Hash, std::equal_to<>>;
  struct Merge {
    int32_t rank, id;
  };
  struct Shard {
    Mutex mutex;
    ByText<std::vector<int32_t>> words PLUMB_GUARDED_BY(mutex);
  };
  static constexpr size_t kShards = 16, kShardWords = 4096, kCachedBytes = 64;

  const Merge* MergeOf(int32_t left, int32_t right) const {
    const auto it = merges_.find(static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 |
                                 static_cast<uint32_t>(right));
    return it == merges_.end() ? nullptr : &it->second;
  }
  void Symbols(std::string_view word, std::vector<int32_t>& out) const;
  std::vector<int32_t> MergeWord(std::string_view word) const;

  const bool byte_level_, ignore_merges_;
  int32_t unknown_ = -1;
  bool fuse_unknown_ = false;
  std::array<int32_t, 256> byte_symbol_;
  ByText<int32_t> tokens_;
  std::unordered_map<uint64_t, Merge> merges_;
  mutable std::array<Shard, kShards> cache_;
};

}  // namespace plumb

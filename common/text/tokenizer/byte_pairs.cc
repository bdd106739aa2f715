#include "common/text/tokenizer/byte_pairs.h"

#include <algorithm>
#include <cstdio>
#include <queue>
#include <tuple>

#include "common/base/error.h"
#include "common/text/unicode.h"

namespace plumb {

void BytePairs::AddToken(std::string bytes, int32_t id, const std::string& where) {
  if (bytes.empty())
    throw Error(ErrorCode::kCorruption, "the token " + std::to_string(id) + " is empty", where);
  if (bytes.size() == 1) byte_symbol_[static_cast<unsigned char>(bytes[0])] = id;
  if (!tokens_.emplace(std::move(bytes), id).second) {
    throw Error(ErrorCode::kCorruption,
                "the token " + std::to_string(id) + " stands for the same bytes as another", where);
  }
}

void BytePairs::AddMerge(std::string_view left, std::string_view right, const std::string& where) {
  const int32_t a = Find(left), b = Find(right),
                merged = Find(std::string(left) + std::string(right));
  if (a < 0 || b < 0 || merged < 0) {
    throw Error(
        ErrorCode::kCorruption,
        "merge " + std::to_string(merges_.size()) + " names a token that is not in the vocabulary",
        where);
  }
  const uint64_t key =
      static_cast<uint64_t>(static_cast<uint32_t>(a)) << 32 | static_cast<uint32_t>(b);
  if (!merges_.emplace(key, Merge{static_cast<int32_t>(merges_.size()), merged}).second) {
    throw Error(ErrorCode::kCorruption,
                "merge " + std::to_string(merges_.size()) + " is there twice", where);
  }
}

int32_t BytePairs::Find(std::string_view bytes) const {
  const auto it = tokens_.find(bytes);
  return it == tokens_.end() ? -1 : it->second;
}

void BytePairs::Symbols(std::string_view word, std::vector<int32_t>& out) const {
  bool after_unknown = false;
  for (size_t at = 0; at < word.size();) {
    const size_t bytes = byte_level_ ? 1 : DecodeUtf8(word, at).bytes;
    const std::string_view symbol = word.substr(at, bytes);
    const int32_t id =
        bytes == 1 ? byte_symbol_[static_cast<unsigned char>(symbol[0])] : Find(symbol);
    if (id < 0 && unknown_ >= 0) {
      if (!(fuse_unknown_ && after_unknown)) out.push_back(unknown_);
      after_unknown = true;
      at += bytes;
      continue;
    }
    if (id < 0) {
      std::string shown(symbol);
      if (byte_level_ || DecodeUtf8(word, at).code == kNotACharacter) {
        char hex[8];
        std::snprintf(hex, sizeof hex, "\\x%02X", static_cast<unsigned char>(symbol[0]));
        shown = hex;
      }
      throw Error(ErrorCode::kInvalidArgument,
                  "the character '" + shown + "' is not in the vocabulary");
    }
    out.push_back(id);
    after_unknown = false;
    at += bytes;
  }
}

std::vector<int32_t> BytePairs::MergeWord(std::string_view word) const {
  std::vector<int32_t> ids;
  if (ignore_merges_) {
    if (const int32_t whole = Find(word); whole >= 0) return {whole};
  }
  Symbols(word, ids);
  const auto n = static_cast<int32_t>(ids.size());
  if (n < 2) return ids;
  // A linked list of symbols and a heap of possible merges; an entry whose pair has changed since
  // is skipped.
  std::vector<int32_t> next(ids.size()), previous(ids.size());
  using Entry = std::tuple<int32_t, int32_t>;  // rank, position of the left symbol
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> heap;
  const auto offer = [&](int32_t left) {
    if (left < 0 || next[static_cast<size_t>(left)] >= n) return;
    const Merge* m = MergeOf(ids[static_cast<size_t>(left)],
                             ids[static_cast<size_t>(next[static_cast<size_t>(left)])]);
    if (m != nullptr) heap.emplace(m->rank, left);
  };
  for (int32_t i = 0; i < n; ++i) {
    next[static_cast<size_t>(i)] = i + 1;
    previous[static_cast<size_t>(i)] = i - 1;
  }
  for (int32_t i = 0; i < n; ++i) offer(i);
  while (!heap.empty()) {
    const auto [rank, left] = heap.top();
    heap.pop();
    const auto l = static_cast<size_t>(left);
    if (ids[l] < 0 || next[l] >= n) continue;
    const auto r = static_cast<size_t>(next[l]);
    const Merge* m = MergeOf(ids[l], ids[r]);
    if (m == nullptr || m->rank != rank) continue;
    ids[l] = m->id;
    ids[r] = -1;
    next[l] = next[r];
    if (next[l] < n) previous[static_cast<size_t>(next[l])] = left;
    offer(previous[l]);
    offer(left);
  }
  ids.erase(std::remove(ids.begin(), ids.end(), -1), ids.end());
  return ids;
}

void BytePairs::Encode(std::string_view word, std::vector<int32_t>& out) const {
  if (word.size() == 1 && byte_symbol_[static_cast<unsigned char>(word[0])] >= 0) {
    out.push_back(byte_symbol_[static_cast<unsigned char>(word[0])]);
    return;
  }
  if (word.size() > kCachedBytes) {
    const std::vector<int32_t> ids = MergeWord(word);
    out.insert(out.end(), ids.begin(), ids.end());
    return;
  }
  Shard& shard = cache_[Hash()(word) % kShards];
  {
    MutexLock lock(shard.mutex);
    if (const auto it = shard.words.find(word); it != shard.words.end()) {
      out.insert(out.end(), it->second.begin(), it->second.end());
      return;
    }
  }
  std::vector<int32_t> ids = MergeWord(word);
  out.insert(out.end(), ids.begin(), ids.end());
  MutexLock lock(shard.mutex);
  // bounded; frequent words come back at once
  if (shard.words.size() >= kShardWords) shard.words.clear();
  shard.words.emplace(word, std::move(ids));
}

}  // namespace plumb

#include "common/text/tokenizer/byte_pairs.h"

#include <algorithm>
#include <cstdio>
#include <functional>

#include "common/base/error.h"
#include "common/text/unicode.h"

namespace plumb {
namespace {

constexpr std::array<std::string_view, 2> kMarks = {"\u2581", " "};
// Up to here the best pair is looked for among all of them, which costs less than a heap.
constexpr size_t kShort = 48;
constexpr char32_t kPlane = 0x10000;

}  // namespace

BytePairs::BytePairs(BytePairsOptions options) : options_(options) {
  byte_symbol_.fill(-1);
  fallback_.fill(-1);
  pairs_.assign(64, {0, kNoRank});
  if (!options_.byte_level) character_symbol_.assign(kPlane, -1);
}

void BytePairs::AddToken(std::string_view bytes, int32_t id, const std::string& where) {
  if (bytes.empty())
    throw Error(ErrorCode::kCorruption, "the token " + std::to_string(id) + " is empty", where);
  if (!tokens_.Add(bytes, id)) {
    throw Error(ErrorCode::kCorruption,
                "the token " + std::to_string(id) + " stands for the same bytes as another", where);
  }
  longest_ = std::max(longest_, bytes.size());
  if (bytes.size() == 1) byte_symbol_[static_cast<unsigned char>(bytes[0])] = id;
  if (options_.byte_level) return;
  if (const Character c = DecodeUtf8(bytes, 0); c.bytes == bytes.size() && c.code < kPlane)
    character_symbol_[c.code] = id;
  if (options_.byte_fallback && bytes.size() == 6 && bytes.starts_with("<0x") && bytes[5] == '>') {
    for (uint32_t b = 0; b < 256; ++b) {
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", b);
      if (bytes == name) fallback_[b] = id;
    }
  }
}

bool BytePairs::IsFallback(int32_t id) const {
  return std::find(fallback_.begin(), fallback_.end(), id) != fallback_.end();
}

void BytePairs::AddMerge(std::string_view left, std::string_view right, const std::string& where) {
  const auto rank = static_cast<int32_t>(merged_.size());
  const int32_t a = Find(left), b = Find(right),
                merged = Find(std::string(left) + std::string(right));
  if (a < 0 || b < 0 || merged < 0) {
    throw Error(ErrorCode::kCorruption,
                "merge " + std::to_string(rank) + " names a token that is not in the vocabulary",
                where);
  }
  if (2 * (merged_.size() + 1) > pairs_.size()) {
    std::vector<Pair> old(2 * pairs_.size(), {0, kNoRank});
    old.swap(pairs_);
    for (const Pair& pair : old) {
      if (pair.rank != kNoRank) pairs_[SlotOf(pair.key)] = pair;
    }
  }
  Pair& slot = pairs_[SlotOf(Key(a, b))];
  if (slot.rank != kNoRank) {
    throw Error(ErrorCode::kCorruption, "merge " + std::to_string(rank) + " is there twice", where);
  }
  slot = {Key(a, b), rank};
  merged_.push_back(merged);
  for (size_t i = 0; i < kMarks.size(); ++i)
    crossed_[i] |= right.starts_with(kMarks[i]) && !left.ends_with(kMarks[i]);
  if (options_.byte_fallback) merges_stand_ins_ |= IsFallback(a) || IsFallback(b);
  merges_stand_ins_ |= a == unknown_ || b == unknown_;
}

void BytePairs::Seal() {
  if (options_.byte_level) {
    byte_ranks_.assign(65536, kNoRank);
    for (size_t i = 0; i < byte_ranks_.size(); ++i) {
      const int32_t left = byte_symbol_[i >> 8], right = byte_symbol_[i & 255];
      if (left >= 0 && right >= 0) byte_ranks_[i] = RankOf(left, right);
    }
    return;
  }
  for (size_t i = 0; i < kMarks.size() && mark_.empty(); ++i) {
    if (!crossed_[i] && !merges_stand_ins_ && Find(kMarks[i]) >= 0) mark_ = kMarks[i];
  }
}

class BytePairs::Encoder : public WordEncoder {
 public:
  explicit Encoder(const BytePairs& model)
      : model_(model), cache_(model.tokens_.size() < 4096 ? 10 : 15) {}

  void Encode(std::string_view word, std::vector<int32_t>& out) override {
    if (model_.options_.ignore_merges && word.size() <= model_.longest_) {
      if (const int32_t whole = model_.Find(word); whole >= 0) {
        out.push_back(whole);
        return;
      }
    }
    const std::string_view mark = model_.mark_;
    if (mark.empty()) return Piece(word, out);
    // Cut before each mark that does not follow another one.
    size_t begin = 0;
    for (size_t at = word.find(mark, mark.size()); at != std::string_view::npos;
         at = word.find(mark, at + mark.size())) {
      if (word.substr(0, at).ends_with(mark)) continue;
      Piece(word.substr(begin, at - begin), out);
      begin = at;
    }
    Piece(word.substr(begin), out);
  }

 private:
  void Piece(std::string_view word, std::vector<int32_t>& out) {
    if (word.empty()) return;
    if (word.size() > WordCache::kBytes) return Merge(word, out);
    uint64_t hash = 0;
    if (const WordCache::Entry* e = cache_.Find(word, &hash)) {
      out.insert(out.end(), e->id, e->id + e->ids);
      return;
    }
    const size_t before = out.size();
    Merge(word, out);
    if (const size_t count = out.size() - before; count <= WordCache::kIds)
      cache_.Put(word, hash, out.data() + before, count);
  }

  void Merge(std::string_view word, std::vector<int32_t>& out) {
    ids_.clear();
    Symbols(word);
    if (ids_.size() <= kShort) MergeShort(word);
    else MergeLong();
    out.insert(out.end(), ids_.begin(), ids_.end());
  }

  void Symbols(std::string_view word) {
    const BytePairs& m = model_;
    if (m.options_.byte_level) {
      bool after_unknown = false;
      for (const char c : word) {
        const int32_t id = m.byte_symbol_[static_cast<unsigned char>(c)];
        if (id < 0 && m.unknown_ < 0) Unknown(std::string_view(&c, 1));
        if (id >= 0 || !(m.fuse_unknown_ && after_unknown))
          ids_.push_back(id >= 0 ? id : m.unknown_);
        after_unknown = id < 0;
      }
      return;
    }
    bool unknown = false;  // one waits: it comes before the next known character
    for (size_t at = 0; at < word.size();) {
      const Character c = DecodeUtf8(word, at);
      const std::string_view symbol = word.substr(at, c.bytes);
      at += c.bytes;
      const int32_t id = c.code < kPlane ? m.character_symbol_[c.code] : m.Find(symbol);
      if (id >= 0) {
        if (unknown) ids_.push_back(m.unknown_);
        unknown = false;
        ids_.push_back(id);
        continue;
      }
      if (m.options_.byte_fallback && std::all_of(symbol.begin(), symbol.end(), [&](char b) {
            return m.fallback_[static_cast<unsigned char>(b)] >= 0;
          })) {
        for (const char b : symbol) ids_.push_back(m.fallback_[static_cast<unsigned char>(b)]);
        continue;
      }
      if (m.unknown_ < 0) Unknown(symbol);
      if (unknown && !m.fuse_unknown_) ids_.push_back(m.unknown_);
      unknown = true;
    }
    if (unknown) ids_.push_back(m.unknown_);
  }

  [[noreturn]] void Unknown(std::string_view symbol) const {
    std::string shown(symbol);
    if (model_.options_.byte_level || DecodeUtf8(symbol, 0).code == kNotACharacter) {
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\x%02X", static_cast<unsigned char>(symbol[0]));
      shown = hex;
    }
    throw Error(ErrorCode::kInvalidArgument,
                "the character '" + shown + "' is not in the vocabulary");
  }

  void MergeShort(std::string_view word) {
    const BytePairs& m = model_;
    size_t n = ids_.size();
    if (n < 2) return;
    int32_t* const ids = ids_.data();
    std::array<int32_t, kShort> ranks;  // of the pair that begins there
    if (m.options_.byte_level && n == word.size()) {
      for (size_t i = 0; i + 1 < n; ++i) {
        ranks[i] = m.byte_ranks_[static_cast<size_t>(static_cast<unsigned char>(word[i])) << 8 |
                                 static_cast<unsigned char>(word[i + 1])];
      }
    } else {
      for (size_t i = 0; i + 1 < n; ++i) ranks[i] = m.RankOf(ids[i], ids[i + 1]);
    }
    while (n > 1) {
      size_t best = 0;
      for (size_t i = 1; i + 1 < n; ++i) {
        if (ranks[i] < ranks[best]) best = i;
      }
      if (ranks[best] == kNoRank) break;
      ids[best] = m.merged_[static_cast<size_t>(ranks[best])];
      --n;
      for (size_t i = best + 1; i < n; ++i) {
        ids[i] = ids[i + 1];
        ranks[i - 1] = ranks[i];
      }
      if (best > 0) ranks[best - 1] = m.RankOf(ids[best - 1], ids[best]);
      if (best + 1 < n) ranks[best] = m.RankOf(ids[best], ids[best + 1]);
    }
    ids_.resize(n);
  }

  // A linked list of symbols and a heap of possible merges, by rank and then from the left; an
  // entry whose pair has changed since is skipped.
  void MergeLong() {
    const auto n = static_cast<int32_t>(ids_.size());
    next_.resize(ids_.size());
    previous_.resize(ids_.size());
    heap_.clear();
    const auto offer = [&](int32_t left) {
      if (left < 0 || next_[static_cast<size_t>(left)] >= n) return;
      const auto l = static_cast<size_t>(left);
      const int32_t rank = model_.RankOf(ids_[l], ids_[static_cast<size_t>(next_[l])]);
      if (rank == kNoRank) return;
      heap_.push_back(Key(rank, left));
      std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
    };
    for (int32_t i = 0; i < n; ++i) {
      next_[static_cast<size_t>(i)] = i + 1;
      previous_[static_cast<size_t>(i)] = i - 1;
    }
    for (int32_t i = 0; i < n; ++i) offer(i);
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      const auto rank = static_cast<int32_t>(heap_.back() >> 32);
      const auto left = static_cast<int32_t>(heap_.back() & 0xFFFFFFFF);
      heap_.pop_back();
      const auto l = static_cast<size_t>(left);
      if (ids_[l] < 0 || next_[l] >= n) continue;
      const auto r = static_cast<size_t>(next_[l]);
      if (model_.RankOf(ids_[l], ids_[r]) != rank) continue;
      ids_[l] = model_.merged_[static_cast<size_t>(rank)];
      ids_[r] = -1;
      next_[l] = next_[r];
      if (next_[l] < n) previous_[static_cast<size_t>(next_[l])] = left;
      offer(previous_[l]);
      offer(left);
    }
    ids_.erase(std::remove(ids_.begin(), ids_.end(), -1), ids_.end());
  }

  const BytePairs& model_;
  WordCache cache_;
  std::vector<int32_t> ids_, next_, previous_;
  std::vector<uint64_t> heap_;
};

std::unique_ptr<WordEncoder> BytePairs::MakeEncoder() const {
  return std::make_unique<Encoder>(*this);
}

}  // namespace plumb

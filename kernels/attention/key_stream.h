// What blocks of attention on warp groups have in common: rings of tiles in shared memory that one
// group of threads fills and others empty, where keys lie, and which rows of a tile are of one
// sequence. Written against the few operations of a chip, so that tests run the same lines on the
// CPU.
//
// A tile of L lines by D numbers lies in shared memory in panels of 64 numbers: line l of panel p
// is the 128 bytes at (p L + l) 128, and its 16 bytes c lie at c ^ (l % 8), as the tensor cores'
// descriptors have it ("128 byte swizzle"). It begins on a multiple of 1,024 bytes. The same lines
// are read as rows of a factor, or as its terms.
//
// Thread safety: of its block. Ownership: none. Units: elements, unless it says bytes. Errors:
// none.
#pragma once

#include <cstdint>

#include "common/base/dtype.h"
#include "kernels/attention/attention_block.h"
#include "kernels/products/warpgroup_tile.h"
#include "kernels/sinks/attention_sinks.h"

namespace plumb::kernels {

inline constexpr int kGroupThreads = 128;  // four warps: what a product is of
inline constexpr int kGroupRows = 64;

// A stage of a ring of N, and how many times it has been gone around: their barriers' parity.
template <int N>
struct KeyRingPlace {
  int stage = 0;
  unsigned parity = 0;
  PLUMB_OF_BLOCK void Next() {
    if (++stage == N) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// Copies of 16 bytes of a tile that a thread of the loading group takes part in.
template <class Chip, int D, int Lines>
struct LineCopies {
  static constexpr int kBytes = Lines * D * 2;
  static constexpr int kAcross = D / 8;                  // of a line
  static constexpr int kStep = kGroupThreads / kAcross;  // lines at once
  static constexpr int kEach = Lines / kStep;            // of a thread
  static_assert(D % 64 == 0 && kStep % 8 == 0 && Lines % (2 * kStep) == 0);

  static PLUMB_OF_BLOCK int Line(int thread, int n) { return thread / kAcross + n * kStep; }
  static PLUMB_OF_BLOCK int Element(int thread) { return thread % kAcross * 8; }
  static PLUMB_OF_BLOCK int To(int thread, int n) {
    const int line = Line(thread, n), chunk = thread % kAcross;
    return chunk / 8 * (Lines * 128) + line * 128 + ((chunk % 8) ^ (line % 8)) * 16;
  }
};

// The 16 terms from 16 * k on of the 64 rows from `row` on of a tile of `Lines` lines, terms inner.
template <int Lines>
PLUMB_OF_BLOCK uint64_t RowsOf(uint32_t tile, int row, int k) {
  return OperandDescriptor(tile + k / 4 * (Lines * 128) + row * 128 + k % 4 * TermStep(false),
                           false);
}
// Lines 16 k to 16 k + 15 of a tile of 64 lines as terms of all its columns.
PLUMB_OF_BLOCK uint64_t TermsOf(uint32_t tile, int k) {
  return OperandDescriptor(tile + k * TermStep(true), true);
}

// score[64 x 64] = the 64 rows of `a` from `row` on times the 64 lines of `b`, in steps of 16.
template <class Chip, int D, int LinesOfA>
PLUMB_OF_BLOCK void MultiplyTiles(float (&score)[32], uint32_t a, int row, uint32_t b) {
  PLUMB_UNROLLED for (int k = 0; k < D / 16; ++k) {
    Chip::MultiplyRows(score, RowsOf<LinesOfA>(a, row, k), RowsOf<kTileKeys>(b, 0, k), k > 0);
  }
}

// sum[64 x D] += factors[64 x 64] times the 64 lines of `b`, 16 of them a step.
template <class Chip, int D>
PLUMB_OF_BLOCK void MultiplyLines(float (&sum)[D / 2], const unsigned (&factors)[16], uint32_t b) {
  PLUMB_UNROLLED for (int k = 0; k < kTileKeys / 16; ++k) {
    Chip::MultiplyColumns(sum, factors + 4 * k, TermsOf(b, k));
  }
}

// Sums of 64 x 64 rounded, as the left factor of the next product wants them.
template <class Chip>
PLUMB_OF_BLOCK void PackFactors(const float (&x)[32], unsigned (&factors)[16]) {
  PLUMB_UNROLLED for (int i = 0; i < 16; ++i) {
    factors[i] = Chip::PackPair(x[2 * i], x[2 * i + 1]);
  }
}

// Both rows of a thread, D numbers each, 16 bytes at a time: four threads beside each other hold a
// row. `to`: nullptr is not written. `value(column)` gives an even column's pair.
template <class Chip, int D, class Value>
PLUMB_OF_BLOCK void StoreRow(BFloat16* to, const Value& value) {
  const int own = Chip::Thread() % 4;
  PLUMB_UNROLLED for (int j = 0; j < D / 8; j += 4) {
    unsigned words[4];
    PLUMB_UNROLLED for (int i = 0; i < 4; ++i) words[i] = value(j + i);
    TurnQuad<Chip>(words);
    if (to) Chip::StoreWords(to + (j + own) * 8, words);
  }
}

// Rows and keys of a paged call.
struct PagedSource {
  AttentionWork w;
  struct Sequence {
    const int32_t* table;
  };
  PLUMB_HOST_DEVICE int32_t begin() const { return w.begin; }
  PLUMB_HOST_DEVICE int32_t end() const { return w.end; }
  PLUMB_HOST_DEVICE int32_t rows_a_tile() const { return w.rows_a_block; }
  PLUMB_HOST_DEVICE int32_t heads() const { return w.heads; }
  PLUMB_HOST_DEVICE int32_t group() const { return w.group; }
  PLUMB_OF_BLOCK float scale() const { return w.scale; }
  PLUMB_OF_BLOCK int32_t Owner(int32_t row) const { return w.slot[row]; }
  PLUMB_OF_BLOCK Sequence SequenceOfRow(int32_t row) const {
    return {w.page_table + int64_t{w.slot[row]} * w.page_table_stride};
  }
  // The last key that a row sees, and the first.
  PLUMB_OF_BLOCK int32_t Place(const Sequence&, int32_t row) const { return w.position[row]; }
  PLUMB_OF_BLOCK int32_t First(int32_t place) const { return FirstSeen(w, place); }
  PLUMB_OF_BLOCK const BFloat16* Query(int32_t row, int32_t head, int32_t d) const {
    return w.q + row * w.q_stride + int64_t{head} * d;
  }
  PLUMB_OF_BLOCK const BFloat16* Keys(int32_t kv_head, int32_t) const {
    return w.pages + kv_head * w.head_stride;
  }
  PLUMB_OF_BLOCK int64_t to_values(int32_t) const { return w.kv_stride; }
  // Where a key lies behind Keys, in portions of 16 bytes.
  PLUMB_OF_BLOCK uint32_t Portion(const Sequence& s, int32_t p, int32_t d) const {
    const int32_t page = w.page_shift >= 0 ? p >> w.page_shift : p / w.page_tokens;
    return static_cast<uint32_t>(
        (s.table[page] * w.page_stride + int64_t{p - page * w.page_tokens} * d) / 8);
  }
  PLUMB_OF_BLOCK BFloat16* out() const { return w.out; }
  PLUMB_OF_BLOCK float* lse() const { return w.lse; }
  PLUMB_OF_BLOCK int64_t lse_stride() const { return w.lse_stride; }
};

// Rows and keys of a packed batch (attention_varlen.h): row t is token t. Place p of a sequence
// counts what it goes on from, too.
struct PackedSource {
  const BFloat16* qkv = nullptr;  // [tokens, (heads + 2 kv_heads) D]
  int32_t tokens = 0, sequences = 0;
  const int32_t* cu_seqlens = nullptr;
  const int32_t* parents = nullptr;  // nullptr: none goes on from another
  int32_t query_heads = 0, kv_heads = 0, rows = 1;
  float powers = 0;  // scale of the scores, log2(e) included
  int32_t window = 0;
  BFloat16* to = nullptr;
  float* sums = nullptr;  // [heads, tokens] log-sum-exp

  struct Sequence {
    int32_t begin, prefix, base;  // its first token; the tokens before it
  };
  PLUMB_HOST_DEVICE int32_t begin() const { return 0; }
  PLUMB_HOST_DEVICE int32_t end() const { return tokens; }
  PLUMB_HOST_DEVICE int32_t rows_a_tile() const { return rows; }
  PLUMB_HOST_DEVICE int32_t heads() const { return query_heads; }
  PLUMB_HOST_DEVICE int32_t group() const { return query_heads / kv_heads; }
  PLUMB_OF_BLOCK float scale() const { return powers; }
  PLUMB_OF_BLOCK int64_t width(int32_t d) const { return int64_t{query_heads + 2 * kv_heads} * d; }
  PLUMB_OF_BLOCK int32_t Owner(int32_t row) const { return SequenceOf(cu_seqlens, sequences, row); }
  PLUMB_OF_BLOCK Sequence Numbered(int32_t b) const {
    const int32_t first = cu_seqlens[b], parent = parents ? parents[b] : -1;
    if (parent < 0) return {first, first, 0};
    return {first, cu_seqlens[parent], cu_seqlens[parent + 1] - cu_seqlens[parent]};
  }
  PLUMB_OF_BLOCK Sequence SequenceOfRow(int32_t row) const { return Numbered(Owner(row)); }
  PLUMB_OF_BLOCK int32_t Place(const Sequence& s, int32_t row) const {
    return s.base + row - s.begin;
  }
  PLUMB_OF_BLOCK int32_t First(int32_t place) const {
    return window > 0 && place + 1 > window ? place + 1 - window : 0;
  }
  PLUMB_OF_BLOCK const BFloat16* Query(int32_t row, int32_t head, int32_t d) const {
    return qkv + row * width(d) + int64_t{head} * d;
  }
  PLUMB_OF_BLOCK const BFloat16* Keys(int32_t kv_head, int32_t d) const {
    return qkv + int64_t{query_heads + kv_head} * d;
  }
  PLUMB_OF_BLOCK int64_t to_values(int32_t d) const { return int64_t{kv_heads} * d; }
  PLUMB_OF_BLOCK uint32_t Portion(const Sequence& s, int32_t p, int32_t d) const {
    const int32_t token = p < s.base ? s.prefix + p : s.begin + p - s.base;
    return static_cast<uint32_t>(token) * static_cast<uint32_t>(width(d) / 8);
  }
  PLUMB_OF_BLOCK BFloat16* out() const { return to; }
  PLUMB_OF_BLOCK float* lse() const { return sums; }
  PLUMB_OF_BLOCK int64_t lse_stride() const { return tokens; }
};

// Rows of tile x, at most 128, and where those of another sequence begin among them.
template <class Chip, class Source>
class RowTile {
 public:
  PLUMB_OF_BLOCK RowTile(const Source& source, int32_t x)
      : first(source.begin() + x * source.rows_a_tile()),
        end(first + source.rows_a_tile() < source.end() ? first + source.rows_a_tile()
                                                        : source.end()) {
    const int lane = Chip::Thread() % 32;
    PLUMB_UNROLLED for (int k = 0; k < 4; ++k) {
      starts_[k] = 0;
      if (first + 32 * k >= end) continue;
      const int32_t row = first + 32 * k + lane;
      const bool begins = row > first && row < end && source.Owner(row) != source.Owner(row - 1);
      starts_[k] = Chip::Ballot(begins);
    }
  }

  // Behind the last row of the sequence of row a.
  PLUMB_OF_BLOCK int32_t EndOf(int32_t a) const {
    const int32_t from = a + 1 - first;
    int32_t found = end;
    PLUMB_UNROLLED for (int k = 3; k >= 0; --k) {
      unsigned word = starts_[k];
      if (from >= 32 * (k + 1)) word = 0;
      else if (from > 32 * k) word &= 0xFFFFFFFFu << (from - 32 * k);
      if (word != 0) found = first + 32 * k + Chip::LowestBit(word);
    }
    return found;
  }

  const int32_t first, end;

 private:
  unsigned starts_[4];
};

// What one group of 128 threads copies for the others: tiles of rows, and of 64 keys and values.
template <class Chip, int D, class Source>
class TileLoader {
 public:
  using KeyCopies = LineCopies<Chip, D, kTileKeys>;

  PLUMB_OF_BLOCK TileLoader(const Source& source, int32_t kv_head)
      : source_(source),
        thread_(Chip::Thread() % kGroupThreads),
        lane_(thread_ % 32),
        keys_(source.Keys(kv_head, D)) {}

  // Rows of a tile, packed with the heads of the KV head: from `at(row, head)`.
  template <int Lines, class At>
  PLUMB_OF_BLOCK void Rows(const RowTile<Chip, Source>& rows, int32_t kv_head, unsigned char* to,
                           const At& at) const {
    using Copies = LineCopies<Chip, D, Lines>;
    const int32_t group = source_.group();
    PLUMB_UNROLLED_BY_4 for (int n = 0; n < Copies::kEach; ++n) {
      const int packed = Copies::Line(thread_, n);
      const int32_t row = rows.first + packed / group, head = kv_head * group + packed % group;
      const bool there = row < rows.end && packed < source_.rows_a_tile() * group;
      Chip::CopyAsync(to + Copies::To(thread_, n),
                      at(there ? row : rows.first, head) + Copies::Element(thread_), there);
    }
  }

  // Where the keys of a tile lie that are within [low, high]: lane l's are l and 32 further.
  struct Lookup {
    uint32_t here, there;
  };
  PLUMB_OF_BLOCK Lookup Find(const typename Source::Sequence& sequence, int32_t tile, int32_t low,
                             int32_t high) const {
    const auto portion = [&](int32_t p) {
      return p < low || p > high ? kNowhere : source_.Portion(sequence, p, D);
    };
    const int32_t start = tile * kTileKeys + lane_;
    return {portion(start), portion(start + 32)};
  }

  // Zeros for keys that are not there.
  PLUMB_OF_BLOCK void Keys(const Lookup& found, unsigned char* keys, unsigned char* values) const {
    const int element = KeyCopies::Element(thread_);
    PLUMB_UNROLLED_BY_4 for (int n = 0; n < KeyCopies::kEach; ++n) {
      const int line = KeyCopies::Line(thread_, n);
      const uint32_t portion =
          Chip::Shuffle(n < KeyCopies::kEach / 2 ? found.here : found.there, line % 32);
      const bool there = portion != kNowhere;
      const BFloat16* from = keys_ + (there ? int64_t{portion} * 8 : 0) + element;
      Chip::CopyAsync(keys + KeyCopies::To(thread_, n), from, there);
      Chip::CopyAsync(values + KeyCopies::To(thread_, n), from + source_.to_values(D), there);
    }
  }

 private:
  static constexpr uint32_t kNowhere = 0xFFFFFFFFu;

  const Source& source_;
  const int thread_, lane_;
  const BFloat16* const keys_;
};

}  // namespace plumb::kernels

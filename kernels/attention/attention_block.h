// What a block of the tensor cores' paged attention does (tensor_attention.cu), written against the
// few operations of a chip that it needs, so that a test can run the same lines on the CPU.
//
// Purpose: rows of 16 are multiplied with tiles of 64 keys that come from the pages through shared
// memory, two tiles in flight. A block packs `rows x heads of a KV head` as rows of its tile, so
// that keys and values are read once for all of them.
//
// The order of every sum is fixed by the position of a key in its sequence, and nothing else:
//   a score: over the head in steps of 16
//   a split of 128 keys (2 tiles from the sequence's start on): from nothing, tile by tile, each
//     rescaled to the highest score so far; weights are rounded to bfloat16 before they multiply
//     the values, and their sum is that of the rounded ones (a column of ones beside the values)
//   a sequence: splits in ascending order, `total = total * 2^(top - new) + split * 2^(...)`
// What a row does not see has the weight 0, and a tile or split of which it sees nothing leaves its
// sums as they are. So it does not matter for a row's bits which other rows lie in its tile,
// whether a prompt was cut into chunks, whether splits are folded by the block that computes them
// or by another one later (MergeSplits), or whether the first ones were computed for a group of
// rows together. (That supposes finite values: 0 times infinity is NaN for the rows beside it.)
//
// Thread safety: of its block. Ownership: none. Units: elements, unless it says bytes; scores are
// in powers of two. Errors: none.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/base/dtype.h"
#include "kernels/paged_kv.h"

#ifdef __CUDACC__
#define PLUMB_OF_BLOCK __device__ __forceinline__
#define PLUMB_UNROLLED _Pragma("unroll")
#define PLUMB_UNROLLED_BY_4 _Pragma("unroll 4")
#else
#define PLUMB_OF_BLOCK inline
#define PLUMB_UNROLLED
#define PLUMB_UNROLLED_BY_4
#endif

namespace plumb::kernels {

inline constexpr int32_t kTileKeys = 64;
inline constexpr int32_t kSplitTiles = 2;
inline constexpr int32_t kSplitKeys = kTileKeys * kSplitTiles;
static_assert(kSharedTokens == kSplitKeys);

// The arguments of all blocks of a launch.
struct AttentionWork {
  const BFloat16* q = nullptr;
  int64_t q_stride = 0;
  const int32_t* slot = nullptr;        // [rows]
  const int32_t* position = nullptr;    // [rows]
  const int32_t* page_table = nullptr;  // [slots, page_table_stride]
  int32_t page_table_stride = 0;
  int32_t begin = 0, end = 0;    // rows that this launch computes
  int32_t rows_a_block = 1;      // consecutive ones; their heads of a KV head fit the block's tile
  int32_t heads = 0, group = 0;  // query heads: all, and of a KV head
  const BFloat16* pages = nullptr;  // of the layer
  int64_t page_stride = 0, head_stride = 0, kv_stride = 0;
  int32_t page_tokens = 1;
  int32_t page_shift = -1;  // of pages of 2^page_shift tokens; -1: others
  float scale = 0;          // of the scores, log2(e) included
  int32_t window = 0;       // 0: all positions
  // Of rows whose prompt's first keys are computed for all rows of their group together
  // (PagedRows): nullptr: there are none. `totals`: [rows, heads, D + 2] what comes of them.
  const int32_t* shared_with = nullptr;
  const int32_t* shared_tokens = nullptr;
  float* totals = nullptr;
  bool is_shared = false;  // this launch computes the totals
  // Not nullptr: each split's sums go here, [rows, heads, most_splits, D + 2]: `pieces` blocks
  // share a row's splits out, of rows without a shared part.
  float* partials = nullptr;
  int32_t most_splits = 0, pieces = 1;
  BFloat16* out = nullptr;  // [rows, heads, D]
  float* lse =
      nullptr;  // [heads, lse_stride] natural log-sum-exp of the scores; nullptr: not asked
  int64_t lse_stride = 0;
};

PLUMB_HOST_DEVICE inline int32_t FirstSeen(const AttentionWork& w, int32_t position) {
  const int32_t hidden = w.window > 0 ? position + 1 - w.window : 0;
  return hidden > 0 ? hidden : 0;
}

// Keys before it are in the row's total already.
PLUMB_HOST_DEVICE inline int32_t FirstOwn(const AttentionWork& w, int32_t row) {
  const int32_t seen = FirstSeen(w, w.position[row]);
  return w.shared_tokens && w.shared_tokens[row] > seen ? w.shared_tokens[row] : seen;
}

// The natural logarithm of `sum` times 2^top.
PLUMB_HOST_DEVICE inline float LogSumExp(float top, float sum) {
  constexpr float kLn2 = 0.6931471805599453f;
  return (top + log2f(sum)) * kLn2;
}

// Sums of one row's keys as they lie in memory: D sums of values, the highest score, the weights'.
template <int D>
inline constexpr int64_t kRecord = D + 2;

// The factors with which what is there (of highest score `top`) and what is added (`other`) count;
// `top` becomes the highest of both. REQUIRES: other > -infinity.
template <class Chip>
PLUMB_OF_BLOCK void FoldFactors(float& top, float other, float& keep, float& take) {
  const float highest = Chip::Max(top, other);
  keep = Chip::Exp2(Chip::Sub(top, highest));
  take = Chip::Exp2(Chip::Sub(other, highest));
  top = highest;
}

template <class Chip>
PLUMB_OF_BLOCK float Folded(float total, float keep, float part, float take) {
  return Chip::MulAdd(part, take, Chip::Mul(total, keep));
}

template <class Chip, int D, int Warps>
class AttentionBlock {
 public:
  static constexpr int kThreads = 32 * Warps, kRows = 16 * Warps;
  // Rows of shared memory lie an odd number of 16 bytes apart, so that eight of them meet no bank
  // twice.
  static constexpr int kPitch = D + 8;
  static constexpr int kTile = kTileKeys * kPitch;  // keys, or values
  static constexpr int kBytes = 2 * (kRows * kPitch + 4 * kTile);
  static_assert(D % 16 == 0 && kTileKeys * (D / 8) % kThreads == 0);

  // Block (x, kv_head, piece) of the launch; x counts tiles of rows_a_block rows, or rows where
  // what is shared is computed. `memory`: kBytes, on 16 bytes.
  static PLUMB_OF_BLOCK void Run(const AttentionWork& w, int32_t x, int32_t kv_head, int32_t piece,
                                 BFloat16* memory) {
    if (w.is_shared) {
      // Tiles are counted from a group's first row on, so that few groups lie in two.
      const int32_t row = w.begin + x;
      if (w.shared_tokens[row] == 0 || (row - w.shared_with[row]) % w.rows_a_block != 0) return;
    }
    AttentionBlock block(w, x, kv_head, piece, memory);
    block.LoadQueries();
    const int32_t* same = w.is_shared ? w.shared_with : w.slot;
    for (int32_t a = block.first_; a < block.end_;) {
      int32_t b = a + 1;
      while (b < block.end_ && same[b] == same[a]) ++b;
      block.Sequence(a, b);
      if (w.is_shared) break;  // a block a group's tile
      a = b;
    }
    Chip::template WaitCopies<0>();
  }

 private:
  static constexpr float kNothing = -INFINITY;
  static constexpr int32_t kNowhere = -1;

  PLUMB_OF_BLOCK AttentionBlock(const AttentionWork& w, int32_t x, int32_t kv_head, int32_t piece,
                                BFloat16* memory)
      : w_(w),
        kv_head_(kv_head),
        piece_(piece),
        queries_(memory),
        stages_(memory + kRows * kPitch),
        thread_(Chip::Thread()),
        lane_(thread_ % 32),
        warp_(thread_ / 32),
        first_(w.begin + x * (w.is_shared ? 1 : w.rows_a_block)),
        end_(first_ + w.rows_a_block < w.end ? first_ + w.rows_a_block : w.end) {}

  // They arrive with the first tile.
  PLUMB_OF_BLOCK void LoadQueries() {
    for (int i = thread_; i < kRows * (D / 8); i += kThreads) {
      const int packed = i / (D / 8), c = i % (D / 8) * 8;
      const int32_t row = first_ + packed / w_.group,
                    head = kv_head_ * w_.group + packed % w_.group;
      const bool there = row < end_;
      Chip::CopyAsync(queries_ + packed * kPitch + c,
                      there ? w_.q + row * w_.q_stride + int64_t{head} * D + c : w_.q,
                      there ? 16 : 0);
    }
  }

  // Of 64 keys from tile * 64 on: those within [low, high] from the pages, zeros for others.
  PLUMB_OF_BLOCK void LoadTile(const int32_t* table, int32_t tile, int32_t low, int32_t high,
                               BFloat16* stage) {
    const auto page_of = [&](int32_t p) {
      return w_.page_shift >= 0 ? p >> w_.page_shift : p / w_.page_tokens;
    };
    // A lane looks up two keys for the whole warp: where they lie, in portions of 16 bytes.
    const auto place_of = [&](int32_t p) {
      if (p < low || p > high) return kNowhere;
      const int32_t page = page_of(p);
      return static_cast<int32_t>(
          (table[page] * w_.page_stride + int64_t{p - page * w_.page_tokens} * D) / 8);
    };
    const int32_t start = tile * kTileKeys, here = place_of(start + lane_),
                  there = place_of(start + lane_ + 32);
    const BFloat16* base = w_.pages + kv_head_ * w_.head_stride;
    PLUMB_UNROLLED_BY_4 for (int n = 0; n < kTileKeys * (D / 8) / kThreads; ++n) {
      const int i = n * kThreads + thread_, key = i / (D / 8), c = i % (D / 8) * 8;
      const int32_t first_half = Chip::Shuffle(here, key % 32),
                    second_half = Chip::Shuffle(there, key % 32),
                    place = key < 32 ? first_half : second_half;
      const bool read = place != kNowhere;
      const BFloat16* from = read ? base + int64_t{static_cast<uint32_t>(place)} * 8 + c : w_.pages;
      Chip::CopyAsync(stage + key * kPitch + c, from, read ? 16 : 0);
      Chip::CopyAsync(stage + kTile + key * kPitch + c, from + (read ? w_.kv_stride : 0),
                      read ? 16 : 0);
    }
  }

  // Rows [a, b) of the batch: of one sequence, or of a group's shared keys.
  PLUMB_OF_BLOCK void Sequence(int32_t a, int32_t b) {
    const int32_t* table = w_.page_table + int64_t{w_.slot[a]} * w_.page_table_stride;
    const int32_t low = w_.is_shared ? 0 : FirstOwn(w_, a),
                  high = w_.is_shared ? w_.shared_tokens[a] - 1 : w_.position[b - 1],
                  last = high / kTileKeys, first_split = low / kSplitKeys;
    // This thread's rows of the tile are lane / 4 and 8 further down in its warp's 16.
    const int top_row = warp_ * 16 + lane_ / 4;
    bool mine[2];
    int32_t row[2], head[2], from[2], to[2];  // keys that are seen: [from, to]
    PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {
      const int packed = top_row + 8 * h;
      row[h] = first_ + packed / w_.group;
      head[h] = kv_head_ * w_.group + packed % w_.group;
      mine[h] = row[h] >= a && row[h] < b;
      from[h] = !mine[h] ? 1 : (w_.is_shared ? 0 : FirstSeen(w_, w_.position[row[h]]));
      to[h] = !mine[h] ? -1 : (w_.is_shared ? high : w_.position[row[h]]);
    }
    // What any row of the warp sees; positions ascend.
    const int32_t warp_a = Highest(first_ + warp_ * 16 / w_.group, a),
                  warp_b = Lowest(first_ + (warp_ * 16 + 15) / w_.group + 1, b);
    const bool any = warp_a < warp_b;
    const int32_t warp_low = any && !w_.is_shared ? FirstSeen(w_, w_.position[warp_a]) : 0,
                  warp_high = !any ? -1 : (w_.is_shared ? high : w_.position[warp_b - 1]);

    float total[D / 8][4], total_sum[2] = {0, 0}, total_top[2] = {kNothing, kNothing};
    PLUMB_UNROLLED for (int n = 0; n < D / 8; ++n) {
      PLUMB_UNROLLED for (int e = 0; e < 4; ++e) total[n][e] = 0;
    }
    if (!w_.is_shared && w_.shared_tokens && w_.shared_tokens[a] > 0) {
      PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {
        if (!mine[h]) continue;
        const float* record = w_.totals + (int64_t{row[h]} * w_.heads + head[h]) * kRecord<D>;
        total_top[h] = record[D];
        total_sum[h] = record[D + 1];
        PLUMB_UNROLLED for (int n = 0; n < D / 8; ++n) {
          total[n][2 * h] = record[n * 8 + lane_ % 4 * 2];
          total[n][2 * h + 1] = record[n * 8 + lane_ % 4 * 2 + 1];
        }
      }
    }
    Clear();

    const auto next_of = [&](int32_t tile) {
      ++tile;
      return tile % kSplitTiles == 0 ? tile + (w_.pieces - 1) * kSplitTiles : tile;
    };
    int32_t tile = piece_ == 0 ? low / kTileKeys : (first_split + piece_) * kSplitTiles;
    int stage = 0;
    if (tile <= last) LoadTile(table, tile, low, high, stages_);
    Chip::CommitCopies();
    while (tile <= last) {
      const int32_t next = next_of(tile);
      if (next <= last) LoadTile(table, next, low, high, stages_ + (1 - stage) * 2 * kTile);
      Chip::CommitCopies();
      Chip::template WaitCopies<1>();
      Chip::SyncBlock();  // this tile is there for all
      const int32_t start = tile * kTileKeys;
      if (start <= warp_high && start + kTileKeys > warp_low)
        Multiply(stages_ + stage * 2 * kTile, start, from, to);
      if (tile % kSplitTiles == kSplitTiles - 1 || tile == last) {
        if (w_.partials) {
          const int64_t split = tile / kSplitTiles - first_split;
          PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {
            if (!mine[h]) continue;
            Write(h, sums_, top_[h], weights_[2 * h],
                  w_.partials + ((int64_t{row[h]} * w_.heads + head[h]) * w_.most_splits + split) *
                                    kRecord<D>);
          }
        } else {
          Fold(total, total_sum, total_top);
        }
        Clear();
      }
      Chip::SyncBlock();  // nobody reads this tile any more
      tile = next;
      stage = 1 - stage;
    }
    if (w_.partials) return;
    PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {
      if (!mine[h]) continue;
      const int64_t at = int64_t{row[h]} * w_.heads + head[h];
      if (w_.is_shared) {
        Write(h, total, total_top[h], total_sum[h], w_.totals + at * kRecord<D>);
        continue;
      }
      if (w_.lse && lane_ % 4 == 0)
        w_.lse[int64_t{head[h]} * w_.lse_stride + row[h]] = LogSumExp(total_top[h], total_sum[h]);
      PLUMB_UNROLLED for (int n = 0; n < D / 8; ++n) {
        Chip::StorePair(w_.out + at * D + n * 8 + lane_ % 4 * 2,
                        Chip::PackPair(Chip::Div(total[n][2 * h], total_sum[h]),
                                       Chip::Div(total[n][2 * h + 1], total_sum[h])));
      }
    }
  }

  static PLUMB_OF_BLOCK int32_t Highest(int32_t x, int32_t y) { return x > y ? x : y; }
  static PLUMB_OF_BLOCK int32_t Lowest(int32_t x, int32_t y) { return x < y ? x : y; }

  PLUMB_OF_BLOCK void Clear() {
    PLUMB_UNROLLED for (int n = 0; n < D / 8; ++n) {
      PLUMB_UNROLLED for (int e = 0; e < 4; ++e) sums_[n][e] = 0;
    }
    PLUMB_UNROLLED for (int e = 0; e < 4; ++e) weights_[e] = 0;
    top_[0] = top_[1] = kNothing;
  }

  // Adds the warp's 16 rows times the tile of keys that begins at position `start`.
  PLUMB_OF_BLOCK void Multiply(const BFloat16* keys, int32_t start, const int32_t (&from)[2],
                               const int32_t (&to)[2]) {
    const BFloat16* values = keys + kTile;
    // What a lane points at in four blocks of 8 x 8: a row of block lane / 8.
    const int in_block = lane_ % 8, second = lane_ / 8 % 2 * 8, third = lane_ / 16 * 8;
    float score[kTileKeys / 8][4];
    PLUMB_UNROLLED for (int j = 0; j < kTileKeys / 8; ++j) {
      PLUMB_UNROLLED for (int e = 0; e < 4; ++e) score[j][e] = 0;
    }
    PLUMB_UNROLLED for (int k = 0; k < D / 16; ++k) {
      unsigned a[4];
      Chip::LoadBlocks(queries_ + (warp_ * 16 + in_block + second) * kPitch + k * 16 + third, a);
      PLUMB_UNROLLED for (int j = 0; j < kTileKeys / 16; ++j) {
        unsigned b[4];
        Chip::LoadBlocks(keys + (j * 16 + in_block + third) * kPitch + k * 16 + second, b);
        Chip::MultiplyAdd(score[2 * j], a, b[0], b[1]);
        Chip::MultiplyAdd(score[2 * j + 1], a, b[2], b[3]);
      }
    }
    float highest[2] = {top_[0], top_[1]};
    PLUMB_UNROLLED for (int j = 0; j < kTileKeys / 8; ++j) {
      PLUMB_UNROLLED for (int e = 0; e < 4; ++e) {
        const int32_t key = start + j * 8 + lane_ % 4 * 2 + e % 2;
        const bool seen = key >= from[e / 2] && key <= to[e / 2];
        score[j][e] = seen ? Chip::Mul(score[j][e], w_.scale) : kNothing;
        highest[e / 2] = Chip::Max(highest[e / 2], score[j][e]);
      }
    }
    float reference[2], keep[2];
    PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {  // the four lanes of a row
      highest[h] = Chip::Max(highest[h], Chip::ShuffleXor(highest[h], 1));
      highest[h] = Chip::Max(highest[h], Chip::ShuffleXor(highest[h], 2));
      reference[h] = highest[h] == kNothing ? 0.0f : highest[h];
      keep[h] = Chip::Exp2(Chip::Sub(top_[h], reference[h]));
      top_[h] = highest[h];
    }
    PLUMB_UNROLLED for (int n = 0; n < D / 8; ++n) {
      PLUMB_UNROLLED for (int e = 0; e < 4; ++e) sums_[n][e] = Chip::Mul(sums_[n][e], keep[e / 2]);
    }
    PLUMB_UNROLLED for (int e = 0; e < 4; ++e) weights_[e] = Chip::Mul(weights_[e], keep[e / 2]);
    PLUMB_UNROLLED for (int j = 0; j < kTileKeys / 8; ++j) {
      PLUMB_UNROLLED for (int e = 0; e < 4; ++e) score[j][e] =
          Chip::Exp2(Chip::Sub(score[j][e], reference[e / 2]));
    }
    constexpr unsigned kOnes = 0x3F803F80u;  // two of bfloat16
    PLUMB_UNROLLED for (int k = 0; k < kTileKeys / 16; ++k) {
      // Sums of 16 x 8 lie as the left factor of the next product wants its halves.
      const unsigned a[4] = {Chip::PackPair(score[2 * k][0], score[2 * k][1]),
                             Chip::PackPair(score[2 * k][2], score[2 * k][3]),
                             Chip::PackPair(score[2 * k + 1][0], score[2 * k + 1][1]),
                             Chip::PackPair(score[2 * k + 1][2], score[2 * k + 1][3])};
      PLUMB_UNROLLED for (int n = 0; n < D / 16; ++n) {
        unsigned b[4];
        Chip::LoadBlocksTurned(values + (k * 16 + in_block + second) * kPitch + n * 16 + third, b);
        Chip::MultiplyAdd(sums_[2 * n], a, b[0], b[1]);
        Chip::MultiplyAdd(sums_[2 * n + 1], a, b[2], b[3]);
      }
      Chip::MultiplyAdd(weights_, a, kOnes, kOnes);
    }
  }

  // The split's sums into those of the sequence.
  PLUMB_OF_BLOCK void Fold(float (&total)[D / 8][4], float (&total_sum)[2], float (&total_top)[2]) {
    PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {
      if (top_[h] == kNothing) continue;
      float keep, take;
      FoldFactors<Chip>(total_top[h], top_[h], keep, take);
      total_sum[h] = Folded<Chip>(total_sum[h], keep, weights_[2 * h], take);
      PLUMB_UNROLLED for (int n = 0; n < D / 8; ++n) {
        total[n][2 * h] = Folded<Chip>(total[n][2 * h], keep, sums_[n][2 * h], take);
        total[n][2 * h + 1] = Folded<Chip>(total[n][2 * h + 1], keep, sums_[n][2 * h + 1], take);
      }
    }
  }

  PLUMB_OF_BLOCK void Write(int h, const float (&sums)[D / 8][4], float top, float weights,
                            float* record) const {
    PLUMB_UNROLLED for (int n = 0; n < D / 8; ++n) {
      record[n * 8 + lane_ % 4 * 2] = sums[n][2 * h];
      record[n * 8 + lane_ % 4 * 2 + 1] = sums[n][2 * h + 1];
    }
    if (lane_ % 4 == 0) {
      record[D] = top;
      record[D + 1] = weights;
    }
  }

  const AttentionWork& w_;
  const int32_t kv_head_, piece_;
  BFloat16* const queries_;  // [kRows][kPitch]
  BFloat16* const stages_;   // [2][keys, values][64][kPitch]
  const int thread_, lane_, warp_;
  const int32_t first_, end_;
  // Of the split so far: this thread's part of the sums of its two rows, the weights' (each of the
  // four is the sum of a whole row), their highest scores.
  float sums_[D / 8][4], weights_[4], top_[2];
};

// Columns 2 * pair and the next of one row and head, from the sums of its splits.
template <class Chip, int D>
PLUMB_OF_BLOCK void MergeSplits(const AttentionWork& w, int32_t row, int32_t head, int32_t pair) {
  const int64_t at = int64_t{row} * w.heads + head;
  float total[2] = {0, 0}, sum = 0, top = -INFINITY;
  const int32_t position = w.position[row],
                splits = position / kSplitKeys - FirstSeen(w, position) / kSplitKeys + 1;
  for (int32_t s = 0; s < splits; ++s) {
    const float* record = w.partials + (at * w.most_splits + s) * kRecord<D>;
    if (record[D] == -INFINITY) continue;
    float keep, take;
    FoldFactors<Chip>(top, record[D], keep, take);
    sum = Folded<Chip>(sum, keep, record[D + 1], take);
    total[0] = Folded<Chip>(total[0], keep, record[2 * pair], take);
    total[1] = Folded<Chip>(total[1], keep, record[2 * pair + 1], take);
  }
  if (w.lse && pair == 0) w.lse[int64_t{head} * w.lse_stride + row] = LogSumExp(top, sum);
  Chip::StorePair(w.out + at * D + 2 * pair,
                  Chip::PackPair(Chip::Div(total[0], sum), Chip::Div(total[1], sum)));
}

}  // namespace plumb::kernels

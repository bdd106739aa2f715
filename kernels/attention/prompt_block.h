// What a block of attention does on Hopper for rows that share sequences, as those of prompts and
// of packed batches do (prompt_attention.cu): the rows and sums of attention_block.h, to the last
// bit, by products of four warps.
//
// Purpose: two groups of four warps take 64 rows each, `rows x heads of a KV head`, of a tile of
// 128; a third copies queries and tiles of 64 keys and values ahead of them through a ring. A block
// stays and walks over tiles and KV heads, so that the next tile's numbers arrive while the last
// one's results are written. While one group turns scores into weights, the other's products run.
//
// A score is a chain of steps of 16 over the head, and a sum of values one over keys: steps of the
// tensor cores that add as those of one warp do (docs/benchmarks.md), so that a row that is decoded
// has the bits of a row of a prompt. Weights' sums are taken by the steps of one warp, as there.
//
// Thread safety: of its block. Ownership: none. Units: elements, unless it says bytes; scores are
// in powers of two. Errors: none.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/attention/key_stream.h"

namespace plumb::kernels {

template <class Chip, int D, class Source>
class PromptBlock {
 public:
  static constexpr int kGroups = 2, kRows = kGroupRows * kGroups;
  static constexpr int kThreads = kGroupThreads * (kGroups + 1);
  static constexpr int kStages = D <= 64 ? 6 : 4, kQueryTiles = 2;
  static constexpr int kQueryBytes = LineCopies<Chip, D, kRows>::kBytes;
  static constexpr int kTileBytes = LineCopies<Chip, D, kTileKeys>::kBytes;
  static constexpr int kBytes =
      kQueryTiles * kQueryBytes + kStages * 2 * kTileBytes + 8 * 2 * (kStages + kQueryTiles);

  // Block `block` of `blocks`: its share of all tiles and KV heads. `memory`: kBytes of shared
  // memory from a multiple of 1,024 bytes on.
  static PLUMB_OF_BLOCK void Run(const Source& source, int32_t block, int32_t blocks,
                                 unsigned char* memory) {
    PromptBlock self(source, block, blocks, memory);
    if (Chip::Thread() == 0) {
      for (int i = 0; i < kStages; ++i) {
        Chip::InitBarrier(self.full_ + i, kGroupThreads);
        Chip::InitBarrier(self.empty_ + i, kGroups * 4);
      }
      for (int i = 0; i < kQueryTiles; ++i) {
        Chip::InitBarrier(self.full_queries_ + i, kGroupThreads);
        Chip::InitBarrier(self.empty_queries_ + i, kGroups * 4);
      }
    }
    Chip::SyncBlock();
    if (Chip::Group() == kGroups) {
      Chip::template GiveRegisters<40>();
      self.Load();
    } else {
      Chip::template TakeRegisters<232>();
      self.Attend();
    }
  }

 private:
  static constexpr float kNothing = -INFINITY;
  using Sequence = typename Source::Sequence;

  PLUMB_OF_BLOCK PromptBlock(const Source& source, int32_t block, int32_t blocks,
                             unsigned char* memory)
      : source_(source),
        block_(block),
        blocks_(blocks),
        kv_heads_(source.heads() / source.group()),
        tiles_((source.end() - source.begin() + source.rows_a_tile() - 1) / source.rows_a_tile()),
        queries_(memory),
        stages_(memory + kQueryTiles * kQueryBytes),
        full_(reinterpret_cast<uint64_t*>(stages_ + kStages * 2 * kTileBytes)),
        empty_(full_ + kStages),
        full_queries_(empty_ + kStages),
        empty_queries_(full_queries_ + kQueryTiles) {}

  // Tiles of the last rows, which see most, come first.
  PLUMB_OF_BLOCK int32_t TileOf(int32_t item) const { return tiles_ - 1 - item / kv_heads_; }

  PLUMB_OF_BLOCK void Load() {
    KeyRingPlace<kStages> at;
    KeyRingPlace<kQueryTiles> queries;
    for (int32_t item = block_; item < tiles_ * kv_heads_; item += blocks_) {
      const int32_t kv_head = item % kv_heads_;
      const RowTile<Chip, Source> rows(source_, TileOf(item));
      const TileLoader<Chip, D, Source> loader(source_, kv_head);
      Chip::Wait(empty_queries_ + queries.stage, queries.parity ^ 1);
      loader.template Rows<kRows>(
          rows, kv_head, queries_ + queries.stage * kQueryBytes,
          [&](int32_t row, int32_t head) { return source_.Query(row, head, D); });
      Chip::ArriveWithCopies(full_queries_ + queries.stage);
      queries.Next();
      for (int32_t a = rows.first; a < rows.end;) {
        const int32_t b = rows.EndOf(a);
        const Sequence sequence = source_.SequenceOfRow(a);
        const int32_t low = source_.First(source_.Place(sequence, a)),
                      high = source_.Place(sequence, b - 1);
        auto found = loader.Find(sequence, low / kTileKeys, low, high);
        for (int32_t tile = low / kTileKeys; tile <= high / kTileKeys; ++tile) {
          const auto next = loader.Find(sequence, tile + 1, low, high);
          Chip::Wait(empty_ + at.stage, at.parity ^ 1);
          unsigned char* keys = stages_ + at.stage * 2 * kTileBytes;
          loader.Keys(found, keys, keys + kTileBytes);
          Chip::ArriveWithCopies(full_ + at.stage);
          at.Next();
          found = next;
        }
        a = b;
      }
    }
  }

  PLUMB_OF_BLOCK void Attend() {
    const int thread = Chip::Thread(), group = Chip::Group();
    KeyRingPlace<kQueryTiles> queries;
    for (int32_t item = block_; item < tiles_ * kv_heads_; item += blocks_) {
      const int32_t kv_head = item % kv_heads_, heads = source_.group();
      const RowTile<Chip, Source> rows(source_, TileOf(item));
      // This thread's rows are lane / 4 and 8 further down in its warp's 16.
      PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {
        const int packed = group * kGroupRows + thread % 128 / 32 * 16 + thread % 32 / 4 + 8 * h;
        row_[h] = packed < source_.rows_a_tile() * heads ? rows.first + packed / heads : rows.end;
        head_[h] = kv_head * heads + packed % heads;
      }
      first_ = rows.first + group * kGroupRows / heads;
      end_ = rows.first + (group * kGroupRows + kGroupRows - 1) / heads + 1;
      query_tile_ = Chip::Address(queries_ + queries.stage * kQueryBytes);
      Chip::Wait(full_queries_ + queries.stage, queries.parity);
      for (int32_t a = rows.first; a < rows.end;) {
        const int32_t b = rows.EndOf(a);
        Segment(a, b, group);
        a = b;
      }
      Release(empty_queries_ + queries.stage);
      queries.Next();
    }
  }

  PLUMB_OF_BLOCK void Release(uint64_t* barrier) {
    if (Chip::Thread() % 32 == 0) Chip::Arrive(barrier);
  }

  // The stage that comes next is there, for the tensor cores, too.
  PLUMB_OF_BLOCK uint32_t Arrived() {
    Chip::Wait(full_ + at_.stage, at_.parity);
    Chip::ShowCopies();
    return Chip::Address(stages_ + at_.stage * 2 * kTileBytes);
  }
  PLUMB_OF_BLOCK void Pass() {
    Chip::Wait(full_ + at_.stage, at_.parity);
    Release(empty_ + at_.stage);
    at_.Next();
  }

  // Rows [a, b) of the tile, of one sequence.
  PLUMB_OF_BLOCK void Segment(int32_t a, int32_t b, int group) {
    const Sequence sequence = source_.SequenceOfRow(a);
    const int32_t first = source_.First(source_.Place(sequence, a)) / kTileKeys,
                  last = source_.Place(sequence, b - 1) / kTileKeys;
    bool mine[2];
    int32_t from[2], to[2];  // keys that are seen: [from, to]
    PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {
      mine[h] = row_[h] >= a && row_[h] < b;
      const int32_t place = mine[h] ? source_.Place(sequence, row_[h]) : -1;
      from[h] = mine[h] ? source_.First(place) : 1;
      to[h] = place;
    }
    // What any row of the group sees, and what all of them see; positions ascend.
    const int32_t own_a = first_ > a ? first_ : a, own_b = end_ < b ? end_ : b;
    const bool any = own_a < own_b;
    const int32_t place_a = any ? source_.Place(sequence, own_a) : 0,
                  place_b = any ? source_.Place(sequence, own_b - 1) : 0,
                  low = any ? source_.First(place_a) / kTileKeys : last + 1,
                  high = any ? place_b / kTileKeys : last, all_from = source_.First(place_b),
                  all_to = place_a;
    for (int32_t tile = first; tile < low; ++tile) Pass();
    if (any) {
      float total[D / 2], total_sum[2], total_top[2];
      Tiles(group, low, high, from, to, all_from, all_to, total, total_sum, total_top);
      Write(mine, total, total_sum, total_top);
    }
    for (int32_t tile = high + 1; tile <= last; ++tile) Pass();
  }

  PLUMB_OF_BLOCK void Tiles(int group, int32_t low, int32_t high, const int32_t (&from)[2],
                            const int32_t (&to)[2], int32_t all_from, int32_t all_to,
                            float (&total)[D / 2], float (&total_sum)[2], float (&total_top)[2]) {
    float sums[D / 2], score[32], weights[4] = {0, 0, 0, 0}, top[2], keep[2], take[2], rescale[2];
    unsigned factors[16];
    bool begins = true;
    PLUMB_UNROLLED for (int i = 0; i < D / 2; ++i) total[i] = sums[i] = 0;
    PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {
      total_sum[h] = 0;
      total_top[h] = top[h] = kNothing;
    }
    // The split so far is folded, but for its values.
    const auto end_split = [&] {
      PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {
        keep[h] = 1;
        take[h] = 0;
        if (top[h] != kNothing) FoldFactors<Chip>(total_top[h], top[h], keep[h], take[h]);
        total_sum[h] = Folded<Chip>(total_sum[h], keep[h], weights[2 * h], take[h]);
        top[h] = kNothing;
      }
      PLUMB_UNROLLED for (int i = 0; i < 4; ++i) weights[i] = 0;
    };
    // The scores of a tile become weights; values of the tile before may be on their way to `sums`.
    const auto weigh = [&](int32_t tile) {
      begins = tile % kSplitTiles == 0 || tile == low;
      if (begins) end_split();
      const int32_t start = tile * kTileKeys;
      if (start >= all_from && start + kTileKeys - 1 <= all_to)
        Weigh<false>(score, start, from, to, top, rescale);
      else Weigh<true>(score, start, from, to, top, rescale);
    };
    const auto fold = [&] {
      PLUMB_UNROLLED for (int i = 0; i < D / 2; ++i) {
        const int h = i / 2 % 2;
        total[i] = Folded<Chip>(total[i], keep[h], sums[i], take[h]);
      }
    };
    // What `sums` hold counts as the weights do that are to be added; where a split begins
    // `rescale` is 0. (In one way for both, or the compiler copies what products write to.)
    const auto prepare = [&] {
      if (begins) fold();
      PLUMB_UNROLLED for (int i = 0; i < D / 2; ++i) {
        sums[i] = Chip::Mul(sums[i], rescale[i / 2 % 2]);
      }
      PackFactors<Chip>(score, factors);
      PLUMB_UNROLLED for (int i = 0; i < 4; ++i) weights[i] = Chip::Mul(weights[i], rescale[i / 2]);
      constexpr unsigned kOnes = 0x3F803F80u;  // two of bfloat16
      PLUMB_UNROLLED for (int k = 0; k < kTileKeys / 16; ++k) {
        Chip::MultiplyAdd(weights, factors + 4 * k, kOnes, kOnes);
      }
      Chip::EndProducts(sums);
      Chip::EndProducts(factors);
    };
    const auto finish = [&] {
      Chip::template WaitProducts<0>();
      Chip::EndProducts(sums);
      Chip::EndProducts(factors);
    };

    uint32_t stage = Arrived();
    Chip::BeginProducts();
    MultiplyTiles<Chip, D, kRows>(score, query_tile_, group * kGroupRows, stage);
    Chip::CommitProducts();
    Chip::template WaitProducts<0>();
    Chip::EndProducts(score);
    weigh(low);
    // Products are never under way where the loop begins again: their registers would be copied.
    for (int32_t tile = low; tile < high; ++tile) {
      prepare();
      const uint32_t values = stage + kTileBytes;
      const int held = at_.stage;
      at_.Next();
      stage = Arrived();
      Chip::EndProducts(score);
      Chip::BeginProducts();
      MultiplyTiles<Chip, D, kRows>(score, query_tile_, group * kGroupRows, stage);
      Chip::CommitProducts();
      MultiplyLines<Chip, D>(sums, factors, values);
      Chip::CommitProducts();
      Chip::template WaitProducts<1>();
      Chip::EndProducts(score);
      weigh(tile + 1);
      finish();
      Release(empty_ + held);
    }
    prepare();
    Chip::BeginProducts();
    MultiplyLines<Chip, D>(sums, factors, stage + kTileBytes);
    Chip::CommitProducts();
    finish();
    Release(empty_ + at_.stage);
    at_.Next();
    end_split();
    fold();
  }

  // Scores of the tile that begins at position `start` become weights, measured against the
  // highest of the split so far; `rescale` is what makes earlier sums of the split measured so.
  template <bool Masked>
  PLUMB_OF_BLOCK void Weigh(float (&score)[32], int32_t start, const int32_t (&from)[2],
                            const int32_t (&to)[2], float (&top)[2], float (&rescale)[2]) const {
    float highest[2] = {top[0], top[1]}, reference[2];
    PLUMB_UNROLLED for (int i = 0; i < 32; ++i) {
      const int h = i / 2 % 2;
      score[i] = Chip::Mul(score[i], source_.scale());
      if constexpr (Masked) {
        const int32_t key = start + i / 4 * 8 + Chip::Thread() % 4 * 2 + i % 2;
        if (key < from[h] || key > to[h]) score[i] = kNothing;
      }
      highest[h] = Chip::Max(highest[h], score[i]);
    }
    PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {  // the four lanes of a row
      highest[h] = Chip::Max(highest[h], Chip::ShuffleXor(highest[h], 1));
      highest[h] = Chip::Max(highest[h], Chip::ShuffleXor(highest[h], 2));
      reference[h] = highest[h] == kNothing ? 0.0f : highest[h];
      rescale[h] = Chip::Exp2(Chip::Sub(top[h], reference[h]));
      top[h] = highest[h];
    }
    PLUMB_UNROLLED for (int i = 0; i < 32; ++i) {
      score[i] = Chip::Exp2(Chip::Sub(score[i], reference[i / 2 % 2]));
    }
  }

  PLUMB_OF_BLOCK void Write(const bool (&mine)[2], const float (&total)[D / 2],
                            const float (&total_sum)[2], const float (&total_top)[2]) const {
    PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {
      const int64_t at = (int64_t{row_[h]} * source_.heads() + head_[h]) * D;
      if (mine[h] && source_.lse() && Chip::Thread() % 4 == 0)
        source_.lse()[head_[h] * source_.lse_stride() + row_[h]] =
            LogSumExp(total_top[h], total_sum[h]);
      StoreRow<Chip, D>(mine[h] ? source_.out() + at : nullptr, [&](int n) {
        return Chip::PackPair(Chip::Div(total[4 * n + 2 * h], total_sum[h]),
                              Chip::Div(total[4 * n + 2 * h + 1], total_sum[h]));
      });
    }
  }

  const Source& source_;
  const int32_t block_, blocks_, kv_heads_, tiles_;
  unsigned char* const queries_;  // [kQueryTiles][kRows lines]
  unsigned char* const stages_;   // [kStages][keys, values][64 lines]
  uint64_t *const full_, *const empty_, *const full_queries_, *const empty_queries_;
  // Of a group that attends: where it is in the ring, and its rows of the tile that it is at.
  KeyRingPlace<kStages> at_;
  int32_t row_[2], head_[2], first_ = 0, end_ = 0;
  uint32_t query_tile_ = 0;
};

}  // namespace plumb::kernels

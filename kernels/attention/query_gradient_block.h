// What a block of packed attention's backward does for queries: their gradients, and for the other
// block dout . out of each row (packed_attention.cu).
//
// Purpose: two groups of four warps take 64 rows each of a tile of 128, `tokens x heads of a KV
// head`; a third copies queries, their outputs' gradients and tiles of 64 keys and values ahead of
// them. Scores are computed again; with the log-sum-exp of the forward they are weights p at once:
//   ds = p (dout V^T - dout . out)      dq = scale ds K
// ds is rounded to bfloat16 before it multiplies the keys. Sums run over keys in ascending order.
//
// Thread safety: of its block. Ownership: none. Units: elements, unless it says bytes. Errors:
// none.
#pragma once

#include <cstdint>

#include "kernels/attention/gradient_work.h"

namespace plumb::kernels {

template <class Chip, int D>
class QueryGradientBlock {
 public:
  static constexpr int kGroups = 2, kRows = kGroupRows * kGroups;
  static constexpr int kThreads = kGroupThreads * (kGroups + 1);
  static constexpr int kStages = D <= 64 ? 4 : 3, kRowTiles = 2;
  static constexpr int kRowBytes = LineCopies<Chip, D, kRows>::kBytes;  // of queries, or of dout
  static constexpr int kTileBytes = LineCopies<Chip, D, kTileKeys>::kBytes;
  static constexpr int kBytes =
      kRowTiles * 2 * kRowBytes + kStages * 2 * kTileBytes + 8 * 2 * (kStages + kRowTiles);

  // As PromptBlock's.
  static PLUMB_OF_BLOCK void Run(const GradientWork& work, int32_t block, int32_t blocks,
                                 unsigned char* memory) {
    QueryGradientBlock self(work, block, blocks, memory);
    if (Chip::Thread() == 0) {
      for (int i = 0; i < kStages; ++i) {
        Chip::InitBarrier(self.full_ + i, kGroupThreads);
        Chip::InitBarrier(self.empty_ + i, kGroups * 4);
      }
      for (int i = 0; i < kRowTiles; ++i) {
        Chip::InitBarrier(self.full_rows_ + i, kGroupThreads);
        Chip::InitBarrier(self.empty_rows_ + i, kGroups * 4);
      }
    }
    Chip::SyncBlock();
    if (Chip::Group() == kGroups) {
      Chip::template GiveRegisters<56>();
      self.Load();
    } else {
      Chip::template TakeRegisters<224>();
      self.Compute();
    }
  }

 private:
  using Rows = RowTile<Chip, PackedSource>;
  using Sequence = PackedSource::Sequence;

  PLUMB_OF_BLOCK QueryGradientBlock(const GradientWork& work, int32_t block, int32_t blocks,
                                    unsigned char* memory)
      : w_(work),
        p_(work.p),
        block_(block),
        blocks_(blocks),
        tiles_((p_.tokens + p_.rows - 1) / p_.rows),
        rows_(memory),
        stages_(memory + kRowTiles * 2 * kRowBytes),
        full_(reinterpret_cast<uint64_t*>(stages_ + kStages * 2 * kTileBytes)),
        empty_(full_ + kStages),
        full_rows_(empty_ + kStages),
        empty_rows_(full_rows_ + kRowTiles) {}

  PLUMB_OF_BLOCK int32_t TileOf(int32_t item) const { return tiles_ - 1 - item / p_.kv_heads; }

  PLUMB_OF_BLOCK const BFloat16* Dout(int32_t row, int32_t head) const {
    return w_.dout + (int64_t{row} * p_.query_heads + head) * D;
  }

  PLUMB_OF_BLOCK void Load() {
    KeyRingPlace<kStages> at;
    KeyRingPlace<kRowTiles> tile_at;
    for (int32_t item = block_; item < tiles_ * p_.kv_heads; item += blocks_) {
      const int32_t kv_head = item % p_.kv_heads;
      const Rows rows(p_, TileOf(item));
      const TileLoader<Chip, D, PackedSource> loader(p_, kv_head);
      Chip::Wait(empty_rows_ + tile_at.stage, tile_at.parity ^ 1);
      unsigned char* to = rows_ + tile_at.stage * 2 * kRowBytes;
      loader.template Rows<kRows>(
          rows, kv_head, to, [&](int32_t row, int32_t head) { return p_.Query(row, head, D); });
      loader.template Rows<kRows>(rows, kv_head, to + kRowBytes,
                                  [&](int32_t row, int32_t head) { return Dout(row, head); });
      Chip::ArriveWithCopies(full_rows_ + tile_at.stage);
      tile_at.Next();
      for (int32_t a = rows.first; a < rows.end;) {
        const int32_t b = rows.EndOf(a);
        const Sequence sequence = p_.SequenceOfRow(a);
        const int32_t low = p_.First(p_.Place(sequence, a)), high = p_.Place(sequence, b - 1);
        for (int32_t tile = low / kTileKeys; tile <= high / kTileKeys; ++tile) {
          const auto found = loader.Find(sequence, tile, low, high);
          Chip::Wait(empty_ + at.stage, at.parity ^ 1);
          unsigned char* keys = stages_ + at.stage * 2 * kTileBytes;
          loader.Keys(found, keys, keys + kTileBytes);
          Chip::ArriveWithCopies(full_ + at.stage);
          at.Next();
        }
        a = b;
      }
    }
  }

  PLUMB_OF_BLOCK void Compute() {
    const int thread = Chip::Thread(), group = Chip::Group();
    const int32_t heads = p_.group();
    KeyRingPlace<kRowTiles> tile_at;
    for (int32_t item = block_; item < tiles_ * p_.kv_heads; item += blocks_) {
      const int32_t kv_head = item % p_.kv_heads;
      const Rows rows(p_, TileOf(item));
      PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {
        const int packed = group * kGroupRows + thread % 128 / 32 * 16 + thread % 32 / 4 + 8 * h;
        const int32_t row = rows.first + packed / heads;
        const bool there = packed < p_.rows * heads && row < rows.end;
        row_[h] = there ? row : rows.end;
        head_[h] = kv_head * heads + packed % heads;
        float sum = 0;
        if (there) sum = RowSum(row, head_[h]);
        sum += Chip::ShuffleXor(sum, 1);
        sum += Chip::ShuffleXor(sum, 2);
        delta_[h] = sum;
        const int64_t at = int64_t{head_[h]} * p_.tokens + row;
        lse_[h] = there ? Chip::Mul(p_.sums[at], -kLog2E) : 0;
        if (there && thread % 4 == 0) w_.delta[at] = sum;
      }
      first_ = rows.first + group * kGroupRows / heads;
      end_ = rows.first + (group * kGroupRows + kGroupRows - 1) / heads + 1;
      query_tile_ = Chip::Address(rows_ + tile_at.stage * 2 * kRowBytes);
      Chip::Wait(full_rows_ + tile_at.stage, tile_at.parity);
      for (int32_t a = rows.first; a < rows.end;) {
        const int32_t b = rows.EndOf(a);
        Segment(a, b, group);
        a = b;
      }
      Release(empty_rows_ + tile_at.stage);
      tile_at.Next();
    }
  }

  // This thread's part of dout . out of a row, which four threads share.
  PLUMB_OF_BLOCK float RowSum(int32_t row, int32_t head) const {
    const int64_t at = (int64_t{row} * p_.query_heads + head) * D;
    float sum = 0;
    PLUMB_UNROLLED for (int n = 0; n < D / 32; ++n) {
      const int64_t from = at + (Chip::Thread() % 4 + 4 * n) * 8;
      unsigned x[4], y[4];
      Chip::LoadWords(w_.dout + from, x);
      Chip::LoadWords(w_.out + from, y);
      PLUMB_UNROLLED for (int i = 0; i < 4; ++i) {
        sum = Chip::MulAdd(Low(x[i]), Low(y[i]), sum);
        sum = Chip::MulAdd(High(x[i]), High(y[i]), sum);
      }
    }
    return sum;
  }
  static PLUMB_OF_BLOCK float Low(unsigned pair) {
    return ToFloat(BFloat16{static_cast<uint16_t>(pair)});
  }
  static PLUMB_OF_BLOCK float High(unsigned pair) {
    return ToFloat(BFloat16{static_cast<uint16_t>(pair >> 16)});
  }

  PLUMB_OF_BLOCK void Release(uint64_t* barrier) {
    if (Chip::Thread() % 32 == 0) Chip::Arrive(barrier);
  }
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

  // Rows [a, b) of the tile, of one sequence: as PromptBlock's.
  PLUMB_OF_BLOCK void Segment(int32_t a, int32_t b, int group) {
    const Sequence sequence = p_.SequenceOfRow(a);
    const int32_t first = p_.First(p_.Place(sequence, a)) / kTileKeys,
                  last = p_.Place(sequence, b - 1) / kTileKeys;
    int32_t token[2], from[2], to[2];
    PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {
      const bool mine = row_[h] >= a && row_[h] < b;
      const int32_t place = mine ? p_.Place(sequence, row_[h]) : -1;
      token[h] = mine ? row_[h] : -1;
      from[h] = mine ? p_.First(place) : 1;
      to[h] = place;
    }
    const int32_t own_a = first_ > a ? first_ : a, own_b = end_ < b ? end_ : b;
    const bool any = own_a < own_b;
    const int32_t place_a = p_.Place(sequence, own_a), place_b = p_.Place(sequence, own_b - 1),
                  low = any ? p_.First(place_a) / kTileKeys : last + 1,
                  high = any ? place_b / kTileKeys : last, all_from = p_.First(place_b);
    for (int32_t tile = first; tile < low; ++tile) Pass();
    if (any) {
      float dq[D / 2];
      Tiles(group, low, high, from, to, all_from, place_a, dq);
      StoreGradient<Chip, D>(w_, token, head_, true, w_.scale, dq);
    }
    for (int32_t tile = high + 1; tile <= last; ++tile) Pass();
  }

  PLUMB_OF_BLOCK void Tiles(int group, int32_t low, int32_t high, const int32_t (&from)[2],
                            const int32_t (&to)[2], int32_t all_from, int32_t all_to,
                            float (&dq)[D / 2]) {
    float score[32], dp[32];
    unsigned factors[16];
    PLUMB_UNROLLED for (int i = 0; i < D / 2; ++i) dq[i] = 0;
    const int row = group * kGroupRows;
    const auto multiply = [&](uint32_t stage) {
      MultiplyTiles<Chip, D, kRows>(score, query_tile_, row, stage);
      MultiplyTiles<Chip, D, kRows>(dp, query_tile_ + kRowBytes, row, stage + kTileBytes);
      Chip::CommitProducts();
    };
    const auto weigh = [&](int32_t tile) {
      const int32_t start = tile * kTileKeys;
      if (start >= all_from && start + kTileKeys - 1 <= all_to)
        Weigh<false>(score, dp, start, from, to);
      else Weigh<true>(score, dp, start, from, to);
    };
    uint32_t stage = Arrived();
    Chip::BeginProducts();
    multiply(stage);
    Chip::template WaitProducts<0>();
    Chip::EndProducts(score);
    Chip::EndProducts(dp);
    weigh(low);
    PackFactors<Chip>(score, factors);
    for (int32_t tile = low; tile < high; ++tile) {
      const uint32_t keys = stage;
      const int held = at_.stage;
      at_.Next();
      stage = Arrived();
      Chip::EndProducts(score);
      Chip::EndProducts(dp);
      Chip::EndProducts(dq);
      Chip::EndProducts(factors);
      Chip::BeginProducts();
      multiply(stage);
      MultiplyLines<Chip, D>(dq, factors, keys);
      Chip::CommitProducts();
      Chip::template WaitProducts<1>();
      Chip::EndProducts(score);
      Chip::EndProducts(dp);
      weigh(tile + 1);
      Chip::template WaitProducts<0>();
      Chip::EndProducts(dq);
      Chip::EndProducts(factors);
      Release(empty_ + held);
      PackFactors<Chip>(score, factors);
    }
    Chip::EndProducts(dq);
    Chip::EndProducts(factors);
    Chip::BeginProducts();
    MultiplyLines<Chip, D>(dq, factors, stage);
    Chip::CommitProducts();
    Chip::template WaitProducts<0>();
    Chip::EndProducts(dq);
    Chip::EndProducts(factors);
    Release(empty_ + at_.stage);
    at_.Next();
  }

  // Scores become ds.
  template <bool Masked>
  PLUMB_OF_BLOCK void Weigh(float (&score)[32], const float (&dp)[32], int32_t start,
                            const int32_t (&from)[2], const int32_t (&to)[2]) const {
    PLUMB_UNROLLED for (int i = 0; i < 32; ++i) {
      const int h = i / 2 % 2;
      float p = Chip::Exp2(Chip::MulAdd(score[i], p_.powers, lse_[h]));
      if constexpr (Masked) {
        const int32_t key = start + i / 4 * 8 + Chip::Thread() % 4 * 2 + i % 2;
        if (key < from[h] || key > to[h]) p = 0;
      }
      score[i] = Chip::Mul(p, Chip::Sub(dp[i], delta_[h]));
    }
  }

  const GradientWork& w_;
  const PackedSource& p_;
  const int32_t block_, blocks_, tiles_;
  unsigned char* const rows_;    // [kRowTiles][queries, dout][kRows lines]
  unsigned char* const stages_;  // [kStages][keys, values][64 lines]
  uint64_t *const full_, *const empty_, *const full_rows_, *const empty_rows_;
  KeyRingPlace<kStages> at_;
  int32_t row_[2], head_[2], first_ = 0, end_ = 0;
  float delta_[2], lse_[2];  // of this thread's rows: dout . out, -log2 of the weights' sum
  uint32_t query_tile_ = 0;
};

}  // namespace plumb::kernels

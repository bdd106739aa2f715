// What a block of packed attention's backward does for keys and values: their gradients, summed
// over all queries that see them and all query heads of their KV head (packed_attention.cu).
//
// Purpose: a block takes a tile of 64 keys at a time and holds the sums of both gradients in
// registers until the last query has been added, so that each is written once. Tiles of 64 queries
// of one head come through a ring, which one group of threads fills; two groups of four warps take
// them in turns, each with sums of its own, which are added at the end: the first group's, then the
// second's. With queries as columns, scores and their gradients lie as the left factors of the next
// products want them:
//   p^T = 2^(K Q^T - lse)   dv = p^T dout     ds^T = p^T (V dout^T - dout . out)   dk = scale ds^T
//   Q
// p and ds are rounded to bfloat16 before they multiply. A group's sums run over queries in
// ascending order, heads within a tile of them: fixed by the batch alone.
//
// Thread safety: of its block. Ownership: none. Units: elements, unless it says bytes. Errors:
// none.
#pragma once

#include <cstdint>

#include "kernels/attention/gradient_work.h"

namespace plumb::kernels {

template <class Chip, int D>
class KeyGradientBlock {
 public:
  static constexpr int kGroups = 2, kThreads = kGroupThreads * (kGroups + 1);
  // Even: within a tile of keys a stage is always of one group.
  static constexpr int kStages = D <= 64 ? 6 : 4, kKeyTiles = 2;
  static constexpr int kTileBytes = LineCopies<Chip, D, kTileKeys>::kBytes;
  static constexpr int kBytes = (kKeyTiles + kStages) * 2 * kTileBytes +
                                kStages * 2 * kTileKeys * 4 + 8 * 2 * (kStages + kKeyTiles);

  // Block `block` of `blocks`: its share of all tiles and KV heads, those with most work first, in
  // turns from both ends. `memory`: kBytes of shared memory from a multiple of 1,024 bytes on.
  static PLUMB_OF_BLOCK void Run(const GradientWork& work, int32_t block, int32_t blocks,
                                 unsigned char* memory) {
    KeyGradientBlock self(work, block, blocks, memory);
    if (Chip::Thread() == 0) {
      for (int i = 0; i < kStages; ++i) {
        Chip::InitBarrier(self.full_ + i, kGroupThreads);
        Chip::InitBarrier(self.empty_ + i, 4);
      }
      for (int i = 0; i < kKeyTiles; ++i) {
        Chip::InitBarrier(self.full_keys_ + i, kGroupThreads);
        Chip::InitBarrier(self.empty_keys_ + i, kGroups * 4);
      }
    }
    Chip::SyncBlock();
    if (Chip::Group() == kGroups) {
      Chip::template GiveRegisters<40>();
      self.Load();
    } else {
      Chip::template TakeRegisters<232>();
      self.Compute();
    }
  }

 private:
  using Copies = LineCopies<Chip, D, kTileKeys>;

  PLUMB_OF_BLOCK KeyGradientBlock(const GradientWork& work, int32_t block, int32_t blocks,
                                  unsigned char* memory)
      : w_(work),
        p_(work.p),
        block_(block),
        blocks_(blocks),
        keys_(memory),
        stages_(memory + kKeyTiles * 2 * kTileBytes),
        sums_(reinterpret_cast<float*>(stages_ + kStages * 2 * kTileBytes)),
        full_(reinterpret_cast<uint64_t*>(sums_ + kStages * 2 * kTileKeys)),
        empty_(full_ + kStages),
        full_keys_(empty_ + kStages),
        empty_keys_(full_keys_ + kKeyTiles) {}

  // The block's `turn`th tile and KV head.
  PLUMB_OF_BLOCK int32_t ItemOf(int32_t turn) const {
    return turn * blocks_ + (turn % 2 == 0 ? block_ : blocks_ - 1 - block_);
  }
  PLUMB_OF_BLOCK int32_t Items() const { return w_.tile_slots * p_.kv_heads; }

  // Calls body(range, first token, head) for the tiles of queries of a tile of keys.
  template <class Body>
  PLUMB_OF_BLOCK void ForQueries(const KeyTile& tile, int32_t kv_head, const Body& body) const {
    const int32_t group = p_.group(), ranges = QueryRanges(p_, tile);
    for (int32_t r = 0; r < ranges; ++r) {
      const QueryRange range = QueryRangeAt(p_, tile, r);
      for (int32_t t = range.begin; t < range.end; t += kTileKeys) {
        for (int32_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
          body(range, t, head);
      }
    }
  }

  // 64 lines from token `token` on, zeros from `end` on.
  PLUMB_OF_BLOCK void CopyLines(const BFloat16* from, int64_t stride, int32_t token, int32_t end,
                                unsigned char* to) const {
    const int thread = Chip::Thread() % kGroupThreads;
    PLUMB_UNROLLED_BY_4 for (int n = 0; n < Copies::kEach; ++n) {
      const int32_t t = token + Copies::Line(thread, n);
      const bool there = t < end;
      Chip::CopyAsync(to + Copies::To(thread, n),
                      from + (there ? t * stride : 0) + Copies::Element(thread), there);
    }
  }

  PLUMB_OF_BLOCK void Load() {
    const int thread = Chip::Thread() % kGroupThreads;
    const int64_t width = p_.width(D), dout_width = int64_t{p_.query_heads} * D;
    KeyRingPlace<kStages> at;
    KeyRingPlace<kKeyTiles> tile_at;
    for (int32_t turn = 0; turn * blocks_ < Items(); ++turn) {
      const int32_t item = ItemOf(turn);
      if (item >= Items()) continue;
      const KeyTile tile = w_.tiles[item / p_.kv_heads];
      if (tile.begin == tile.end) continue;
      const int32_t kv_head = item % p_.kv_heads;
      const BFloat16* keys = p_.Keys(kv_head, D);
      Chip::Wait(empty_keys_ + tile_at.stage, tile_at.parity ^ 1);
      unsigned char* to = keys_ + tile_at.stage * 2 * kTileBytes;
      CopyLines(keys, width, tile.begin, tile.end, to);
      CopyLines(keys + p_.to_values(D), width, tile.begin, tile.end, to + kTileBytes);
      Chip::ArriveWithCopies(full_keys_ + tile_at.stage);
      tile_at.Next();
      ForQueries(tile, kv_head, [&](const QueryRange& range, int32_t t, int32_t head) {
        Chip::Wait(empty_ + at.stage, at.parity ^ 1);
        unsigned char* stage = stages_ + at.stage * 2 * kTileBytes;
        CopyLines(p_.qkv + int64_t{head} * D, width, t, range.end, stage);
        CopyLines(w_.dout + int64_t{head} * D, dout_width, t, range.end, stage + kTileBytes);
        // The log-sum-exp of 64 queries and their dout . out behind it.
        const int column = thread % kTileKeys;
        const bool there = t + column < range.end;
        const float* sums = thread < kTileKeys ? p_.sums : w_.delta;
        Chip::CopyWordAsync(sums_ + at.stage * 2 * kTileKeys + thread,
                            sums + (there ? int64_t{head} * p_.tokens + t + column : 0), there);
        Chip::ArriveWithCopies(full_ + at.stage);
        at.Next();
      });
    }
  }

  PLUMB_OF_BLOCK void Release(uint64_t* barrier) {
    if (Chip::Thread() % 32 == 0) Chip::Arrive(barrier);
  }

  PLUMB_OF_BLOCK void Compute() {
    const int thread = Chip::Thread(), group = Chip::Group(),
              row = thread % 128 / 32 * 16 + thread % 32 / 4;
    KeyRingPlace<kStages> at;
    KeyRingPlace<kKeyTiles> tile_at;
    for (int32_t turn = 0; turn * blocks_ < Items(); ++turn) {
      const int32_t item = ItemOf(turn);
      if (item >= Items()) continue;
      const KeyTile tile = w_.tiles[item / p_.kv_heads];
      if (tile.begin == tile.end) continue;
      const int32_t kv_head = item % p_.kv_heads, shift = KeyShift(p_, tile);
      float dk[D / 2], dv[D / 2];
      PLUMB_UNROLLED for (int i = 0; i < D / 2; ++i) dk[i] = dv[i] = 0;
      unsigned char* memory = keys_ + tile_at.stage * 2 * kTileBytes;
      const uint32_t keys = Chip::Address(memory);
      Chip::Wait(full_keys_ + tile_at.stage, tile_at.parity);
      int next = 0;
      ForQueries(tile, kv_head, [&](const QueryRange& range, int32_t t, int32_t) {
        if (next == group) {
          Chip::Wait(full_ + at.stage, at.parity);
          Chip::ShowCopies();
          // How many places each query is behind each key.
          const int32_t between = t + range.shift - tile.begin - shift;
          Add(keys, Chip::Address(stages_ + at.stage * 2 * kTileBytes),
              sums_ + at.stage * 2 * kTileKeys, between, between - row, dk, dv);
          Release(empty_ + at.stage);
        }
        next = 1 - next;
        at.Next();
      });
      // Both groups have read the keys: each gives the other one of its sums where they lay.
      auto* shared = reinterpret_cast<float*>(memory);
      Chip::SyncSome(1, kGroups * kGroupThreads);
      if (group == 0) Put(dk, shared);
      Chip::SyncSome(1, kGroups * kGroupThreads);
      if (group == 1) AddTo<true>(dk, shared);
      Chip::SyncSome(1, kGroups * kGroupThreads);
      if (group == 1) Put(dv, shared);
      Chip::SyncSome(1, kGroups * kGroupThreads);
      if (group == 0) AddTo<false>(dv, shared);
      Release(empty_keys_ + tile_at.stage);
      tile_at.Next();
      int32_t token[2], head[2];
      PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {
        token[h] = tile.begin + row + 8 * h < tile.end ? tile.begin + row + 8 * h : -1;
        head[h] = p_.query_heads + (group == 0 ? p_.kv_heads : 0) + kv_head;
      }
      if (group == 0) StoreGradient<Chip, D>(w_, token, head, false, 1.0f, dv);
      else StoreGradient<Chip, D>(w_, token, head, true, w_.scale, dk);
    }
  }

  // A thread's sums for the one in the same place of the other group.
  PLUMB_OF_BLOCK void Put(const float (&x)[D / 2], float* shared) const {
    PLUMB_UNROLLED for (int n = 0; n < D / 8; ++n) {
      const float four[4] = {x[4 * n], x[4 * n + 1], x[4 * n + 2], x[4 * n + 3]};
      Chip::StoreFour(shared + (n * kGroupThreads + Chip::Thread() % kGroupThreads) * 4, four);
    }
  }
  template <bool Behind>  // what is in `x` comes behind the other group's
  PLUMB_OF_BLOCK void AddTo(float (&x)[D / 2], const float* shared) const {
    PLUMB_UNROLLED for (int n = 0; n < D / 8; ++n) {
      float four[4];
      Chip::LoadFour(shared + (n * kGroupThreads + Chip::Thread() % kGroupThreads) * 4, four);
      PLUMB_UNROLLED for (int i = 0; i < 4; ++i) x[4 * n + i] =
          Behind ? four[i] + x[4 * n + i] : x[4 * n + i] + four[i];
    }
  }

  // What 64 queries of a head add. `between`: how far the first of them is behind the tile's first
  // key; `own`: behind this thread's.
  PLUMB_OF_BLOCK void Add(uint32_t keys, uint32_t queries, const float* sums, int32_t between,
                          int32_t own, float (&dk)[D / 2], float (&dv)[D / 2]) const {
    float score[32], dp[32];
    unsigned weights[16], factors[16];
    Chip::BeginProducts();
    MultiplyTiles<Chip, D, kTileKeys>(score, keys, 0, queries);
    MultiplyTiles<Chip, D, kTileKeys>(dp, keys + kTileBytes, 0, queries + kTileBytes);
    Chip::CommitProducts();
    Chip::template WaitProducts<0>();
    Chip::EndProducts(score);
    Chip::EndProducts(dp);
    if (between >= kTileKeys - 1 && (p_.window == 0 || between + kTileKeys <= p_.window))
      Weigh<false>(score, dp, sums, own);
    else Weigh<true>(score, dp, sums, own);
    PackFactors<Chip>(score, weights);
    PackFactors<Chip>(dp, factors);
    Chip::EndProducts(dk);
    Chip::EndProducts(dv);
    Chip::EndProducts(weights);
    Chip::EndProducts(factors);
    Chip::BeginProducts();
    MultiplyLines<Chip, D>(dv, weights, queries + kTileBytes);
    MultiplyLines<Chip, D>(dk, factors, queries);
    Chip::CommitProducts();
    Chip::template WaitProducts<0>();
    Chip::EndProducts(dk);
    Chip::EndProducts(dv);
    Chip::EndProducts(weights);
    Chip::EndProducts(factors);
  }

  // Scores become weights, and dp becomes ds.
  template <bool Masked>
  PLUMB_OF_BLOCK void Weigh(float (&score)[32], float (&dp)[32], const float* sums,
                            int32_t own) const {
    PLUMB_UNROLLED for (int j = 0; j < 8; ++j) {
      const int column = 8 * j + Chip::Thread() % 4 * 2;
      float lse[2], delta[2];
      Chip::LoadPair(sums + column, lse);
      Chip::LoadPair(sums + kTileKeys + column, delta);
      PLUMB_UNROLLED for (int e = 0; e < 2; ++e) lse[e] = Chip::Mul(lse[e], -kLog2E);
      PLUMB_UNROLLED for (int i = 4 * j; i < 4 * j + 4; ++i) {
        float p = Chip::Exp2(Chip::MulAdd(score[i], p_.powers, lse[i % 2]));
        if constexpr (Masked) {
          const int32_t behind = own - i / 2 % 2 * 8 + column + i % 2;
          if (behind < 0 || (p_.window > 0 && behind >= p_.window)) p = 0;
        }
        score[i] = p;
        dp[i] = Chip::Mul(p, Chip::Sub(dp[i], delta[i % 2]));
      }
    }
  }

  const GradientWork& w_;
  const PackedSource& p_;
  const int32_t block_, blocks_;
  unsigned char* const keys_;    // [kKeyTiles][keys, values][64 lines]
  unsigned char* const stages_;  // [kStages][queries, dout][64 lines]
  float* const sums_;            // [kStages][log-sum-exp, dout . out][64]
  uint64_t *const full_, *const empty_, *const full_keys_, *const empty_keys_;
};

}  // namespace plumb::kernels

// What both blocks of packed attention's backward see (query_gradient_block.h,
// key_gradient_block.h), and how the work on keys is cut into tiles.
//
// A tile of keys is at most 64 tokens of one sequence. The queries that see any of them are the
// sequence's own from there on and those of the sequences that go on from it: one range of tokens,
// or under a window one of each sequence.
//
// Thread safety: values. Ownership: none. Units: tokens. Errors: none.
#pragma once

#include <cstdint>

#include "kernels/attention/key_stream.h"
#include "kernels/attention/packed_attention.h"

namespace plumb::kernels {

inline constexpr float kLog2E = 1.4426950408889634f;

struct alignas(16) KeyTile {
  int32_t begin = 0, end = 0;        // its tokens; none: a place that is left over
  int32_t sequence = 0, behind = 0;  // whose; the first one that does not go on from it
};

struct GradientWork {
  PackedSource p;  // p.sums: the forward's
  const BFloat16* dout = nullptr;
  const BFloat16* out = nullptr;
  float scale = 0;
  TurnTable turn;
  BFloat16* dqkv = nullptr;
  float* delta = nullptr;          // [heads, tokens] dout . out: the first block's, for the other
  const KeyTile* tiles = nullptr;  // those with most queries first
  int32_t tile_slots = 0;
};

inline constexpr int32_t kMostKeySlots = 12 * 1024;  // in shared memory while they are sorted
// Places for all tiles that so many tokens and sequences can have.
inline int64_t KeyTileSlots(int64_t tokens, int64_t sequences) {
  return tokens / kTileKeys + sequences;
}

// The tile of a place. Sequence b's tiles begin at place cu_seqlens[b] / 64 + b: those before it
// have at most so many.
PLUMB_HOST_DEVICE inline KeyTile KeyTileAt(const PackedSource& p, int32_t slot) {
  int32_t low = 0, high = p.sequences;
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    if (p.cu_seqlens[middle] / kTileKeys + middle <= slot) low = middle;
    else high = middle;
  }
  const int32_t end = p.cu_seqlens[low + 1],
                begin =
                    p.cu_seqlens[low] + (slot - p.cu_seqlens[low] / kTileKeys - low) * kTileKeys;
  if (begin >= end) return {};
  int32_t behind = low + 1;
  if (p.parents && p.parents[low] < 0) {
    while (behind < p.sequences && p.parents[behind] == low) ++behind;
  }
  return {begin, begin + kTileKeys < end ? begin + kTileKeys : end, low, behind};
}

// Tokens whose queries may see a tile's keys; `shift` makes their place of a token.
struct QueryRange {
  int32_t begin, end, shift;
};
PLUMB_HOST_DEVICE inline int32_t QueryRanges(const PackedSource& p, const KeyTile& tile) {
  return p.window > 0 ? tile.behind - tile.sequence : 1;
}
PLUMB_HOST_DEVICE inline int32_t KeyShift(const PackedSource& p, const KeyTile& tile) {
  const int32_t parent = p.parents ? p.parents[tile.sequence] : -1,
                base = parent < 0 ? 0 : p.cu_seqlens[parent + 1] - p.cu_seqlens[parent];
  return base - p.cu_seqlens[tile.sequence];
}
PLUMB_HOST_DEVICE inline QueryRange QueryRangeAt(const PackedSource& p, const KeyTile& tile,
                                                 int32_t range) {
  const int32_t shift = KeyShift(p, tile);
  if (p.window == 0) return {tile.begin, p.cu_seqlens[tile.behind], shift};
  const int32_t begin = p.cu_seqlens[tile.sequence + range],
                end = p.cu_seqlens[tile.sequence + range + 1];
  if (range == 0) {
    const int32_t seen = tile.end - 1 + p.window;
    return {tile.begin, seen < end ? seen : end, shift};
  }
  const int32_t before = p.cu_seqlens[tile.sequence + 1] - p.cu_seqlens[tile.sequence],
                seen = begin + tile.end - 1 + shift + p.window - before;
  return {begin, seen < begin ? begin : (seen < end ? seen : end), before - begin};
}
// Tiles of 64 queries.
PLUMB_HOST_DEVICE inline int32_t QueryTiles(const PackedSource& p, const KeyTile& tile) {
  if (tile.begin == tile.end) return 0;
  int32_t tiles = 0;
  for (int32_t r = 0; r < QueryRanges(p, tile); ++r) {
    const QueryRange range = QueryRangeAt(p, tile, r);
    tiles += (range.end - range.begin + kTileKeys - 1) / kTileKeys;
  }
  return tiles;
}

// A row's gradient turned back; this thread's part of row `h` of two, of sums of 64 rows.
template <class Chip, int D>
PLUMB_OF_BLOCK void TurnBack(const TurnTable& turn, int32_t token, int h, float (&x)[D / 2]) {
  if (turn.dims == 0) return;
  const float* cs = turn.cos_sin + int64_t{turn.position[token]} * turn.dims;
  const int own = Chip::Thread() % 4 * 2;
  if (turn.interleaved) {
    PLUMB_UNROLLED for (int n = 0; n < D / 8; ++n) {
      const int column = 8 * n + own;
      if (column >= turn.dims) continue;
      const float c = cs[column / 2], s = cs[turn.dims / 2 + column / 2], a = x[4 * n + 2 * h],
                  b = x[4 * n + 2 * h + 1];
      x[4 * n + 2 * h] = Chip::MulAdd(a, c, Chip::Mul(b, s));
      x[4 * n + 2 * h + 1] = Chip::MulAdd(b, c, -Chip::Mul(a, s));
    }
    return;
  }
  PLUMB_UNROLLED for (int n = 0; n < D / 16; ++n) {
    float c[2], s[2];
    Chip::LoadPair(cs + 8 * n + own, c);
    Chip::LoadPair(cs + D / 2 + 8 * n + own, s);
    PLUMB_UNROLLED for (int e = 0; e < 2; ++e) {
      float &low = x[4 * n + 2 * h + e], &high = x[4 * (n + D / 16) + 2 * h + e];
      const float a = low, b = high;
      low = Chip::MulAdd(a, c[e], Chip::Mul(b, s[e]));
      high = Chip::MulAdd(b, c[e], -Chip::Mul(a, s[e]));
    }
  }
}

// Both rows of a thread to tokens `token`, or nowhere where that is negative, from column `column`
// of the merged rows on.
template <class Chip, int D>
PLUMB_OF_BLOCK void StoreGradient(const GradientWork& w, const int32_t (&token)[2],
                                  const int32_t (&head)[2], bool turned, float scale,
                                  float (&x)[D / 2]) {
  PLUMB_UNROLLED for (int i = 0; i < D / 2; ++i) x[i] = Chip::Mul(x[i], scale);
  PLUMB_UNROLLED for (int h = 0; h < 2; ++h) {
    if (turned && token[h] >= 0) TurnBack<Chip, D>(w.turn, token[h], h, x);
    BFloat16* to = w.dqkv + token[h] * w.p.width(D) + int64_t{head[h]} * D;
    StoreRow<Chip, D>(token[h] >= 0 ? to : nullptr, [&](int n) {
      return Chip::PackPair(x[4 * n + 2 * h], x[4 * n + 2 * h + 1]);
    });
  }
}

}  // namespace plumb::kernels

// What a block of Hopper's products of rows by expert does (warpgroup_products.cu), written against
// the few operations of a chip that it needs, so that a test can run the same lines on the CPU.
//
// Purpose: the products of expert_products.h in bfloat16. Blocks stay and walk a list of tiles,
// (expert, its rows, columns), that each makes for itself from where the experts' rows begin: no
// host waits, nothing is padded. A tile is Rows x Columns sums; 64 terms of both operands travel
// as one stage through shared memory, `kStages` of them in a ring that goes on from tile to tile:
// two are on their way and two are multiplied while a tile's last sums are written. Two groups of
// four warps share a tile out, by rows (128 of them) or by columns (64).
//
// An operand lies in memory with its terms inner ([rows][terms]), or outer ([terms][rows]). In
// shared memory a stage of it is made of lines of 128 bytes:
//   inner: line r holds the 64 terms of row r
//   outer: line 64 p + t holds rows [64 p, 64 p + 64) of term t
// and 16 bytes c of a line lie at c ^ (line % 8), as the tensor cores' descriptors have it ("128
// byte swizzle"); a stage begins on a multiple of 1,024 bytes.
//
// Sums are taken in ascending order of terms, in steps of 16, whatever Rows and Columns are; what
// lies beyond an edge counts as 0. Thread safety: of its block. Ownership: none. Units: elements,
// unless it says bytes. Errors: none.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/base/dtype.h"
#include "kernels/device/cpu_common.h"
#include "kernels/glu.h"

#ifdef __CUDACC__
#define PLUMB_OF_TILE __device__ __forceinline__
#define PLUMB_UNROLLED_TILE _Pragma("unroll")
#else
#define PLUMB_OF_TILE inline
#define PLUMB_UNROLLED_TILE
#endif

namespace plumb::kernels {

inline constexpr int kTileThreads = 256;
inline constexpr int kStageTerms = 64;
inline constexpr int kStages = 4;
inline constexpr int32_t kMostTileExperts = 1024;
inline constexpr int kTileListBytes = 4 * (kMostTileExperts + 1 + kTileThreads);

// How the rows of an operand follow one another in memory: evenly; as an index says; or a half of
// the tile's rows evenly and the other half so from another place on. The last two lie inner.
enum class RowOrder { kEven, kIndexed, kHalves };

// One operand of a tile: what is left of it from `at` on.
struct TileOperand {
  const BFloat16* at = nullptr;
  int64_t stride = 0;              // from row to row of the memory
  int32_t width = 0;               // rows (kHalves: of a half); at most a tile's are taken
  int32_t terms = 0;               // in all
  const int32_t* index = nullptr;  // kIndexed: of each row
  int64_t second = 0;              // kHalves: from `at` to where the other half begins
};

// Copies the stages of an operand; `Width` of its rows.
template <class Chip, int Width, bool Outer, RowOrder Order = RowOrder::kEven>
class StageLoader {
 public:
  static constexpr int kBytes = Width * 128;

  PLUMB_OF_TILE void Begin(const TileOperand& from) {
    from_ = from;
    const int first = Chip::Thread() / kAcross, chunk = Chip::Thread() % kAcross;
    if constexpr (Outer) {
      const int term = first;
      to_ = chunk / 8 * (kStageTerms * 128) + term * 128 + ((chunk % 8) ^ (term % 8)) * 16;
      mine_ = from.at + term * from.stride + chunk * 8;
    } else {
      to_ = first * 128 + (chunk ^ (first % 8)) * 16;
      mine_ = from.at + (Order == RowOrder::kIndexed ? 0 : first * from.stride) + chunk * 8;
    }
    if constexpr (Order == RowOrder::kIndexed) {
      PLUMB_UNROLLED_TILE
      for (int u = 0; u < kEach; ++u) {
        const int row = first + u * kStep;
        rows_[u] = row < from.width ? from.index[row] * from.stride : 0;
      }
    }
  }

  // The terms from `term` on.
  PLUMB_OF_TILE void Load(int32_t term, unsigned char* stage) const {
    const int first = Chip::Thread() / kAcross, chunk = Chip::Thread() % kAcross;
    PLUMB_UNROLLED_TILE
    for (int u = 0; u < kEach; ++u) {
      bool there;
      int64_t offset;
      if constexpr (Outer) {
        there = chunk * 8 < from_.width && term + first + u * kStep < from_.terms;
        offset = (term + u * kStep) * from_.stride;
      } else {
        constexpr int kHalf = Width / 2;
        const bool second = Order == RowOrder::kHalves && u * kStep >= kHalf;
        const int step = u * kStep - (second ? kHalf : 0);
        there = first + step < from_.width && term + chunk * 8 < from_.terms;
        if constexpr (Order == RowOrder::kIndexed) offset = rows_[u] + term;
        else offset = step * from_.stride + (second ? from_.second : 0) + term;
      }
      Chip::CopyAsync(stage + to_ + u * kStep * 128, there ? mine_ + offset : from_.at, there);
    }
  }

 private:
  // Threads beside each other copy 16 bytes beside each other: of a term, or of a row.
  static constexpr int kAcross = Outer ? Width / 8 : kStageTerms / 8;
  static constexpr int kStep = kTileThreads / kAcross;
  static constexpr int kEach = (Outer ? kStageTerms : Width) / kStep;
  static_assert(kStep % 8 == 0, "a thread's lines have one swizzle");
  static_assert(!Outer || Order == RowOrder::kEven);

  TileOperand from_;
  const BFloat16* mine_ = nullptr;
  int to_ = 0;
  int64_t rows_[Order == RowOrder::kIndexed ? kEach : 1] = {};
};

// Where 16 terms of 64 (or of B, all) rows begin, as the tensor cores are told: bits 0 to 13 the
// address, 16 to 29 the way from 64 rows to the next (outer), 32 to 45 that from 8 lines to the
// next, each in 16 bytes, 62 and 63 the swizzle.
PLUMB_OF_TILE uint64_t OperandDescriptor(uint32_t address, bool outer) {
  const uint64_t panel = outer ? kStageTerms * 128 / 16 : 1;
  return uint64_t{1} << 62 | uint64_t{1024 / 16} << 32 | panel << 16 | (address & 0x3FFFF) >> 4;
}

// How far 16 terms further are.
PLUMB_OF_TILE uint32_t TermStep(bool outer) { return outer ? 16 * 128 : 16 * 2; }

// Four threads beside each other have word i of four 16 bytes; thread t gets all of the t th.
template <class Chip>
PLUMB_OF_TILE void TurnQuad(unsigned (&words)[4]) {
  const bool odd = Chip::Thread() % 2 != 0, upper = Chip::Thread() % 4 >= 2;
  PLUMB_UNROLLED_TILE
  for (int i = 0; i < 4; i += 2) {
    const unsigned other = Chip::ShuffleXor(odd ? words[i] : words[i + 1], 1);
    if (odd) words[i] = other;
    else words[i + 1] = other;
  }
  PLUMB_UNROLLED_TILE
  for (int i = 0; i < 2; ++i) {
    const unsigned other = Chip::ShuffleXor(upper ? words[i] : words[i + 2], 2);
    if (upper) words[i] = other;
    else words[i + 2] = other;
  }
}

// The list of row tiles of all experts, in shared memory; every thread of the block makes it.
template <class Chip, int Rows>
class RowTiles {
 public:
  PLUMB_OF_TILE void Make(const int32_t* begin, int32_t experts, int32_t* memory) {
    constexpr int kEach = kMostTileExperts / kTileThreads;
    before_ = memory;
    int32_t* part = memory + kMostTileExperts + 1;
    const int thread = Chip::Thread();
    int32_t tiles[kEach], sum = 0;
    PLUMB_UNROLLED_TILE
    for (int i = 0; i < kEach; ++i) {
      const int32_t e = thread * kEach + i;
      tiles[i] = e < experts ? (begin[e + 1] - begin[e] + Rows - 1) / Rows : 0;
      sum += tiles[i];
    }
    part[thread] = sum;
    Chip::SyncBlock();
    for (int offset = 1; offset < kTileThreads; offset *= 2) {
      const int32_t other = thread >= offset ? part[thread - offset] : 0;
      Chip::SyncBlock();
      part[thread] += other;
      Chip::SyncBlock();
    }
    int32_t next = part[thread] - sum;
    PLUMB_UNROLLED_TILE
    for (int i = 0; i < kEach; ++i) {
      const int32_t e = thread * kEach + i;
      if (e < experts) before_[e] = next;
      next += tiles[i];
      if (e + 1 == experts) before_[experts] = next;
    }
    Chip::SyncBlock();
  }

  PLUMB_OF_TILE int32_t count(int32_t experts) const { return before_[experts]; }

  // Whose the `tile`th is.
  PLUMB_OF_TILE int32_t Expert(int32_t tile, int32_t experts) const {
    int32_t low = 0, high = experts;  // before_[low] <= tile < before_[high]
    while (high - low > 1) {
      const int32_t middle = (low + high) / 2;
      if (before_[middle] <= tile) low = middle;
      else high = middle;
    }
    return low;
  }
  PLUMB_OF_TILE int32_t Within(int32_t tile, int32_t expert) const {
    return tile - before_[expert];
  }

 private:
  int32_t* before_ = nullptr;  // [experts + 1]
};

// The sums of a thread: of group g = thread / 128 of four warps, warp w of these, lane l. Index
// 4 j + i of `sum` is row 16 w + l / 4, 8 further where i is 2 or 3, and column 8 j + 2 (l % 4),
// the next where i is odd, of the group's part of the tile.
template <int Rows, int Columns>
struct TilePart {
  static_assert(Rows == 64 || Rows == 128);
  static constexpr int kGroupsAcross = Rows == 64 ? 2 : 1;
  static constexpr int kColumns = Columns / kGroupsAcross;  // of a group
  static constexpr int kSums = kColumns / 2;                // of a thread

  static PLUMB_OF_TILE int FirstRow(int thread) {
    return (kGroupsAcross == 1 ? thread / 128 * 64 : 0) + thread % 128 / 32 * 16 + thread % 32 / 4;
  }
  static PLUMB_OF_TILE int FirstColumn(int thread) {
    return kGroupsAcross == 1 ? 0 : thread / 128 * kColumns;
  }
};

// y of a tile: ExpertProduct.
template <class Chip, int Rows, int Columns, bool ByColumns>
struct RowsWork {
  static constexpr bool kAOuter = false, kBOuter = ByColumns;
  static constexpr RowOrder kAOrder = RowOrder::kEven, kBOrder = RowOrder::kEven;
  static constexpr int kRows = Rows, kColumns = Columns;
  using Part = TilePart<Rows, Columns>;

  const BFloat16* x = nullptr;
  const BFloat16* w = nullptr;
  const BFloat16* bias = nullptr;
  const int32_t* begin = nullptr;
  int32_t experts = 0, n = 0, k = 0;
  int64_t x_stride = 0, y_stride = 0;
  float scale = 1;
  bool accumulate = false;
  BFloat16* y = nullptr;

  struct Tile {
    TileOperand a, b;
    int32_t terms, expert, row, rows, column, columns;
  };
  using List = RowTiles<Chip, Rows>;

  PLUMB_OF_TILE void Make(List& list, int32_t* memory) const { list.Make(begin, experts, memory); }
  PLUMB_OF_TILE int32_t across() const { return ((ByColumns ? k : n) + Columns - 1) / Columns; }
  PLUMB_OF_TILE int32_t Count(const List& list) const { return list.count(experts) * across(); }

  PLUMB_OF_TILE Tile Find(const List& list, int32_t at) const {
    Tile t;
    const int32_t tile = at / across(), outputs = ByColumns ? k : n;
    t.column = (at - tile * across()) * Columns;
    t.columns = outputs - t.column;
    t.expert = list.Expert(tile, experts);
    t.row = begin[t.expert] + list.Within(tile, t.expert) * Rows;
    t.rows = begin[t.expert + 1] - t.row;
    t.terms = ByColumns ? n : k;
    const BFloat16* matrix = w + int64_t{t.expert} * n * k;
    t.a = {x + t.row * x_stride, x_stride, t.rows, t.terms};
    t.b = {matrix + (ByColumns ? int64_t{t.column} : int64_t{t.column} * k), k, t.columns, t.terms};
    return t;
  }

  // Four threads hold a row's 32 columns: each gives three parts of 16 bytes of it away for the
  // rest of its own, and writes that at once.
  PLUMB_OF_TILE void Finish(const Tile& t, const float (&sum)[Part::kSums]) const {
    const int thread = Chip::Thread(), own = thread % 4, row = Part::FirstRow(thread),
              column = Part::FirstColumn(thread);
    PLUMB_UNROLLED_TILE
    for (int j = 0; j < Part::kColumns / 8; j += 4) {
      PLUMB_UNROLLED_TILE
      for (int half = 0; half < 2; ++half) {
        const int r = row + 8 * half;
        unsigned words[4];
        PLUMB_UNROLLED_TILE
        for (int i = 0; i < 4; ++i) {
          float even = sum[4 * (j + i) + 2 * half] * scale,
                odd = sum[4 * (j + i) + 2 * half + 1] * scale;
          const int c = column + 8 * (j + i) + 2 * own;
          if (c < t.columns) {
            if (bias) {
              const BFloat16* add = bias + int64_t{t.expert} * n + t.column + c;
              even += ToFloat(add[0]), odd += ToFloat(add[1]);
            }
            if (accumulate && r < t.rows) {
              const BFloat16* add = y + (t.row + r) * y_stride + t.column + c;
              even += ToFloat(add[0]), odd += ToFloat(add[1]);
            }
          }
          words[i] = Chip::PackPair(even, odd);
        }
        TurnQuad<Chip>(words);
        const int c = column + 8 * (j + own);
        // What is added to has been read by all four before any of them writes: TurnQuad waits.
        if (r < t.rows && c < t.columns)
          Chip::StoreWords(y + (t.row + r) * y_stride + t.column + c, words);
      }
    }
  }
};

// Gates and ups of a tile and the gated unit of them: GatedExpertProduct. A tile has 128 gates and
// behind them their 128 ups, so that a thread has both of an element.
template <class Chip, Activation A>
struct GatedWork {
  static constexpr bool kAOuter = false, kBOuter = false;
  static constexpr RowOrder kAOrder = RowOrder::kIndexed, kBOrder = RowOrder::kHalves;
  static constexpr int kRows = 128, kColumns = 256, kGates = kColumns / 2;
  using Part = TilePart<kRows, kColumns>;

  const BFloat16* x = nullptr;
  const int32_t* token = nullptr;
  const BFloat16* w = nullptr;
  const int32_t* begin = nullptr;
  int32_t experts = 0, ffn = 0, k = 0;
  BFloat16* gate_up = nullptr;
  BFloat16* act = nullptr;

  struct Tile {
    TileOperand a, b;
    int32_t terms, row, rows, column, columns;
  };
  using List = RowTiles<Chip, kRows>;

  PLUMB_OF_TILE void Make(List& list, int32_t* memory) const { list.Make(begin, experts, memory); }
  PLUMB_OF_TILE int32_t across() const { return (ffn + kGates - 1) / kGates; }
  PLUMB_OF_TILE int32_t Count(const List& list) const { return list.count(experts) * across(); }

  PLUMB_OF_TILE Tile Find(const List& list, int32_t at) const {
    Tile t;
    const int32_t tile = at / across(), expert = list.Expert(tile, experts);
    t.column = (at - tile * across()) * kGates;
    t.columns = ffn - t.column;
    t.row = begin[expert] + list.Within(tile, expert) * kRows;
    t.rows = begin[expert + 1] - t.row;
    t.terms = k;
    t.a = {x, k, t.rows, k, token + t.row, 0};
    t.b = {
        w + (int64_t{expert} * 2 * ffn + t.column) * k, k, t.columns, k, nullptr, int64_t{ffn} * k};
    return t;
  }

  // Of what is rounded, as Glu reads it.
  static PLUMB_OF_TILE float Gated(unsigned gate, unsigned up) {
    const float g = Chip::FloatOf(gate);
    return g / (1.0f + expf(-GateExponent<A>(g))) * Chip::FloatOf(up);
  }

  PLUMB_OF_TILE void Finish(const Tile& t, const float (&sum)[Part::kSums]) const {
    const int thread = Chip::Thread(), own = thread % 4, row = Part::FirstRow(thread);
    PLUMB_UNROLLED_TILE
    for (int j = 0; j < kGates / 8; j += 4) {
      PLUMB_UNROLLED_TILE
      for (int half = 0; half < 2; ++half) {
        unsigned gate[4], up[4], out[4];
        PLUMB_UNROLLED_TILE
        for (int i = 0; i < 4; ++i) {
          const int s = 4 * (j + i) + 2 * half, of_up = s + kGates / 2;
          gate[i] = Chip::PackPair(sum[s], sum[s + 1]);
          up[i] = Chip::PackPair(sum[of_up], sum[of_up + 1]);
          out[i] = Chip::PackPair(Gated(gate[i] << 16, up[i] << 16),
                                  Gated(gate[i] & 0xFFFF0000u, up[i] & 0xFFFF0000u));
        }
        TurnQuad<Chip>(gate);
        TurnQuad<Chip>(up);
        TurnQuad<Chip>(out);
        const int r = row + 8 * half, c = 8 * (j + own);
        if (r < t.rows && c < t.columns) {
          BFloat16* to = gate_up + (int64_t{t.row} + r) * 2 * ffn + t.column + c;
          Chip::StoreWords(to, gate);
          Chip::StoreWords(to + ffn, up);
          Chip::StoreWords(act + (int64_t{t.row} + r) * ffn + t.column + c, out);
        }
      }
    }
  }
};

// dw of a tile: ExpertWeightProduct. Terms are the expert's rows.
template <class Chip, int Rows, int Columns>
struct WeightWork {
  static constexpr bool kAOuter = true, kBOuter = true;
  static constexpr RowOrder kAOrder = RowOrder::kEven, kBOrder = RowOrder::kEven;
  static constexpr int kRows = Rows, kColumns = Columns;
  using Part = TilePart<Rows, Columns>;

  const BFloat16* dy = nullptr;
  const BFloat16* x = nullptr;
  const int32_t* begin = nullptr;
  int32_t experts = 0, n = 0, k = 0;
  int64_t dy_stride = 0, x_stride = 0;
  float scale = 1;
  float* dw = nullptr;

  struct Tile {
    TileOperand a, b;
    int32_t terms, expert, row, rows, column, columns;
  };
  struct List {};

  PLUMB_OF_TILE void Make(List&, int32_t*) const {}
  PLUMB_OF_TILE int32_t across() const { return (k + Columns - 1) / Columns; }
  PLUMB_OF_TILE int32_t down() const { return (n + Rows - 1) / Rows; }
  PLUMB_OF_TILE int32_t Count(const List&) const { return experts * down() * across(); }

  PLUMB_OF_TILE Tile Find(const List&, int32_t at) const {
    Tile t;
    const int32_t of_expert = down() * across();
    t.expert = at / of_expert;
    const int32_t within = at - t.expert * of_expert;
    t.row = within / across() * Rows;
    t.column = within % across() * Columns;
    t.rows = n - t.row;
    t.columns = k - t.column;
    const int32_t first = begin[t.expert];
    t.terms = begin[t.expert + 1] - first;
    t.a = {dy + first * dy_stride + t.row, dy_stride, t.rows, t.terms};
    t.b = {x + first * x_stride + t.column, x_stride, t.columns, t.terms};
    return t;
  }

  // Reads 16 pairs before the first is written, so that they are on their way together.
  PLUMB_OF_TILE void Finish(const Tile& t, const float (&sum)[Part::kSums]) const {
    constexpr int kTogether = 8;
    const int thread = Chip::Thread(), row = Part::FirstRow(thread),
              column = Part::FirstColumn(thread) + thread % 4 * 2;
    float* to = dw + (int64_t{t.expert} * n + t.row + row) * k + t.column + column;
    PLUMB_UNROLLED_TILE
    for (int j0 = 0; j0 < Part::kColumns / 8; j0 += kTogether) {
      float there[2 * kTogether][2];
      PLUMB_UNROLLED_TILE
      for (int i = 0; i < 2 * kTogether; ++i) {
        const int half = i % 2, c = 8 * (j0 + i / 2);
        if (row + 8 * half < t.rows && column + c < t.columns)
          Chip::LoadPair(to + half * 8 * int64_t{k} + c, there[i]);
      }
      PLUMB_UNROLLED_TILE
      for (int i = 0; i < 2 * kTogether; ++i) {
        const int half = i % 2, c = 8 * (j0 + i / 2), s = 4 * (j0 + i / 2) + 2 * half;
        if (row + 8 * half < t.rows && column + c < t.columns) {
          there[i][0] += scale * sum[s];
          there[i][1] += scale * sum[s + 1];
          Chip::StorePair(to + half * 8 * int64_t{k} + c, there[i]);
        }
      }
    }
  }
};

// All tiles of block `block` of `blocks`.
template <class Chip, class Work>
class WarpgroupTile {
  using Part = typename Work::Part;
  using ALoader = StageLoader<Chip, Work::kRows, Work::kAOuter, Work::kAOrder>;
  using BLoader = StageLoader<Chip, Work::kColumns, Work::kBOuter, Work::kBOrder>;
  static constexpr int kStageBytes = ALoader::kBytes + BLoader::kBytes;

 public:
  static constexpr int kBytes = kStages * kStageBytes + kTileListBytes;

  // memory: kBytes of shared memory from a multiple of 1,024 bytes on.
  static PLUMB_OF_TILE void Run(const Work& work, int32_t block, int32_t blocks,
                                unsigned char* memory) {
    typename Work::List list;
    work.Make(list, reinterpret_cast<int32_t*>(memory + kStages * kStageBytes));
    const int32_t tiles = work.Count(list);

    // What is copied next: term `term` of the tile before `ahead`.
    ALoader a;
    BLoader b;
    int32_t ahead = block, term = 0, terms = 0;
    const auto load = [&](int stage) {
      while (term >= terms && ahead < tiles) {
        const typename Work::Tile t = work.Find(list, ahead);
        ahead += blocks;
        a.Begin(t.a);
        b.Begin(t.b);
        terms = t.terms;
        term = 0;
      }
      if (term < terms) {
        unsigned char* to = memory + stage * kStageBytes;
        a.Load(term, to);
        b.Load(term, to + ALoader::kBytes);
        term += kStageTerms;
      }
      Chip::CommitCopies();
    };
    PLUMB_UNROLLED_TILE
    for (int stage = 0; stage < kStages - 2; ++stage) load(stage);

    const int group = Chip::Group();
    const uint32_t base = Chip::Address(memory);
    const uint32_t of_a = Part::kGroupsAcross == 1 ? group * (64 * 128) : 0,
                   of_b = ALoader::kBytes +
                          (Part::kGroupsAcross == 1 ? 0 : group * (Part::kColumns * 128));
    int stage = 0;
    float sum[Part::kSums] = {};
    for (int32_t at = block; at < tiles; at += blocks) {
      const typename Work::Tile t = work.Find(list, at);
      if (t.terms == 0) continue;
      for (int32_t done = 0; done < t.terms; done += kStageTerms) {
        // This stage's copies have arrived, of all threads, and all are done with what was
        // multiplied the step before the last: the next copies go there.
        Chip::template WaitCopies<kStages - 3>();
        Chip::ShowCopies();
        Chip::SyncBlock();
        Chip::BeginProducts(sum);
        PLUMB_UNROLLED_TILE
        for (int s = 0; s < kStageTerms / 16; ++s) {
          const uint32_t from = base + stage * kStageBytes;
          Chip::template Multiply<Part::kColumns, Work::kAOuter, Work::kBOuter>(
              sum, OperandDescriptor(from + of_a + s * TermStep(Work::kAOuter), Work::kAOuter),
              OperandDescriptor(from + of_b + s * TermStep(Work::kBOuter), Work::kBOuter),
              done > 0 || s > 0);
        }
        Chip::CommitProducts();
        load((stage + kStages - 2) % kStages);
        Chip::template WaitProducts<1>();
        stage = (stage + 1) % kStages;
      }
      Chip::template WaitProducts<0>();
      Chip::EndProducts(sum);
      work.Finish(t, sum);
    }
    Chip::template WaitCopies<0>();
  }
};

}  // namespace plumb::kernels

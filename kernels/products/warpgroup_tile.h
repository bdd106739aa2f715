// What a block of Hopper's products of rows by expert does (warpgroup_products.cu), written against
// the few operations of a chip that it needs, so that a test can run the same lines on the CPU.
//
// Purpose: the products of expert_products.h in bfloat16 (warpgroup_work.h says of which operands).
// Blocks stay and walk a list of tiles, (expert, its rows, columns), that each makes for itself
// from where the experts' rows begin: no host waits, nothing is padded. A tile is Rows x Columns
// sums. Four warps of a block copy: 64 terms of both operands are a stage in shared memory, and as
// many stages as fit lie in a ring that goes on from tile to tile, so that copies are on their way
// while the others multiply, and while they write what they have summed. Two groups of four warps
// multiply; they share a tile out, by rows (128 of them) or by columns (64). A stage is handed over
// by two barriers: "full" counts the copying threads, "empty" the multiplying warps.
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

#ifdef __CUDACC__
#define PLUMB_OF_TILE __device__ __forceinline__
#define PLUMB_UNROLLED_TILE _Pragma("unroll")
#else
#define PLUMB_OF_TILE inline
#define PLUMB_UNROLLED_TILE
#endif

namespace plumb::kernels {

inline constexpr int kProductThreads = 256;  // two groups multiply,
inline constexpr int kCopyThreads = 128;     // and behind them one copies
inline constexpr int kTileThreads = kProductThreads + kCopyThreads;
inline constexpr int kStageTerms = 64;
inline constexpr int kRingBytes = 192 << 10;
inline constexpr int32_t kMostTileExperts = 1024;
inline constexpr int kTileListBytes = 4 * (kMostTileExperts + kTileThreads + 4);

// How the rows of an operand follow one another in memory: evenly; as an index says (of an operand
// that lies outer: its terms); or a half of the tile's rows evenly and the other half so from
// another place on, which lies inner.
enum class RowOrder { kEven, kIndexed, kHalves };

// One operand of a tile: what is left of it from `at` on.
struct TileOperand {
  const BFloat16* at = nullptr;
  int64_t stride = 0;              // from row to row of the memory
  int32_t width = 0;               // rows (kHalves: of a half); at most a tile's are taken
  int32_t terms = 0;               // in all
  const int32_t* index = nullptr;  // kIndexed: of each row, or term
  int64_t second = 0;              // kHalves: from `at` to where the other half begins
};

// Copies the stages of an operand; `Width` of its rows.
template <class Chip, int Width, bool Outer, RowOrder Order = RowOrder::kEven>
class StageLoader {
 public:
  static constexpr int kBytes = Width * 128;

  PLUMB_OF_TILE void Begin(const TileOperand& from) {
    from_ = from;
    const int first = First(), chunk = Chunk();
    constexpr bool kIndexed = Order == RowOrder::kIndexed;
    to_ = (Outer ? chunk / 8 * (kStageTerms * 128) : 0) + first * 128 +
          ((chunk % 8) ^ (first % 8)) * 16;
    mine_ = from.at + (kIndexed ? 0 : first * from.stride) + chunk * 8;
    if constexpr (kIndexed && !Outer) {
      PLUMB_UNROLLED_TILE
      for (int u = 0; u < kEach; ++u) {
        const int row = first + u * kStep;
        rows_[u] = row < from.width ? from.index[row] : 0;
      }
    }
    if constexpr (kIndexed && Outer) next_ = IndexOf(0);
  }

  // The terms from `term` on; of one tile in ascending order.
  PLUMB_OF_TILE void Load(int32_t term, unsigned char* stage) {
    const int first = First(), chunk = Chunk();
    const int32_t indices = next_;
    if constexpr (Outer && Order == RowOrder::kIndexed) next_ = IndexOf(term + kStageTerms);
    PLUMB_UNROLLED_TILE
    for (int u = 0; u < kEach; ++u) {
      bool there;
      int64_t offset;
      if constexpr (Outer) {
        there = chunk * 8 < from_.width && term + first + u * kStep < from_.terms;
        if constexpr (Order == RowOrder::kIndexed) {
          const int32_t row = Chip::Shuffle(indices, first % kTermsAWarp + u * kTermsAWarp);
          offset = row * from_.stride;
        } else {
          offset = (term + u * kStep) * from_.stride;
        }
      } else {
        constexpr int kHalf = Width / 2;
        const bool second = Order == RowOrder::kHalves && u * kStep >= kHalf;
        const int step = u * kStep - (second ? kHalf : 0);
        there = first + step < from_.width && term + chunk * 8 < from_.terms;
        if constexpr (Order == RowOrder::kIndexed) offset = rows_[u] * from_.stride + term;
        else offset = step * from_.stride + (second ? from_.second : 0) + term;
      }
      // Lines that are not a multiple of 8 apart have other swizzles.
      const int to = (to_ ^ (u * kStep % 8 * 16)) + u * kStep * 128;
      Chip::CopyAsync(stage + to, there ? mine_ + offset : from_.at, there);
    }
  }

 private:
  // Threads beside each other copy 16 bytes beside each other: of a term, or of a row.
  static constexpr int kAcross = Outer ? Width / 8 : kStageTerms / 8;
  static constexpr int kStep = kCopyThreads / kAcross;
  static constexpr int kEach = (Outer ? kStageTerms : Width) / kStep;
  static constexpr int kTermsAWarp = 32 / kAcross;  // at a time
  static_assert(kStep % 4 == 0 && kAcross <= 32);
  static_assert(!Outer || Order != RowOrder::kHalves);
  static_assert(Order != RowOrder::kHalves || Width / 2 % kStep == 0);

  static PLUMB_OF_TILE int Copier() { return Chip::Thread() - kProductThreads; }
  static PLUMB_OF_TILE int First() { return Copier() / kAcross; }
  static PLUMB_OF_TILE int Chunk() { return Copier() % kAcross; }

  // Of the terms that a warp copies of the stage from `term` on each lane looks one up; a warp
  // takes kTermsAWarp of every kStep.
  PLUMB_OF_TILE int32_t IndexOf(int32_t term) const {
    const int lane = Copier() % 32, warp = Copier() / 32;
    const int32_t at = term + lane / kTermsAWarp * kStep + warp * kTermsAWarp + lane % kTermsAWarp;
    return lane < kEach * kTermsAWarp && at < from_.terms ? from_.index[at] : 0;
  }

  TileOperand from_;
  const BFloat16* mine_ = nullptr;
  int to_ = 0;
  int32_t next_ = 0;  // an index of the next stage
  int32_t rows_[Order == RowOrder::kIndexed && !Outer ? kEach : 1] = {};
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
    constexpr int kEach = (kMostTileExperts + kTileThreads - 1) / kTileThreads;
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
    for (int offset = 1; offset * kEach < experts; offset *= 2) {
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

// Where a thread is in a block's ring of stages: it goes on from one list of tiles to the next.
struct RingPlace {
  int stage = 0;
  uint32_t turn = 0;  // parity of how often it went around

  PLUMB_OF_TILE void Next(int stages) {
    if (++stage == stages) {
      stage = 0;
      turn ^= 1;
    }
  }
};

// The tiles of a work that are block `block`'s of `blocks`: those whose number is block, block +
// blocks and so on.
template <class Chip, class Work>
class WarpgroupTile {
  using Part = typename Work::Part;
  using ALoader = StageLoader<Chip, Work::kRows, Work::kAOuter, Work::kAOrder>;
  using BLoader = StageLoader<Chip, Work::kColumns, Work::kBOuter, Work::kBOrder>;

 public:
  static constexpr int kStageBytes = ALoader::kBytes + BLoader::kBytes;
  static constexpr int kStages = kRingBytes / kStageBytes;
  // Stages, a list of tiles, barriers: full and empty of each stage.
  static constexpr int kBytes = kRingBytes + kTileListBytes + kStages * 16;

  struct Place {
    unsigned char* memory;  // kBytes of shared memory, from a multiple of 1,024 bytes on
    int32_t block, blocks;

    PLUMB_OF_TILE int32_t* list() const { return reinterpret_cast<int32_t*>(memory + kRingBytes); }
    PLUMB_OF_TILE unsigned char* full(int stage) const {
      return memory + kRingBytes + kTileListBytes + stage * 16;
    }
    PLUMB_OF_TILE unsigned char* empty(int stage) const { return full(stage) + 8; }
  };

  // By all threads, before the others.
  static PLUMB_OF_TILE void Prepare(const Place& at) {
    if (Chip::Thread() == 0) {
      for (int stage = 0; stage < kStages; ++stage) {
        Chip::InitBarrier(at.full(stage), kCopyThreads);
        Chip::InitBarrier(at.empty(stage), kProductThreads / 32);
      }
    }
    Chip::SyncBlock();
  }

  // By the threads that copy.
  static PLUMB_OF_TILE void Copy(const Work& work, const typename Work::List& list, const Place& at,
                                 RingPlace& place) {
    const int32_t tiles = work.Count(list);
    ALoader a;
    BLoader b;
    for (int32_t tile = at.block; tile < tiles; tile += at.blocks) {
      const typename Work::Tile t = work.Find(list, tile);
      a.Begin(t.a);
      b.Begin(t.b);
      for (int32_t term = 0; term < t.terms; term += kStageTerms) {
        // The first time around nothing has to become empty: that turn counts as done.
        Chip::WaitBarrier(at.empty(place.stage), place.turn ^ 1);
        unsigned char* to = at.memory + place.stage * kStageBytes;
        a.Load(term, to);
        b.Load(term, to + ALoader::kBytes);
        Chip::ArriveWhenCopied(at.full(place.stage));
        place.Next(kStages);
      }
    }
  }

  // By those that multiply.
  static PLUMB_OF_TILE void Multiply(const Work& work, const typename Work::List& list,
                                     const Place& at, RingPlace& place) {
    const int32_t tiles = work.Count(list);
    const int group = Chip::Group();
    const uint32_t base = Chip::Address(at.memory);
    const uint32_t of_a = Part::kGroupsAcross == 1 ? group * (64 * 128) : 0,
                   of_b = ALoader::kBytes +
                          (Part::kGroupsAcross == 1 ? 0 : group * (Part::kColumns * 128));
    float sum[Part::kSums] = {};
    for (int32_t tile = at.block; tile < tiles; tile += at.blocks) {
      const typename Work::Tile t = work.Find(list, tile);
      if (t.terms == 0) {
        if constexpr (Work::kWithoutTerms) work.FinishWithoutTerms(t);
        continue;
      }
      // A group whose rows are all beyond the edge has nothing to multiply.
      if (Part::kGroupsAcross == 1 && group * 64 >= t.rows) {
        for (int32_t done = 0; done < t.terms; done += kStageTerms) {
          Chip::WaitBarrier(at.full(place.stage), place.turn);
          Chip::ArriveWarp(at.empty(place.stage));
          place.Next(kStages);
        }
        continue;
      }
      Chip::EndProducts(sum);
      int before = -1;  // the stage that the last products but these read
      for (int32_t done = 0; done < t.terms; done += kStageTerms) {
        Chip::WaitBarrier(at.full(place.stage), place.turn);
        Chip::ShowCopies();
        Chip::BeginProducts();
        const uint32_t from = base + place.stage * kStageBytes;
        PLUMB_UNROLLED_TILE
        for (int s = 0; s < kStageTerms / 16; ++s) {
          Chip::template Multiply<Part::kColumns, Work::kAOuter, Work::kBOuter>(
              sum, OperandDescriptor(from + of_a + s * TermStep(Work::kAOuter), Work::kAOuter),
              OperandDescriptor(from + of_b + s * TermStep(Work::kBOuter), Work::kBOuter),
              done > 0 || s > 0);
        }
        Chip::CommitProducts();
        Chip::template WaitProducts<1>();
        if (before >= 0) Chip::ArriveWarp(at.empty(before));
        before = place.stage;
        place.Next(kStages);
      }
      Chip::template WaitProducts<0>();
      Chip::EndProducts(sum);
      Chip::ArriveWarp(at.empty(before));
      work.Finish(t, sum);
    }
  }
};

// A block of one work, or of several in turn whose stages have one size: what is left of a round of
// blocks at the end of one goes on with the next.
template <class Chip, class First, class... Others>
struct WarpgroupBlock {
  using Lead = WarpgroupTile<Chip, First>;
  static constexpr int kBytes = Lead::kBytes;
  static_assert(((WarpgroupTile<Chip, Others>::kStageBytes == Lead::kStageBytes) && ...));

  // memory: kBytes of shared memory from a multiple of 1,024 bytes on. Of the works the first alone
  // has a list of tiles that is made from the experts' rows.
  static PLUMB_OF_TILE void Run(int32_t block, int32_t blocks, unsigned char* memory,
                                const First& first, const Others&... others) {
    const typename Lead::Place at{memory, block, blocks};
    typename First::List list;
    first.Make(list, at.list());
    Lead::Prepare(at);
    RingPlace place;
    if (Chip::Group() == kProductThreads / 128) {
      Chip::BeginCopying();
      Lead::Copy(first, list, at, place);
      [[maybe_unused]] int32_t before = first.Count(list);
      (..., (WarpgroupTile<Chip, Others>::Copy(others, {}, Turned<Others>(at, before), place),
             before += others.Count({})));
      Chip::EndCopying();
    } else {
      Chip::BeginMultiplying();
      Lead::Multiply(first, list, at, place);
      [[maybe_unused]] int32_t before = first.Count(list);
      (..., (WarpgroupTile<Chip, Others>::Multiply(others, {}, Turned<Others>(at, before), place),
             before += others.Count({})));
    }
  }

 private:
  // Blocks begin where the works before left off.
  template <class Work>
  static PLUMB_OF_TILE typename WarpgroupTile<Chip, Work>::Place Turned(
      const typename Lead::Place& at, int32_t before) {
    const int32_t past = before % at.blocks;
    return {at.memory, at.block >= past ? at.block - past : at.block - past + at.blocks, at.blocks};
  }
};

}  // namespace plumb::kernels

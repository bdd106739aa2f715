// The products that blocks of warpgroup_tile.h compute: of which operands a tile is, and what is
// done with its sums.
//
// Purpose: a work has the orders and sizes of its operands, the list of its tiles, and Finish,
// which a thread calls with the sums that it holds (TilePart says of which elements). Arithmetic
// behind the sums is that of the kernels that a work stands for (expert_products.h). Thread safety:
// of its block. Ownership: borrows. Units: elements. Errors: none.
#pragma once

#include "kernels/device/cpu_common.h"
#include "kernels/glu.h"
#include "kernels/products/expert_products.h"
#include "kernels/products/warpgroup_tile.h"

namespace plumb::kernels {

// One of two bfloat16 in a word.
template <class Chip>
PLUMB_OF_TILE float Half(unsigned word, int which) {
  return Chip::FloatOf(which == 0 ? word << 16 : word & 0xFFFF0000u);
}

// y of a tile: ExpertProduct.
template <class Chip, int Rows, int Columns, bool ByColumns>
struct RowsWork {
  static constexpr bool kAOuter = false, kBOuter = ByColumns;
  static constexpr RowOrder kAOrder = RowOrder::kEven, kBOrder = RowOrder::kEven;
  static constexpr int kRows = Rows, kColumns = Columns;
  static constexpr bool kWithoutTerms = false;
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
  static constexpr bool kWithoutTerms = false;
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

// What GatedExpertBackward gives: the gradient of what the unit gave, a tile of it, times the
// weights of the slots, through the unit. Rows are read by token.
template <class Chip, Activation A>
struct GatedBackwardWork {
  static constexpr bool kAOuter = false, kBOuter = true;
  static constexpr RowOrder kAOrder = RowOrder::kIndexed, kBOrder = RowOrder::kEven;
  static constexpr int kRows = 128, kColumns = GatedExpertBackward::kPartColumns;
  static constexpr bool kWithoutTerms = false;
  using Part = TilePart<kRows, kColumns>;

  const BFloat16* dout = nullptr;
  const int32_t* token = nullptr;
  const BFloat16* w = nullptr;
  const int32_t* begin = nullptr;
  int32_t experts = 0, n = 0, ffn = 0;
  int64_t slots = 0;
  const float* weight = nullptr;
  BFloat16* gate_up = nullptr;
  BFloat16* act = nullptr;
  float* dweight = nullptr;

  struct Tile {
    TileOperand a, b;
    int32_t terms, row, rows, column, columns;
  };
  using List = RowTiles<Chip, kRows>;

  PLUMB_OF_TILE void Make(List& list, int32_t* memory) const { list.Make(begin, experts, memory); }
  PLUMB_OF_TILE int32_t across() const { return (ffn + kColumns - 1) / kColumns; }
  PLUMB_OF_TILE int32_t Count(const List& list) const { return list.count(experts) * across(); }

  PLUMB_OF_TILE Tile Find(const List& list, int32_t at) const {
    Tile t;
    const int32_t tile = at / across(), expert = list.Expert(tile, experts);
    t.column = (at - tile * across()) * kColumns;
    t.columns = ffn - t.column;
    t.row = begin[expert] + list.Within(tile, expert) * kRows;
    t.rows = begin[expert + 1] - t.row;
    t.terms = n;
    t.a = {dout, n, t.rows, n, token + t.row};
    t.b = {w + int64_t{expert} * n * ffn + t.column, ffn, t.columns, n};
    return t;
  }

  // Of two elements, as Glu, WeighSlots and GluBackward compute them from rounded numbers. The
  // sum of what the unit gave times its gradient goes to `along`.
  struct Pair {
    unsigned dgate, dup, act;
  };
  static PLUMB_OF_TILE Pair Through(unsigned gate, unsigned up, unsigned dact, float by,
                                    float& along) {
    float dgate[2], dup[2], a[2];
    PLUMB_UNROLLED_TILE
    for (int i = 0; i < 2; ++i) {
      const float g = Half<Chip>(gate, i), u = Half<Chip>(up, i), d = Half<Chip>(dact, i);
      const float below = 1.0f + expf(-GateExponent<A>(g)), s = 1.0f / below;
      const unsigned rounded = Chip::PackPair(g / below * u, by * d);
      const float out = Half<Chip>(rounded, 0), weighed = Half<Chip>(rounded, 1);
      along += out * d;
      a[i] = by * out;
      dup[i] = weighed * g * s;
      dgate[i] = weighed * u * s * (1.0f + g * GateSlope<A>(g) * (1.0f - s));
    }
    return {Chip::PackPair(dgate[0], dgate[1]), Chip::PackPair(dup[0], dup[1]),
            Chip::PackPair(a[0], a[1])};
  }

  // What a thread reads of 32 columns is on its way together.
  PLUMB_OF_TILE void Finish(const Tile& t, const float (&sum)[Part::kSums]) const {
    const int thread = Chip::Thread(), own = thread % 4, row = Part::FirstRow(thread);
    float by[2], along[2] = {};
    PLUMB_UNROLLED_TILE
    for (int half = 0; half < 2; ++half)
      by[half] = row + 8 * half < t.rows ? weight[t.row + row + 8 * half] : 0.0f;
    PLUMB_UNROLLED_TILE
    for (int j = 0; j < kColumns / 8; j += 4) {
      const int c = 8 * (j + own);
      unsigned gate[2][4] = {}, up[2][4] = {};
      PLUMB_UNROLLED_TILE
      for (int half = 0; half < 2; ++half) {
        const int r = row + 8 * half;
        if (r < t.rows && c < t.columns) {
          const BFloat16* from = gate_up + (int64_t{t.row} + r) * 2 * ffn + t.column + c;
          Chip::LoadWords(from, gate[half]);
          Chip::LoadWords(from + ffn, up[half]);
        }
      }
      PLUMB_UNROLLED_TILE
      for (int half = 0; half < 2; ++half) {
        const int r = row + 8 * half;
        unsigned dact[4], out[4];
        PLUMB_UNROLLED_TILE
        for (int i = 0; i < 4; ++i) {
          const int s = 4 * (j + i) + 2 * half;
          dact[i] = Chip::PackPair(sum[s], sum[s + 1]);
        }
        TurnQuad<Chip>(dact);
        if (r < t.rows && c < t.columns) {
          PLUMB_UNROLLED_TILE
          for (int i = 0; i < 4; ++i) {
            const Pair p = Through(gate[half][i], up[half][i], dact[i], by[half], along[half]);
            gate[half][i] = p.dgate, up[half][i] = p.dup, out[i] = p.act;
          }
          BFloat16* to = gate_up + (int64_t{t.row} + r) * 2 * ffn + t.column + c;
          Chip::StoreWords(to, gate[half]);
          Chip::StoreWords(to + ffn, up[half]);
          Chip::StoreWords(act + (int64_t{t.row} + r) * ffn + t.column + c, out);
        }
      }
    }
    PLUMB_UNROLLED_TILE
    for (int half = 0; half < 2; ++half) {
      PLUMB_UNROLLED_TILE
      for (int mask = 1; mask < 4; mask *= 2)
        along[half] += Chip::FloatOf(Chip::ShuffleXor(Chip::BitsOf(along[half]), mask));
      const int r = row + 8 * half;
      if (own == 0 && r < t.rows) dweight[t.column / kColumns * slots + t.row + r] = along[half];
    }
  }
};

// dw of a tile: ExpertWeightProduct. Terms are the expert's rows, read by token where an index says
// so. dw nullptr: there is none.
template <class Chip, int Columns, RowOrder Dy = RowOrder::kEven, RowOrder X = RowOrder::kEven>
struct WeightWork {
  static constexpr bool kAOuter = true, kBOuter = true;
  static constexpr RowOrder kAOrder = Dy, kBOrder = X;
  static constexpr int kRows = 128, kColumns = Columns;
  static constexpr bool kWithoutTerms = true;
  using Part = TilePart<kRows, Columns>;

  const BFloat16* dy = nullptr;
  const BFloat16* x = nullptr;
  const int32_t* token = nullptr;
  const int32_t* begin = nullptr;
  int32_t experts = 0, n = 0, k = 0;
  int64_t dy_stride = 0, x_stride = 0;
  float scale = 1;
  bool written = false;  // else added
  float* dw = nullptr;

  struct Tile {
    TileOperand a, b;
    int32_t terms, expert, row, rows, column, columns;
  };
  struct List {};

  PLUMB_OF_TILE void Make(List&, int32_t*) const {}
  PLUMB_OF_TILE int32_t across() const { return (k + Columns - 1) / Columns; }
  PLUMB_OF_TILE int32_t down() const { return (n + kRows - 1) / kRows; }
  PLUMB_OF_TILE int32_t Count(const List&) const { return dw ? experts * down() * across() : 0; }

  PLUMB_OF_TILE Tile Find(const List&, int32_t at) const {
    Tile t;
    const int32_t of_expert = down() * across();
    t.expert = at / of_expert;
    const int32_t within = at - t.expert * of_expert;
    t.row = within / across() * kRows;
    t.column = within % across() * Columns;
    t.rows = n - t.row;
    t.columns = k - t.column;
    const int32_t first = begin[t.expert];
    t.terms = begin[t.expert + 1] - first;
    t.a = Operand<Dy>(dy, dy_stride, first, t.row, t.rows, t.terms);
    t.b = Operand<X>(x, x_stride, first, t.column, t.columns, t.terms);
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
      float there[2 * kTogether][2] = {};
      if (!written) {
        PLUMB_UNROLLED_TILE
        for (int i = 0; i < 2 * kTogether; ++i) {
          const int half = i % 2, c = 8 * (j0 + i / 2);
          if (row + 8 * half < t.rows && column + c < t.columns)
            Chip::LoadPair(to + half * 8 * int64_t{k} + c, there[i]);
        }
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

  // Of an expert without rows.
  PLUMB_OF_TILE void FinishWithoutTerms(const Tile& t) const {
    if (!written) return;
    const float none[Part::kSums] = {};
    Finish(t, none);
  }

 private:
  template <RowOrder Order>
  PLUMB_OF_TILE TileOperand Operand(const BFloat16* from, int64_t stride, int32_t first,
                                    int32_t past, int32_t width, int32_t terms) const {
    if constexpr (Order == RowOrder::kIndexed)
      return {from + past, stride, width, terms, token + first};
    else return {from + first * stride + past, stride, width, terms};
  }
};

}  // namespace plumb::kernels

#include "kernels/head/head_logprob.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/device/cpu_common.h"
#include "kernels/device/vector_math.h"
#include "kernels/products/bf16_words.h"
#include "kernels/products/word_tiles.h"
#include "kernels/token_mask.h"

namespace plumb::kernels {
namespace {

// Tokens of the vocabulary that are summed for themselves: whole tiles, and an even number of
// them.
constexpr int64_t kHeadPiece = 18 * kTileRows;
constexpr int64_t kMostSpans = 16;  // runs of pieces whose parts of dx are summed for themselves
constexpr int64_t kCacheWords = int64_t{1} << 17;
constexpr float kOut = -std::numeric_limits<float>::infinity();
constexpr float kBelowAll = -3e38f;  // finite, so that differences of it are numbers
constexpr float kNothing = -100;     // exp of it is 0, and 0 times it is, too

int64_t Pieces(int64_t vocab) { return (vocab + kHeadPiece - 1) / kHeadPiece; }
int64_t Spans(int64_t vocab) { return std::min(kMostSpans, Pieces(vocab)); }
int64_t Panels(int64_t rows) { return (rows + kTileCols - 1) / kTileCols; }
int64_t Padded(int64_t rows) { return Panels(rows) * kTileCols; }
// Rows of so many words meet in no cache set: an odd number of lines.
int64_t OddStride(int64_t words) { return (PadWords(words) / kLanes | 1) * kLanes; }

// A tile of logits: tokens first .. first + count of the vocabulary by rows row .. row + 32.
struct LogitTile {
  int64_t first, count, row, cols;
  FloatLanes z[kTileRows][2];
  int vectors() const { return cols > kLanes ? 2 : 1; }
};

void DropTokensOf(const HeadShape& s, LogitTile& tile) {
  if (s.dropped_count > 0) {
    const int32_t* end = s.dropped + s.dropped_count;
    for (const int32_t* id = std::lower_bound(s.dropped, end, static_cast<int32_t>(tile.first));
         id != end && *id < tile.first + tile.count; ++id) {
      for (FloatLanes& z : tile.z[*id - tile.first]) z = Broadcast(kOut);
    }
  }
  if (s.kept == nullptr) return;
  const int64_t words = SetWords(s.vocab), rows = std::min(kTileCols, tile.cols);
  for (int64_t c = 0; c < tile.count; ++c) {
    const int64_t token = tile.first + c;
    float lanes[kTileCols];
    for (int v = 0; v < tile.vectors(); ++v) Store(lanes + v * kLanes, tile.z[c][v]);
    for (int64_t r = 0; r < rows; ++r) {
      if (!(s.kept[(tile.row + r) * words + token / 32] >> (token % 32) & 1)) lanes[r] = kOut;
    }
    for (int v = 0; v < tile.vectors(); ++v) tile.z[c][v] = Load(lanes + v * kLanes);
  }
}

// Calls f(row, token within the tile) for the rows whose target lies in the tile.
template <class F>
PLUMB_INLINE void ForTargets(const HeadShape& s, const LogitTile& tile, const F& f) {
  const int64_t end = std::min(s.rows, tile.row + kTileCols);
  for (int64_t r = tile.row; r < end; ++r) {
    const int64_t c = s.target[r] - tile.first;
    if (c >= 0 && c < tile.count) f(r, c);
  }
}

// x as panels whose columns are its rows and whose terms are its columns.
template <class W, class T>
const float* PackRows(const HeadShape& s, AlignedFloats& memory) {
  const int64_t panel = PadWords(WordsOf<W>(s.hidden)) * kTileCols;
  float* packed = memory.Grow(Panels(s.rows) * panel);
  for (int64_t i = 0; i < Panels(s.rows); ++i) {
    PanelOfInner<W>(static_cast<const T*>(s.x) + i * kTileCols * s.hidden, s.hidden,
                    std::min(kTileCols, s.rows - i * kTileCols), s.hidden, packed + i * panel);
  }
  return packed;
}

// Calls f(tile) for the tiles of logits of a piece of the vocabulary, masked. `packed`: PackRows;
// `memory` is the thread's.
template <class W, class T, class F>
PLUMB_INLINE void ForTiles(const HeadShape& s, const float* packed, int64_t piece,
                           AlignedFloats& memory, const F& f) {
  const int64_t words = WordsOf<W>(s.hidden), panel = PadWords(words) * kTileCols,
                stride = OddStride(words);
  float* rows = memory.Grow(kTileRows * stride);
  const auto* w = static_cast<const T*>(s.w);
  const int64_t end = std::min(s.vocab, (piece + 1) * kHeadPiece);
  for (int64_t first = piece * kHeadPiece; first < end; first += kTileRows) {
    const int64_t count = std::min(kTileRows, end - first);
    RowsOfInner<W>(w + first * s.hidden, s.hidden, count, s.hidden, stride, rows);
    for (int64_t i = 0; i < Panels(s.rows); ++i) {
      LogitTile tile{
          .first = first, .count = count, .row = i * kTileCols, .cols = s.rows - i * kTileCols};
      const bool more = i == 0 && first + kTileRows < s.vocab;
      WordTile<W>(rows, stride, count, packed + i * panel, tile.cols, words,
                  more ? w + (first + kTileRows) * s.hidden : nullptr,
                  kTileRows * W::kTerms * static_cast<int64_t>(sizeof(T)), tile.z);
      DropTokensOf(s, tile);
      f(tile);
    }
  }
}

// Of a piece and 32 rows: the largest logit, the sum of e = exp((z - largest) / temperature), and
// that of e times its exponent.
struct PieceSums {
  float most[kTileCols], sum[kTileCols], weighted[kTileCols];
  void Clear() {
    std::fill_n(most, kTileCols, kBelowAll);
    std::fill_n(sum, kTileCols, 0.0f);
    std::fill_n(weighted, kTileCols, 0.0f);
  }
  PLUMB_INLINE void Add(const LogitTile& tile, float scale) {
    const auto count = static_cast<int>(tile.count);
    for (int v = 0; v < tile.vectors(); ++v) {
      const FloatLanes before = Load(most + v * kLanes);
      FloatLanes top = before;
      for (int c = 0; c < count; ++c) top = Larger(tile.z[c][v], top);
      // a NaN stays one here
      const FloatLanes shift = Larger(Broadcast(kNothing), (before - top) * scale);
      const FloatLanes rescale = Exp(shift), old = Load(sum + v * kLanes);
      FloatLanes w = (Load(weighted + v * kLanes) + shift * old) * rescale, s = old * rescale;
      for (int c = 0; c < count; ++c) {
        const FloatLanes z = Larger(Broadcast(kNothing), (tile.z[c][v] - top) * scale);
        const FloatLanes e = Exp(z);
        s += e;
        w += e * z;
      }
      Store(most + v * kLanes, top);
      Store(sum + v * kLanes, s);
      Store(weighted + v * kLanes, w);
    }
  }
};

// Row r of all pieces, one after the other.
void Combine(const HeadLogprob& k, const PieceSums* sums, const float* chosen, int64_t r) {
  const int64_t pieces = Pieces(k.shape.vocab), panels = Panels(k.shape.rows), lane = r % kTileCols;
  const double scale = static_cast<double>(1.0f / k.shape.temperature);
  const auto of = [&](int64_t piece) -> const PieceSums& {
    return sums[piece * panels + r / kTileCols];
  };
  double top = static_cast<double>(kBelowAll), sum = 0, weighted = 0;
  for (int64_t i = 0; i < pieces; ++i) top = std::max(top, static_cast<double>(of(i).most[lane]));
  for (int64_t i = 0; i < pieces; ++i) {
    const PieceSums& p = of(i);
    const double shift = std::max(static_cast<double>(kNothing),
                                  (static_cast<double>(p.most[lane]) - top) * scale),
                 e = std::exp(shift), s = static_cast<double>(p.sum[lane]);
    sum += s * e;
    weighted += (static_cast<double>(p.weighted[lane]) + shift * s) * e;
  }
  const double log_sum = std::log(sum), z = (static_cast<double>(chosen[r]) - top) * scale;
  k.lse[r] = static_cast<float>(log_sum + top * scale);
  k.logprob[r] = static_cast<float>(std::min(0.0, z - log_sum));
  if (k.entropy) k.entropy[r] = static_cast<float>(std::max(0.0, log_sum - weighted / sum));
  if (std::isnan(sum)) k.logprob[r] = NAN;
}

template <class W, class T>
void Forward(const HeadLogprob& k) {
  const HeadShape& s = k.shape;
  const int64_t pieces = Pieces(s.vocab), panels = Panels(s.rows);
  const float scale = 1.0f / s.temperature;
  static thread_local AlignedFloats packed_memory;
  const float* packed = PackRows<W, T>(s, packed_memory);
  float* chosen = k.scratch;
  std::fill_n(chosen, s.rows, kOut);  // of a target that is none of these
  auto* sums = reinterpret_cast<PieceSums*>(k.scratch + Padded(s.rows));
#pragma omp parallel
  {
    static thread_local AlignedFloats memory;
#pragma omp for schedule(dynamic, 4)
    for (int64_t piece = 0; piece < pieces; ++piece) {
      PieceSums* own = sums + piece * panels;
      for (int64_t i = 0; i < panels; ++i) own[i].Clear();
      ForTiles<W, T>(s, packed, piece, memory, [&](const LogitTile& tile) {
        own[tile.row / kTileCols].Add(tile, scale);
        ForTargets(s, tile, [&](int64_t r, int64_t c) {
          const int64_t lane = r - tile.row;
          chosen[r] = tile.z[c][lane / kLanes][static_cast<int>(lane % kLanes)];
        });
      });
    }
#pragma omp for schedule(static)
    for (int64_t r = 0; r < s.rows; ++r) Combine(k, sums, chosen, r);
  }
}

// What the gradient of a row's logits is made of, for 32 rows; zeros beyond the last.
struct RowGradients {
  float g[kTileCols] = {}, h[kTileCols] = {}, lse[kTileCols] = {}, entropy[kTileCols] = {};
  RowGradients(const HeadLogprobBackward& k, int64_t row) {
    for (int64_t i = 0; i < std::min(kTileCols, k.shape.rows - row); ++i) {
      g[i] = k.g_logprob[row + i];
      lse[i] = k.lse[row + i];
      if (!k.g_entropy) continue;
      h[i] = k.g_entropy[row + i];
      entropy[i] = k.entropy[row + i];
    }
  }
  // Logits to their gradient, in place.
  PLUMB_INLINE void Apply(bool with_entropy, float scale, LogitTile& tile) const {
    const auto count = static_cast<int>(tile.count);
    for (int v = 0; v < tile.vectors(); ++v) {
      const FloatLanes l = Load(lse + v * kLanes), gs = Load(g + v * kLanes) * -scale,
                       hs = Load(h + v * kLanes) * scale, big_h = Load(entropy + v * kLanes);
      for (int c = 0; c < count; ++c) {
        const FloatLanes z = Larger(Broadcast(kNothing), tile.z[c][v] * scale - l), p = Exp(z);
        FloatLanes d = gs * p;
        if (with_entropy) d = d - hs * p * (z + big_h);
        tile.z[c][v] = d;
      }
    }
    for (int c = count; c < kTileRows; ++c) tile.z[c][0] = tile.z[c][1] = FloatLanes{};
    if (tile.vectors() == 1) {
      for (int c = 0; c < count; ++c) tile.z[c][1] = FloatLanes{};
    }
  }
};

// A thread's gradient of the logits of one piece, laid out for both products.
template <class W>
struct PieceGradient {
  int64_t by_token_stride, by_row_stride, column_words;
  float *by_token, *columns, *by_row;
  PieceGradient(int64_t rows, AlignedFloats& memory)
      : by_token_stride(OddStride(WordsOf<W>(Padded(rows)))),
        by_row_stride(OddStride(WordsOf<W>(kHeadPiece))),
        column_words(PadWords(WordsOf<W>(kHeadPiece))) {
    // a tile of rows may begin at the last
    by_token = memory.Grow(kHeadPiece * by_token_stride + column_words * Padded(rows) +
                           (Padded(rows) + kTileRows) * by_row_stride);
    columns = by_token + kHeadPiece * by_token_stride;
    by_row = columns + column_words * Padded(rows);
  }
  PLUMB_INLINE void Put(const LogitTile& tile, int64_t token, bool tokens_too) {
    for (int64_t c = 0; tokens_too && c < tile.count; ++c) {
      W::StoreRow(tile.z[c][0], tile.z[c][1],
                  by_token + (token + c) * by_token_stride + tile.row / W::kTerms);
    }
    float* to = columns + column_words * tile.row + token / W::kTerms * kTileCols;
    for (int64_t c = 0; c < kTileRows; c += W::kTerms, to += kTileCols) {
      for (int v = 0; v < 2; ++v) {
        FloatLanes terms[W::kTerms];
        for (int t = 0; t < W::kTerms; ++t) terms[t] = tile.z[c + t][v];
        Store(to + v * kLanes, W::Of(terms));
      }
    }
  }
  // Once all tiles of `tokens` are there: rows of consecutive tokens.
  void TurnColumns(int64_t rows, int64_t tokens) {
    const int64_t words = WordsOf<W>(tokens);
    for (int64_t r = 0; r < rows; r += kLanes) {
      const float* from = columns + column_words * (r / kTileCols * kTileCols) + r % kTileCols;
      for (int64_t p = 0; p < words; p += kLanes) {
        FloatLanes block[kLanes];
        for (int64_t i = 0; i < kLanes; ++i)
          block[i] = p + i < words ? Load(from + (p + i) * kTileCols) : FloatLanes{};
        Transpose(block);
        for (int64_t i = 0; i < kLanes; ++i) Store(by_row + (r + i) * by_row_stride + p, block[i]);
      }
    }
  }
};

PLUMB_INLINE void AddLanes(FloatLanes value, int64_t count, bool add, float* y) {
  if (count >= kLanes) {
    Store(y, add ? Load(y) + value : value);
    return;
  }
  for (int64_t i = 0; i < count; ++i)
    y[i] = add ? y[i] + value[static_cast<int>(i)] : value[static_cast<int>(i)];
}

// y[count, hidden] = or += rows x panels: `rows` of `words` words, panels [hidden / 32][panel].
template <class W>
void RowsByPanels(const float* rows, int64_t stride, int64_t count, const float* panels,
                  int64_t panel, int64_t words, int64_t hidden, bool add, float* y) {
  for (int64_t r = 0; r < count; r += kTileRows) {
    const int64_t some = std::min(kTileRows, count - r);
    for (int64_t c = 0; c < hidden; c += kTileCols) {
      FloatLanes sum[kTileRows][2];
      WordTile<W>(rows + r * stride, stride, some, panels + c / kTileCols * panel, hidden - c,
                  words, nullptr, 0, sum);
      for (int64_t i = 0; i < some; ++i) {
        for (int64_t v = 0; v < 2 && hidden - c > v * kLanes; ++v)
          AddLanes(sum[i][v], hidden - c - v * kLanes, add, y + (r + i) * hidden + c + v * kLanes);
      }
    }
  }
}

// [rows, hidden] as panels whose columns are its columns and whose terms are its rows.
template <class W, class T>
void PackColumns(const T* x, int64_t rows, int64_t hidden, int64_t panel, float* packed) {
  for (int64_t c = 0; c < hidden; c += kTileCols)
    PanelOfOuter<W>(x + c, hidden, hidden - c, rows, packed + c / kTileCols * panel);
}

template <class W, class T>
void Backward(const HeadLogprobBackward& k) {
  const HeadShape& s = k.shape;
  const int64_t pieces = Pieces(s.vocab), spans = Spans(s.vocab), hidden = s.hidden,
                columns = (hidden + kTileCols - 1) / kTileCols;
  const int64_t row_panel = PadWords(WordsOf<W>(s.rows)) * kTileCols,
                piece_panel = PadWords(WordsOf<W>(kHeadPiece)) * kTileCols;
  const float scale = 1.0f / s.temperature;
  static thread_local AlignedFloats packed_memory, columns_memory;
  const float* packed = PackRows<W, T>(s, packed_memory);
  float* x_columns = k.dw ? columns_memory.Grow(columns * row_panel) : nullptr;
  if (k.dw) PackColumns<W>(static_cast<const T*>(s.x), s.rows, hidden, row_panel, x_columns);
#pragma omp parallel
  {
    static thread_local AlignedFloats memory, gradient_memory, weights_memory;
    PieceGradient<W> d(s.rows, gradient_memory);
    float* w_columns = weights_memory.Grow(columns * piece_panel);
#pragma omp for schedule(dynamic, 1)
    for (int64_t span = 0; span < spans; ++span) {
      const int64_t begin = pieces * span / spans, end = pieces * (span + 1) / spans;
      for (int64_t piece = begin; piece < end; ++piece) {
        const int64_t first = piece * kHeadPiece, tokens = std::min(kHeadPiece, s.vocab - first);
        ForTiles<W, T>(s, packed, piece, memory, [&](LogitTile& tile) {
          RowGradients(k, tile.row).Apply(k.g_entropy != nullptr, scale, tile);
          ForTargets(s, tile, [&](int64_t r, int64_t c) {
            float lanes[kTileCols];
            for (int v = 0; v < 2; ++v) Store(lanes + v * kLanes, tile.z[c][v]);
            lanes[r - tile.row] += k.g_logprob[r] * scale;
            for (int v = 0; v < 2; ++v) tile.z[c][v] = Load(lanes + v * kLanes);
          });
          d.Put(tile, tile.first - first, k.dw != nullptr);
        });
        d.TurnColumns(s.rows, tokens);
        PackColumns<W>(static_cast<const T*>(s.w) + first * hidden, tokens, hidden, piece_panel,
                       w_columns);
        RowsByPanels<W>(d.by_row, d.by_row_stride, s.rows, w_columns, piece_panel,
                        WordsOf<W>(tokens), hidden, piece > begin,
                        k.scratch + span * s.rows * hidden);
        if (!k.dw) continue;
        RowsByPanels<W>(d.by_token, d.by_token_stride, tokens, x_columns, row_panel,
                        WordsOf<W>(s.rows), hidden, true, k.dw + first * hidden);
      }
    }
#pragma omp for schedule(static)
    for (int64_t r = 0; r < s.rows; ++r) {
      float* sum = k.scratch + r * hidden;
      for (int64_t span = 1; span < spans; ++span) {
        const float* more = sum + span * s.rows * hidden;
#pragma omp simd
        for (int64_t i = 0; i < hidden; ++i) sum[i] += more[i];
      }
      T* dx = static_cast<T*>(k.dx) + r * hidden;
#pragma omp simd
      for (int64_t i = 0; i < hidden; ++i) dx[i] = FromFloat<T>(sum[i]);
    }
  }
}

// Calls f with the words that products of T are made of here.
template <class F>
void ForWords(const Launch& launch, const F& f) {
  ForDType(launch.dtype, [&]<class T>(T) {
#ifdef __AVX512BF16__
    if constexpr (std::same_as<T, BFloat16>) {
      if (OwnBf16Words() == Bf16Words::kPairs) {
        f(PairWords{}, T{});
        return;
      }
    }
#endif
    f(FloatWords{}, T{});
  });
}

}  // namespace

int64_t HeadRows(const Launch& launch, int64_t hidden) {
  int64_t rows = 0;
  ForWords(launch, [&]<class W, class T>(W, T) {
    rows = std::clamp<int64_t>(kCacheWords / WordsOf<W>(hidden) / kTileCols, 1, 16) * kTileCols;
  });
  return rows;
}

int64_t HeadScratch(int64_t rows, int64_t hidden, int64_t vocab) {
  const int64_t forward = Padded(rows) + 3 * Pieces(vocab) * Padded(rows);
  return std::max(forward, Spans(vocab) * rows * hidden);
}

void HeadLogprob::Cpu(const Launch& launch) const {
  ForWords(launch, [&]<class W, class T>(W, T) { Forward<W, T>(*this); });
}

void HeadLogprobBackward::Cpu(const Launch& launch) const {
  ForWords(launch, [&]<class W, class T>(W, T) { Backward<W, T>(*this); });
}

}  // namespace plumb::kernels

// Sequences in pages of bfloat16, for tests of the tensor cores' attention: on the host, with the
// result that a row should have, in double.
//
// Thread safety: none. Ownership: of its memory. Shapes: paged_kv.h, one layer.
#pragma once

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/attention_paged.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {

struct PagedShape {
  int32_t heads, kv_heads, d, page_tokens;
  std::vector<int32_t> lengths;  // of each sequence
  int32_t window = 0;
  float Scale() const { return 1 / std::sqrt(static_cast<float>(d)); }
  std::string Name() const {
    std::string name = std::to_string(heads) + "/" + std::to_string(kv_heads) + " heads of " +
                       std::to_string(d) + ", window " + std::to_string(window) + ", lengths";
    for (const int32_t n : lengths) name += " " + std::to_string(n);
    return name;
  }
};

inline std::vector<BFloat16> ToHalves(const std::vector<float>& x) {
  std::vector<BFloat16> out(x.size());
  std::transform(x.begin(), x.end(), out.begin(), ToBFloat16);
  return out;
}

class PagedScene {
 public:
  struct Rows {
    std::vector<int32_t> slot, position;
    std::vector<float> q;
    int64_t q_stride = 0;
  };

  // `order`: of the pages; the keys and values are the same in each.
  explicit PagedScene(const PagedShape& s, int32_t order = 0) : shape(s) {
    const int32_t longest = *std::max_element(s.lengths.begin(), s.lengths.end()),
                  sequences = static_cast<int32_t>(s.lengths.size());
    stride = (longest + s.page_tokens - 1) / s.page_tokens;
    const int32_t pages = sequences * stride;
    for (int32_t i = 0; i < pages; ++i)
      table.push_back(order == 0 ? pages - i : (i * 7 + order) % pages + 1);
    std::vector<int32_t> sorted = table;
    std::sort(sorted.begin(), sorted.end());
    if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())  // 7 divides it
      std::iota(table.begin(), table.end(), 1);
    // Page 0 is nobody's, and slots that hold no token hold NaN.
    memory.assign(static_cast<size_t>((pages + 1) * View().page_stride()), BFloat16{0x7FFF});
    for (int32_t b = 0; b < sequences; ++b) {
      const int32_t n = s.lengths[static_cast<size_t>(b)];
      data.push_back(Normal(static_cast<size_t>(n * 2 * s.kv_heads * s.d),
                            static_cast<uint64_t>(b + 1), DType::kBFloat16));
      WriteTokens(b, 0, n);
    }
  }

  PagedKv View() const {
    PagedKv kv{.dtype = DType::kBFloat16,
               .layers = 1,
               .num_pages = static_cast<int32_t>(table.size()) + 1,
               .page_tokens = shape.page_tokens,
               .kv_heads = shape.kv_heads,
               .head_dim = shape.d};
    kv.pages = const_cast<BFloat16*>(memory.data());
    return kv;
  }

  float Value(int32_t b, int32_t p, int32_t which, int32_t h, int32_t i) const {
    return data[static_cast<size_t>(b)]
               [static_cast<size_t>(((p * 2 + which) * shape.kv_heads + h) * shape.d + i)];
  }

  // The first `tokens` of sequence `b` are those of `of`, in its pages.
  void Share(int32_t b, int32_t of, int32_t tokens) {
    std::copy_n(data[static_cast<size_t>(of)].begin(), tokens * 2 * shape.kv_heads * shape.d,
                data[static_cast<size_t>(b)].begin());
    std::copy_n(table.begin() + of * stride, tokens / shape.page_tokens,
                table.begin() + b * stride);
    WriteTokens(b, tokens, shape.lengths[static_cast<size_t>(b)]);
  }

  // The last `count` positions of every sequence, in order.
  Rows LastRows(int32_t count) const {
    Rows rows;
    for (size_t b = 0; b < shape.lengths.size(); ++b) {
      for (int32_t p = std::max(0, shape.lengths[b] - count); p < shape.lengths[b]; ++p) {
        rows.slot.push_back(static_cast<int32_t>(b));
        rows.position.push_back(p);
      }
    }
    rows.q_stride = int64_t{shape.heads + 2 * shape.kv_heads} * shape.d;
    rows.q = Normal(rows.slot.size() * static_cast<size_t>(rows.q_stride), 99, DType::kBFloat16);
    return rows;
  }

  static Rows Some(const Rows& rows, size_t first, size_t count) {
    const auto a = static_cast<ptrdiff_t>(first), b = static_cast<ptrdiff_t>(first + count);
    return {{rows.slot.begin() + a, rows.slot.begin() + b},
            {rows.position.begin() + a, rows.position.begin() + b},
            {rows.q.begin() + a * rows.q_stride, rows.q.begin() + b * rows.q_stride},
            rows.q_stride};
  }

  std::vector<double> Expected(const Rows& rows) const {
    std::vector<double> out;
    ForEachRow(rows, [&](int32_t b, int32_t head, int32_t first, const std::vector<double>& p,
                         double /*lse*/) {
      for (int32_t i = 0; i < shape.d; ++i) {
        double value = 0;
        for (size_t t = 0; t < p.size(); ++t) {
          value += p[t] * static_cast<double>(Value(b, first + static_cast<int32_t>(t), 1,
                                                    head / (shape.heads / shape.kv_heads), i));
        }
        out.push_back(value);
      }
    });
    return out;
  }

  // The log-sum-exp of the scores, [heads, rows].
  std::vector<double> ExpectedSums(const Rows& rows) const {
    std::vector<double> by_row, out;
    ForEachRow(rows, [&](int32_t, int32_t, int32_t, const std::vector<double>&, double lse) {
      by_row.push_back(lse);
    });
    for (size_t i = 0; i < by_row.size(); ++i) {
      const auto heads = static_cast<size_t>(shape.heads), n = rows.slot.size();
      out.push_back(by_row[i % n * heads + i / n]);
    }
    return out;
  }

  // Weights w are rounded to bfloat16 and divided by the sum of the rounded ones, so that a result
  // moves by kHalfBf16 * sum w |value - result| at most: the mean distance of values from their
  // mean, which of normal ones stays below 2.5. Errors of float32, of scores below 6 and of sums,
  // are a thousandth of that.
  double WeightRounding() const { return 2.5 * kHalfBf16; }

  PagedShape shape;
  int32_t stride = 0;
  std::vector<int32_t> table;
  std::vector<std::vector<float>> data;  // [b][token][K|V][kv head][d]
  std::vector<BFloat16> memory;

 private:
  // Calls f(sequence, head, first key, weights of the keys, their log-sum-exp) row by row.
  template <class F>
  void ForEachRow(const Rows& rows, const F& f) const {
    const int32_t group = shape.heads / shape.kv_heads;
    for (size_t r = 0; r < rows.slot.size(); ++r) {
      const int32_t last = rows.position[r],
                    first = shape.window > 0 ? std::max(0, last + 1 - shape.window) : 0;
      for (int32_t head = 0; head < shape.heads; ++head) {
        const float* query =
            rows.q.data() + static_cast<int64_t>(r) * rows.q_stride + int64_t{head} * shape.d;
        std::vector<double> p(static_cast<size_t>(last + 1 - first));
        double top = -INFINITY, sum = 0;
        for (int32_t t = first; t <= last; ++t) {
          double dot = 0;
          for (int32_t i = 0; i < shape.d; ++i) {
            dot += static_cast<double>(query[i]) *
                   static_cast<double>(Value(rows.slot[r], t, 0, head / group, i));
          }
          p[static_cast<size_t>(t - first)] = dot * static_cast<double>(shape.Scale());
          top = std::max(top, p[static_cast<size_t>(t - first)]);
        }
        for (double& x : p) sum += x = std::exp(x - top);
        for (double& x : p) x /= sum;
        f(rows.slot[r], head, first, p, top + std::log(sum));
      }
    }
  }

  void WriteTokens(int32_t b, int32_t begin, int32_t end) {
    const PagedKv kv = View();
    for (int32_t p = begin; p < end; ++p) {
      const int32_t page = table[static_cast<size_t>(b * stride + p / kv.page_tokens)];
      for (int32_t which = 0; which < 2; ++which) {
        for (int32_t h = 0; h < shape.kv_heads; ++h) {
          for (int32_t i = 0; i < shape.d; ++i) {
            memory[static_cast<size_t>(page * kv.page_stride() + which * kv.kv_stride() +
                                       h * kv.head_stride() + p % kv.page_tokens * shape.d + i)] =
                ToBFloat16(Value(b, p, which, h, i));
          }
        }
      }
    }
  }
};

}  // namespace plumb::kernels

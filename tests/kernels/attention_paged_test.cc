#include "kernels/attention_paged.h"

#include <algorithm>

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

struct Shape {
  int32_t heads, kv_heads, d, page_tokens;
  std::vector<int32_t> lengths;  // of each sequence
  int32_t window = 0;
  float scale = 0;  // 0: d^-1/2
  int32_t global_every = 0;
  float Scale() const { return scale > 0 ? scale : 1 / std::sqrt(static_cast<float>(d)); }
};

// Sequences with keys and values laid out in pages that are handed out in a scrambled order.
class Scene {
 public:
  Scene(Target target, const Shape& s, int32_t page_tokens) : shape(s), target_(target) {
    const int32_t longest = *std::max_element(s.lengths.begin(), s.lengths.end());
    stride = (longest + page_tokens - 1) / page_tokens;
    const auto sequences = static_cast<int32_t>(s.lengths.size());
    kv = {.dtype = target.dtype,
          .layers = 2,
          .num_pages = sequences * stride + 1,
          .page_tokens = page_tokens,
          .kv_heads = s.kv_heads,
          .head_dim = s.d};
    table.resize(static_cast<size_t>(sequences * stride));
    // page 0 stays unused
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(table.size() - i);
    // Unused slots hold NaN: a kernel that reads past the length cannot hide it.
    std::vector<float> pages(static_cast<size_t>(kv.layer_stride() * 2), NAN);
    for (int32_t b = 0; b < sequences; ++b) {
      const int64_t per_token = int64_t{2} * s.kv_heads * s.d;
      data.push_back(Normal(static_cast<size_t>(s.lengths[static_cast<size_t>(b)] * per_token),
                            static_cast<uint64_t>(b + 1), target.dtype));
      for (int32_t p = 0; p < s.lengths[static_cast<size_t>(b)]; ++p) {
        const int32_t page = table[static_cast<size_t>(b * stride + p / page_tokens)];
        for (int32_t which = 0; which < 2; ++which) {
          for (int32_t h = 0; h < s.kv_heads; ++h) {
            for (int32_t i = 0; i < s.d; ++i) {
              pages[static_cast<size_t>(kv.layer_stride() + page * kv.page_stride() +
                                        which * kv.kv_stride() + h * kv.head_stride() +
                                        p % page_tokens * s.d + i)] = Value(b, p, which, h, i);
            }
          }
        }
      }
    }
    memory = std::make_unique<Tensor>(target, pages);
    kv.pages = memory->data();
  }

  float Value(int32_t b, int32_t p, int32_t which, int32_t h, int32_t i) const {
    return data[static_cast<size_t>(b)]
               [static_cast<size_t>(((p * 2 + which) * shape.kv_heads + h) * shape.d + i)];
  }

  // Rows (slot, position) with their queries, of width q_stride.
  std::vector<float> Run(const std::vector<int32_t>& slot, const std::vector<int32_t>& position,
                         const std::vector<float>& q, int64_t q_stride) {
    Array<int32_t> dslot(target_.device, slot), dposition(target_.device, position),
        dtable(target_.device, table);
    Tensor dq(target_, q), out(target_, slot.size() * static_cast<size_t>(shape.heads * shape.d));
    const PagedRows rows{static_cast<int32_t>(slot.size()), dslot.data(), dposition.data(),
                         dtable.data(), stride};
    Call({.stream = TestStream(target_.device), .dtype = target_.dtype},
         AttentionPaged{.q = dq.data(),
                        .q_stride = q_stride,
                        .rows = rows,
                        .heads = shape.heads,
                        .layer = 1,
                        .kv = kv,
                        .scale = shape.Scale(),
                        .window = shape.window,
                        .global_every = shape.global_every,
                        .out = out.data()});
    return out.Host();
  }

  std::vector<double> Expected(const std::vector<int32_t>& slot,
                               const std::vector<int32_t>& position, const std::vector<float>& q,
                               int64_t q_stride) const {
    std::vector<double> out;
    const int32_t group = shape.heads / shape.kv_heads;
    for (size_t r = 0; r < slot.size(); ++r) {
      for (int32_t head = 0; head < shape.heads; ++head) {
        const float* query =
            q.data() + static_cast<int64_t>(r) * q_stride + int64_t{head} * shape.d;
        std::vector<double> p(static_cast<size_t>(position[r] + 1));
        double top = -INFINITY, sum = 0;
        for (size_t t = 0; t < p.size(); ++t) {
          for (int32_t i = 0; i < shape.d; ++i) {
            p[t] +=
                static_cast<double>(query[i]) *
                static_cast<double>(Value(slot[r], static_cast<int32_t>(t), 0, head / group, i));
          }
          p[t] *= static_cast<double>(shape.Scale());
          const bool global =
              shape.global_every > 0 && static_cast<int32_t>(t) % shape.global_every == 0;
          if (shape.window > 0 && static_cast<int32_t>(t) + shape.window <= position[r] && !global)
            p[t] = -INFINITY;
          top = std::max(top, p[t]);
        }
        for (double& x : p) sum += x = std::exp(x - top);
        for (int32_t i = 0; i < shape.d; ++i) {
          double value = 0;
          for (size_t t = 0; t < p.size(); ++t) {
            value +=
                p[t] / sum *
                static_cast<double>(Value(slot[r], static_cast<int32_t>(t), 1, head / group, i));
          }
          out.push_back(value);
        }
      }
    }
    return out;
  }

  Shape shape;
  PagedKv kv;
  int32_t stride;
  std::vector<int32_t> table;
  std::vector<std::vector<float>> data;  // [b][token][K|V][kv head][d]
  std::unique_ptr<Tensor> memory;

 private:
  Target target_;
};

// A row for every third position of every sequence, and the last.
void ManyRows(const Shape& s, std::vector<int32_t>* slot, std::vector<int32_t>* position) {
  for (size_t b = 0; b < s.lengths.size(); ++b) {
    for (int32_t p = 0; p < s.lengths[b]; ++p) {
      if (p % 3 == 0 || p + 1 == s.lengths[b]) {
        slot->push_back(static_cast<int32_t>(b));
        position->push_back(p);
      }
    }
  }
}

PLUMB_KERNEL_SUITE(AttentionPagedTest);

TEST_P(AttentionPagedTest, PagesBeforeTheWindowAreNotLookedAt) {
  const Shape s{4, 2, 64, 4, {53}, 10};
  const int64_t q_stride = int64_t{s.heads + 2 * s.kv_heads} * s.d;
  const auto q = Normal(static_cast<size_t>(q_stride), 5, dtype());
  Scene scene(GetParam(), s, 4);
  const auto expected = scene.Run({0}, {52}, q, q_stride);
  // which holds NaN
  for (int32_t page = 0; page < 43 / 4; ++page) scene.table[static_cast<size_t>(page)] = 0;
  ExpectSameBits(scene.Run({0}, {52}, q, q_stride), expected, "released pages");
}

TEST_P(AttentionPagedTest, IsSoftmaxOverTheSequence) {
  for (const Shape& s :
       {Shape{4, 4, 32, 16, {1, 7, 33}}, Shape{9, 3, 64, 16, {50, 3}},
        Shape{4, 2, 128, 8, {20, 17}}, Shape{2, 1, 16, 4, {9}}, Shape{7, 1, 80, 32, {40}},
        Shape{14, 2, 64, 16, {18}}, Shape{4, 2, 64, 16, {70, 5}, 17, 0.1f},
        Shape{2, 1, 32, 4, {40}, 1}, Shape{4, 1, 128, 16, {300}, 64},
        Shape{4, 2, 64, 16, {70, 5}, 17, 0.1f, 4}, Shape{2, 1, 32, 4, {40}, 1, 0, 1},
        Shape{4, 1, 24, 8, {300}, 9, 0, 7}, Shape{2, 2, 128, 16, {300}, 20, 0, 256}}) {
    Scene scene(GetParam(), s, s.page_tokens);
    std::vector<int32_t> slot, position;
    ManyRows(s, &slot, &position);
    const int64_t q_stride = int64_t{s.heads + 2 * s.kv_heads} * s.d;
    const auto q = Normal(slot.size() * static_cast<size_t>(q_stride), 9, dtype());
    // Scores below ~6 with sqrt(d) eps each move the weights by that; a convex mix of values below
    // ~4.
    double absolute = 4 * 6 * kEps * (4 + std::sqrt(static_cast<double>(s.d)));
    // Tensor cores take weights of bfloat16 (attention/paged_scene.h).
    if (device().is_cuda() && dtype() == DType::kBFloat16) absolute += 2.5 * kHalfBf16;
    ExpectClose(scene.Run(slot, position, q, q_stride), scene.Expected(slot, position, q, q_stride),
                OutputRounding(dtype()), absolute, "d " + std::to_string(s.d));
  }
}

TEST_P(AttentionPagedTest, ARowDoesNotKnowItsBatchNorThePageSize) {
  const Shape s{9, 3, 64, 16, {70, 3, 41, 16, 17}};
  const int64_t q_stride = int64_t{15} * 64;
  std::vector<int32_t> slot, position;
  for (int32_t r = 0; r < 32; ++r) {
    slot.push_back(r % 5);
    position.push_back(s.lengths[static_cast<size_t>(r % 5)] - 1 - (r % 3));
  }
  const auto q = Normal(32 * static_cast<size_t>(q_stride), 3, dtype());
  std::vector<float> expected;
  for (const int32_t page_tokens : {16, 4, 64}) {
    Scene scene(GetParam(), s, page_tokens);
    for (const size_t rows : {32, 1, 2, 3, 5}) {
      WithThreads([&](int) {
        const auto n = static_cast<int64_t>(rows);
        const auto got =
            scene.Run({slot.begin(), slot.begin() + n}, {position.begin(), position.begin() + n},
                      {q.begin(), q.begin() + n * q_stride}, q_stride);
        if (expected.empty()) expected = got;
        else
          ExpectSameBits(
              got, {expected.begin(), expected.begin() + n * 9 * 64},
              "rows " + std::to_string(rows) + ", pages of " + std::to_string(page_tokens));
      });
    }
  }
}

TEST_P(AttentionPagedTest, CopiesPagesInEveryLayer) {
  PagedKv kv{.dtype = dtype(),
             .layers = 3,
             .num_pages = 4,
             .page_tokens = 2,
             .kv_heads = 3,
             .head_dim = 5};
  const auto before = Normal(static_cast<size_t>(kv.layer_stride() * kv.layers), 1, dtype());
  Tensor memory(GetParam(), before);
  kv.pages = memory.data();
  Array<int32_t> from(device(), std::vector<int32_t>{0, 2}),
      to(device(), std::vector<int32_t>{3, 1});
  Call(launch(), CopyPages{.from = from.data(), .to = to.data(), .count = 2, .kv = kv});
  auto expected = before;
  for (int32_t layer = 0; layer < 3; ++layer) {
    const auto at = [&](int32_t page) {
      return expected.begin() + layer * kv.layer_stride() + page * kv.page_stride();
    };
    std::copy_n(at(0), kv.page_stride(), at(3));
    std::copy_n(at(2), kv.page_stride(), at(1));
  }
  ExpectSameBits(memory.Host(), expected, "pages");
}

}  // namespace
}  // namespace plumb::kernels

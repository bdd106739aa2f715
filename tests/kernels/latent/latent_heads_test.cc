#include "kernels/latent/latent_heads.h"

#include <numeric>

#include "kernels/attention_paged.h"
#include "kernels/rope.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

const Launch kFloat = {.stream = Device::kCpu, .dtype = DType::kFloat32};
const Launch kBf16 = {.stream = Device::kCpu, .dtype = DType::kBFloat16};

// Sizes that vectors divide, that they do not, values longer than keys.
std::vector<LatentShape> Shapes(int64_t rows) {
  return {{rows, 3, 16, 8, 16, 64, 24}, {rows, 2, 9, 6, 11, 14, 16}, {rows, 4, 5, 2, 12, 83, 12}};
}

std::vector<float> Draw(int64_t n, uint64_t seed) {
  return Normal(static_cast<size_t>(n), seed, DType::kFloat32);
}
std::vector<float> Poison(int64_t n) { return std::vector<float>(static_cast<size_t>(n), kPoison); }

std::vector<BFloat16> Bf16(const std::vector<float>& x) {
  std::vector<BFloat16> out;
  for (const float value : x) out.push_back(ToBFloat16(value));
  return out;
}
std::vector<float> Wide(const std::vector<BFloat16>& x) {
  std::vector<float> out;
  for (const BFloat16 value : x) out.push_back(ToFloat(value));
  return out;
}

TEST(LatentHeads, HeadsAreJoinedInTheirOrderWithZerosBehind) {
  for (const LatentShape& s : Shapes(5)) {
    const auto q = Draw(5 * s.query_width(), 1), kv = Draw(5 * s.kv_width(), 2),
               down = Draw(5 * s.cached(), 3);
    auto qkv = Poison(5 * s.merged_width());
    Call(kFloat,
         JoinLatentHeads{
             .shape = s, .q = q.data(), .kv = kv.data(), .down = down.data(), .qkv = qkv.data()});
    for (int64_t r = 0; r < 5; ++r) {
      for (int32_t h = 0; h < s.heads; ++h) {
        const auto at = [&](int32_t part, int32_t i) {
          return qkv[static_cast<size_t>(r * s.merged_width() +
                                         int64_t{part * s.heads + h} * s.head + i)];
        };
        const auto in = [&](const std::vector<float>& x, int64_t width, int32_t each, int32_t i) {
          return x[static_cast<size_t>(r * width + int64_t{h} * each + i)];
        };
        for (int32_t i = 0; i < s.head; ++i) {
          const bool turned = i < s.rope, plain = !turned && i < s.rope + s.nope;
          EXPECT_EQ(at(0, i), turned  ? in(q, s.query_width(), s.nope + s.rope, s.nope + i)
                              : plain ? in(q, s.query_width(), s.nope + s.rope, i - s.rope)
                                      : 0);
          EXPECT_EQ(at(1, i), turned  ? down[static_cast<size_t>(r * s.cached() + s.rank + i)]
                              : plain ? in(kv, s.kv_width(), s.nope + s.value, i - s.rope)
                                      : 0);
          EXPECT_EQ(at(2, i), i < s.value ? in(kv, s.kv_width(), s.nope + s.value, s.nope + i) : 0);
        }
      }
    }
  }
}

// <Join(x), y> = <x, Split(y)> for any x and y, and so for values.
TEST(LatentHeads, TheWayBackIsTheTransposed) {
  for (const LatentShape& s : Shapes(4)) {
    const auto q = Draw(4 * s.query_width(), 1), kv = Draw(4 * s.kv_width(), 2),
               down = Draw(4 * s.cached(), 3), y = Draw(4 * s.merged_width(), 4);
    auto qkv = Poison(4 * s.merged_width()), dq = Poison(4 * s.query_width()),
         dkv = Poison(4 * s.kv_width()), ddown = Poison(4 * s.cached());
    Call(kFloat,
         JoinLatentHeads{
             .shape = s, .q = q.data(), .kv = kv.data(), .down = down.data(), .qkv = qkv.data()});
    Call(kFloat, SplitLatentHeads{.shape = s,
                                  .dqkv = y.data(),
                                  .dq = dq.data(),
                                  .dkv = dkv.data(),
                                  .ddown = ddown.data()});
    const double there = Dot(ToDouble(qkv), ToDouble(y)),
                 back = Dot(ToDouble(q), ToDouble(dq)) + Dot(ToDouble(kv), ToDouble(dkv)) +
                        Dot(ToDouble(down), ToDouble(ddown));
    EXPECT_NEAR(there, back, 1e-4);
    for (int64_t r = 0; r < 4; ++r) {
      for (int32_t i = 0; i < s.rank; ++i)
        EXPECT_EQ(ddown[static_cast<size_t>(r * s.cached() + i)], 0) << "of the latent";
    }
    const auto mixed = Draw(4 * s.heads * s.head, 5), dv = Draw(4 * s.heads * s.value, 6);
    auto values = Poison(4 * s.heads * s.value), dmixed = Poison(4 * s.heads * s.head);
    Call(kFloat, TakeValues{.shape = s, .mixed = mixed.data(), .values = values.data()});
    Call(kFloat, PutValues{.shape = s, .values = dv.data(), .mixed = dmixed.data()});
    EXPECT_NEAR(Dot(ToDouble(values), ToDouble(dv)), Dot(ToDouble(mixed), ToDouble(dmixed)), 1e-4);
  }
}

// Both products in double; sums of `n` terms of about 1 in float.
TEST(LatentHeads, QueriesAndValuesGoThroughTheWeightsOfTheirHead) {
  for (const LatentShape& s : Shapes(7)) {
    const auto q = Draw(7 * s.query_width(), 1), down = Draw(7 * s.cached(), 2),
               latent = Draw(7 * s.rank, 3), w = Draw(s.kv_width() * s.rank, 4),
               mixed = Draw(7 * s.heads * s.cached(), 5);
    auto rows = Poison(7 * (s.heads + 1) * s.cached()), values = Poison(7 * s.heads * s.value);
    Call(kFloat, AbsorbQueries{.shape = s,
                               .q = q.data(),
                               .down = down.data(),
                               .latent = latent.data(),
                               .w = w.data(),
                               .out = rows.data()});
    Call(kFloat,
         ExpandValues{.shape = s, .mixed = mixed.data(), .w = w.data(), .values = values.data()});
    const double tolerance = 64 * kEps * std::sqrt(s.rank) * 4;
    for (int64_t r = 0; r < 7; ++r) {
      const float* row = rows.data() + r * (s.heads + 1) * s.cached();
      for (int32_t h = 0; h < s.heads; ++h) {
        const float* from = q.data() + r * s.query_width() + int64_t{h} * (s.nope + s.rope);
        const float* weights = w.data() + int64_t{h} * (s.nope + s.value) * s.rank;
        const float* out = row + int64_t{h} * s.cached();
        for (int32_t i = 0; i < s.rope; ++i) EXPECT_EQ(out[i], from[s.nope + i]);
        for (int32_t j = 0; j < s.rank; ++j) {
          double want = 0;
          for (int32_t i = 0; i < s.nope; ++i)
            want += static_cast<double>(from[i]) * static_cast<double>(weights[i * s.rank + j]);
          ASSERT_NEAR(out[s.rope + j], want, tolerance);
        }
        const float* m = mixed.data() + (r * s.heads + h) * s.cached() + s.rope;
        for (int32_t v = 0; v < s.value; ++v) {
          double want = 0;
          for (int32_t j = 0; j < s.rank; ++j)
            want += static_cast<double>(m[j]) *
                    static_cast<double>(weights[int64_t{s.nope + v} * s.rank + j]);
          ASSERT_NEAR(values[static_cast<size_t>((r * s.heads + h) * s.value + v)], want,
                      tolerance);
        }
      }
      const float* key = row + int64_t{s.heads} * s.cached();
      for (int32_t i = 0; i < s.rope; ++i)
        EXPECT_EQ(key[i], down[static_cast<size_t>(r * s.cached() + s.rank + i)]);
      for (int32_t i = 0; i < s.rank; ++i)
        EXPECT_EQ(key[s.rope + i], latent[static_cast<size_t>(r * s.rank + i)]);
    }
  }
}

TEST(LatentHeads, ARowIsTheSameAloneAndAmongOthersAndInBfloat16IsNear) {
  constexpr int64_t kMany = 7;
  for (LatentShape s : Shapes(kMany)) {
    const auto q = Wide(Bf16(Draw(kMany * s.query_width(), 1))),
               down = Wide(Bf16(Draw(kMany * s.cached(), 2))),
               latent = Wide(Bf16(Draw(kMany * s.rank, 3))),
               w = Wide(Bf16(Draw(s.kv_width() * s.rank, 4))),
               mixed = Wide(Bf16(Draw(kMany * s.heads * s.cached(), 5)));
    const int64_t row = (s.heads + 1) * s.cached(), out = s.heads * s.value;
    auto rows = Poison(kMany * row), values = Poison(kMany * out), one_row = Poison(row),
         one_value = Poison(out);
    Call(kFloat, AbsorbQueries{.shape = s,
                               .q = q.data(),
                               .down = down.data(),
                               .latent = latent.data(),
                               .w = w.data(),
                               .out = rows.data()});
    Call(kFloat,
         ExpandValues{.shape = s, .mixed = mixed.data(), .w = w.data(), .values = values.data()});
    LatentShape one = s;
    one.rows = 1;
    for (int64_t r = 0; r < kMany; ++r) {
      Call(kFloat, AbsorbQueries{.shape = one,
                                 .q = q.data() + r * s.query_width(),
                                 .down = down.data() + r * s.cached(),
                                 .latent = latent.data() + r * s.rank,
                                 .w = w.data(),
                                 .out = one_row.data()});
      Call(kFloat, ExpandValues{.shape = one,
                                .mixed = mixed.data() + r * s.heads * s.cached(),
                                .w = w.data(),
                                .values = one_value.data()});
      EXPECT_EQ(0, std::memcmp(one_row.data(), rows.data() + r * row, one_row.size() * 4));
      EXPECT_EQ(0, std::memcmp(one_value.data(), values.data() + r * out, one_value.size() * 4));
    }
    const auto q16 = Bf16(q), down16 = Bf16(down), latent16 = Bf16(latent), w16 = Bf16(w),
               mixed16 = Bf16(mixed);
    std::vector<BFloat16> rows16(rows.size()), values16(values.size());
    Call(kBf16, AbsorbQueries{.shape = s,
                              .q = q16.data(),
                              .down = down16.data(),
                              .latent = latent16.data(),
                              .w = w16.data(),
                              .out = rows16.data()});
    Call(kBf16,
         ExpandValues{
             .shape = s, .mixed = mixed16.data(), .w = w16.data(), .values = values16.data()});
    // The same sums of the same numbers, rounded once.
    ExpectClose(Wide(rows16), ToDouble(rows), kHalfBf16, 1e-5, "queries");
    ExpectClose(Wide(values16), ToDouble(values), kHalfBf16, 1e-5, "values");
  }
}

// Pages whose values are the keys give what pages give that hold them twice.
TEST(LatentHeads, PagesOfKeysAloneAreReadAsKeysAndValues) {
  constexpr int32_t kHeads = 3, kPage = 4, kPages = 4, kRows = 14;
  for (const int32_t d : {32, 22, 64}) {
    for (const int32_t window : {0, 6}) {
      const auto drawn = Draw(int64_t{kRows} * (kHeads + 1) * d, 9);
      std::vector<float> out[2];
      for (const bool once : {false, true}) {
        PagedKv kv{.dtype = DType::kFloat32,
                   .layers = 2,
                   .num_pages = kPages,
                   .page_tokens = kPage,
                   .kv_heads = 1,
                   .head_dim = d,
                   .keys_only = once};
        EXPECT_EQ(kv.bytes(), (once ? 1 : 2) * 2 * kPages * kPage * d * 4);
        std::vector<float> memory(static_cast<size_t>(kv.bytes() / 4), NAN);
        kv.pages = memory.data();
        const int32_t parts = kHeads + (once ? 1 : 2);
        std::vector<float> rows(static_cast<size_t>(kRows * parts * d));
        for (int32_t r = 0; r < kRows; ++r) {
          const float* from = drawn.data() + r * (kHeads + 1) * d;
          std::copy_n(from, (kHeads + 1) * d, rows.data() + r * parts * d);
          if (!once) std::copy_n(from + kHeads * d, d, rows.data() + (r * parts + kHeads + 1) * d);
        }
        std::vector<int32_t> slot(kRows, 0), position(kRows), table = {2, 0, 3, 1};
        std::iota(position.begin(), position.end(), 0);
        const PagedRows paged{kRows, slot.data(), position.data(), table.data(), kPages};
        Call(kFloat, RopeAndWriteKv{
                         .qkv = rows.data(), .rows = paged, .heads = kHeads, .layer = 1, .kv = kv});
        out[once].resize(static_cast<size_t>(kRows * kHeads * d));
        Call(kFloat, AttentionPaged{.q = rows.data(),
                                    .q_stride = parts * d,
                                    .rows = paged,
                                    .heads = kHeads,
                                    .layer = 1,
                                    .kv = kv,
                                    .scale = 0.2f,
                                    .window = window,
                                    .out = out[once].data()});
        // Copied pages carry all of it.
        const std::vector<int32_t> from = {2}, to = {1};
        Call(kFloat, CopyPages{.from = from.data(), .to = to.data(), .count = 1, .kv = kv});
        EXPECT_EQ(0, std::memcmp(memory.data() + kv.layer_stride() + 2 * kv.page_stride(),
                                 memory.data() + kv.layer_stride() + kv.page_stride(),
                                 static_cast<size_t>(kv.page_stride()) * 4));
      }
      ExpectSameBits(out[1], out[0], "keys alone");
    }
  }
}

}  // namespace
}  // namespace plumb::kernels

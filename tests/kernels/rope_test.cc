#include "kernels/rope.h"

#include "kernels/embedding.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

// The rotation in double, from the definition.
std::vector<double> Reference(std::vector<double> qkv, const std::vector<int32_t>& position,
                              int32_t heads, int32_t kv_heads, int32_t d, double theta, double sign,
                              int32_t dims, bool interleaved = false) {
  const int64_t width = int64_t{heads + 2 * kv_heads} * d;
  for (size_t r = 0; r < position.size(); ++r) {
    for (int32_t h = 0; h < heads + kv_heads; ++h) {
      double* x = qkv.data() + static_cast<int64_t>(r) * width + h * d;
      for (int32_t i = 0; i < dims / 2; ++i) {
        const double angle = sign * position[r] * std::pow(theta, -2.0 * i / dims);
        double &first = x[interleaved ? 2 * i : i],
               &second = x[interleaved ? 2 * i + 1 : dims / 2 + i];
        const double a = first, b = second;
        first = a * std::cos(angle) - b * std::sin(angle);
        second = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
  return qkv;
}

struct Shape {
  int32_t rows, heads, kv_heads, d;
  int32_t dims = d;  // rotated
  bool interleaved = false;
};
const std::vector<Shape> kShapes = {
    {1, 1, 1, 2},           {3, 2, 1, 6},     {5, 4, 2, 16},
    {7, 9, 3, 64},          {2, 3, 3, 128},   {3, 2, 1, 64, 32},
    {3, 2, 2, 16, 6},       {2, 3, 1, 32, 0}, {5, 4, 2, 16, 16, true},
    {3, 2, 1, 64, 32, true}};

PLUMB_KERNEL_SUITE(Rope);

Array<float> Table(Device device, int64_t positions, int32_t d, double theta) {
  std::vector<float> table(static_cast<size_t>(positions * d));
  std::vector<double> frequencies;
  for (int32_t i = 0; i < d / 2; ++i) frequencies.push_back(std::pow(theta, -2.0 * i / d));
  RopeTable(positions, frequencies, 1.0, table.data());
  return Array<float>(device, table);
}

TEST_P(Rope, TurnsAndTurnsBack) {
  for (const Shape& s : kShapes) {
    const int64_t width = int64_t{s.heads + 2 * s.kv_heads} * s.d;
    const auto x = ToDouble(Normal(s.rows * width, 1, dtype()));
    std::vector<int32_t> position;
    for (int32_t r = 0; r < s.rows; ++r) position.push_back(r * 37 % 200);
    auto table = Table(device(), 200, s.dims, 10000.0);
    Array<int32_t> tp(device(), position);
    for (const bool inverse : {false, true}) {
      const auto want = Reference(x, position, s.heads, s.kv_heads, s.d, 10000.0, inverse ? -1 : 1,
                                  s.dims, s.interleaved);
      Tensor qkv(GetParam(), Floats(x));
      Call(launch(), RopeInPlace{.qkv = qkv.data(),
                                 .position = tp.data(),
                                 .cos_sin = table.data(),
                                 .rows = s.rows,
                                 .heads = s.heads,
                                 .kv_heads = s.kv_heads,
                                 .head_dim = s.d,
                                 .dims = s.dims,
                                 .interleaved = s.interleaved,
                                 .inverse = inverse});
      // Two products and a sum, and the table's own rounding; inputs are below 6.
      ExpectClose(qkv.Host(), want, OutputRounding(dtype()), 5 * kEps * 12, "qkv");
      Call(launch(), RopeInPlace{.qkv = qkv.data(),
                                 .position = tp.data(),
                                 .cos_sin = table.data(),
                                 .rows = s.rows,
                                 .heads = s.heads,
                                 .kv_heads = s.kv_heads,
                                 .head_dim = s.d,
                                 .dims = s.dims,
                                 .interleaved = s.interleaved,
                                 .inverse = !inverse});
      // The inverse undoes it up to the rounding of the value between.
      ExpectClose(qkv.Host(), x, OutputRounding(dtype()),
                  (10 * kEps + 2 * OutputRounding(dtype())) * 12, "turned back");
    }
  }
}

// The rotation is orthogonal: turning back is its transpose, so <R x, y> = <x, R^-1 y>; this is
// what backward needs.
// Parts brought together and turned back are the merged rows turned back, bit for bit.
TEST_P(Rope, PartsAreTurnedBackAsTheMergedRowsAre) {
  std::vector<Shape> shapes = kShapes;
  shapes.push_back({300, 14, 2, 64});
  shapes.push_back({9, 28, 4, 128});
  for (const Shape& s : shapes) {
    const int64_t q = int64_t{s.heads} * s.d, kv = int64_t{s.kv_heads} * s.d, width = q + 2 * kv;
    const auto x = Normal(static_cast<size_t>(s.rows * width), 1, dtype());
    std::vector<float> dq, dk, dv;
    std::vector<int32_t> position;
    for (int64_t r = 0; r < s.rows; ++r) {
      position.push_back(static_cast<int32_t>(r * 37 % 200));
      const auto row = x.begin() + r * width;
      dq.insert(dq.end(), row, row + q);
      dk.insert(dk.end(), row + q, row + q + kv);
      dv.insert(dv.end(), row + q + kv, row + width);
    }
    auto table = Table(device(), 200, s.dims, 10000.0);
    Array<int32_t> tp(device(), position);
    Tensor merged(GetParam(), x), tq(GetParam(), dq), tk(GetParam(), dk), tv(GetParam(), dv),
        out(GetParam(), std::vector<float>(x.size(), kPoison));
    Call(launch(), RopeInPlace{.qkv = merged.data(),
                               .position = tp.data(),
                               .cos_sin = table.data(),
                               .rows = s.rows,
                               .heads = s.heads,
                               .kv_heads = s.kv_heads,
                               .head_dim = s.d,
                               .dims = s.dims,
                               .interleaved = s.interleaved,
                               .inverse = true});
    Call(launch(), RopeBackward{.dq = tq.data(),
                                .dk = tk.data(),
                                .dv = tv.data(),
                                .position = tp.data(),
                                .cos_sin = table.data(),
                                .rows = s.rows,
                                .heads = s.heads,
                                .kv_heads = s.kv_heads,
                                .head_dim = s.d,
                                .dims = s.dims,
                                .interleaved = s.interleaved,
                                .dqkv = out.data()});
    ExpectSameBits(out.Host(), merged.Host(), "dqkv");
  }
}

TEST_P(Rope, InverseIsTheGradient) {
  const Shape s = {2, 2, 1, 8};
  const int64_t width = int64_t{s.heads + 2 * s.kv_heads} * s.d;
  const std::vector<int32_t> position = {3, 11};
  const auto x = ToDouble(Normal(s.rows * width, 2, dtype())),
             dy = ToDouble(Normal(s.rows * width, 3, dtype()));
  const auto want = Gradient(
      [&](const auto& v) {
        return Dot(Reference(v, position, s.heads, s.kv_heads, s.d, 10000.0, 1, s.d), dy);
      },
      x);
  auto table = Table(device(), 16, s.d, 10000.0);
  Array<int32_t> tp(device(), position);
  Tensor t(GetParam(), Floats(dy));
  Call(launch(), RopeInPlace{.qkv = t.data(),
                             .position = tp.data(),
                             .cos_sin = table.data(),
                             .rows = s.rows,
                             .heads = s.heads,
                             .kv_heads = s.kv_heads,
                             .head_dim = s.d,
                             .dims = s.dims,
                             .inverse = true});
  ExpectClose(t.Host(), want, OutputRounding(dtype()), 8 * kEps * 12, "d qkv");
}

TEST_P(Rope, WritesKeysAndValuesToTheirPagesOnly) {
  for (const Shape& s : kShapes) {
    for (const int32_t page_tokens : {1, 5, 16}) {
      const int64_t width = int64_t{s.heads + 2 * s.kv_heads} * s.d;
      const auto x = ToDouble(Normal(s.rows * width, 4, dtype()));
      // Rows belong to two slots in turn, at positions 3, 4, 5, ...
      std::vector<int32_t> slot, position;
      for (int32_t r = 0; r < s.rows; ++r) {
        slot.push_back(r % 2);
        position.push_back(3 + r / 2);
      }
      const int32_t stride = 12, pages = 2 * stride, layers = 2;
      std::vector<int32_t> page_table;
      for (int32_t i = 0; i < pages; ++i) page_table.push_back((i * 7 + 5) % pages);
      PagedKv kv{.dtype = dtype(),
                 .layers = layers,
                 .num_pages = pages,
                 .page_tokens = page_tokens,
                 .kv_heads = s.kv_heads,
                 .head_dim = s.d};
      const int64_t elements = kv.layer_stride() * layers;
      Tensor memory(GetParam(), std::vector<float>(elements, kPoison)), qkv(GetParam(), Floats(x)),
          turned(GetParam(), Floats(x));
      kv.pages = memory.data();
      Array<int32_t> ts(device(), slot), tp(device(), position), tt(device(), page_table);
      auto table = Table(device(), 64, s.dims, 500.0);
      Call(launch(), RopeAndWriteKv{.qkv = qkv.data(),
                                    .rows = {.rows = s.rows,
                                             .slot = ts.data(),
                                             .position = tp.data(),
                                             .page_table = tt.data(),
                                             .page_table_stride = stride},
                                    .cos_sin = table.data(),
                                    .heads = s.heads,
                                    .dims = s.dims,
                                    .interleaved = s.interleaved,
                                    .layer = 1,
                                    .kv = kv});
      Call(launch(), RopeInPlace{.qkv = turned.data(),
                                 .position = tp.data(),
                                 .cos_sin = table.data(),
                                 .rows = s.rows,
                                 .heads = s.heads,
                                 .kv_heads = s.kv_heads,
                                 .head_dim = s.d,
                                 .dims = s.dims,
                                 .interleaved = s.interleaved});
      const auto got = qkv.Host(), want_turned = turned.Host();
      std::vector<float> want = Tensor(GetParam(), std::vector<float>(elements, kPoison)).Host();
      for (int32_t r = 0; r < s.rows; ++r) {
        for (int32_t i = 0; i < s.heads * s.d; ++i)
          EXPECT_EQ(got[r * width + i], want_turned[r * width + i]) << "q";
        const int32_t page = page_table[slot[r] * stride + position[r] / page_tokens];
        for (int32_t h = 0; h < s.kv_heads; ++h) {
          const int64_t to = kv.layer_stride() + page * kv.page_stride() + h * kv.head_stride() +
                             int64_t{position[r] % page_tokens} * s.d;
          for (int32_t i = 0; i < s.d; ++i) {
            want[to + i] = want_turned[r * width + (s.heads + h) * s.d + i];
            want[to + kv.kv_stride() + i] =
                static_cast<float>(x[r * width + (s.heads + s.kv_heads + h) * s.d + i]);
          }
        }
      }
      EXPECT_EQ(memory.Host(), want) << "page_tokens " << page_tokens << " d " << s.d;
    }
  }
}

// One kernel instead of two, to their bits; what is packed in fewer bits comes behind it, too.
TEST_P(Rope, ABiasIsAddedBeforeItIsTurned) {
  for (const Shape& s : kShapes) {
    for (const KvFormat format : {KvFormat::kModel, KvFormat::kInt8}) {
      const int64_t width = int64_t{s.heads + 2 * s.kv_heads} * s.d;
      const auto x = Normal(s.rows * width, 6, dtype()), bias = Normal(width, 7, dtype());
      std::vector<int32_t> slot(static_cast<size_t>(s.rows), 0), position, page_table;
      for (int32_t r = 0; r < s.rows; ++r) position.push_back(2 + r);
      for (int32_t i = 0; i < 64; ++i) page_table.push_back(63 - i);
      PagedKv kv{.dtype = dtype(),
                 .layers = 1,
                 .num_pages = 64,
                 .page_tokens = 5,
                 .kv_heads = s.kv_heads,
                 .head_dim = s.d,
                 .format = format};
      Tensor tx(GetParam(), x), ty(GetParam(), x), tb(GetParam(), bias);
      Array<int32_t> ts(device(), slot), tp(device(), position), tt(device(), page_table);
      auto table = Table(device(), 200, s.dims, 500.0);
      std::vector<std::vector<uint8_t>> pages;
      for (const bool together : {true, false}) {
        Array<uint8_t> memory(device(), std::vector<uint8_t>(static_cast<size_t>(kv.bytes()), 9));
        kv.pages = memory.data();
        Tensor& qkv = together ? tx : ty;
        if (!together) {
          Call(launch(),
               AddBias{.x = qkv.data(), .bias = tb.data(), .rows = s.rows, .width = width});
        }
        Call(launch(), RopeAndWriteKv{.qkv = qkv.data(),
                                      .bias = together ? tb.data() : nullptr,
                                      .rows = {.rows = static_cast<int32_t>(s.rows),
                                               .slot = ts.data(),
                                               .position = tp.data(),
                                               .page_table = tt.data(),
                                               .page_table_stride = 64},
                                      .cos_sin = table.data(),
                                      .heads = s.heads,
                                      .dims = s.dims,
                                      .interleaved = s.interleaved,
                                      .kv = kv});
        pages.push_back(memory.Host());
      }
      EXPECT_EQ(pages[0], pages[1]);
      EXPECT_NE(pages[0], std::vector<uint8_t>(pages[0].size(), 9));
      ExpectSameBits(tx.Host(), ty.Host(), "queries");
    }
  }
}

TEST_P(Rope, ScalesQueriesByPosition) {
  const int64_t rows = 5, width = 12, stride = 20;
  const auto x = ToDouble(Normal(rows * stride, 5, dtype()));
  const std::vector<int32_t> position = {3, 0, 2, 2, 1};
  const std::vector<float> scale = {1.0f, 1.5f, 0.25f, 3.0f};
  auto want = x;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < width; ++i)
      want[static_cast<size_t>(r * stride + i)] *=
          scale[static_cast<size_t>(position[static_cast<size_t>(r)])];
  }
  Array<int32_t> tp(device(), position);
  Array<float> ts(device(), scale);
  Tensor qkv(GetParam(), Floats(x));
  Call(launch(), ScaleQueries{.qkv = qkv.data(),
                              .position = tp.data(),
                              .scale = ts.data(),
                              .rows = rows,
                              .width = width,
                              .stride = stride});
  ExpectClose(qkv.Host(), want, OutputRounding(dtype()), kEps * 12, "queries");
}

TEST(RopeTable, HoldsCosinesAndSines) {
  std::vector<float> table(3 * 4);
  RopeTable(3, std::vector<double>{1.0, 0.1}, 1.0, table.data());
  EXPECT_FLOAT_EQ(table[0], 1.0f);
  EXPECT_FLOAT_EQ(table[2], 0.0f);
  EXPECT_FLOAT_EQ(table[8], std::cos(2.0f));
  EXPECT_FLOAT_EQ(table[9], std::cos(0.2f));
  EXPECT_FLOAT_EQ(table[10], std::sin(2.0f));
  EXPECT_FLOAT_EQ(table[11], std::sin(0.2f));
  RopeTable(3, std::vector<double>{1.0, 0.1}, 1.5, table.data());
  EXPECT_FLOAT_EQ(table[0], 1.5f) << "a factor scales both";
  EXPECT_FLOAT_EQ(table[10], 1.5f * std::sin(2.0f));
}

}  // namespace
}  // namespace plumb::kernels

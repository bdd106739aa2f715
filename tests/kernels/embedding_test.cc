#include "kernels/embedding.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

PLUMB_KERNEL_SUITE(Embedding);

TEST_P(Embedding, GathersAndScattersRows) {
  for (const size_t width : {1, 7, 128, 577}) {
    const auto table = Normal(10 * width, width, dtype());
    const std::vector<int32_t> index = {9, 0, 3, 3, 9};
    Tensor dtable(GetParam(), table), out(GetParam(), index.size() * width);
    Array<int32_t> dindex(device(), index);
    Call(launch(), GatherRows{.table = dtable.data(),
                              .index = dindex.data(),
                              .rows = 5,
                              .width = static_cast<int64_t>(width),
                              .out = out.data()});
    std::vector<float> expected;
    for (const int32_t i : index) {
      expected.insert(expected.end(),
                      table.begin() + static_cast<int64_t>(static_cast<size_t>(i) * width),
                      table.begin() + static_cast<int64_t>((static_cast<size_t>(i) + 1) * width));
    }
    ExpectSameBits(out.Host(), expected, "gather");

    const std::vector<int32_t> distinct = {4, 2, 0};
    Array<int32_t> ddistinct(device(), distinct);
    const auto rows = Normal(3 * width, 5, dtype());
    Tensor drows(GetParam(), rows), into(GetParam(), table);
    Call(launch(), ScatterRows{.d = drows.data(),
                               .index = ddistinct.data(),
                               .rows = 3,
                               .width = static_cast<int64_t>(width),
                               .out = into.data()});
    auto want = table;
    for (size_t r = 0; r < 3; ++r) {
      for (size_t i = 0; i < width; ++i)
        want[static_cast<size_t>(distinct[r]) * width + i] = rows[r * width + i];
    }
    ExpectSameBits(into.Host(), want, "scatter");
  }
}

TEST_P(Embedding, ScalesWhatItGathersAndAdds) {
  const int64_t width = 19;
  const float scale = 2.5f;
  const auto table = Normal(4 * width, 1, dtype()), d = Normal(3 * width, 2, dtype()),
             y = Normal(3 * width, 3, dtype());
  const std::vector<int32_t> index = {3, 0, 3};
  Tensor ttable(GetParam(), table), td(GetParam(), d),
      out(GetParam(), 3 * static_cast<size_t>(width)), ty(GetParam(), y);
  Array<int32_t> tindex(device(), index);
  Array<float> grad(device(), std::vector<float>(4 * static_cast<size_t>(width), 1.0f));
  Call(launch(), GatherRows{.table = ttable.data(),
                            .index = tindex.data(),
                            .rows = 3,
                            .width = width,
                            .out = out.data(),
                            .scale = scale});
  Call(launch(), ScatterAddRows{.d = td.data(),
                                .index = tindex.data(),
                                .rows = 3,
                                .width = width,
                                .grad = grad.data(),
                                .scale = scale});
  Call(launch(), AddScaled{.x = td.data(), .n = 3 * width, .scale = scale, .y = ty.data()});
  std::vector<double> gathered, added, grads(4 * static_cast<size_t>(width), 1.0);
  for (size_t i = 0; i < d.size(); ++i) {
    const size_t row = i / static_cast<size_t>(width),
                 to = static_cast<size_t>(index[row]) * width + i % width;
    gathered.push_back(2.5 * static_cast<double>(table[to]));
    added.push_back(static_cast<double>(y[i]) + 2.5 * static_cast<double>(d[i]));
    grads[to] += 2.5 * static_cast<double>(d[i]);
  }
  ExpectClose(out.Host(), gathered, OutputRounding(dtype()), 1e-30, "gathered");
  ExpectClose(ty.Host(), added, OutputRounding(dtype()), 4 * kEps * 10, "added");
  ExpectClose(grad.Host(), grads, kEps, 8 * kEps * 10, "gradient");
}

TEST_P(Embedding, SumsTheRowsOfEachList) {
  // the second list is empty
  const std::vector<int32_t> index = {3, 0, 3, 7, 1, 2, 5, 4}, begins = {0, 1, 1, 5, 8};
  for (const size_t width : {1, 24, 192, 300}) {
    const size_t stride = width + 5, rows = begins.size() - 1;
    const auto d = Normal(8 * width, 3, dtype());
    std::vector<double> expected(rows * width, 0.0);
    for (size_t r = 0; r < rows; ++r) {
      for (auto k = static_cast<size_t>(begins[r]); k < static_cast<size_t>(begins[r + 1]); ++k) {
        for (size_t i = 0; i < width; ++i)
          expected[r * width + i] +=
              static_cast<double>(d[static_cast<size_t>(index[k]) * width + i]);
      }
    }
    const auto before = Normal(rows * stride, 9, dtype());
    Tensor dd(GetParam(), d), out(GetParam(), before);
    Array<int32_t> dindex(device(), index), dbegins(device(), begins);
    Call(launch(), SumRows{.d = dd.data(),
                           .index = dindex.data(),
                           .begins = dbegins.data(),
                           .rows = static_cast<int64_t>(rows),
                           .width = static_cast<int64_t>(width),
                           .out_stride = static_cast<int64_t>(stride),
                           .out = out.data()});
    const auto all = out.Host();
    std::vector<float> sums, between, between_before;
    for (size_t r = 0; r < rows; ++r) {
      const auto at = static_cast<std::ptrdiff_t>(r * stride),
                 end = static_cast<std::ptrdiff_t>(r * stride + width);
      sums.insert(sums.end(), all.begin() + at, all.begin() + end);
      between.insert(between.end(), all.begin() + end, all.begin() + end + 5);
      between_before.insert(between_before.end(), before.begin() + end, before.begin() + end + 5);
    }
    // four terms, sums below 8
    ExpectClose(sums, expected, OutputRounding(dtype()), 4 * 8 * kEps, "sums");
    ExpectSameBits(between, between_before, "what lies between the rows");
  }
}

TEST_P(Embedding, AddsRowsWithRepeatedIndices) {
  for (const size_t width : {3, 64, 130, 700}) {
    const size_t rows = 50;
    std::vector<int32_t> index(rows);
    for (size_t r = 0; r < rows; ++r) index[r] = static_cast<int32_t>(r * r % 7);
    const auto d = Normal(rows * width, 1, dtype()), before = Normal(8 * width, 2);
    auto expected = ToDouble(before);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t i = 0; i < width; ++i)
        expected[static_cast<size_t>(index[r]) * width + i] +=
            static_cast<double>(d[r * width + i]);
    }
    Tensor dd(GetParam(), d);
    Array<int32_t> dindex(device(), index);
    std::vector<float> first;
    WithThreads([&](int) {
      Array<float> grad(device(), before);
      Call(launch(), ScatterAddRows{.d = dd.data(),
                                    .index = dindex.data(),
                                    .rows = rows,
                                    .width = static_cast<int64_t>(width),
                                    .grad = grad.data()});
      // At most 16 additions to an element, sums below ~20.
      ExpectClose(grad.Host(), expected, 0, 16 * 20 * kEps, "grad");
      if (first.empty()) first = grad.Host();
      else if (device() == Device::kCpu) ExpectSameBits(grad.Host(), first, "threads");
    });
  }
}

TEST_P(Embedding, AddsABiasAndSumsItsGradient) {
  for (const auto& [rows, width] : std::vector<std::pair<int64_t, size_t>>{
           {37, 1}, {37, 65}, {37, 960}, {1, 16}, {1100, 24}, {2500, 8}, {300, 1152}}) {
    const auto x = Normal(static_cast<size_t>(rows) * width, 1, dtype()),
               bias = Normal(width, 2, dtype()), before = Normal(width, 3);
    std::vector<double> expected(x.size()), dexpected = ToDouble(before);
    for (size_t i = 0; i < x.size(); ++i) {
      expected[i] = static_cast<double>(x[i]) + static_cast<double>(bias[i % width]);
      dexpected[i % width] += static_cast<double>(x[i]);
    }
    Tensor tx(GetParam(), x), tb(GetParam(), bias);
    Array<float> dbias(device(), before);
    Call(launch(), BiasBackward{.dx = tx.data(),
                                .rows = rows,
                                .width = static_cast<int64_t>(width),
                                .dbias = dbias.data()});
    // At most `rows` additions one after the other, of sums that are 5 sqrt(rows) at most.
    const auto n = static_cast<double>(rows);
    ExpectClose(dbias.Host(), dexpected, 0, (n + 8) * 5 * std::sqrt(n + 8) * kEps, "dbias");
    Call(
        launch(),
        AddBias{
            .x = tx.data(), .bias = tb.data(), .rows = rows, .width = static_cast<int64_t>(width)});
    ExpectClose(tx.Host(), expected, OutputRounding(dtype()), 1e-30, "x + bias");
  }
}

}  // namespace
}  // namespace plumb::kernels

#include "kernels/products/expert_products.h"

#include <algorithm>

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

PLUMB_KERNEL_SUITE(ExpertProductsTest);

// Where the rows of experts begin: experts without any, with one, with more than two tiles.
std::vector<int32_t> Begins(int64_t of_largest) {
  std::vector<int32_t> begin = {0};
  for (const int64_t rows :
       {int64_t{3}, int64_t{0}, of_largest, int64_t{1}, int64_t{0}, int64_t{17}})
    begin.push_back(begin.back() + static_cast<int32_t>(rows));
  return begin;
}

struct Sizes {
  int64_t largest, n, k;
};
// Odd ones, for elements that are read one by one; whole and broken tiles of 128 and of 64; as many
// rows an expert as choose each of the tiles' heights.
const Sizes kSizes[] = {{2, 5, 3}, {40, 33, 70}, {300, 136, 72}, {131, 264, 200}, {700, 24, 40}};

int32_t ExpertOf(const std::vector<int32_t>& begin, int64_t row) {
  return static_cast<int32_t>(std::upper_bound(begin.begin(), begin.end(), row) - begin.begin()) -
         1;
}

// Rounding of the result, and of a sum of `terms` products of normal values: they are of size 1,
// and their sum and its roundings grow like the root of their number.
double SumError(int64_t terms) { return 8 * kEps * (static_cast<double>(terms) + 8); }

TEST_P(ExpertProductsTest, ExpertsOfAllHeightsMeetTheirRows) {
  // Beside the edges of tiles of 16, 64 and 128 rows, and columns enough for all widths of tiles.
  std::vector<int32_t> begin = {0};
  for (const int32_t rows : {0, 1, 15, 16, 63, 64, 65, 127, 128, 129, 0, 1000})
    begin.push_back(begin.back() + rows);
  const int32_t experts = static_cast<int32_t>(begin.size()) - 1;
  const int64_t rows = begin.back();
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{3072, 40}, {40, 3072}, {264, 136}}) {
    const auto x = Normal(static_cast<size_t>(rows * k), 1, dtype()),
               w = Normal(static_cast<size_t>(experts * n * k), 2, dtype()),
               dy = Normal(static_cast<size_t>(rows * n), 3, dtype());
    std::vector<double> y(static_cast<size_t>(rows * n)), dx(x.size()), dw(w.size());
    for (int64_t s = 0; s < rows; ++s) {
      const int64_t first = ExpertOf(begin, s) * n * k;
      for (int64_t j = 0; j < n; ++j) {
        const double d = dy[static_cast<size_t>(s * n + j)];
        double sum = 0;
        for (int64_t i = 0; i < k; ++i) {
          const auto at = static_cast<size_t>(first + j * k + i),
                     of_x = static_cast<size_t>(s * k + i);
          sum += static_cast<double>(x[of_x]) * static_cast<double>(w[at]);
          dx[of_x] += d * static_cast<double>(w[at]);
          dw[at] += d * static_cast<double>(x[of_x]);
        }
        y[static_cast<size_t>(s * n + j)] = sum;
      }
    }
    Array<int32_t> tbegin(device(), begin);
    Tensor tx(GetParam(), x), tw(GetParam(), w), tdy(GetParam(), dy), ty(GetParam(), y.size()),
        tdx(GetParam(), x.size());
    Array<float> tdw(device(), std::vector<float>(w.size(), 0.0f));
    const ExpertGroups groups{tbegin.data(), experts, rows};
    const std::string name = std::to_string(n) + "x" + std::to_string(k);
    Call(launch(),
         ExpertProduct{
             .groups = groups, .x = tx.data(), .w = tw.data(), .n = n, .k = k, .y = ty.data()});
    ExpectClose(ty.Host(), y, OutputRounding(dtype()), SumError(k), "y of " + name);
    Call(launch(), ExpertProduct{.groups = groups,
                                 .x = tdy.data(),
                                 .w = tw.data(),
                                 .n = n,
                                 .k = k,
                                 .by_columns = true,
                                 .y = tdx.data()});
    ExpectClose(tdx.Host(), dx, OutputRounding(dtype()), SumError(n), "dx of " + name);
    Call(launch(),
         ExpertWeightProduct{
             .groups = groups, .dy = tdy.data(), .x = tx.data(), .n = n, .k = k, .dw = tdw.data()});
    ExpectClose(tdw.Host(), dw, kEps, SumError(1000), "dw of " + name);
  }
}

TEST_P(ExpertProductsTest, RowsMeetTheirExpertsMatrix) {
  for (const Sizes& size : kSizes) {
    const std::vector<int32_t> begin = Begins(size.largest);
    const int32_t experts = static_cast<int32_t>(begin.size()) - 1;
    const int64_t there = begin.back(), rows = there + 2;
    for (const bool by_columns : {false, true}) {
      const int64_t inputs = by_columns ? size.n : size.k, outputs = by_columns ? size.k : size.n;
      const auto x = ToDouble(Normal(static_cast<size_t>(rows * inputs), 1, dtype())),
                 w = ToDouble(Normal(static_cast<size_t>(experts * size.n * size.k), 2, dtype())),
                 bias = ToDouble(Normal(static_cast<size_t>(experts * size.n), 3, dtype())),
                 before = ToDouble(Normal(static_cast<size_t>(rows * outputs), 4, dtype()));
      for (const bool accumulate : {false, true}) {
        const bool biased = !by_columns && !accumulate;
        const float scale = accumulate ? 0.5f : 1.0f;
        std::vector<double> want = before;
        for (int64_t s = 0; s < there; ++s) {
          const int32_t e = ExpertOf(begin, s);
          for (int64_t j = 0; j < outputs; ++j) {
            double sum = 0;
            for (int64_t i = 0; i < inputs; ++i) {
              const int64_t at = by_columns ? i * size.k + j : j * size.k + i;
              sum += x[static_cast<size_t>(s * inputs + i)] *
                     w[static_cast<size_t>(e * size.n * size.k + at)];
            }
            double& to = want[static_cast<size_t>(s * outputs + j)];
            to = (accumulate ? to : 0) + static_cast<double>(scale) * sum +
                 (biased ? bias[static_cast<size_t>(e * size.n + j)] : 0);
          }
        }
        Array<int32_t> tbegin(device(), begin);
        Tensor tx(GetParam(), Floats(x)), tw(GetParam(), Floats(w)), tb(GetParam(), Floats(bias)),
            ty(GetParam(), Floats(before));
        Call(launch(), ExpertProduct{.groups = {tbegin.data(), experts, rows},
                                     .x = tx.data(),
                                     .w = tw.data(),
                                     .n = size.n,
                                     .k = size.k,
                                     .by_columns = by_columns,
                                     .accumulate = accumulate,
                                     .bias = biased ? tb.data() : nullptr,
                                     .scale = scale,
                                     .y = ty.data()});
        ExpectClose(ty.Host(), want, OutputRounding(dtype()), SumError(inputs),
                    "y of " + std::to_string(size.n) + "x" + std::to_string(size.k) +
                        (by_columns ? " by columns" : ""));
      }
    }
  }
}

// One expert's columns of wider rows: what lies beside them stays.
TEST_P(ExpertProductsTest, RowsMayBeWiderThanTheProduct) {
  for (const Sizes& size : kSizes) {
    const std::vector<int32_t> begin = Begins(size.largest);
    const int32_t experts = static_cast<int32_t>(begin.size()) - 1;
    const int64_t there = begin.back();
    Array<int32_t> tbegin(device(), begin);
    for (const int64_t aside : {8, 3}) {
      for (const bool by_columns : {false, true}) {
        const int64_t inputs = by_columns ? size.n : size.k, outputs = by_columns ? size.k : size.n,
                      x_width = 2 * inputs + aside, y_width = outputs + 2 * aside;
        const auto count = [](int64_t n) { return static_cast<size_t>(n); };
        const auto x = Normal(count(there * x_width), 1, dtype()),
                   w = Normal(count(experts * size.n * size.k), 2, dtype()),
                   dy = Normal(count(there * (size.n + aside)), 3, dtype());
        std::vector<float> narrow;
        for (int64_t s = 0; s < there; ++s) {
          for (int64_t i = 0; i < inputs; ++i) narrow.push_back(x[count(s * x_width + aside + i)]);
        }
        Tensor tx(GetParam(), x), tw(GetParam(), w), tnarrow(GetParam(), narrow),
            wide(GetParam(), std::vector<float>(count(there * y_width), 2.0f)),
            dense(GetParam(), count(there * outputs));
        const auto at = [&](Tensor& t, int64_t elements) {
          return static_cast<std::byte*>(t.data()) + count(elements) * ElementSize(dtype());
        };
        for (int32_t e = 0; e < experts; ++e) {
          const ExpertGroups alone{tbegin.data() + e, 1, there};
          const void* matrix = at(tw, e * size.n * size.k);
          Call(launch(), ExpertProduct{.groups = alone,
                                       .x = at(tx, aside),
                                       .w = matrix,
                                       .n = size.n,
                                       .k = size.k,
                                       .by_columns = by_columns,
                                       .y = at(wide, aside),
                                       .x_stride = x_width,
                                       .y_stride = y_width});
        }
        Call(launch(), ExpertProduct{.groups = {tbegin.data(), experts, there},
                                     .x = tnarrow.data(),
                                     .w = tw.data(),
                                     .n = size.n,
                                     .k = size.k,
                                     .by_columns = by_columns,
                                     .y = dense.data()});
        const std::vector<float> got = wide.Host(), want = dense.Host();
        std::vector<float> mine;
        for (int64_t i = 0; i < there * y_width; ++i) {
          const int64_t column = i % y_width;
          if (column >= aside && column < aside + outputs) mine.push_back(got[count(i)]);
          else ASSERT_EQ(got[count(i)], 2.0f) << "what lies beside, column " << column;
        }
        // Rows that do not begin on 16 bytes are multiplied another way on a GPU.
        const auto expect = [&](const std::vector<float>& a, const std::vector<float>& b,
                                double rounding, int64_t terms, const std::string& name) {
          const bool same = aside % 8 == 0 || device().is_cpu();
          if (same) ExpectSameBits(a, b, name);
          else ExpectClose(a, ToDouble(b), rounding, SumError(terms), name);
        };
        expect(mine, want, 2 * OutputRounding(dtype()), inputs,
               "rows of " + std::to_string(size.n));
        if (by_columns) continue;
        std::vector<float> dy_narrow;
        for (int64_t i = 0; i < there * (size.n + aside); ++i) {
          if (i % (size.n + aside) < size.n) dy_narrow.push_back(dy[count(i)]);
        }
        Tensor tdy(GetParam(), dy), tdy_narrow(GetParam(), dy_narrow);
        Array<float> dw(device(), std::vector<float>(w.size(), 0.0f)),
            dw_dense(device(), std::vector<float>(w.size(), 0.0f));
        for (int32_t e = 0; e < experts; ++e) {
          Call(launch(), ExpertWeightProduct{.groups = {tbegin.data() + e, 1, there},
                                             .dy = tdy.data(),
                                             .x = at(tx, aside),
                                             .n = size.n,
                                             .k = size.k,
                                             .dw = dw.data() + e * size.n * size.k,
                                             .dy_stride = size.n + aside,
                                             .x_stride = x_width});
        }
        Call(launch(), ExpertWeightProduct{.groups = {tbegin.data(), experts, there},
                                           .dy = tdy_narrow.data(),
                                           .x = tnarrow.data(),
                                           .n = size.n,
                                           .k = size.k,
                                           .dw = dw_dense.data()});
        expect(dw.Host(), dw_dense.Host(), kEps, size.largest,
               "weights of " + std::to_string(size.n));
      }
    }
  }
}

TEST_P(ExpertProductsTest, GatedProductIsGatherProductAndUnit) {
  // Experts with few rows each and with many; widths that 8 does not divide.
  for (const auto& [largest, ffn, k] : {Sizes{2, 5, 3}, {700, 136, 72}, {60, 136, 72}}) {
    const std::vector<int32_t> begin = Begins(largest);
    const int32_t experts = static_cast<int32_t>(begin.size()) - 1;
    const int64_t rows = begin.back(), tokens = rows / 2 + 1;
    std::vector<int32_t> token;
    for (int64_t s = 0; s < rows; ++s) token.push_back(static_cast<int32_t>(s * 7 % tokens));
    Array<int32_t> tbegin(device(), begin), ttoken(device(), token);
    const auto count = [](int64_t n) { return static_cast<size_t>(n); };
    Tensor x(GetParam(), Normal(count(tokens * k), 1, dtype())),
        w(GetParam(), Normal(count(experts * 2 * ffn * k), 2, dtype()));
    for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
      Tensor scratch(GetParam(), count(rows * k)), gate_up(GetParam(), count(rows * 2 * ffn)),
          act(GetParam(), count(rows * ffn)), want_gate_up(GetParam(), count(rows * 2 * ffn)),
          want_act(GetParam(), count(rows * ffn));
      GatedExpertProduct product{.groups = {tbegin.data(), experts, rows},
                                 .x = x.data(),
                                 .token = ttoken.data(),
                                 .w = w.data(),
                                 .ffn = ffn,
                                 .k = k,
                                 .activation = activation,
                                 .rows = scratch.data(),
                                 .gate_up = gate_up.data(),
                                 .act = act.data()};
      Call(launch(), product);
      product.gate_up = want_gate_up.data();
      product.act = want_act.data();
      product.ForEachPart(rows, [&](const auto& part) { Call(launch(), part); });
      ExpectSameBits(gate_up.Host(), want_gate_up.Host(), "gates and ups");
      ExpectSameBits(act.Host(), want_act.Host(), "what comes of them");
    }
  }
}

TEST_P(ExpertProductsTest, BackwardThroughTheUnitIsItsParts) {
  const auto count = [](int64_t n) { return static_cast<size_t>(n); };
  for (const auto& [largest, ffn, n] : {Sizes{2, 5, 3}, {300, 264, 72}, {280, 136, 136}}) {
    const std::vector<int32_t> begin = Begins(largest);
    const int32_t experts = static_cast<int32_t>(begin.size()) - 1;
    const int64_t rows = begin.back(), tokens = rows / 2 + 1,
                  parts = GatedExpertBackward::Parts(ffn);
    std::vector<int32_t> token;
    for (int64_t s = 0; s < rows; ++s) token.push_back(static_cast<int32_t>(s * 7 % tokens));
    Array<int32_t> tbegin(device(), begin), ttoken(device(), token);
    Tensor dout(GetParam(), Normal(count(tokens * n), 1, dtype())),
        x(GetParam(), Normal(count(tokens * n), 2, dtype())),
        first(GetParam(), Normal(count(experts * 2 * ffn * n), 3, dtype(), 0.2f)),
        second(GetParam(), Normal(count(experts * n * ffn), 4, dtype(), 0.2f)),
        rows_of(GetParam(), count(rows * n)), dact(GetParam(), count(rows * ffn));
    const auto gates = Normal(count(rows * 2 * ffn), 5, dtype());
    Array<float> weight(device(), Normal(count(rows), 6));
    for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
      Tensor gate_up(GetParam(), gates), want_gate_up(GetParam(), gates),
          act(GetParam(), count(rows * ffn)), want_act(GetParam(), count(rows * ffn));
      Array<float> dweight(device(), count(parts * rows)), want_dweight(device(), count(rows));
      GatedExpertBackward back{.groups = {tbegin.data(), experts, rows},
                               .dout = dout.data(),
                               .token = ttoken.data(),
                               .w = second.data(),
                               .n = n,
                               .ffn = ffn,
                               .activation = activation,
                               .weight = weight.data(),
                               .gate_up = gate_up.data(),
                               .act = act.data(),
                               .dweight = dweight.data(),
                               .rows = rows_of.data(),
                               .dact = dact.data()};
      Call(launch(), back);
      back.gate_up = want_gate_up.data(), back.act = want_act.data();
      back.dweight = want_dweight.data();
      back.ForEachPart(rows, [&](const auto& part) { Call(launch(), part); });
      // Compilers fuse products with sums where they like: a rounding or two of the result.
      const double rounding = device().is_cpu() ? 0 : 2 * OutputRounding(dtype()) + 8 * kEps;
      ExpectClose(gate_up.Host(), ToDouble(want_gate_up.Host()), rounding, 1e-6, "gate and up");
      ExpectClose(act.Host(), ToDouble(want_act.Host()), rounding, 1e-6, "act");
      const std::vector<float> of_parts = dweight.Host();
      std::vector<float> sums(count(rows));
      for (int64_t p = 0; p < parts; ++p) {
        for (int64_t s = 0; s < rows; ++s) sums[count(s)] += of_parts[count(p * rows + s)];
      }
      ExpectClose(sums, ToDouble(want_dweight.Host()), 1e-5, 32 * SumError(ffn * n), "dweight");

      // Of the first matrix' gradient nothing is left, the second's is added to what is there, and
      // again all of it is the same.
      std::vector<float> got[3];
      for (const bool apart : {false, false, true}) {
        Array<float> dfirst(device(), std::vector<float>(count(experts * 2 * ffn * n), kPoison)),
            dsecond(device(), std::vector<float>(count(experts * n * ffn), 0.5f));
        Tensor dx(GetParam(), std::vector<float>(count(rows * n), kPoison));
        const GatedExpertGradients all{.groups = {tbegin.data(), experts, rows},
                                       .dout = dout.data(),
                                       .x = x.data(),
                                       .token = ttoken.data(),
                                       .w = first.data(),
                                       .n = n,
                                       .ffn = ffn,
                                       .dgate_up = gate_up.data(),
                                       .act = act.data(),
                                       .dw_first = dfirst.data(),
                                       .dw_second = dsecond.data(),
                                       .first_written = true,
                                       .dx = dx.data(),
                                       .rows = rows_of.data()};
        if (apart) all.ForEachPart(rows, [&](const auto& part) { Call(launch(), part); });
        else Call(launch(), all);
        const std::vector<float> now[] = {dfirst.Host(), dsecond.Host(), dx.Host()};
        for (int i = 0; i < 3; ++i) {
          if (!got[i].empty())
            ExpectSameBits(now[i], got[i], std::string(apart ? "part " : "again ") + "abc"[i]);
          got[i] = now[i];
        }
      }
    }
  }
}

TEST_P(ExpertProductsTest, WeightsAreSumsOverTheirRows) {
  for (const Sizes& size : kSizes) {
    const std::vector<int32_t> begin = Begins(size.largest);
    const int32_t experts = static_cast<int32_t>(begin.size()) - 1;
    const int64_t rows = begin.back() + 2;
    const auto dy = ToDouble(Normal(static_cast<size_t>(rows * size.n), 5, dtype())),
               x = ToDouble(Normal(static_cast<size_t>(rows * size.k), 6, dtype())),
               before = ToDouble(Normal(static_cast<size_t>(experts * size.n * size.k), 7));
    std::vector<double> want = before;
    for (int64_t s = 0; s < begin.back(); ++s) {
      for (int64_t j = 0; j < size.n; ++j) {
        for (int64_t i = 0; i < size.k; ++i) {
          want[static_cast<size_t>((ExpertOf(begin, s) * size.n + j) * size.k + i)] +=
              0.5 * dy[static_cast<size_t>(s * size.n + j)] *
              x[static_cast<size_t>(s * size.k + i)];
        }
      }
    }
    Array<int32_t> tbegin(device(), begin);
    Tensor tdy(GetParam(), Floats(dy)), tx(GetParam(), Floats(x));
    std::vector<float> first;
    for (int again = 0; again < 2; ++again) {
      Array<float> tdw(device(), Floats(before));
      Call(launch(), ExpertWeightProduct{.groups = {tbegin.data(), experts, rows},
                                         .dy = tdy.data(),
                                         .x = tx.data(),
                                         .n = size.n,
                                         .k = size.k,
                                         .scale = 0.5f,
                                         .dw = tdw.data()});
      const std::vector<float> got = tdw.Host();
      ExpectClose(got, want, kEps, SumError(size.largest), "dw of " + std::to_string(size.n));
      if (again) ExpectSameBits(got, first, "dw once more");
      first = got;
    }
  }
}

TEST_P(ExpertProductsTest, BiasesAreSumsOverTheirRows) {
  const std::vector<int32_t> begin = Begins(90);
  const int32_t experts = static_cast<int32_t>(begin.size()) - 1;
  const int64_t rows = begin.back(), n = 70;
  const auto dy = ToDouble(Normal(static_cast<size_t>(rows * n), 8, dtype())),
             bias = ToDouble(Normal(static_cast<size_t>(experts * n), 9, dtype()));
  const auto weight = ToDouble(Normal(static_cast<size_t>(rows), 10));
  std::vector<double> dbias(static_cast<size_t>(experts * n), 3.0),
      dweight(static_cast<size_t>(rows), 2.0);
  for (int64_t s = 0; s < rows; ++s) {
    for (int64_t i = 0; i < n; ++i) {
      const auto at = static_cast<size_t>(ExpertOf(begin, s) * n + i);
      dbias[at] += weight[static_cast<size_t>(s)] * dy[static_cast<size_t>(s * n + i)];
      dweight[static_cast<size_t>(s)] += bias[at] * dy[static_cast<size_t>(s * n + i)];
    }
  }
  Array<int32_t> tbegin(device(), begin);
  Tensor tdy(GetParam(), Floats(dy)), tb(GetParam(), Floats(bias));
  Array<float> tw(device(), Floats(weight)), tdb(device(), std::vector<float>(dbias.size(), 3.0f)),
      tdw(device(), std::vector<float>(dweight.size(), 2.0f));
  Call(launch(), ExpertBiasSums{.groups = {tbegin.data(), experts, rows},
                                .dy = tdy.data(),
                                .weight = tw.data(),
                                .n = n,
                                .dbias = tdb.data(),
                                .bias = tb.data(),
                                .dweight = tdw.data()});
  ExpectClose(tdb.Host(), dbias, kEps, SumError(90), "dbias");
  ExpectClose(tdw.Host(), dweight, kEps, SumError(n), "dweight");
}

TEST_P(ExpertProductsTest, ARowDoesNotDependOnHowManyThereAre) {
  // The same three rows of expert 1 with few and with many beside them, so that tiles of every
  // height meet them, and columns enough for tiles of every width.
  for (const int64_t n : {72, 12288}) {
    const int64_t k = 96;
    const auto w = Normal(static_cast<size_t>(2 * n * k), 11, dtype());
    std::vector<float> first;
    for (const int64_t others : {1, 60, 400}) {
      const int64_t rows = others + 3;
      std::vector<float> x = Normal(static_cast<size_t>(others * k), 12, dtype());
      const std::vector<float> own = Normal(static_cast<size_t>(3 * k), 13, dtype());
      x.insert(x.end(), own.begin(), own.end());
      Array<int32_t> begin(device(), std::vector<int32_t>{0, static_cast<int32_t>(others),
                                                          static_cast<int32_t>(rows)});
      Tensor tx(GetParam(), x), tw(GetParam(), w),
          ty(GetParam(), std::vector<float>(static_cast<size_t>(rows * n), kPoison));
      Call(launch(), ExpertProduct{.groups = {begin.data(), 2, rows},
                                   .x = tx.data(),
                                   .w = tw.data(),
                                   .n = n,
                                   .k = k,
                                   .y = ty.data()});
      std::vector<float> got = ty.Host();
      got.erase(got.begin(), got.begin() + others * n);
      if (first.empty()) first = got;
      ExpectSameBits(got, first, std::to_string(others) + " others");
    }
  }
}

TEST_P(ExpertProductsTest, InterleavedMatricesAreTakenApartAndPutTogether) {
  const int64_t count = 77;
  const int32_t experts = 5;
  const auto x = Normal(static_cast<size_t>(count * experts), 14, dtype());
  std::vector<float> apart(x.size());
  for (int64_t i = 0; i < count; ++i) {
    for (int32_t e = 0; e < experts; ++e)
      apart[static_cast<size_t>(e * count + i)] = x[static_cast<size_t>(i * experts + e)];
  }
  Tensor tx(GetParam(), x), out(GetParam(), std::vector<float>(x.size(), kPoison));
  Call(launch(),
       SplitByExpert{.x = tx.data(), .count = count, .experts = experts, .out = out.data()});
  ExpectSameBits(out.Host(), apart, "apart");
  Array<float> from(device(), apart), to(device(), std::vector<float>(x.size(), 0.0f));
  Call(launch(),
       JoinByExpert{.x = from.data(), .count = count, .experts = experts, .out = to.data()});
  ExpectSameBits(to.Host(), x, "together");
}

}  // namespace
}  // namespace plumb::kernels

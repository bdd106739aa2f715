#include "kernels/products/warpgroup_tile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>

#include "kernels/products/warpgroup_products.h"
#include "kernels/products/warpgroup_work.h"
#include "tests/kernels/products/emulated_warpgroups.h"

namespace plumb::kernels {
namespace {

// Whole numbers from -2 to 2: sums of them are exact, in any order.
std::vector<BFloat16> Few(size_t count, uint32_t seed) {
  std::vector<BFloat16> out(count);
  for (BFloat16& x : out) {
    seed = seed * 1664525 + 1013904223;
    x = ToBFloat16(static_cast<float>(seed >> 16 & 3) - 1.0f - static_cast<float>(seed >> 24 & 1));
  }
  return out;
}

template <class... Works>
void RunBlocks(int32_t blocks, const Works&... works) {
  using Block = WarpgroupBlock<WarpgroupChip, Works...>;
  std::vector<unsigned char> memory(Block::kBytes + 1024);
  const size_t past = reinterpret_cast<uintptr_t>(memory.data()) % 1024;
  WarpgroupChip::base = memory.data() + (1024 - past) % 1024;
  for (int32_t b = 0; b < blocks; ++b) {
    std::memset(memory.data(), 0xFF, memory.size());  // NaN
    WarpgroupChip::products.assign(kTileThreads, std::vector<WarpgroupChip::Products>(1));
    WarpgroupChip::copies.assign(kTileThreads, {});
    WarpgroupChip::barriers.clear();
    EmulatedBlock::Run(kTileThreads, [&] { Block::Run(b, blocks, WarpgroupChip::base, works...); });
  }
}

// Of operand A or B of a work: the same in boxes, where the test is to have them.
template <class Work>
WarpgroupChip::Boxes BoxesOfA(const std::vector<BFloat16>& x, int64_t rows, int64_t columns,
                              int64_t stride) {
  return {x.data(), rows, columns, stride, kBoxRows<Work::kRows, Work::kAOuter, Work::kAOrder>};
}
template <class Work>
WarpgroupChip::Boxes BoxesOfB(const std::vector<BFloat16>& x, int64_t rows, int64_t columns,
                              int64_t stride) {
  return {x.data(), rows, columns, stride, kBoxRows<Work::kColumns, Work::kBOuter, Work::kBOrder>};
}

std::vector<int32_t> Begins(const std::vector<int32_t>& rows) {
  std::vector<int32_t> begin = {0};
  for (const int32_t r : rows) begin.push_back(begin.back() + r);
  return begin;
}

size_t At(int64_t i) { return static_cast<size_t>(i); }

constexpr uint16_t kNobodys = 0x7F85;
bool in_boxes = false;  // what can be, is copied in boxes
WarpgroupChip::Boxes If(const WarpgroupChip::Boxes& boxes) {
  return in_boxes ? boxes : WarpgroupChip::Boxes{};
}

template <int Rows, int Columns, bool ByColumns>
void CheckRows(const std::vector<int32_t>& counts, int32_t n, int32_t k, int32_t blocks,
               bool accumulate) {
  const std::vector<int32_t> begin = Begins(counts);
  const auto experts = static_cast<int32_t>(counts.size());
  const int64_t rows = begin.back(), inputs = ByColumns ? n : k, outputs = ByColumns ? k : n,
                x_stride = inputs + 8, y_stride = outputs + 16;
  std::vector<BFloat16> x = Few(At((rows + 1) * x_stride), 1), w = Few(At(experts * n * k), 2),
                        bias = Few(At(experts * outputs), 3),
                        y(At((rows + 2) * y_stride), BFloat16{kNobodys});
  const bool biased = !ByColumns && !accumulate;
  if (accumulate) {
    for (int64_t s = 0; s < rows; ++s) {
      for (int64_t j = 0; j < outputs; ++j) y[At(s * y_stride + j)] = ToBFloat16(3);
    }
  }
  std::vector<BFloat16> want = y;
  for (int32_t e = 0; e < experts; ++e) {
    for (int64_t s = begin[At(e)]; s < begin[At(e) + 1]; ++s) {
      for (int64_t j = 0; j < outputs; ++j) {
        float sum = 0;
        for (int64_t i = 0; i < inputs; ++i) {
          sum += ToFloat(x[At(s * x_stride + i)]) *
                 ToFloat(w[At((e * int64_t{n} * k) + (ByColumns ? i * k + j : j * k + i))]);
        }
        sum = sum * 2 + (biased ? ToFloat(bias[At(e * outputs + j)]) : 0) + (accumulate ? 3 : 0);
        want[At(s * y_stride + j)] = ToBFloat16(sum);
      }
    }
  }
  using Work = RowsWork<WarpgroupChip, Rows, Columns, ByColumns>;
  RunBlocks(blocks, Work{.x = x.data(),
                         .w = w.data(),
                         .bias = biased ? bias.data() : nullptr,
                         .begin = begin.data(),
                         .experts = experts,
                         .n = n,
                         .k = k,
                         .x_stride = x_stride,
                         .y_stride = y_stride,
                         .scale = 2,
                         .accumulate = accumulate,
                         .y = y.data(),
                         .a_boxes = If(BoxesOfA<Work>(x, rows, inputs, x_stride)),
                         .b_boxes = If(BoxesOfB<Work>(w, int64_t{experts} * n, k, k))});
  for (int64_t i = 0; i < (rows + 2) * y_stride; ++i) {
    ASSERT_EQ(y[At(i)].bits, want[At(i)].bits)
        << "row " << i / y_stride << " column " << i % y_stride << " of " << n << " x " << k
        << ", tiles of " << Rows << " x " << Columns << (ByColumns ? " by columns" : "");
  }
}

// by_token: rows of dy, or of x, are found by an index. written: what was there does not count.
template <int Columns, RowOrder Dy = RowOrder::kEven, RowOrder X = RowOrder::kEven>
void CheckWeights(const std::vector<int32_t>& counts, int32_t n, int32_t k, int32_t blocks,
                  bool written = false) {
  const std::vector<int32_t> begin = Begins(counts);
  const auto experts = static_cast<int32_t>(counts.size());
  const int64_t rows = begin.back(), dy_stride = n + 16, x_stride = k + 8;
  const std::vector<BFloat16> dy = Few(At((rows + 1) * dy_stride), 4),
                              x = Few(At((rows + 1) * x_stride), 5);
  std::vector<int32_t> token;
  for (int64_t s = 0; s < rows; ++s) token.push_back(static_cast<int32_t>(s * 7 % (rows + 1)));
  std::vector<float> dw(At(int64_t{experts} * n * k + 2), 3.0f), want = dw;
  if (written) {
    std::fill(dw.begin(), dw.end() - 2, NAN);
    std::fill(want.begin(), want.end() - 2, 0.0f);
  }
  for (int32_t e = 0; e < experts; ++e) {
    for (int64_t s = begin[At(e)]; s < begin[At(e) + 1]; ++s) {
      const int64_t of_dy = Dy == RowOrder::kIndexed ? token[At(s)] : s,
                    of_x = X == RowOrder::kIndexed ? token[At(s)] : s;
      for (int64_t j = 0; j < n; ++j) {
        for (int64_t i = 0; i < k; ++i) {
          want[At((e * int64_t{n} + j) * k + i)] +=
              0.5f * ToFloat(dy[At(of_dy * dy_stride + j)]) * ToFloat(x[At(of_x * x_stride + i)]);
        }
      }
    }
  }
  using Work = WeightWork<WarpgroupChip, Columns, Dy, X>;
  RunBlocks(blocks, Work{.dy = dy.data(),
                         .x = x.data(),
                         .token = token.data(),
                         .begin = begin.data(),
                         .experts = experts,
                         .n = n,
                         .k = k,
                         .dy_stride = dy_stride,
                         .x_stride = x_stride,
                         .scale = 0.5f,
                         .written = written,
                         .dw = dw.data(),
                         .a_boxes = If(BoxesOfA<Work>(dy, rows, n, dy_stride)),
                         .b_boxes = If(BoxesOfB<Work>(x, rows, k, x_stride))});
  for (size_t i = 0; i < dw.size(); ++i) {
    ASSERT_EQ(dw[i], want[i]) << "element " << i << " of " << n << " x " << k << ", columns of "
                              << Columns;
  }
}

void CheckGated(const std::vector<int32_t>& counts, int32_t ffn, int32_t k, int32_t blocks) {
  const std::vector<int32_t> begin = Begins(counts);
  const auto experts = static_cast<int32_t>(counts.size());
  const int64_t rows = begin.back(), tokens = rows / 2 + 1;
  const std::vector<BFloat16> x = Few(At(tokens * k), 6), w = Few(At(experts * 2 * ffn * k), 7);
  std::vector<int32_t> token;
  for (int64_t s = 0; s < rows; ++s) token.push_back(static_cast<int32_t>(s * 7 % tokens));
  std::vector<BFloat16> gate_up(At((rows + 1) * 2 * ffn), BFloat16{kNobodys}),
      act(At((rows + 1) * ffn), BFloat16{kNobodys});
  std::vector<BFloat16> want_gate_up = gate_up, want_act = act;
  for (int32_t e = 0; e < experts; ++e) {
    for (int64_t s = begin[At(e)]; s < begin[At(e) + 1]; ++s) {
      for (int64_t j = 0; j < 2 * ffn; ++j) {
        float sum = 0;
        for (int64_t i = 0; i < k; ++i) {
          sum += ToFloat(x[At(token[At(s)] * int64_t{k} + i)]) *
                 ToFloat(w[At((e * 2 * int64_t{ffn} + j) * k + i)]);
        }
        want_gate_up[At(s * 2 * ffn + j)] = ToBFloat16(sum);
      }
      for (int64_t j = 0; j < ffn; ++j) {
        const float g = ToFloat(want_gate_up[At(s * 2 * ffn + j)]),
                    u = ToFloat(want_gate_up[At(s * 2 * ffn + ffn + j)]);
        want_act[At(s * ffn + j)] = ToBFloat16(g / (1.0f + expf(-g)) * u);
      }
    }
  }
  using Work = GatedWork<WarpgroupChip, Activation::kSilu>;
  RunBlocks(blocks, Work{.x = x.data(),
                         .token = token.data(),
                         .w = w.data(),
                         .begin = begin.data(),
                         .experts = experts,
                         .ffn = ffn,
                         .k = k,
                         .gate_up = gate_up.data(),
                         .act = act.data(),
                         .b_boxes = If(BoxesOfB<Work>(w, experts * 2 * int64_t{ffn}, k, k))});
  for (size_t i = 0; i < gate_up.size(); ++i)
    ASSERT_EQ(gate_up[i].bits, want_gate_up[i].bits) << "gate or up " << i << " of " << ffn;
  for (size_t i = 0; i < act.size(); ++i)
    ASSERT_EQ(act[i].bits, want_act[i].bits) << "act " << i << " of " << ffn;
}

// Against the CPU's kernels; all products are sums of whole numbers, and what is rounded besides
// differs by a rounding or two.
void CheckBackward(const std::vector<int32_t>& counts, int32_t n, int32_t ffn, int32_t blocks) {
  const std::vector<int32_t> begin = Begins(counts);
  const auto experts = static_cast<int32_t>(counts.size());
  const int64_t rows = begin.back(), tokens = rows / 2 + 1;
  const std::vector<BFloat16> dout = Few(At(tokens * n), 8), w = Few(At(experts * n * ffn), 9);
  std::vector<BFloat16> gate_up = Few(At((rows + 1) * 2 * ffn), 10),
                        act(At((rows + 1) * ffn), BFloat16{kNobodys}), scratch(At(rows * n)),
                        dact(At(rows * ffn));
  std::vector<int32_t> token;
  std::vector<float> weight;
  for (int64_t s = 0; s < rows; ++s) {
    token.push_back(static_cast<int32_t>(s * 7 % tokens));
    weight.push_back(static_cast<float>(s % 5 + 1) / 8);
  }
  const int64_t parts = GatedExpertBackward::Parts(ffn);
  std::vector<float> dweight(At(parts * rows + 1), NAN), want_dweight(At(parts * rows));
  std::vector<BFloat16> want_gate_up = gate_up, want_act = act;
  Call({.stream = Device::kCpu, .dtype = DType::kBFloat16},
       GatedExpertBackward{.groups = {begin.data(), experts, rows},
                           .dout = dout.data(),
                           .token = token.data(),
                           .w = w.data(),
                           .n = n,
                           .ffn = ffn,
                           .weight = weight.data(),
                           .gate_up = want_gate_up.data(),
                           .act = want_act.data(),
                           .dweight = want_dweight.data(),
                           .rows = scratch.data(),
                           .dact = dact.data()});
  using Work = GatedBackwardWork<WarpgroupChip, Activation::kSilu>;
  RunBlocks(blocks, Work{.dout = dout.data(),
                         .token = token.data(),
                         .w = w.data(),
                         .begin = begin.data(),
                         .experts = experts,
                         .n = n,
                         .ffn = ffn,
                         .slots = rows,
                         .weight = weight.data(),
                         .gate_up = gate_up.data(),
                         .act = act.data(),
                         .dweight = dweight.data(),
                         .b_boxes = If(BoxesOfB<Work>(w, experts * int64_t{n}, ffn, ffn))});
  const auto near = [](const std::vector<BFloat16>& got, const std::vector<BFloat16>& want,
                       const char* what) {
    for (size_t i = 0; i < got.size(); ++i) {
      if (got[i].bits == want[i].bits) continue;
      const float g = ToFloat(got[i]), f = ToFloat(want[i]);
      ASSERT_LE(std::abs(g - f), std::abs(f) / 64 + 1e-6f) << what << " " << i;
    }
  };
  near(gate_up, want_gate_up, "gradient of gate or up");
  near(act, want_act, "act");
  EXPECT_TRUE(std::isnan(dweight.back()));
  for (int64_t s = 0; s < rows; ++s) {
    float sum = 0, want = 0, size = 0;
    for (int64_t p = 0; p < parts; ++p) {
      sum += dweight[At(p * rows + s)];
      want += want_dweight[At(p * rows + s)];
      size += std::abs(dweight[At(p * rows + s)]);
    }
    ASSERT_NEAR(sum, want, 0.02f * (size + std::abs(want)) + 1e-3f) << "weight of slot " << s;
  }
}

// The three works of GatedExpertGradients in one block, of which the rows' begin first.
void CheckGradients(const std::vector<int32_t>& counts, int32_t n, int32_t ffn, int32_t blocks,
                    bool trained) {
  const std::vector<int32_t> begin = Begins(counts);
  const auto experts = static_cast<int32_t>(counts.size());
  const int64_t rows = begin.back(), tokens = rows / 2 + 1;
  const std::vector<BFloat16> dout = Few(At(tokens * n), 11), x = Few(At(tokens * n), 12),
                              w = Few(At(experts * 2 * ffn * n), 13),
                              dgate_up = Few(At(rows * 2 * ffn), 14), act = Few(At(rows * ffn), 15);
  std::vector<int32_t> token;
  for (int64_t s = 0; s < rows; ++s) token.push_back(static_cast<int32_t>(s * 7 % tokens));
  std::vector<BFloat16> dx(At(rows * n), BFloat16{kNobodys}), want_dx = dx, scratch = dx;
  std::vector<float> first(At(experts * 2 * ffn * n), NAN), second(At(experts * n * ffn), 2.0f),
      want_first = first, want_second = second;
  const GatedExpertGradients all{.groups = {begin.data(), experts, rows},
                                 .dout = dout.data(),
                                 .x = x.data(),
                                 .token = token.data(),
                                 .w = w.data(),
                                 .n = n,
                                 .ffn = ffn,
                                 .dgate_up = dgate_up.data(),
                                 .act = act.data(),
                                 .dw_first = trained ? want_first.data() : nullptr,
                                 .dw_second = want_second.data(),
                                 .first_written = true,
                                 .dx = want_dx.data(),
                                 .rows = scratch.data()};
  Call({.stream = Device::kCpu, .dtype = DType::kBFloat16}, all);
  constexpr RowOrder kToken = RowOrder::kIndexed, kSlot = RowOrder::kEven;
  using RowsOf = RowsWork<WarpgroupChip, 128, 256, true>;
  using FirstOf = WeightWork<WarpgroupChip, 256, kSlot, kToken>;
  using SecondOf = WeightWork<WarpgroupChip, 256, kToken, kSlot>;
  RunBlocks(blocks,
            RowsOf{.x = dgate_up.data(),
                   .w = w.data(),
                   .begin = begin.data(),
                   .experts = experts,
                   .n = 2 * ffn,
                   .k = n,
                   .x_stride = 2 * ffn,
                   .y_stride = n,
                   .y = dx.data(),
                   .a_boxes = If(BoxesOfA<RowsOf>(dgate_up, rows, 2 * ffn, 2 * ffn)),
                   .b_boxes = If(BoxesOfB<RowsOf>(w, experts * 2 * int64_t{ffn}, n, n))},
            FirstOf{.dy = dgate_up.data(),
                    .x = x.data(),
                    .token = token.data(),
                    .begin = begin.data(),
                    .experts = experts,
                    .n = 2 * ffn,
                    .k = n,
                    .dy_stride = 2 * ffn,
                    .x_stride = n,
                    .written = true,
                    .dw = trained ? first.data() : nullptr,
                    .a_boxes = If(BoxesOfA<FirstOf>(dgate_up, rows, 2 * ffn, 2 * ffn))},
            SecondOf{.dy = dout.data(),
                     .x = act.data(),
                     .token = token.data(),
                     .begin = begin.data(),
                     .experts = experts,
                     .n = n,
                     .k = ffn,
                     .dy_stride = n,
                     .x_stride = ffn,
                     .dw = second.data(),
                     .b_boxes = If(BoxesOfB<SecondOf>(act, rows, ffn, ffn))});
  for (size_t i = 0; i < dx.size(); ++i) ASSERT_EQ(dx[i].bits, want_dx[i].bits) << "dx " << i;
  for (size_t i = 0; i < second.size(); ++i) ASSERT_EQ(second[i], want_second[i]) << "second " << i;
  for (size_t i = 0; i < first.size(); ++i) {
    if (trained) ASSERT_EQ(first[i], want_first[i]) << "first " << i;
    else ASSERT_TRUE(std::isnan(first[i]));
  }
}

const std::vector<int32_t> kRows = {0, 1, 15, 63, 0, 129, 0};

// Whether copies happen at once, and whether they come in boxes where they can.
class WarpgroupTileTest : public ::testing::TestWithParam<std::pair<bool, bool>> {
 protected:
  void SetUp() override {
    WarpgroupChip::eager_copies = GetParam().first;
    in_boxes = GetParam().second;
  }
};
INSTANTIATE_TEST_SUITE_P(Copies, WarpgroupTileTest,
                         ::testing::Values(std::pair(false, false), std::pair(false, true),
                                           std::pair(true, true)));

TEST_P(WarpgroupTileTest, RowsMeetTheirExpertsMatrix) {
  // Terms of part of a stage, of one, and of more than the ring has; columns of part of a tile, and
  // of more than one.
  for (const bool accumulate : {false, true}) {
    CheckRows<128, 128, false>(kRows, 136, 72, 3, accumulate);
    CheckRows<64, 128, false>(kRows, 136, 64, 2, accumulate);
    CheckRows<128, 256, false>({3, 0, 130}, 264, 328, 2, accumulate);
    CheckRows<128, 128, true>(kRows, 72, 136, 3, accumulate);
    CheckRows<64, 128, true>(kRows, 8, 136, 2, accumulate);
    CheckRows<128, 256, true>({3, 0, 130}, 328, 264, 2, accumulate);
  }
}

TEST_P(WarpgroupTileTest, AnExpertMayHaveManyRowsAndMayBeOneOfMany) {
  CheckRows<128, 128, false>({1000}, 8, 8, 1, false);
  std::vector<int32_t> many(kMostTileExperts, 0);
  many[0] = 2;
  many[5] = 1;
  many[kMostTileExperts - 1] = 70;
  CheckRows<64, 128, false>(many, 8, 16, 2, false);
}

TEST_P(WarpgroupTileTest, GatesAndUpsOfTokensAreActivated) {
  CheckGated({0, 1, 15, 0, 129}, 136, 72, 2);
  CheckGated({128, 3}, 8, 200, 1);
}

TEST_P(WarpgroupTileTest, WeightsAreSumsOverTheirRows) {
  CheckWeights<128>({0, 1, 15, 16, 0, 129}, 136, 72, 3);
  CheckWeights<256>({70, 0, 400}, 72, 264, 2);
  CheckWeights<128>({0, 0}, 8, 8, 1);
}

TEST_P(WarpgroupTileTest, WeightsMayBeWrittenAndTheirRowsFoundByToken) {
  constexpr RowOrder kToken = RowOrder::kIndexed, kSlot = RowOrder::kEven;
  CheckWeights<128>({0, 17, 0}, 136, 72, 2, true);
  CheckWeights<256, kToken, kSlot>({70, 0, 190}, 72, 264, 2, true);
  CheckWeights<256, kSlot, kToken>({70, 0, 190}, 136, 72, 2);
  CheckWeights<128, kSlot, kToken>({3, 1, 64, 65}, 8, 136, 1);
}

TEST_P(WarpgroupTileTest, WhatTheUnitGaveIsWeighedAndItsGradientGoesThrough) {
  CheckBackward({0, 1, 15, 0, 129}, 72, 136, 2);
  CheckBackward({60, 3}, 200, 8, 1);
}

TEST_P(WarpgroupTileTest, AllGradientsOfExpertsShareTheBlocks) {
  CheckGradients({0, 1, 130, 0, 70}, 136, 72, 3, true);
  CheckGradients({40, 3}, 264, 8, 2, false);
  CheckGradients({40, 3}, 8, 72, 7, true);
}

}  // namespace
}  // namespace plumb::kernels

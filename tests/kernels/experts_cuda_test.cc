// kernels/experts.h on CUDA against the CPU, which tests/kernels/experts_test.cc holds to the
// definition.
//
// Tolerance: sums over E experts in another order and an exp of another library, 2 ulp: 16 of them
// and one for each 32 experts cover both.
#include <algorithm>
#include <numeric>

#include "kernels/experts.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

class ExpertsCudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!CudaAvailable()) GTEST_SKIP() << "NO GPU: routing to experts was NOT tested on CUDA here";
  }
  static Launch Gpu(DType dtype = DType::kFloat32) {
    return {.stream = TestStream(Device::Cuda(0)), .dtype = dtype};
  }
};

constexpr Device kGpu = Device::Cuda(0);
const Launch kCpu = {.stream = Device::kCpu, .dtype = DType::kFloat32};

template <class V>
Array<V> There(const std::vector<V>& values) {
  return Array<V>(kGpu, values);
}

std::vector<RouterShape> Routers() {
  std::vector<RouterShape> out;
  for (const auto& [rows, experts, per_token, groups] : std::vector<std::array<int32_t, 4>>{
           {57, 12, 3, 3}, {9, 4, 4, 1}, {301, 160, 6, 8}, {33, 1024, 10, 1}, {64, 256, 8, 32}}) {
    for (const bool sigmoid : {false, true}) {
      out.push_back({.rows = rows,
                     .experts = experts,
                     .per_token = per_token,
                     .sigmoid = sigmoid,
                     .renormalize = sigmoid,
                     .temperature = 0.7f,
                     .scale = 2.5f,
                     .groups = groups,
                     .groups_per_token = std::max(1, groups / 2),
                     .group_best = sigmoid ? 2 : 1});
    }
  }
  return out;
}

double Tolerance(const RouterShape& s) { return kEps * (32 + s.experts); }

TEST_F(ExpertsCudaTest, TokensGoWhereTheCpuSendsThemAndComeBack) {
  for (const RouterShape& s : Routers()) {
    const auto count = static_cast<size_t>(s.rows * s.experts);
    const auto pairs = static_cast<size_t>(s.rows * s.per_token);
    const auto logits = Normal(count, 1, DType::kFloat32, 2.0f),
               bias = Normal(static_cast<size_t>(s.experts), 2, DType::kFloat32, 0.2f),
               dw = Normal(pairs, 3), dshare = Normal(static_cast<size_t>(s.experts), 4);
    // Half of the rows are told where to go.
    std::vector<int32_t> given(pairs + static_cast<size_t>(s.rows) * 3, 7);
    const int64_t stride = s.per_token + 3;
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int32_t k = 0; k < s.per_token; ++k)
        given[static_cast<size_t>(r * stride + k)] = r % 2 ? -1 : k * (s.experts / s.per_token);
    }
    std::vector<int32_t> expert(pairs);
    std::vector<float> weight(pairs), dlogits(count);
    int64_t otherwise = 5;
    RouteTokens route = {.shape = s,
                         .logits = logits.data(),
                         .bias = bias.data(),
                         .given = given.data(),
                         .given_stride = stride,
                         .otherwise = &otherwise,
                         .expert = expert.data(),
                         .weight = weight.data()};
    Call(kCpu, route);
    RouteTokensBackward back = {.shape = s,
                                .logits = logits.data(),
                                .expert = expert.data(),
                                .dweight = dw.data(),
                                .dshare = dshare.data(),
                                .z = 0.3f,
                                .dlogits = dlogits.data()};
    Call(kCpu, back);
    auto tlogits = There(logits), tbias = There(bias), tdw = There(dw), tshare = There(dshare);
    auto tgiven = There(given);
    auto texpert = There(std::vector<int32_t>(pairs, -9)),
         ttaken = There(std::vector<int32_t>(given.size(), -7));
    auto tweight = There(std::vector<float>(pairs, kPoison)),
         tdlogits = There(std::vector<float>(count, kPoison));
    auto tother = There(std::vector<int64_t>{5});
    route.logits = tlogits.data(), route.bias = tbias.data(), route.given = tgiven.data();
    route.otherwise = tother.data(), route.expert = texpert.data();
    route.weight = tweight.data(), route.taken = ttaken.data(), route.taken_stride = stride;
    Call(Gpu(), route);
    const std::string what = std::to_string(s.experts) + (s.sigmoid ? " sigmoid" : " softmax");
    EXPECT_EQ(texpert.Host(), expert) << what;
    EXPECT_EQ(tother.Host()[0], otherwise) << what;
    ExpectClose(tweight.Host(), ToDouble(weight), Tolerance(s), 1e-12, "weights of " + what);
    const auto taken = ttaken.Host();
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int32_t k = 0; k < stride; ++k) {
        const int32_t want =
            k < s.per_token ? expert[static_cast<size_t>(r * s.per_token + k)] : -7;
        ASSERT_EQ(taken[static_cast<size_t>(r * stride + k)], want) << what;
      }
    }
    back.logits = tlogits.data(), back.expert = texpert.data(), back.dweight = tdw.data();
    back.dshare = tshare.data(), back.dlogits = tdlogits.data();
    Call(Gpu(), back);
    // Derivatives are differences of terms up to scale * |dw| / temperature, about 10.
    ExpectClose(tdlogits.Host(), ToDouble(dlogits), 0, 10 * Tolerance(s), "gradient of " + what);

    // Added to what is there; with a capacity that some have beyond.
    const auto experts = static_cast<size_t>(s.experts);
    const std::vector<int64_t> capacity(experts, s.rows * s.per_token / s.experts);
    std::vector<int64_t> tokens(experts, 3);
    int64_t dropped = 4;
    double entropy = 2, lse_squared = 3, aux = 1;
    RouterLoad load = {.shape = s,
                       .logits = logits.data(),
                       .expert = expert.data(),
                       .capacity = capacity.data(),
                       .tokens = tokens.data(),
                       .dropped = &dropped,
                       .entropy = &entropy,
                       .lse_squared = &lse_squared,
                       .aux = &aux};
    Call(kCpu, load);
    auto tcapacity = There(capacity), ttokens = There(std::vector<int64_t>(experts, 3)),
         tdropped = There(std::vector<int64_t>{4});
    auto tsums = There(std::vector<double>{2, 3, 1});
    Array<double> scratch(kGpu, static_cast<size_t>(RouterLoad::ScratchBytes(s) / 8 + 1));
    load.logits = tlogits.data(), load.expert = texpert.data();
    load.capacity = tcapacity.data(), load.tokens = ttokens.data();
    load.dropped = tdropped.data(), load.entropy = tsums.data();
    load.lse_squared = tsums.data() + 1, load.aux = tsums.data() + 2;
    load.scratch = scratch.data();
    Call(Gpu(), load);
    EXPECT_EQ(ttokens.Host(), tokens) << what;
    EXPECT_EQ(tdropped.Host()[0], dropped) << what;
    const auto got = tsums.Host();
    EXPECT_NEAR(got[0], entropy, 4 * Tolerance(s) * entropy) << what;
    EXPECT_NEAR(got[1], lse_squared, Tolerance(s) * lse_squared) << what;
    EXPECT_NEAR(got[2], aux, Tolerance(s) * aux) << what;
  }
}

TEST_F(ExpertsCudaTest, NanChoosesSomethingAndOfEqualScoresTheFirstAreChosen) {
  const RouterShape s = {.rows = 3, .experts = 5, .per_token = 2};
  auto logits = There(std::vector<float>{1, 1, 1, 1, 1, 0, 3, 3, 3, 0, NAN, NAN, NAN, NAN, NAN});
  Array<int32_t> expert(kGpu, 6);
  Array<float> weight(kGpu, 6);
  Call(Gpu(),
       RouteTokens{
           .shape = s, .logits = logits.data(), .expert = expert.data(), .weight = weight.data()});
  EXPECT_EQ(expert.Host(), (std::vector<int32_t>{0, 1, 1, 2, 0, 1}));
}

TEST_F(ExpertsCudaTest, SlotsAreTheCpus) {
  RandomStream random(3, 3);
  // In one launch, with one block and with several, and in more.
  for (const int64_t rows : {1, 7, 128, 129, 3000, 9000}) {
    for (const bool bound : {false, true}) {
      if (bound && rows > 3000) continue;
      const int32_t experts = 37, per_token = 8;
      const auto pairs = static_cast<size_t>(rows * per_token);
      std::vector<int32_t> expert;
      for (int64_t r = 0; r < rows; ++r) {
        const auto first = static_cast<int32_t>(random.NextBelow(experts - 2 * per_token));
        for (int32_t k = 0; k < per_token; ++k) expert.push_back(first + 2 * k);
      }
      std::vector<float> weight = Normal(pairs, 5);
      for (size_t i = 0; i < pairs; i += 3) weight[i] = 0.5f;  // many alike
      std::vector<int64_t> capacity;
      for (int32_t e = 0; e < experts; ++e) capacity.push_back(e == 3 ? 0 : rows * e / 60);
      std::vector<int32_t> begin(experts + 1), slot(pairs), token(pairs);
      std::vector<float> slot_weight(pairs);
      DispatchTokens dispatch = {.rows = rows,
                                 .experts = experts,
                                 .per_token = per_token,
                                 .expert = expert.data(),
                                 .weight = weight.data(),
                                 .capacity = bound ? capacity.data() : nullptr,
                                 .begin = begin.data(),
                                 .slot = slot.data(),
                                 .token = token.data(),
                                 .slot_weight = slot_weight.data()};
      Call(kCpu, dispatch);
      auto texpert = There(expert);
      auto tweight = There(weight);
      auto tcapacity = There(capacity);
      Array<int32_t> tbegin(kGpu, begin.size()), tslot(kGpu, pairs), ttoken(kGpu, pairs);
      Array<float> tslot_weight(kGpu, pairs);
      dispatch.expert = texpert.data(), dispatch.weight = tweight.data();
      dispatch.capacity = bound ? tcapacity.data() : nullptr;
      dispatch.begin = tbegin.data(), dispatch.slot = tslot.data();
      dispatch.token = ttoken.data(), dispatch.slot_weight = tslot_weight.data();
      Call(Gpu(), dispatch);
      const std::string what = std::to_string(rows) + (bound ? " bound" : "");
      EXPECT_EQ(tbegin.Host(), begin) << what;
      EXPECT_EQ(tslot.Host(), slot) << what;
      // Behind the last slot that is filled lies token 0.
      const auto filled = static_cast<size_t>(begin.back());
      std::fill(token.begin() + static_cast<int64_t>(filled), token.end(), 0);
      std::fill(slot_weight.begin() + static_cast<int64_t>(filled), slot_weight.end(), 0.0f);
      EXPECT_EQ(ttoken.Host(), token) << what;
      EXPECT_EQ(tslot_weight.Host(), slot_weight) << what;
      // What the slots' gradients are to the pairs, and how many chose an expert.
      const auto slot_dweight = Normal(pairs, 6);
      std::vector<float> dweight(pairs), share(experts);
      std::vector<int32_t> count(experts);
      TakeSlots take = {slot_dweight.data(), slot.data(), static_cast<int64_t>(pairs),
                        dweight.data()};
      CountChosen chosen = {.expert = expert.data(),
                            .pairs = static_cast<int64_t>(pairs),
                            .experts = experts,
                            .scale = 0.25f,
                            .count = count.data(),
                            .share = share.data()};
      Call(kCpu, take);
      Call(kCpu, chosen);
      auto tslot_dweight = There(slot_dweight);
      Array<float> tdweight(kGpu, pairs), tshare(kGpu, share.size());
      Array<int32_t> tcount(kGpu, count.size());
      Call(Gpu(), TakeSlots{tslot_dweight.data(), tslot.data(), static_cast<int64_t>(pairs),
                            tdweight.data()});
      chosen.expert = texpert.data(), chosen.count = tcount.data(), chosen.share = tshare.data();
      Call(Gpu(), chosen);
      EXPECT_EQ(tdweight.Host(), dweight) << what;
      // Of two parts the sum.
      const auto halves = Normal(2 * pairs, 7);
      take.slot_dweight = halves.data(), take.parts = 2;
      take.slots = static_cast<int64_t>(pairs);
      Call(kCpu, take);
      auto thalves = There(halves);
      take.slot_dweight = thalves.data(), take.slot = tslot.data();
      std::vector<float> want_halves = dweight;
      take.dweight = tdweight.data();
      Call(Gpu(), take);
      EXPECT_EQ(tdweight.Host(), want_halves) << what;
      EXPECT_EQ(tcount.Host(), count) << what;
      EXPECT_EQ(tshare.Host(), share) << what;
    }
  }
}

TEST_F(ExpertsCudaTest, RowsAreCombinedWeighedAndClampedAsOnTheCpu) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Launch cpu = {.stream = Device::kCpu, .dtype = dtype};
    const Target here{Device::kCpu, dtype}, there{kGpu, dtype};
    for (const int64_t width : {37, 704}) {
      constexpr int64_t kRows = 19, kSlots = 31;
      constexpr int32_t kPerToken = 3;
      const auto y = Normal(static_cast<size_t>(kSlots * width), 7, dtype),
                 before = Normal(static_cast<size_t>(kSlots * width), 8, dtype),
                 weight = Normal(kRows * kPerToken, 9);
      std::vector<int32_t> slot;
      for (int32_t i = 0; i < kRows * kPerToken; ++i) slot.push_back(i % 5 ? i * 7 % 31 : -1);
      auto tweight = There(weight);
      auto tslot = There(slot);
      for (const bool accumulate : {false, true}) {
        Tensor cy(here, y), gy(there, y), cout(here, before), gout(there, before);
        CombineExperts combine = {.y = cy.data(),
                                  .slot = slot.data(),
                                  .weight = weight.data(),
                                  .rows = kRows,
                                  .width = width,
                                  .per_token = kPerToken,
                                  .accumulate = accumulate,
                                  .out = cout.data()};
        Call(cpu, combine);
        combine.y = gy.data(), combine.slot = tslot.data(), combine.weight = tweight.data();
        combine.out = gout.data();
        Call(Gpu(dtype), combine);
        // Products that are fused with the sum, or not: a rounding a term.
        ExpectClose(gout.Host(), ToDouble(cout.Host()), OutputRounding(dtype) * 2, 16 * kEps,
                    "combined");
      }
      Tensor ca(here, y), cd(here, before), ga(there, y), gd(there, before);
      std::vector<float> dweight(kSlots);
      Array<float> tdweight(kGpu, kSlots);
      Call(cpu, WeighSlots{.weight = weight.data(),
                           .slots = kSlots,
                           .width = width,
                           .act = ca.data(),
                           .dact = cd.data(),
                           .dweight = dweight.data()});
      Call(Gpu(dtype), WeighSlots{.weight = tweight.data(),
                                  .slots = kSlots,
                                  .width = width,
                                  .act = ga.data(),
                                  .dact = gd.data(),
                                  .dweight = tdweight.data()});
      ExpectSameBits(ga.Host(), ca.Host(), "act");
      ExpectSameBits(gd.Host(), cd.Host(), "dact");
      ExpectClose(tdweight.Host(), ToDouble(dweight), 0, kEps * 8 * static_cast<double>(width),
                  "dweight");
    }
    constexpr int64_t kRows = 5, kFfn = 20;
    const auto gate_up = Normal(kRows * 2 * kFfn, 10, dtype),
               dout = Normal(kRows * kFfn, 11, dtype);
    Tensor cg(here, gate_up), gg(there, gate_up), cout(here, dout), gout(there, dout);
    const auto forward = [&](Tensor& in, Tensor& out) {
      return ClampedGlu{.gate_up = in.data(),
                        .rows = kRows,
                        .ffn = kFfn,
                        .alpha = 1.702f,
                        .limit = 0.8f,
                        .out = out.data()};
    };
    Call(cpu, forward(cg, cout));
    Call(Gpu(dtype), forward(gg, gout));
    ExpectClose(gout.Host(), ToDouble(cout.Host()), 2 * OutputRounding(dtype) + 8 * kEps, 1e-12,
                "clamped");
    Tensor cd(here, dout), gd(there, dout);
    const auto backward = [&](Tensor& d, Tensor& in) {
      return ClampedGluBackward{.dout = d.data(),
                                .gate_up = in.data(),
                                .rows = kRows,
                                .ffn = kFfn,
                                .alpha = 1.702f,
                                .limit = 0.8f,
                                .dgate_up = in.data()};
    };
    Call(cpu, backward(cd, cg));
    Call(Gpu(dtype), backward(gd, gg));
    ExpectClose(gg.Host(), ToDouble(cg.Host()), 2 * OutputRounding(dtype) + 16 * kEps, 8 * kEps,
                "clamped gradient");
    // Floats in parts, the first one largest.
    const auto parts = Normal(3 * 41, 12, dtype);
    Tensor cp(here, parts), gp(there, parts);
    std::vector<float> joined(41);
    Array<float> tjoined(kGpu, 41);
    Call(cpu, JoinParts{.x = cp.data(), .parts = 3, .n = 41, .out = joined.data()});
    Call(Gpu(dtype), JoinParts{.x = gp.data(), .parts = 3, .n = 41, .out = tjoined.data()});
    ExpectSameBits(tjoined.Host(), joined, "joined");
  }
}

}  // namespace
}  // namespace plumb::kernels

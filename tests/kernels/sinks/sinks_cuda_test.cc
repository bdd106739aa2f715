// Attention sinks on CUDA against the CPU, which attention_sinks_test.cc holds to the definition.
//
// Tolerance: an exp and a log of another library, 2 ulp each of values up to 10; a sum over the
// tokens in another order.
#include "kernels/attention_paged.h"
#include "kernels/sinks/attention_sinks.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

class SinksCudaTest : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (!CudaAvailable()) GTEST_SKIP() << "NO GPU: attention sinks were NOT tested on CUDA here";
  }
  DType dtype() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Types, SinksCudaTest, ::testing::Values(DType::kFloat32, DType::kBFloat16),
                         [](const auto& info) {
                           return info.param == DType::kFloat32 ? "Float" : "Bf16";
                         });

constexpr int32_t kHeads = 3, kDim = 40;
constexpr double kError = 64 * kEps;

TEST_P(SinksCudaTest, SharesAndGradientsAreTheCpusHoweverTheSumsLie) {
  const std::vector<int32_t> cu = {0, 5, 6, 70, 111};
  const int64_t tokens = cu.back(), pitch = 96;
  const auto n = static_cast<size_t>(tokens * kHeads);
  const auto sinks = Normal(kHeads, 1, dtype(), 2.0f), out = Normal(n * kDim, 2, dtype()),
             dout = Normal(n * kDim, 3, dtype()), lse = Normal(n, 4, DType::kFloat32, 3.0f);
  const Target here{Device::kCpu, dtype()}, there{Device::Cuda(0), dtype()};
  const Launch cpu{.stream = Device::kCpu, .dtype = dtype()},
      gpu{.stream = TestStream(Device::Cuda(0)), .dtype = dtype()};
  Tensor csinks(here, sinks), cout(here, out), cdout(here, dout);
  std::vector<float> clse = lse, cgrad(kHeads, 2.0f);
  Call(cpu, AttentionSinks{.sinks = csinks.data(),
                           .tokens = tokens,
                           .heads = kHeads,
                           .head_dim = kDim,
                           .out = cout.data(),
                           .lse = clse.data()});
  Call(cpu, AttentionSinksBackward{.sinks = csinks.data(),
                                   .dout = cdout.data(),
                                   .out = cout.data(),
                                   .lse = clse.data(),
                                   .tokens = tokens,
                                   .heads = kHeads,
                                   .head_dim = kDim,
                                   .dsinks = cgrad.data()});
  Array<int32_t> tcu(Device::Cuda(0), cu);
  for (const bool apart : {false, true}) {
    // Of head h and token t: [Nq, tokens], or [B, Nq, pitch].
    const auto place = [&](int32_t h, int32_t t) {
      int32_t b = 0;
      while (cu[static_cast<size_t>(b) + 1] <= t) ++b;
      return apart ? static_cast<size_t>((int64_t{b} * kHeads + h) * pitch + t -
                                         cu[static_cast<size_t>(b)])
                   : static_cast<size_t>(h * tokens + t);
    };
    std::vector<float> laid(apart ? static_cast<size_t>(4 * kHeads * pitch) : n, kPoison);
    for (int32_t h = 0; h < kHeads; ++h) {
      for (int32_t t = 0; t < tokens; ++t)
        laid[place(h, t)] = lse[static_cast<size_t>(h * tokens + t)];
    }
    const LseLayout layout =
        apart ? LseLayout{.pitch = pitch, .sequences = 4, .cu_seqlens = tcu.data()} : LseLayout{};
    Tensor gsinks(there, sinks), gout(there, out), gdout(there, dout);
    Array<float> glse(Device::Cuda(0), laid),
        ggrad(Device::Cuda(0), std::vector<float>(kHeads, 2.0f));
    Call(gpu, AttentionSinks{.sinks = gsinks.data(),
                             .tokens = tokens,
                             .heads = kHeads,
                             .head_dim = kDim,
                             .out = gout.data(),
                             .lse = glse.data(),
                             .layout = layout});
    Call(gpu, AttentionSinksBackward{.sinks = gsinks.data(),
                                     .dout = gdout.data(),
                                     .out = gout.data(),
                                     .lse = glse.data(),
                                     .tokens = tokens,
                                     .heads = kHeads,
                                     .head_dim = kDim,
                                     .dsinks = ggrad.data(),
                                     .layout = layout});
    ExpectClose(gout.Host(), ToDouble(cout.Host()), 2 * OutputRounding(dtype()) + kError, kError,
                "out");
    const std::vector<float> sums = glse.Host();
    size_t left = 0;
    for (const float x : sums) left += x == kPoison;
    EXPECT_EQ(left, sums.size() - n) << "what lies between is nobody's";
    for (int32_t h = 0; h < kHeads; ++h) {
      for (int32_t t = 0; t < tokens; ++t) {
        const float want = clse[static_cast<size_t>(h * tokens + t)];
        ASSERT_NEAR(sums[place(h, t)], want, kError * (1 + std::abs(want)));
      }
    }
    // Terms of up to 40 products, and in bfloat16 of outputs that were rounded another way.
    ExpectClose(ggrad.Host(), ToDouble(cgrad), dtype() == DType::kFloat32 ? kError : 0.01,
                dtype() == DType::kFloat32 ? 40 * kError : 0.1, "dsinks");
  }
}

TEST_P(SinksCudaTest, PagedRowsAreTheCpus) {
  constexpr int32_t kRows = 50, kPageTokens = 8, kQueries = 6, kKeys = 2, kWindow = 11;
  std::vector<int32_t> slot, position, table;
  for (int32_t i = 0; i < kRows; ++i) {
    slot.push_back(i % 2);
    position.push_back(i / 2);
  }
  for (int32_t i = 0; i < 16; ++i) table.push_back((i * 5) % 16);
  const PagedKv kv{.dtype = dtype(),
                   .layers = 1,
                   .num_pages = 16,
                   .page_tokens = kPageTokens,
                   .kv_heads = kKeys,
                   .head_dim = kDim};
  const auto pages = Normal(static_cast<size_t>(kv.layer_stride()), 5, dtype()),
             q = Normal(kRows * kQueries * kDim, 6, dtype()),
             sinks = Normal(kQueries, 7, dtype(), 2.0f);
  for (const int32_t window : {0, kWindow}) {
    std::vector<float> of[2];
    for (const Device device : {Device(Device::kCpu), Device::Cuda(0)}) {
      const Target target{device, dtype()};
      Tensor memory(target, pages), tq(target, q), ts(target, sinks), out(target, q.size());
      Array<int32_t> tslot(device, slot), tposition(device, position), ttable(device, table);
      PagedKv there = kv;
      there.pages = memory.data();
      Call(Launch{.stream = TestStream(device), .dtype = dtype()},
           AttentionPaged{.q = tq.data(),
                          .q_stride = kQueries * kDim,
                          .rows = {kRows, tslot.data(), tposition.data(), ttable.data(), 8},
                          .heads = kQueries,
                          .kv = there,
                          .scale = 0.15f,
                          .window = window,
                          .sinks = ts.data(),
                          .out = out.data()});
      of[device.is_cuda()] = out.Host();
    }
    ExpectClose(of[1], ToDouble(of[0]), 2 * OutputRounding(dtype()) + kError, 4 * kError,
                "window " + std::to_string(window));
  }
}

}  // namespace
}  // namespace plumb::kernels

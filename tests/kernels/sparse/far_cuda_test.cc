// What is seen beside a window, on CUDA against the CPU, which the other tests of this folder hold
// to the definitions: gates and their sets, packed and in steps, chosen tokens, single positions,
// tables.
//
// Tolerance: sets are equal, for they are made of comparisons. Weights of a softmax are within the
// roundings of a score, a sum of `d` products below 8 in all, and an exp of another library (2
// ulp); what they mix are values below 4. Gradients are sums of up to `n` such terms. In bfloat16
// one rounding more where something is added to what is there.
#include <algorithm>
#include <cmath>

#include "kernels/attention_paged.h"
#include "kernels/sparse/chosen_attention.h"
#include "kernels/sparse/table_attention.h"
#include "kernels/sparse/token_gate.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

class FarCudaTest : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (!CudaAvailable()) {
      GTEST_SKIP() << "NO GPU: gates, tables and single positions were NOT tested on CUDA here";
    }
  }
  DType dtype() const { return GetParam(); }
  Launch On(Device device) const { return {.stream = TestStream(device), .dtype = dtype()}; }
};
INSTANTIATE_TEST_SUITE_P(Types, FarCudaTest, ::testing::Values(DType::kFloat32, DType::kBFloat16),
                         [](const auto& info) {
                           return info.param == DType::kFloat32 ? "Float" : "Bf16";
                         });

// A sequence of 40, one of 17 that three go on from, one alone.
const std::vector<int32_t> kBegins = {0, 40, 57, 70, 90, 91, 120}, kParents = {-1, -1, 1, 1, 1, -1};
constexpr int32_t kTokens = 120;

// Few values, so that many gates are equal; some that are none.
std::vector<float> Gates(size_t n) {
  std::vector<float> gate = Normal(n, 5);
  for (float& g : gate) g = std::round(2 * g) / 2;
  for (size_t i = 11; i < n; i += 37) gate[i] = NAN;
  return gate;
}

// Arrays of a packed batch on a device.
struct Batch {
  Batch(Device device, int32_t heads, int32_t kv_heads, int32_t dim, int32_t window, int32_t every)
      : begins(device, kBegins), parents(device, kParents) {
    shape = {.tokens = kTokens,
             .sequences = static_cast<int32_t>(kParents.size()),
             .cu_seqlens = begins.data(),
             .parents = parents.data(),
             .max_seqlen = 40,
             .heads = heads,
             .kv_heads = kv_heads,
             .head_dim = dim,
             .scale = 1 / std::sqrt(static_cast<float>(dim)),
             .window = window,
             .global_every = every};
  }
  Array<int32_t> begins, parents;
  VarlenShape shape;
};

std::vector<int32_t> Chosen(Device device, const std::vector<float>& gate, int32_t window,
                            int32_t count) {
  Batch batch(device, 1, 1, 2, window, 0);
  Array<float> there(device, gate);
  Array<int32_t> chosen(device, std::vector<int32_t>(static_cast<size_t>(kTokens * count), -7));
  Call({.stream = TestStream(device)},
       ChooseTokens{
           .shape = batch.shape, .gate = there.data(), .count = count, .chosen = chosen.data()});
  return chosen.Host();
}

TEST_P(FarCudaTest, SetsAreTheCpus) {
  for (const auto& [window, count] : {std::pair{4, 5}, {1, 1}, {30, 3}, {3, 60}, {2, 33}}) {
    EXPECT_EQ(Chosen(Device::Cuda(0), Gates(kTokens), window, count),
              Chosen(Device::kCpu, Gates(kTokens), window, count))
        << "window " << window << ", " << count << " chosen";
  }
}

// Several slots at once, their prompts in pieces; the last rows of a step repeat the first, as in
// recorded steps.
TEST_P(FarCudaTest, StepsAreTheCpus) {
  constexpr int32_t kSlots = 3, kLength = 45, kWindow = 6, kCount = 4, kOffset = 3;
  const std::vector<float> gate = Gates(kSlots * kLength);
  const int64_t stride = kOffset + ChoiceState(kWindow, kCount);
  std::vector<std::vector<float>> weights[2], states[2];
  std::vector<std::vector<int32_t>> chosen[2];
  for (const Device device : {Device(Device::kCpu), Device::Cuda(0)}) {
    const size_t which = device.is_cuda() ? 1 : 0;
    Array<float> memory(device, std::vector<float>(static_cast<size_t>(kSlots * stride), NAN));
    for (int32_t begin = 0, cut = 1; begin < kLength; begin += cut, cut = cut % 7 + 1) {
      const int32_t end = std::min(kLength, begin + cut);
      for (const bool repeats : {false, true}) {
        if (repeats && end - begin != 1) continue;
        std::vector<int32_t> slot, position;
        std::vector<float> own;
        const auto row = [&](int32_t s, int32_t p) {
          slot.push_back(s);
          position.push_back(p);
          own.push_back(gate[static_cast<size_t>(s * kLength + p)]);
        };
        // A step of repeats takes slot 2 alone, before the others take theirs.
        for (int32_t s = 0; s < kSlots; ++s) {
          if (end - begin == 1 && (s == 2) != repeats) continue;
          for (int32_t p = begin; p < end; ++p) row(s, p);
        }
        for (int i = 0; repeats && i < 3; ++i) row(2, begin);
        const bool once = repeats && device.is_cpu();  // there are no repeats on the CPU
        Array<int32_t> tslot(device, slot), tposition(device, position),
            out(device, std::vector<int32_t>(slot.size() * kCount, -7));
        Array<float> tgate(device, own), weight(device, slot.size() * kCount);
        Call({.stream = TestStream(device)},
             ChooseTokensStep{.rows = {once ? 1 : static_cast<int32_t>(slot.size()), tslot.data(),
                                       tposition.data()},
                              .states = {memory.data(), stride},
                              .offset = kOffset,
                              .window = kWindow,
                              .count = kCount,
                              .gate = tgate.data(),
                              .chosen = out.data(),
                              .weight = weight.data()});
        std::vector<int32_t> places = out.Host();
        std::vector<float> added = weight.Host();
        for (size_t k = kCount; once && k < places.size(); ++k) {
          places[k] = places[k - kCount];
          added[k] = added[k - kCount];
        }
        chosen[which].push_back(places);
        weights[which].push_back(added);
        states[which].push_back(memory.Host());
      }
    }
  }
  EXPECT_EQ(chosen[1], chosen[0]);
  ASSERT_EQ(weights[1].size(), weights[0].size());
  for (size_t i = 0; i < weights[0].size(); ++i) {
    for (size_t k = 0; k < weights[0][i].size(); ++k) {
      const float a = weights[1][i][k], b = weights[0][i][k];
      ASSERT_TRUE((std::isnan(a) && std::isnan(b)) || std::abs(a - b) <= 1e-6f * (1 + std::abs(b)))
          << a << " and " << b;
    }
    for (size_t k = 0; k < states[0][i].size(); ++k) {
      const float a = states[1][i][k], b = states[0][i][k];
      ASSERT_TRUE(std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) ||
                  (std::isnan(a) && std::isnan(b)))
          << "state " << k << " of step " << i;
    }
  }
}

TEST_P(FarCudaTest, GatesAndTheirGradientsAreTheCpus) {
  for (const auto& [rows, width] : {std::pair{int64_t{1}, int64_t{7}}, {77, 130}, {300, 64}}) {
    const auto x = Normal(static_cast<size_t>(rows * width), 1, dtype()),
               w = Normal(static_cast<size_t>(width), 2, dtype()),
               d = Normal(static_cast<size_t>(rows), 3),
               before = Normal(static_cast<size_t>(rows * width), 4, dtype());
    std::vector<float> gate[2], dw[2], dx[2];
    for (const Device device : {Device(Device::kCpu), Device::Cuda(0)}) {
      const Target target{device, dtype()};
      Tensor tx(target, x), tw(target, w), tdx(target, before);
      Array<float> tgate(device, static_cast<size_t>(rows)), td(device, d),
          tdw(device, std::vector<float>(static_cast<size_t>(width), 0.5f));
      Call(On(device),
           TokenGate{
               .x = tx.data(), .w = tw.data(), .rows = rows, .width = width, .gate = tgate.data()});
      Call(On(device), TokenGateBackward{.dgate = td.data(),
                                         .x = tx.data(),
                                         .w = tw.data(),
                                         .rows = rows,
                                         .width = width,
                                         .dw = tdw.data(),
                                         .dx = tdx.data()});
      const size_t which = device.is_cuda() ? 1 : 0;
      gate[which] = tgate.Host(), dw[which] = tdw.Host(), dx[which] = tdx.Host();
    }
    ExpectClose(gate[1], ToDouble(gate[0]), 4 * kEps, 8 * kEps * static_cast<double>(width),
                "gate");
    ExpectClose(dw[1], ToDouble(dw[0]), 4 * kEps, 8 * kEps * static_cast<double>(rows), "dw");
    ExpectClose(dx[1], ToDouble(dx[0]), 2 * OutputRounding(dtype()), 8 * kEps, "dx");
  }
}

// How a device keeps log-sum-exps: [Nq, tokens], or those of each sequence by themselves.
struct Lse {
  Lse(Device device, const std::vector<float>& packed, int32_t heads, bool apart,
      const int32_t* begins)
      : heads_(heads), apart_(apart), values_(device, Laid(packed)) {
    if (apart)
      layout = {.pitch = kPitch,
                .sequences = static_cast<int32_t>(kParents.size()),
                .cu_seqlens = begins};
  }
  float* data() { return values_.data(); }
  std::vector<float> Packed() {
    const std::vector<float> all = values_.Host();
    std::vector<float> out(static_cast<size_t>(heads_ * kTokens));
    for (int32_t h = 0; h < heads_; ++h) {
      for (int32_t t = 0; t < kTokens; ++t)
        out[static_cast<size_t>(h * kTokens + t)] = all[At(h, t)];
    }
    return out;
  }
  LseLayout layout;

 private:
  static constexpr int64_t kPitch = 64;
  size_t At(int32_t h, int32_t t) const {
    const LseLayout own = apart_ ? LseLayout{.pitch = kPitch,
                                             .sequences = static_cast<int32_t>(kParents.size()),
                                             .cu_seqlens = kBegins.data()}
                                 : LseLayout{};
    return static_cast<size_t>(LsePlace(own, h, heads_, t, kTokens));
  }
  std::vector<float> Laid(const std::vector<float>& packed) const {
    std::vector<float> out(
        apart_ ? kParents.size() * static_cast<size_t>(heads_) * kPitch : packed.size(), kPoison);
    for (int32_t h = 0; h < heads_; ++h) {
      for (int32_t t = 0; t < kTokens; ++t)
        out[At(h, t)] = packed[static_cast<size_t>(h * kTokens + t)];
    }
    return out;
  }

  int32_t heads_;
  bool apart_;
  Array<float> values_;
};

struct Heads {
  int32_t heads, kv_heads, dim;
};
const Heads kHeads[] = {{4, 2, 6}, {3, 3, 40}, {6, 1, 64}, {2, 1, 192}, {4, 4, 300}};

double Error(int32_t dim) { return 2 * 4 * 8 * kEps * (6 + std::sqrt(static_cast<double>(dim))); }

// Chosen tokens (count > 0), or positions that `every` divides, beside a window: what the CPU's
// attention over the window gives goes to the GPU, which adds the rest.
void Compare(DType dtype, const Heads& s, int32_t window, int32_t every, int32_t count,
             bool apart) {
  const std::string what = "heads of " + std::to_string(s.dim) + ", window " +
                           std::to_string(window) + ", every " + std::to_string(every) + ", " +
                           std::to_string(count) + " chosen";
  const Device gpu = Device::Cuda(0);
  const Launch cpu{.stream = Device::kCpu, .dtype = dtype},
      cuda{.stream = TestStream(gpu), .dtype = dtype};
  const Target here{Device::kCpu, dtype}, there{gpu, dtype};
  const size_t mixed = static_cast<size_t>(kTokens * s.heads * s.dim),
               width = static_cast<size_t>(kTokens * (s.heads + 2 * s.kv_heads) * s.dim),
               sums = static_cast<size_t>(kTokens * s.heads);
  const auto qkv = Normal(width, 1, dtype), dout = Normal(mixed, 2, dtype);
  std::vector<float> gate = Normal(kTokens, 3);
  const std::vector<int32_t> chosen =
      count > 0 ? Chosen(Device::kCpu, gate, window, count) : std::vector<int32_t>(1);
  Batch near(Device::kCpu, s.heads, s.kv_heads, s.dim, window, 0),
      far(Device::kCpu, s.heads, s.kv_heads, s.dim, window, every),
      batch(gpu, s.heads, s.kv_heads, s.dim, window, every);

  Tensor tqkv(here, qkv), tdout(here, dout), out(here, mixed), window_out(here, mixed);
  std::vector<float> lse(sums), window_lse(sums);
  Call(cpu, AttentionVarlen{.shape = near.shape,
                            .qkv = tqkv.data(),
                            .out = window_out.data(),
                            .lse = window_lse.data()});
  Call(cpu, AttentionVarlen{
                .shape = far.shape, .qkv = tqkv.data(), .out = out.data(), .lse = lse.data()});
  if (count > 0) {
    Call(cpu, ChosenAttention{.shape = far.shape,
                              .qkv = tqkv.data(),
                              .gate = gate.data(),
                              .chosen = chosen.data(),
                              .count = count,
                              .out = out.data(),
                              .lse = lse.data()});
  }
  Tensor gqkv(there, qkv), gdout(there, dout), gout(there, window_out.Host());
  Array<float> ggate(gpu, gate);
  Array<int32_t> gchosen(gpu, chosen);
  Lse glse(gpu, window_lse, s.heads, apart, batch.begins.data());
  Call(cuda, ChosenAttention{.shape = batch.shape,
                             .qkv = gqkv.data(),
                             .gate = count > 0 ? ggate.data() : nullptr,
                             .chosen = count > 0 ? gchosen.data() : nullptr,
                             .count = count,
                             .out = gout.data(),
                             .lse = glse.data(),
                             .layout = glse.layout});
  const double error = Error(s.dim);
  // In bfloat16 the window's part has been rounded by itself.
  ExpectClose(gout.Host(), ToDouble(out.Host()), 3 * OutputRounding(dtype),
              error + (dtype == DType::kBFloat16 ? 4 * kHalfBf16 : 0), what + ", output");
  ExpectClose(glse.Packed(), ToDouble(lse), 8 * kEps, error, what + ", log-sum-exp");

  // From the same outputs: what is added behind the window's gradients, which are the same
  // numbers on both sides, so that nothing but this is compared.
  Tensor before(here, width);
  std::vector<float> scratch(static_cast<size_t>(
      1 + std::max(AttentionVarlenScratch(far.shape), ChosenAttentionScratch(far.shape))));
  const auto backward = [&](const VarlenShape& shape, Tensor& dqkv) {
    Call(cpu, AttentionVarlenBackward{.shape = shape,
                                      .dout = tdout.data(),
                                      .qkv = tqkv.data(),
                                      .out = out.data(),
                                      .lse = lse.data(),
                                      .dqkv = dqkv.data(),
                                      .scratch = scratch.data()});
  };
  backward(near.shape, before);
  Tensor want(here, before.Host());
  std::vector<float> dgate(kTokens, kPoison);
  if (count > 0) {
    Call(cpu, ChosenAttentionBackward{.shape = far.shape,
                                      .dout = tdout.data(),
                                      .qkv = tqkv.data(),
                                      .out = out.data(),
                                      .lse = lse.data(),
                                      .gate = gate.data(),
                                      .chosen = chosen.data(),
                                      .count = count,
                                      .dqkv = want.data(),
                                      .dgate = dgate.data(),
                                      .scratch = scratch.data()});
  } else {
    backward(far.shape, want);
  }
  Tensor both(there, out.Host());
  Lse both_lse(gpu, lse, s.heads, apart, batch.begins.data());
  std::vector<float> first;
  for (int again = 0; again < 2; ++again) {
    Tensor got(there, before.Host());
    Array<float> gdgate(gpu, std::vector<float>(kTokens, kPoison)),
        gscratch(gpu, static_cast<size_t>(ChosenAttentionScratch(batch.shape, gpu)));
    Call(cuda, ChosenAttentionBackward{.shape = batch.shape,
                                       .dout = gdout.data(),
                                       .qkv = gqkv.data(),
                                       .out = both.data(),
                                       .lse = both_lse.data(),
                                       .gate = count > 0 ? ggate.data() : nullptr,
                                       .chosen = count > 0 ? gchosen.data() : nullptr,
                                       .count = count,
                                       .dqkv = got.data(),
                                       .dgate = count > 0 ? gdgate.data() : nullptr,
                                       .scratch = count > 0 ? gscratch.data() : nullptr,
                                       .layout = both_lse.layout});
    // Terms of size root(dim), as many as there are tokens behind a key and heads of a group.
    const double terms =
        static_cast<double>(kTokens * s.heads / s.kv_heads) * std::sqrt(static_cast<double>(s.dim));
    double most = 0;
    for (const float x : before.Host()) most = std::max(most, std::abs(static_cast<double>(x)));
    const double rounded = dtype == DType::kBFloat16 ? most * kHalfBf16 : 0;
    ExpectClose(got.Host(), ToDouble(want.Host()), 3 * OutputRounding(dtype),
                16 * kEps * terms + rounded, what + ", gradient");
    if (count > 0)
      ExpectClose(gdgate.Host(), ToDouble(dgate), 1e-5, 16 * kEps * terms, what + ", gates");
    if (again) ExpectSameBits(got.Host(), first, what + ", once more");
    first = got.Host();
  }
}

TEST_P(FarCudaTest, ChosenTokensAreTheCpus) {
  for (const Heads& s : kHeads) {
    for (const auto& [window, count] : {std::pair{4, 3}, {1, 1}, {9, 40}})
      Compare(dtype(), s, window, 0, count, s.dim % 3 == 0);
  }
}

TEST_P(FarCudaTest, SinglePositionsAreTheCpus) {
  for (const Heads& s : kHeads) {
    for (const auto& [window, every] : {std::pair{4, 3}, {1, 1}, {9, 16}, {3, 500}})
      Compare(dtype(), s, window, every, 0, s.dim % 3 == 0);
  }
}

TEST_P(FarCudaTest, TablesAreTheCpus) {
  for (const Heads& s : kHeads) {
    for (const int64_t entries : {1, 5, 131}) {
      const auto n = static_cast<size_t>(kTokens * s.heads);
      const auto dim = static_cast<size_t>(s.dim);
      const auto keys = Normal(static_cast<size_t>(entries) * dim, 1),
                 values = Normal(static_cast<size_t>(entries) * dim, 2),
                 q = Normal(n * dim, 3, dtype()), out = Normal(n * dim, 4, dtype()),
                 dout = Normal(n * dim, 5, dtype()), lse = Normal(n, 6);
      std::vector<float> got[2], sums[2], dq[2];
      for (const Device device : {Device(Device::kCpu), Device::Cuda(0)}) {
        const Target target{device, dtype()};
        const size_t which = device.is_cuda() ? 1 : 0;
        Array<float> tkeys(device, keys), tvalues(device, values);
        Array<int32_t> begins(device, kBegins);
        Tensor tq(target, q), tout(target, out), tdout(target, dout), tdq(target, n * dim);
        Lse tlse(device, lse, s.heads, device.is_cuda() && s.dim % 3 == 0, begins.data());
        const TableShape shape = {.rows = kTokens,
                                  .heads = s.heads,
                                  .head_dim = s.dim,
                                  .scale = 1 / std::sqrt(static_cast<float>(s.dim)),
                                  .keys = tkeys.data(),
                                  .values = tvalues.data(),
                                  .entries = entries};
        Call(On(device), TableAttention{.shape = shape,
                                        .q = tq.data(),
                                        .out = tout.data(),
                                        .lse = tlse.data(),
                                        .layout = tlse.layout});
        got[which] = tout.Host(), sums[which] = tlse.Packed();
        // The backward from the CPU's outputs on both.
        Tensor both(target, got[0]);
        Lse both_lse(device, sums[0], s.heads, device.is_cuda() && s.dim % 3 == 0, begins.data());
        Call(On(device), TableAttentionBackward{.shape = shape,
                                                .dout = tdout.data(),
                                                .q = tq.data(),
                                                .out = both.data(),
                                                .lse = both_lse.data(),
                                                .dq = tdq.data(),
                                                .layout = both_lse.layout});
        dq[which] = tdq.Host();
      }
      const std::string what =
          std::to_string(entries) + " rows of " + std::to_string(s.dim) + " elements";
      ExpectClose(got[1], ToDouble(got[0]), 2 * OutputRounding(dtype()), Error(s.dim), what);
      ExpectClose(sums[1], ToDouble(sums[0]), 8 * kEps, Error(s.dim), what + ", log-sum-exp");
      ExpectClose(dq[1], ToDouble(dq[0]), 2 * OutputRounding(dtype()),
                  16 * kEps * static_cast<double>(s.dim), what + ", dq");
    }
  }
}

// Rows of a step with sets of their own, and the log-sum-exp that a table goes on from.
TEST_P(FarCudaTest, PagedRowsWithChosenTokensAreTheCpus) {
  constexpr int32_t kRows = 50, kPageTokens = 8, kQueries = 6, kKeys = 2, kDim = 40, kWindow = 5,
                    kCount = 3;
  std::vector<int32_t> slot, position, table, chosen;
  for (int32_t i = 0; i < kRows; ++i) {
    slot.push_back(i % 2);
    position.push_back(i / 2);
    for (int32_t c = 0; c < kCount; ++c) {
      const int32_t p = c * 3 + i % 3;
      chosen.push_back(p + kWindow <= i / 2 && c <= i % 4 ? p : -1);
    }
  }
  for (size_t i = 1; i < chosen.size(); ++i) {
    if (i % kCount != 0 && chosen[i - 1] < 0) chosen[i] = -1;
  }
  for (int32_t i = 0; i < 16; ++i) table.push_back((i * 5) % 16);
  const PagedKv kv{.dtype = dtype(),
                   .layers = 1,
                   .num_pages = 16,
                   .page_tokens = kPageTokens,
                   .kv_heads = kKeys,
                   .head_dim = kDim};
  const auto pages = Normal(static_cast<size_t>(kv.layer_stride()), 5, dtype()),
             q = Normal(kRows * kQueries * kDim, 6, dtype()), weight = Normal(kRows * kCount, 7);
  std::vector<float> out[2], sums[2];
  for (const Device device : {Device(Device::kCpu), Device::Cuda(0)}) {
    const Target target{device, dtype()};
    Tensor memory(target, pages), tq(target, q), tout(target, q.size());
    Array<int32_t> tslot(device, slot), tposition(device, position), ttable(device, table),
        tchosen(device, chosen);
    Array<float> tweight(device, weight), lse(device, kRows * kQueries);
    PagedKv there = kv;
    there.pages = memory.data();
    Call(On(device),
         AttentionPaged{.q = tq.data(),
                        .q_stride = kQueries * kDim,
                        .rows = {kRows, tslot.data(), tposition.data(), ttable.data(), 8},
                        .heads = kQueries,
                        .kv = there,
                        .scale = 0.15f,
                        .window = kWindow,
                        .chosen = tchosen.data(),
                        .chosen_weight = tweight.data(),
                        .chosen_count = kCount,
                        .out = tout.data(),
                        .lse = lse.data()});
    out[device.is_cuda()] = tout.Host();
    sums[device.is_cuda()] = lse.Host();
  }
  ExpectClose(out[1], ToDouble(out[0]), 2 * OutputRounding(dtype()), Error(kDim), "output");
  ExpectClose(sums[1], ToDouble(sums[0]), 8 * kEps, Error(kDim), "log-sum-exp");
}

}  // namespace
}  // namespace plumb::kernels

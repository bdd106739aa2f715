// The kernels of layers with states on CUDA against the CPU, which the other tests of this folder
// hold to the definitions.
//
// Tolerance. The same float32 sums in another order: of vectors of length 1 over at most 64 tokens
// of a chunk and 24 dimensions, whose states shrink from chunk to chunk; relative to the size of
// the result (its norm over the root of its elements) 64 roundings, and for bfloat16 one of the
// output.
#include <numeric>

#include "kernels/delta/column_product.h"
#include "kernels/delta/delta_gates.h"
#include "kernels/delta/delta_step.h"
#include "kernels/delta/gated_delta.h"
#include "kernels/delta/gated_norm.h"
#include "kernels/delta/move_columns.h"
#include "kernels/delta/short_conv.h"
#include "kernels/delta/sigmoid_gate.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

class DeltaCudaTest : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (!CudaAvailable()) GTEST_SKIP() << "NO GPU: layers with states were NOT tested on CUDA here";
  }
  DType dtype() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Types, DeltaCudaTest, ::testing::Values(DType::kFloat32, DType::kBFloat16),
                         [](const auto& info) {
                           return info.param == DType::kFloat32 ? "Float" : "Bf16";
                         });

// Calls body(launch, target) on the CPU and on the GPU.
template <class Body>
void OnBoth(DType dtype, const Body& body) {
  for (const Device device : {Device(Device::kCpu), Device::Cuda(0)})
    body(Launch{.stream = TestStream(device), .dtype = dtype}, Target{device, dtype},
         device.is_cuda() ? 1 : 0);
}

using Both = std::vector<float>[2];

void ExpectNear(const Both& of, DType dtype, const std::string& what, double roundings = 64) {
  ASSERT_EQ(of[0].size(), of[1].size()) << what;
  double norm = 0;
  for (const float x : of[0]) norm += static_cast<double>(x) * static_cast<double>(x);
  const double size = std::sqrt(norm / static_cast<double>(of[0].size()));
  ExpectClose(of[1], ToDouble(of[0]), 2 * OutputRounding(dtype) + roundings * kEps,
              roundings * kEps * size, what);
}

std::vector<int32_t> Sums(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> out = {0};
  for (const int32_t n : lengths) out.push_back(out.back() + n);
  return out;
}

struct Packed {
  std::vector<int32_t> cu, parents;
};
// Sequences by themselves, and two groups that go on from a prefix.
std::vector<Packed> Batches() {
  return {{Sums({3, 64, 65, 1, 200}), {}},
          {Sums({70, 5, 90, 1, 64, 2, 64, 130}), {-1, 0, 0, 0, -1, 4, 4, -1}}};
}

TEST_P(DeltaCudaTest, TheDeltaRuleIsTheCpus) {
  for (const Packed& packed : Batches()) {
    for (const auto& [k_heads, v_heads, k_dim, v_dim] :
         std::vector<std::array<int32_t, 4>>{{2, 4, 12, 10}, {1, 3, 24, 24}, {2, 2, 128, 128}}) {
      DeltaShape s{.tokens = packed.cu.back(),
                   .sequences = static_cast<int32_t>(packed.cu.size()) - 1,
                   .k_heads = k_heads,
                   .v_heads = v_heads,
                   .k_dim = k_dim,
                   .v_dim = v_dim};
      const auto n = static_cast<size_t>(s.tokens), scalars = n * static_cast<size_t>(v_heads),
                 wide = n * static_cast<size_t>(s.width()),
                 values = n * static_cast<size_t>(s.value_width());
      const auto qkv = Normal(wide, 1, dtype()), dout = Normal(values, 2, dtype());
      std::vector<float> g = Normal(scalars, 3), beta = Normal(scalars, 4);
      for (float& x : g) x = -0.3f * std::abs(x);
      for (float& x : beta) x = 1 / (1 + std::exp(-x));
      for (const bool keep : {false, true}) {
        Both out, dqkv, dg, dbeta;
        OnBoth(dtype(), [&](const Launch& launch, Target target, int at) {
          Array<int32_t> cu(target.device, packed.cu), parents(target.device, packed.parents);
          DeltaShape there = s;
          there.cu_seqlens = cu.data();
          there.parents = packed.parents.empty() ? nullptr : parents.data();
          const auto floats = [&](int64_t count) {
            return Array<float>(target.device, std::vector<float>(static_cast<size_t>(count), NAN));
          };
          Tensor tqkv(target, qkv), tdout(target, dout), tout(target, values), tdqkv(target, wide);
          Array<float> tg(target.device, g), tbeta(target.device, beta),
              tdg(target.device, scalars), tdbeta(target.device, scalars);
          auto states = floats(there.slots(keep) * v_heads * there.state() + 1),
               work = floats(GatedDeltaWork(there, false)),
               back_work = floats(GatedDeltaWork(there, true)),
               scratch = floats(GatedDeltaScratch(there) + 1);
          Call(launch, GatedDelta{.shape = there,
                                  .qkv = tqkv.data(),
                                  .g = tg.data(),
                                  .beta = tbeta.data(),
                                  .keep = keep,
                                  .states = states.data(),
                                  .out = tout.data(),
                                  .work = work.data()});
          out[at] = tout.Host();
          if (!keep) return;
          Call(launch, GatedDeltaBackward{.shape = there,
                                          .dout = tdout.data(),
                                          .qkv = tqkv.data(),
                                          .g = tg.data(),
                                          .beta = tbeta.data(),
                                          .states = states.data(),
                                          .dqkv = tdqkv.data(),
                                          .dg = tdg.data(),
                                          .dbeta = tdbeta.data(),
                                          .scratch = scratch.data(),
                                          .work = back_work.data()});
          dqkv[at] = tdqkv.Host(), dg[at] = tdg.Host(), dbeta[at] = tdbeta.Host();
        });
        const std::string what = std::to_string(k_dim) + "x" + std::to_string(v_dim) +
                                 (packed.parents.empty() ? "" : " shared") + (keep ? " kept" : "");
        ExpectNear(out, dtype(), "out of " + what);
        if (!keep) continue;
        // Through the sums of a whole chunk of decays, and back.
        ExpectNear(dqkv, dtype(), "dqkv of " + what, 512);
        ExpectNear(dg, DType::kFloat32, "dg of " + what, 1024);
        ExpectNear(dbeta, DType::kFloat32, "dbeta of " + what, 512);
      }
    }
  }
}

TEST_P(DeltaCudaTest, ConvolutionsAreTheCpus) {
  for (const Packed& packed : Batches()) {
    for (const bool silu : {false, true}) {
      for (const int32_t taps : {1, 4, 7}) {
        ShortConvShape s{.tokens = packed.cu.back(),
                         .sequences = static_cast<int32_t>(packed.cu.size()) - 1,
                         .channels = 150,
                         .taps = taps,
                         .silu = silu,
                         .x_stride = 170,
                         .y_stride = 155};
        const auto rows = static_cast<size_t>(s.tokens);
        const auto x = Normal(rows * 170, 5, dtype()), dy = Normal(rows * 155, 6, dtype()),
                   w = Normal(static_cast<size_t>(150 * taps), 7, dtype());
        Both y, dx, dw;
        OnBoth(dtype(), [&](const Launch& launch, Target target, int at) {
          Array<int32_t> cu(target.device, packed.cu), parents(target.device, packed.parents);
          ShortConvShape there = s;
          there.cu_seqlens = cu.data();
          there.parents = packed.parents.empty() ? nullptr : parents.data();
          Tensor tx(target, x), tw(target, w), tdy(target, dy),
              ty(target, std::vector<float>(dy.size(), 3.0f)),
              tdx(target, std::vector<float>(x.size(), 3.0f));
          Array<float> tdw(target.device, std::vector<float>(w.size(), 1.0f));
          Call(launch, ShortConv{.shape = there, .x = tx.data(), .w = tw.data(), .y = ty.data()});
          Call(launch, ShortConvBackward{.shape = there,
                                         .dy = tdy.data(),
                                         .x = tx.data(),
                                         .w = tw.data(),
                                         .dx = tdx.data(),
                                         .dw = tdw.data()});
          y[at] = ty.Host(), dx[at] = tdx.Host(), dw[at] = tdw.Host();
        });
        const std::string what = std::to_string(taps) + " taps" + (silu ? ", silu" : "");
        ExpectNear(y, dtype(), "y of " + what);
        ExpectNear(dx, dtype(), "dx of " + what);
        ExpectNear(dw, DType::kFloat32, "dw of " + what, 256);
      }
    }
  }
}

// Rows of three slots, prompts in pieces and tokens one by one, beside rows that only fill up a
// recorded step.
TEST_P(DeltaCudaTest, StepsAreTheCpusAndRowsThatFillUpChangeNothing) {
  const std::vector<std::vector<std::pair<int32_t, int32_t>>> steps = {
      {{2, 0}, {2, 1}, {2, 2}, {0, 0}}, {{0, 1}, {1, 0}, {1, 1}, {2, 3}}, {{1, 2}, {2, 4}, {0, 2}}};
  const DeltaShape s{.k_heads = 2, .v_heads = 4, .k_dim = 40, .v_dim = 70};
  const ShortConvShape conv{.channels = s.width(),
                            .taps = 4,
                            .silu = true,
                            .x_stride = s.width() + 6,
                            .y_stride = s.width()};
  const int64_t conv_state = 3 * conv.channels, row = conv_state + s.v_heads * s.state();
  std::vector<Both> out(steps.size()), mixed(steps.size());
  Both states;
  OnBoth(dtype(), [&](const Launch& launch, Target target, int at) {
    Array<float> held(target.device, std::vector<float>(static_cast<size_t>(3 * row), 0.5f));
    for (size_t step = 0; step < steps.size(); ++step) {
      std::vector<int32_t> slot, position;
      for (const auto& [of, where] : steps[step]) slot.push_back(of), position.push_back(where);
      const size_t real = slot.size();
      // The first row once more, twice: behind the others, and right behind itself where it is
      // alone in its slot.
      const int fill = target.device.is_cuda() && step == 2 ? 2 : 0;
      for (int i = 0; i < fill; ++i) slot.push_back(slot[0]), position.push_back(position[0]);
      const size_t n = slot.size();
      const auto seed = static_cast<uint64_t>(10 * step);
      std::vector<float> x = Normal(real * static_cast<size_t>(conv.x_stride), seed, dtype()),
                         g = Normal(real * 4, seed + 1), beta = Normal(real * 4, seed + 2);
      x.resize(n * static_cast<size_t>(conv.x_stride), 1.0f);
      for (float& v : g) v = -0.3f * std::abs(v);
      g.resize(n * 4, -0.1f), beta.resize(n * 4, 0.3f);
      const auto w = Normal(static_cast<size_t>(conv.channels) * 4, 3, dtype());
      Array<int32_t> tslot(target.device, slot), tposition(target.device, position);
      const PagedRows rows{static_cast<int32_t>(n), tslot.data(), tposition.data(), nullptr, 0};
      Tensor tx(target, x), tw(target, w), ty(target, n * static_cast<size_t>(conv.y_stride)),
          tout(target, n * static_cast<size_t>(s.value_width()));
      Array<float> tg(target.device, g), tbeta(target.device, beta);
      const SequenceStates view{held.data(), row};
      Call(launch, ShortConvStep{.shape = conv,
                                 .rows = rows,
                                 .x = tx.data(),
                                 .w = tw.data(),
                                 .states = view,
                                 .offset = 0,
                                 .y = ty.data()});
      Call(launch, DeltaStep{.shape = s,
                             .rows = rows,
                             .qkv = ty.data(),
                             .g = tg.data(),
                             .beta = tbeta.data(),
                             .states = view,
                             .offset = conv_state,
                             .out = tout.data()});
      mixed[step][at] = ty.Host(), out[step][at] = tout.Host();
      for (size_t r = real; r < n; ++r) {  // the first row's, bit for bit
        const auto same = [&](const std::vector<float>& of, int64_t width) {
          for (int64_t i = 0; i < width; ++i)
            ASSERT_EQ(of[r * static_cast<size_t>(width) + static_cast<size_t>(i)],
                      of[static_cast<size_t>(i)]);
        };
        same(mixed[step][at], conv.y_stride);
        same(out[step][at], s.value_width());
      }
      mixed[step][at].resize(real * static_cast<size_t>(conv.y_stride));
      out[step][at].resize(real * static_cast<size_t>(s.value_width()));
    }
    // What lies between the columns of a state is nobody's.
    std::vector<float> all = held.Host();
    for (int32_t slot = 0; slot < 3; ++slot) {
      for (int64_t i = 0; i < s.v_heads * s.k_dim; ++i) {
        for (int32_t c = s.v_dim; c < 80; ++c)
          all[static_cast<size_t>(slot * row + conv_state + i * 80 + c)] = 0;
      }
    }
    states[at] = all;
  });
  for (size_t step = 0; step < steps.size(); ++step) {
    ExpectNear(mixed[step], dtype(), "convolution of step " + std::to_string(step));
    ExpectNear(out[step], dtype(), "step " + std::to_string(step),
               dtype() == DType::kFloat32 ? 64 : 1 << 17);
  }
  // In bfloat16 what the convolution gave was rounded, here and there another way.
  ExpectNear(states, dtype(), "states", dtype() == DType::kFloat32 ? 64 : 1 << 17);
}

TEST_P(DeltaCudaTest, GatesNormsAndColumnsAreTheCpus) {
  constexpr int64_t kRows = 133, kStride = 60;
  constexpr int32_t kHeads = 5, kDim = 44;
  const auto wide = Normal(kRows * kStride, 20, dtype()), heads = Normal(kHeads, 21, dtype()),
             bias = Normal(kHeads, 22, dtype()), dg_in = Normal(kRows * kHeads, 23),
             dbeta_in = Normal(kRows * kHeads, 24);
  Both g, beta, dwide, da_log, dbias;
  OnBoth(dtype(), [&](const Launch& launch, Target target, int at) {
    Tensor x(target, wide), d(target, std::vector<float>(wide.size(), 2.0f)), a_log(target, heads),
        b(target, bias);
    const size_t element = ElementSize(dtype());
    const auto column = [&](Tensor& of, size_t c) {
      return static_cast<std::byte*>(of.data()) + c * element;
    };
    Array<float> tg(target.device, kRows * kHeads), tbeta(target.device, kRows * kHeads),
        tdg(target.device, dg_in), tdbeta(target.device, dbeta_in),
        tda(target.device, std::vector<float>(kHeads, 1.0f)),
        tdb(target.device, std::vector<float>(kHeads, 1.0f));
    Call(launch, DeltaGates{.a = column(x, 3),
                            .b = column(x, 11),
                            .rows = kRows,
                            .stride = kStride,
                            .heads = kHeads,
                            .a_log = a_log.data(),
                            .bias = b.data(),
                            .g = tg.data(),
                            .beta = tbeta.data()});
    Call(launch, DeltaGatesBackward{.a = column(x, 3),
                                    .b = column(x, 11),
                                    .rows = kRows,
                                    .stride = kStride,
                                    .heads = kHeads,
                                    .a_log = a_log.data(),
                                    .bias = b.data(),
                                    .dg = tdg.data(),
                                    .dbeta = tdbeta.data(),
                                    .da = column(d, 3),
                                    .db = column(d, 11),
                                    .da_log = tda.data(),
                                    .dbias = tdb.data()});
    g[at] = tg.Host(), beta[at] = tbeta.Host(), dwide[at] = d.Host(), da_log[at] = tda.Host();
    dbias[at] = tdb.Host();
  });
  ExpectNear(g, DType::kFloat32, "g");
  ExpectNear(beta, DType::kFloat32, "beta");
  ExpectNear(dwide, dtype(), "da and db");
  ExpectNear(da_log, DType::kFloat32, "da_log", 256);
  ExpectNear(dbias, DType::kFloat32, "dbias", 256);

  const auto x = Normal(kRows * kHeads * kDim, 25, dtype()),
             z = Normal(kRows * (kHeads * kDim + 9), 26, dtype()), w = Normal(kDim, 27, dtype()),
             dy = Normal(kRows * kHeads * kDim, 28, dtype());
  Both y, dx, dz, dw, gated, dgated, dgate, product, moved;
  OnBoth(dtype(), [&](const Launch& launch, Target target, int at) {
    Tensor tx(target, x), tz(target, z), tw(target, w), tdy(target, dy), ty(target, x.size()),
        tdz(target, std::vector<float>(z.size(), 2.0f));
    Array<float> tdw(target.device, std::vector<float>(kDim, 1.0f)),
        scratch(target.device, kGatedNormScratchRows * kDim);
    const int64_t z_stride = kHeads * kDim + 9;
    Call(launch, GatedNorm{.x = tx.data(),
                           .z = tz.data(),
                           .w = tw.data(),
                           .rows = kRows,
                           .z_stride = z_stride,
                           .heads = kHeads,
                           .dim = kDim,
                           .eps = 1e-5f,
                           .y = ty.data()});
    Call(launch, GatedNormBackward{.dy = tdy.data(),
                                   .x = tx.data(),
                                   .z = tz.data(),
                                   .w = tw.data(),
                                   .rows = kRows,
                                   .z_stride = z_stride,
                                   .heads = kHeads,
                                   .dim = kDim,
                                   .eps = 1e-5f,
                                   .dx = tdy.data(),
                                   .dz = tdz.data(),
                                   .dw = tdw.data(),
                                   .scratch = scratch.data()});
    y[at] = ty.Host(), dx[at] = tdy.Host(), dz[at] = tdz.Host(), dw[at] = tdw.Host();
    Tensor d(target, dy), gate(target, dy), out(target, x.size()), dout(target, x.size());
    Call(launch, SigmoidGate{.x = tx.data(),
                             .gate = gate.data(),
                             .n = static_cast<int64_t>(x.size()),
                             .y = out.data()});
    Call(launch, SigmoidGateBackward{.dy = d.data(),
                                     .x = tx.data(),
                                     .gate = gate.data(),
                                     .n = static_cast<int64_t>(x.size()),
                                     .dx = dout.data(),
                                     .dgate = gate.data()});
    gated[at] = out.Host(), dgated[at] = dout.Host(), dgate[at] = gate.Host();
    Tensor p(target, std::vector<float>(z.size(), 2.0f)),
        m(target, std::vector<float>(z.size(), 2.0f));
    Call(launch, ColumnProduct{.a = tx.data(),
                               .b = tz.data(),
                               .rows = kRows,
                               .width = 100,
                               .a_stride = kHeads * kDim,
                               .b_stride = z_stride,
                               .y_stride = z_stride,
                               .y = p.data()});
    product[at] = p.Host();
    std::vector<ColumnRun> runs;  // more than travel with one launch
    for (int64_t i = 0; i < 150; ++i) runs.push_back({i, (i * 7) % 151 + 20, 1});
    Call(launch, MoveColumns{.x = tx.data(),
                             .rows = kRows,
                             .x_width = kHeads * kDim,
                             .y_width = z_stride,
                             .runs = runs.data(),
                             .count = static_cast<int64_t>(runs.size()),
                             .y = m.data()});
    moved[at] = m.Host();
  });
  ExpectNear(y, dtype(), "gated norm");
  ExpectNear(dx, dtype(), "its dx");
  ExpectNear(dz, dtype(), "its dz");
  ExpectNear(dw, DType::kFloat32, "its dw", 256);
  ExpectNear(gated, dtype(), "gate");
  ExpectNear(dgated, dtype(), "its dx");
  ExpectNear(dgate, dtype(), "its dgate");
  ExpectNear(product, dtype(), "product");
  ExpectSameBits(moved[1], moved[0], "moved columns");
}

}  // namespace
}  // namespace plumb::kernels

// kernels/latent/latent_heads.h on CUDA against the CPU, which latent_heads_test.cc holds to the
// definition, and attention over one latent to all heads.
//
// Tolerance: moves are exact; float32 sums of `n` products of normal values in another order are
// within 4 roundings of the root of n a product, and for bfloat16 one of the output.
#include "kernels/attention_paged.h"
#include "kernels/latent/latent_heads.h"
#include "kernels/rope.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

class LatentCudaTest : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (!CudaAvailable()) GTEST_SKIP() << "NO GPU: latent attention was NOT tested on CUDA here";
  }
  DType dtype() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Types, LatentCudaTest,
                         ::testing::Values(DType::kFloat32, DType::kBFloat16),
                         [](const auto& info) {
                           return info.param == DType::kFloat32 ? "Float" : "Bf16";
                         });

using Both = std::vector<float>[2];

template <class Body>
void OnBoth(DType dtype, const Body& body) {
  for (const Device device : {Device(Device::kCpu), Device::Cuda(0)})
    body(Launch{.stream = TestStream(device), .dtype = dtype}, Target{device, dtype},
         device.is_cuda() ? 1 : 0);
}

std::vector<LatentShape> Shapes(int64_t rows) {
  return {{rows, 3, 16, 8, 16, 64, 24},
          {rows, 2, 9, 6, 11, 14, 16},
          {rows, 4, 5, 2, 12, 83, 12},
          {rows, 5, 128, 64, 128, 512, 192}};
}

TEST_P(LatentCudaTest, HeadsAndTheirWeightsAreTheCpus) {
  for (const int64_t rows : {1, 67}) {
    for (const LatentShape& s : Shapes(rows)) {
      const auto draw = [&](int64_t n, uint64_t seed) {
        return Normal(static_cast<size_t>(n), seed, dtype());
      };
      const auto q = draw(rows * s.query_width(), 1), kv = draw(rows * s.kv_width(), 2),
                 down = draw(rows * s.cached(), 3), dqkv = draw(rows * s.merged_width(), 4),
                 latent = draw(rows * s.rank, 5), w = draw(s.kv_width() * s.rank, 6),
                 mixed = draw(rows * s.heads * s.cached(), 7);
      Both qkv, dq, dkv, ddown, taken, put, absorbed, expanded;
      OnBoth(dtype(), [&](const Launch& launch, Target target, int at) {
        const auto fresh = [&](int64_t n) { return Tensor(target, static_cast<size_t>(n)); };
        Tensor tq(target, q), tkv(target, kv), tdown(target, down), tdqkv(target, dqkv),
            tlatent(target, latent), tw(target, w), tmixed(target, mixed);
        Tensor oqkv = fresh(rows * s.merged_width()), odq = fresh(rows * s.query_width()),
               odkv = fresh(rows * s.kv_width()), oddown = fresh(rows * s.cached()),
               otaken = fresh(rows * s.heads * s.value), oput = fresh(rows * s.heads * s.head),
               oabsorbed = fresh(rows * (s.heads + 1) * s.cached()),
               oexpanded = fresh(rows * s.heads * s.value);
        Call(launch, JoinLatentHeads{.shape = s,
                                     .q = tq.data(),
                                     .kv = tkv.data(),
                                     .down = tdown.data(),
                                     .qkv = oqkv.data()});
        Call(launch, SplitLatentHeads{.shape = s,
                                      .dqkv = tdqkv.data(),
                                      .dq = odq.data(),
                                      .dkv = odkv.data(),
                                      .ddown = oddown.data()});
        Call(launch, TakeValues{.shape = s, .mixed = tdqkv.data(), .values = otaken.data()});
        Call(launch, PutValues{.shape = s, .values = otaken.data(), .mixed = oput.data()});
        Call(launch, AbsorbQueries{.shape = s,
                                   .q = tq.data(),
                                   .down = tdown.data(),
                                   .latent = tlatent.data(),
                                   .w = tw.data(),
                                   .out = oabsorbed.data()});
        Call(launch,
             ExpandValues{
                 .shape = s, .mixed = tmixed.data(), .w = tw.data(), .values = oexpanded.data()});
        qkv[at] = oqkv.Host(), dq[at] = odq.Host(), dkv[at] = odkv.Host();
        ddown[at] = oddown.Host(), taken[at] = otaken.Host(), put[at] = oput.Host();
        absorbed[at] = oabsorbed.Host(), expanded[at] = oexpanded.Host();
      });
      ExpectSameBits(qkv[1], qkv[0], "joined");
      ExpectSameBits(dq[1], dq[0], "dq");
      ExpectSameBits(dkv[1], dkv[0], "dkv");
      ExpectSameBits(ddown[1], ddown[0], "the shared key's, head by head");
      ExpectSameBits(taken[1], taken[0], "taken");
      ExpectSameBits(put[1], put[0], "put");
      const auto near = [&](const Both& of, int64_t terms, const std::string& what) {
        ExpectClose(of[1], ToDouble(of[0]), 2 * OutputRounding(dtype()),
                    4 * kEps * static_cast<double>(terms), what);
      };
      near(absorbed, s.nope, "absorbed");
      near(expanded, s.rank, "expanded");
    }
  }
}

// Rotated keys that are values, too, written to pages and read by all heads.
TEST_P(LatentCudaTest, PagesOfKeysAloneAreTheCpus) {
  for (const auto& [heads, dim, dims] :
       std::vector<std::array<int32_t, 3>>{{4, 24, 8}, {3, 70, 6}, {5, 576, 64}, {1, 576, 64}}) {
    constexpr int32_t kRows = 41, kPageTokens = 8;
    std::vector<int32_t> slot, position, table;
    for (int32_t i = 0; i < kRows; ++i) {
      slot.push_back(i % 2);
      position.push_back(i / 2);
    }
    for (int32_t i = 0; i < 16; ++i) table.push_back((i * 5) % 16);
    PagedKv kv{.dtype = dtype(),
               .layers = 2,
               .num_pages = 16,
               .page_tokens = kPageTokens,
               .kv_heads = 1,
               .head_dim = dim,
               .keys_only = true};
    const auto width = static_cast<size_t>((heads + 1) * dim);
    const auto rows = Normal(kRows * width, 1, dtype());
    std::vector<float> turns = Normal(static_cast<size_t>(64 * dims), 2);
    for (const bool interleaved : {false, true}) {
      Both out, pages;
      OnBoth(dtype(), [&](const Launch& launch, Target target, int at) {
        Tensor memory(
            target, std::vector<float>(static_cast<size_t>(
                                           kv.bytes() / static_cast<int64_t>(ElementSize(dtype()))),
                                       0.5f));
        PagedKv there = kv;
        there.pages = memory.data();
        Tensor tin(target, rows), tout(target, static_cast<size_t>(kRows * heads * dim));
        Array<int32_t> tslot(target.device, slot), tposition(target.device, position),
            ttable(target.device, table);
        Array<float> tturns(target.device, turns);
        const PagedRows paged{kRows, tslot.data(), tposition.data(), ttable.data(), 8};
        Call(launch, RopeAndWriteKv{.qkv = tin.data(),
                                    .rows = paged,
                                    .cos_sin = tturns.data(),
                                    .heads = heads,
                                    .dims = dims,
                                    .interleaved = interleaved,
                                    .layer = 1,
                                    .kv = there});
        Call(launch, AttentionPaged{.q = tin.data(),
                                    .q_stride = static_cast<int64_t>(width),
                                    .rows = paged,
                                    .heads = heads,
                                    .layer = 1,
                                    .kv = there,
                                    .scale = 0.3f / std::sqrt(static_cast<float>(dim)),
                                    .out = tout.data()});
        out[at] = tout.Host(), pages[at] = memory.Host();
      });
      const std::string what = std::to_string(heads) + " heads of " + std::to_string(dim);
      ExpectClose(pages[1], ToDouble(pages[0]), 2 * OutputRounding(dtype()), 8 * kEps,
                  "pages of " + what);
      // Weights are within the roundings of a score, a sum of `dim` products of size 1 / root(dim).
      ExpectClose(out[1], ToDouble(out[0]), 2 * OutputRounding(dtype()),
                  dtype() == DType::kFloat32 ? 64 * kEps * std::sqrt(dim) : 0.02, what);
    }
  }
}

}  // namespace
}  // namespace plumb::kernels

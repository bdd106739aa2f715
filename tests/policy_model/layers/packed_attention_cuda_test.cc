// Attention of a packed batch in bfloat16 as layers call it on a GPU, against its definition: where
// kernels/attention has kernels, and where LibTorch's operator stays.
#include "policy_model/layers/attention.h"
#include "tests/kernels/attention/packed_scene.h"

namespace plumb::policy_model {
namespace {

using kernels::Array;
using kernels::PackedScene;
using kernels::PackedShape;
using kernels::Tensor;

// What each sequence sees, as seen_lists.h has it.
struct Lists {
  std::vector<int32_t> seen, cu_seen = {0}, places, begins = {0};
  explicit Lists(const PackedScene& s) {
    std::vector<std::vector<int32_t>> of_token(s.tokens());
    for (size_t b = 0; b < s.shape.lengths.size(); ++b) {
      const auto add = [&](size_t of) {
        for (int32_t t = s.cu[of]; t < s.cu[of + 1]; ++t) {
          of_token[static_cast<size_t>(t)].push_back(static_cast<int32_t>(seen.size()));
          seen.push_back(t);
        }
      };
      const int32_t parent = s.shape.parents.empty() ? -1 : s.shape.parents[b];
      if (parent >= 0) add(static_cast<size_t>(parent));
      add(b);
      cu_seen.push_back(static_cast<int32_t>(seen.size()));
    }
    for (const auto& at : of_token) {
      places.insert(places.end(), at.begin(), at.end());
      begins.push_back(static_cast<int32_t>(places.size()));
    }
  }
};

TEST(PackedAttentionCuda, ForwardAndBackwardAreTheDefinition) {
  if (!kernels::CudaAvailable())
    GTEST_SKIP() << "NO GPU: attention of layers was NOT tested here (build with -DPLUMB_CUDA=ON "
                    "on a machine with a GPU)";
  const Device device = Device::Cuda(0);
  const kernels::Launch launch{.stream = kernels::TestStream(device), .dtype = DType::kBFloat16};
  const kernels::Target target{device, DType::kBFloat16};
  for (const PackedShape& shape :
       {PackedShape{9, 3, 64, {300, 64, 65}, {}, 0, 64},
        PackedShape{14, 2, 64, {200, 130, 7, 90}, {-1, 0, 0, -1}, 0, 64},
        PackedShape{8, 2, 128, {150, 40, 70}, {-1, 0, 0}, 0, 128},
        PackedShape{6, 2, 128, {330, 50}, {}, 100, 128}, PackedShape{4, 2, 64, {200}, {}, 0, 32},
        PackedShape{4, 2, 80, {100, 70}, {}, 0, 80}}) {
    const PackedScene scene(shape);
    const Lists lists(scene);
    const bool shares = !shape.parents.empty();
    Array<int32_t> cu(device, scene.cu), parents(device, shape.parents), seen(device, lists.seen),
        cu_seen(device, lists.cu_seen), places(device, lists.places), begins(device, lists.begins),
        position(device, scene.position);
    Array<float> cos_sin(device, scene.cos_sin);
    AttentionShape s;
    static_cast<kernels::VarlenShape&>(s) = scene.Varlen();
    s.cu_seqlens = cu.data();
    s.max_seqlen = 1 + *std::max_element(scene.position.begin(), scene.position.end());
    if (shares) {
      s.all_seen = static_cast<int64_t>(lists.seen.size());
      s.seen = seen.data();
      s.cu_seen = cu_seen.data();
      s.places = places.data();
      s.place_begins = begins.data();
      s.parents_there = parents.data();
    }
    Tensor qkv(target, scene.qkv), dout(target, scene.dout), out(target, scene.out.size()),
        dqkv(target, scene.qkv.size());
    Array<float> lse(device, static_cast<size_t>(AttentionLseElements(launch, s)));
    AttentionForward(launch, s, qkv.data(), out.data(), lse.data());
    const Turned turned{position.data(), cos_sin.data(), shape.turned, false};
    if (!AttentionBackward(launch, s, dout.data(), qkv.data(), out.data(), lse.data(), dqkv.data(),
                           nullptr, &turned)) {
      kernels::Call(launch, kernels::RopeInPlace{.qkv = dqkv.data(),
                                                 .position = position.data(),
                                                 .cos_sin = cos_sin.data(),
                                                 .rows = s.tokens,
                                                 .heads = s.heads,
                                                 .kv_heads = s.kv_heads,
                                                 .head_dim = s.head_dim,
                                                 .dims = shape.turned,
                                                 .inverse = true});
    }
    // Weights are rounded before they multiply values: as for paged rows.
    kernels::ExpectClose(out.Host(), kernels::ToDouble(scene.out), 2 * kernels::kHalfBf16,
                         2.5 * kernels::kHalfBf16, shape.Name() + ", out");
    // A few roundings of each number, of at most kHalfBf16 and half of that on average: of weights,
    // of their gradients, of the output that dout . out is taken of, of gradients on their way.
    double off = 0, norm = 0;
    const std::vector<float> actual = dqkv.Host();
    for (size_t i = 0; i < actual.size(); ++i) {
      off += std::pow(static_cast<double>(actual[i]) - scene.dqkv[i], 2);
      norm += std::pow(scene.dqkv[i], 2);
    }
    EXPECT_LE(std::sqrt(off / norm), 2 * kernels::kHalfBf16) << shape.Name();
  }
}

}  // namespace
}  // namespace plumb::policy_model

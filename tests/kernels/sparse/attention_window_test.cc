// kernels/sparse/attention_window.h against kernels/attention_varlen.h, whose gradients are those
// of finite differences, also where several sequences go on from one.
#include "kernels/sparse/attention_window.h"

#include "kernels/attention_varlen.h"
#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

struct Packed {
  int32_t heads, kv_heads, dim, window;
  std::vector<int32_t> lengths, parents;
  size_t Width() const { return static_cast<size_t>((heads + 2 * kv_heads) * dim); }
};

class AttentionWindowTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, AttentionWindowTest,
                         ::testing::Values(Target{Device::kCpu, DType::kFloat32},
                                           Target{Device::Cuda(0), DType::kFloat32}),
                         TargetName);

TEST_P(AttentionWindowTest, IsAttentionOverPackedSequencesAndItsGradients) {
  for (const Packed& p :
       {Packed{1, 1, 5, 2, {1, 3}, {-1, -1}}, Packed{4, 2, 32, 17, {70, 3, 20}, {-1, -1, -1}},
        Packed{9, 3, 64, 8, {7, 21, 40, 16, 1, 33}, {-1, -1, 1, 1, 1, -1}},
        Packed{6, 3, 24, 24, {21, 40, 16, 33}, {-1, 0, 0, -1}},
        Packed{2, 2, 256, 1, {9, 4}, {-1, 0}}, Packed{2, 1, 16, 1000, {40, 5, 9}, {-1, 0, 0}}}) {
    // Packed as the learner has it, on the CPU.
    std::vector<int32_t> cu = {0}, cu_k = {0}, seen;
    for (size_t b = 0; b < p.lengths.size(); ++b) {
      if (p.parents[b] >= 0) {
        const auto parent = static_cast<size_t>(p.parents[b]);
        for (int32_t j = cu[parent]; j < cu[parent + 1]; ++j) seen.push_back(j);
      }
      for (int32_t i = 0; i < p.lengths[b]; ++i) seen.push_back(cu.back() + i);
      cu.push_back(cu.back() + p.lengths[b]);
      cu_k.push_back(static_cast<int32_t>(seen.size()));
    }
    const auto tokens = static_cast<size_t>(cu.back()), dim = static_cast<size_t>(p.dim),
               wide = static_cast<size_t>(p.heads) * dim,
               narrow = static_cast<size_t>(p.kv_heads) * dim;
    const VarlenShape packed = {.tokens = cu.back(),
                                .sequences = static_cast<int32_t>(p.lengths.size()),
                                .cu_seqlens = cu.data(),
                                .parents = p.parents.data(),
                                .max_seqlen = cu.back(),
                                .heads = p.heads,
                                .kv_heads = p.kv_heads,
                                .head_dim = p.dim,
                                .scale = 0.3f,
                                .window = p.window};
    const auto qkv = Normal(tokens * p.Width(), tokens), g = Normal(tokens * wide, 7);
    std::vector<float> out(tokens * wide), lse(static_cast<size_t>(p.heads) * tokens),
        dqkv(qkv.size()), scratch(static_cast<size_t>(AttentionVarlenScratch(packed)));
    const Launch host = {.stream = Device::kCpu, .dtype = DType::kFloat32};
    Call(host,
         AttentionVarlen{.shape = packed, .qkv = qkv.data(), .out = out.data(), .lse = lse.data()});
    Call(host, AttentionVarlenBackward{.shape = packed,
                                       .dout = g.data(),
                                       .qkv = qkv.data(),
                                       .out = out.data(),
                                       .lse = lse.data(),
                                       .dqkv = dqkv.data(),
                                       .scratch = scratch.data()});

    // The same with the keys and values that each sequence sees side by side.
    std::vector<float> kv;
    for (const int32_t j : seen) {
      const auto row =
          qkv.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(j) * p.Width());
      kv.insert(kv.end(), row + static_cast<std::ptrdiff_t>(wide),
                row + static_cast<std::ptrdiff_t>(p.Width()));
    }
    Array<int32_t> q_places(device(), cu), k_places(device(), cu_k);
    const WindowShape shape = {.queries = cu.back(),
                               .keys = cu_k.back(),
                               .sequences = packed.sequences,
                               .cu_q = q_places.data(),
                               .cu_k = k_places.data(),
                               .q_stride = static_cast<int64_t>(p.Width()),
                               .k_stride = static_cast<int64_t>(2 * narrow),
                               .heads = p.heads,
                               .kv_heads = p.kv_heads,
                               .head_dim = p.dim,
                               .scale = 0.3f,
                               .window = p.window};
    Array<float> q(device(), qkv), k(device(), kv), dout(device(), g),
        got_out(device(), out.size()), got_lse(device(), lse.size()), dq(device(), out.size()),
        dk(device(), seen.size() * narrow), dv(device(), seen.size() * narrow),
        both(device(), lse.size());
    Call(launch(), AttentionWindow{.shape = shape,
                                   .q = q.data(),
                                   .k = k.data(),
                                   .v = k.data() + narrow,
                                   .out = got_out.data(),
                                   .lse = got_lse.data()});
    Call(launch(), AttentionWindowBackward{.shape = shape,
                                           .q = q.data(),
                                           .k = k.data(),
                                           .v = k.data() + narrow,
                                           .out = got_out.data(),
                                           .lse = got_lse.data(),
                                           .dout = dout.data(),
                                           .dq = dq.data(),
                                           .dk = dk.data(),
                                           .dv = dv.data(),
                                           .scratch = both.data()});
    // Gradients of queries, and of keys and values added up for each token that several see.
    std::vector<double> gathered(dqkv.size());
    const auto got_dq = dq.Host(), got_dk = dk.Host(), got_dv = dv.Host();
    for (size_t t = 0; t < tokens; ++t)
      for (size_t i = 0; i < wide; ++i)
        gathered[t * p.Width() + i] = static_cast<double>(got_dq[t * wide + i]);
    for (size_t r = 0; r < seen.size(); ++r) {
      const size_t row = static_cast<size_t>(seen[r]) * p.Width() + wide;
      for (size_t i = 0; i < narrow; ++i) {
        gathered[row + i] += static_cast<double>(got_dk[r * narrow + i]);
        gathered[row + narrow + i] += static_cast<double>(got_dv[r * narrow + i]);
      }
    }
    // Both sum in float32: a score has D terms, and where a query sees one key alone its gradient
    // is the difference of two equal sums of D terms, each in its own order.
    const double error = (64 + 2 * p.dim) * kEps;
    const std::string what = "window " + std::to_string(p.window);
    const auto doubles = [](const std::vector<float>& x) {
      return std::vector<double>(x.begin(), x.end());
    };
    ExpectClose(got_out.Host(), doubles(out), error, error, what + ", out");
    ExpectClose(got_lse.Host(), doubles(lse), error, error, what + ", lse");
    double most = 0;
    for (const float x : dqkv) most = std::max(most, std::abs(static_cast<double>(x)));
    ExpectClose(dqkv, gathered, error, error * most, what + ", gradients");
  }
}

}  // namespace
}  // namespace plumb::kernels

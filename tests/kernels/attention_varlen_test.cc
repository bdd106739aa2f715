#include "kernels/attention_varlen.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

struct Packed {
  int32_t heads, kv_heads, d;
  std::vector<int32_t> lengths;
  std::vector<int32_t> parents;  // empty: none goes on from another
  int32_t window = 0;
  float scale = 0;  // 0: d^-1/2
  int32_t global_every = 0;
  float Scale() const { return scale > 0 ? scale : 1 / std::sqrt(static_cast<float>(d)); }
  std::vector<int32_t> Cu() const {
    std::vector<int32_t> cu = {0};
    for (const int32_t n : lengths) cu.push_back(cu.back() + n);
    return cu;
  }
  size_t Width() const { return static_cast<size_t>((heads + 2 * kv_heads) * d); }
  size_t Out() const { return static_cast<size_t>(heads * d); }
  // The tokens that token i of sequence b sees.
  std::vector<int32_t> Seen(size_t b, int32_t i) const {
    const auto cu = Cu();
    std::vector<int32_t> seen;
    if (!parents.empty() && parents[b] >= 0) {
      const auto parent = static_cast<size_t>(parents[b]);
      for (int32_t j = cu[parent]; j < cu[parent + 1]; ++j) seen.push_back(j);
    }
    for (int32_t j = cu[b]; j <= i; ++j) seen.push_back(j);
    const auto before = static_cast<int32_t>(seen.size()) - window;
    if (window == 0 || before <= 0) return seen;
    std::vector<int32_t> left;
    for (int32_t j = 0; global_every > 0 && j < before; j += global_every)
      left.push_back(seen[static_cast<size_t>(j)]);
    left.insert(left.end(), seen.begin() + before, seen.end());
    return left;
  }
};

// out [tokens, heads * d] and lse [heads, tokens] in double.
void Reference(const Packed& p, const std::vector<double>& qkv, std::vector<double>* out,
               std::vector<double>* lse) {
  const auto cu = p.Cu();
  const auto tokens = static_cast<size_t>(cu.back());
  out->assign(tokens * p.Out(), 0);
  lse->assign(static_cast<size_t>(p.heads) * tokens, 0);
  for (size_t b = 0; b < p.lengths.size(); ++b) {
    for (int32_t head = 0; head < p.heads; ++head) {
      const int32_t kv_head = head / (p.heads / p.kv_heads);
      for (int32_t i = cu[b]; i < cu[b + 1]; ++i) {
        const auto row = static_cast<size_t>(i);
        const auto seen = p.Seen(b, i);
        std::vector<double> w;
        double sum = 0, top = -INFINITY;
        for (const int32_t j : seen) {
          double s = 0;
          for (int32_t c = 0; c < p.d; ++c) {
            s += qkv[row * p.Width() + static_cast<size_t>(head * p.d + c)] *
                 qkv[static_cast<size_t>(j) * p.Width() +
                     static_cast<size_t>((p.heads + kv_head) * p.d + c)];
          }
          w.push_back(s * static_cast<double>(p.Scale()));
          top = std::max(top, w.back());
        }
        for (double& x : w) sum += x = std::exp(x - top);
        (*lse)[static_cast<size_t>(head) * tokens + row] = top + std::log(sum);
        for (size_t j = 0; j < w.size(); ++j) {
          for (int32_t c = 0; c < p.d; ++c) {
            (*out)[row * p.Out() + static_cast<size_t>(head * p.d + c)] +=
                w[j] / sum *
                qkv[static_cast<size_t>(seen[j]) * p.Width() +
                    static_cast<size_t>((p.heads + p.kv_heads + kv_head) * p.d + c)];
          }
        }
      }
    }
  }
}

VarlenShape ShapeOf(const Packed& p, const std::vector<int32_t>& cu) {
  return {.tokens = cu.back(),
          .sequences = static_cast<int32_t>(p.lengths.size()),
          .cu_seqlens = cu.data(),
          .parents = p.parents.empty() ? nullptr : p.parents.data(),
          .max_seqlen = cu.back(),
          .heads = p.heads,
          .kv_heads = p.kv_heads,
          .head_dim = p.d,
          .scale = p.Scale(),
          .window = p.window,
          .global_every = p.global_every};
}

// On CUDA LibTorch's attention does this job (policy_model): the dispatcher says so.
class AttentionVarlenTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, AttentionVarlenTest,
                         ::testing::Values(Target{Device::kCpu, DType::kFloat32},
                                           Target{Device::kCpu, DType::kBFloat16}),
                         TargetName);

TEST_P(AttentionVarlenTest, ForwardIsSoftmaxOfEachSequence) {
  for (const Packed& p :
       {Packed{1, 1, 5, {1, 3}, {}}, Packed{4, 4, 32, {30, 1, 41, 17}, {}},
        Packed{9, 3, 64, {65, 8}, {}}, Packed{4, 1, 24, {100}, {}},
        Packed{2, 1, 5, {3, 2, 1}, {-1, 0, 0}},
        Packed{9, 3, 64, {7, 21, 40, 16, 1, 33}, {-1, -1, 1, 1, 1, -1}},
        Packed{4, 2, 32, {70, 3, 20}, {}, 17, 0.3f}, Packed{2, 2, 64, {90}, {}, 1},
        Packed{6, 3, 24, {21, 40, 16, 33}, {-1, 0, 0, -1}, 24},
        // Of 90 positions more than one vector of global ones; of the last none at first.
        Packed{4, 2, 32, {90, 3, 20}, {}, 17, 0.3f, 4}, Packed{2, 2, 64, {120}, {}, 1, 0, 3},
        Packed{6, 3, 24, {21, 40, 16, 33}, {-1, 0, 0, -1}, 5, 0, 2},
        Packed{2, 1, 5, {50, 9}, {}, 6, 0, 1}, Packed{2, 1, 16, {70}, {}, 9, 0, 256}}) {
    const auto cu = p.Cu();
    const auto tokens = static_cast<size_t>(cu.back());
    const auto qkv = Normal(tokens * p.Width(), tokens, dtype());
    Tensor x(GetParam(), qkv), out(GetParam(), tokens * p.Out());
    Array<float> lse(device(), tokens * static_cast<size_t>(p.heads));
    Call(launch(),
         AttentionVarlen{
             .shape = ShapeOf(p, cu), .qkv = x.data(), .out = out.data(), .lse = lse.data()});
    std::vector<double> expected, expected_lse;
    Reference(p, ToDouble(qkv), &expected, &expected_lse);
    // As for the paged kernel: scores below ~6 err by sqrt(d) eps, values stay below ~4.
    const double absolute = 4 * 6 * kEps * (4 + std::sqrt(static_cast<double>(p.d)));
    ExpectClose(out.Host(), expected, OutputRounding(dtype()), absolute, "out");
    ExpectClose(lse.Host(), expected_lse, 4 * kEps, absolute, "lse");
  }
}

TEST_P(AttentionVarlenTest, BackwardIsTheFiniteDifference) {
  for (const Packed& p :
       {Packed{4, 2, 6, {3, 19, 1}, {}},
        Packed{4, 2, 6, {2, 5, 3, 17, 1, 4}, {-1, -1, 1, 1, 1, -1}},
        Packed{4, 2, 6, {29, 2}, {}, 5, 0.7f}, Packed{2, 1, 6, {6, 9, 20}, {-1, 0, 0}, 4},
        Packed{4, 2, 6, {29, 2}, {}, 5, 0.7f, 3},
        Packed{2, 1, 6, {6, 9, 20}, {-1, 0, 0}, 2, 0, 4}}) {
    const auto cu = p.Cu();
    const auto tokens = static_cast<size_t>(cu.back());
    const auto qkv = Normal(tokens * p.Width(), 1, dtype()),
               dout = Normal(tokens * p.Out(), 2, dtype());
    Tensor x(GetParam(), qkv), out(GetParam(), tokens * p.Out()), dx(GetParam(), qkv.size()),
        d(GetParam(), dout);
    Array<float> lse(device(), tokens * static_cast<size_t>(p.heads)),
        scratch(device(), static_cast<size_t>(AttentionVarlenScratch(ShapeOf(p, cu))));
    Call(launch(),
         AttentionVarlen{
             .shape = ShapeOf(p, cu), .qkv = x.data(), .out = out.data(), .lse = lse.data()});
    Call(launch(), AttentionVarlenBackward{.shape = ShapeOf(p, cu),
                                           .dout = d.data(),
                                           .qkv = x.data(),
                                           .out = out.data(),
                                           .lse = lse.data(),
                                           .dqkv = dx.data(),
                                           .scratch = scratch.data()});
    auto xd = ToDouble(qkv);
    std::vector<double> y, l, expected(xd.size());
    for (size_t i = 0; i < xd.size(); ++i) {
      expected[i] = FiniteDifference(xd, i, [&] {
        Reference(p, xd, &y, &l);
        double sum = 0;
        for (size_t k = 0; k < y.size(); ++k) sum += y[k] * static_cast<double>(dout[k]);
        return sum;
      });
    }
    // The output that enters D = dO . O is itself rounded to the element type: up to d of its
    // roundings of values near 1 reach a gradient, weighted by probabilities that sum to 1 a row,
    // over up to 19 rows.
    const double saved = dtype() == DType::kBFloat16 ? 6 * kHalfBf16 : 0;
    ExpectClose(dx.Host(), expected, OutputRounding(dtype()), 256 * kEps + 1e-8 + saved, "dqkv");
  }
}

TEST_P(AttentionVarlenTest, WhatGoesOnFromAPrefixIsTheWholeSequence) {
  const int32_t prefix = 37, first = 20, second = 45;
  const Packed shared{3, 1, 32, {prefix, first, second}, {-1, 0, 0}},
      whole{3, 1, 32, {prefix + first, prefix + second}, {}};
  const auto qkv =
      Normal(static_cast<size_t>(prefix + first + second) * shared.Width(), 1, dtype());
  const auto width = static_cast<int64_t>(shared.Width());
  auto twice = qkv;  // the prefix once more before the second
  twice.insert(twice.begin() + (prefix + first) * width, qkv.begin(), qkv.begin() + prefix * width);
  const auto run = [&](const Packed& p, const std::vector<float>& values) {
    const auto cu = p.Cu();
    const auto tokens = static_cast<size_t>(cu.back());
    Tensor x(GetParam(), values), out(GetParam(), tokens * p.Out());
    Array<float> lse(device(), tokens * 3);
    Call(launch(),
         AttentionVarlen{
             .shape = ShapeOf(p, cu), .qkv = x.data(), .out = out.data(), .lse = lse.data()});
    return out.Host();
  };
  auto expected = run(whole, twice);
  const auto again = expected.begin() + (prefix + first) * 96;
  ExpectSameBits(std::vector<float>(again, again + prefix * 96),
                 std::vector<float>(expected.begin(), expected.begin() + prefix * 96), "prefix");
  expected.erase(again, again + prefix * 96);
  WithThreads([&](int threads) {
    ExpectSameBits(run(shared, qkv), expected, std::to_string(threads) + " threads");
  });
}

TEST_P(AttentionVarlenTest, ASequenceDoesNotKnowItsBatchNorTheThreads) {
  const Packed all{3, 1, 32, {20, 33, 5, 64, 1, 30, 31, 29}, {}};
  const auto cu = all.Cu();
  const auto tokens = static_cast<size_t>(cu.back());
  const auto qkv = Normal(tokens * all.Width(), 1, dtype()),
             dout = Normal(tokens * all.Out(), 2, dtype());
  const auto run = [&](const Packed& p, int64_t first) {
    const auto c = p.Cu();
    const auto n = static_cast<int64_t>(c.back());
    const auto part = [&](const std::vector<float>& v, size_t width) {
      const auto w = static_cast<int64_t>(width);
      return std::vector<float>(v.begin() + first * w, v.begin() + (first + n) * w);
    };
    Tensor x(GetParam(), part(qkv, p.Width())), out(GetParam(), static_cast<size_t>(n) * p.Out());
    Tensor d(GetParam(), part(dout, p.Out())), dx(GetParam(), static_cast<size_t>(n) * p.Width());
    Array<float> lse(device(), static_cast<size_t>(n * p.heads)), scratch(device(), 1);
    Call(launch(),
         AttentionVarlen{
             .shape = ShapeOf(p, c), .qkv = x.data(), .out = out.data(), .lse = lse.data()});
    Call(launch(), AttentionVarlenBackward{.shape = ShapeOf(p, c),
                                           .dout = d.data(),
                                           .qkv = x.data(),
                                           .out = out.data(),
                                           .lse = lse.data(),
                                           .dqkv = dx.data(),
                                           .scratch = scratch.data()});
    auto both = out.Host();
    const auto gradient = dx.Host();
    both.insert(both.end(), gradient.begin(), gradient.end());
    return both;
  };
  const auto expected = run(all, 0);
  WithThreads([&](int threads) {
    ExpectSameBits(run(all, 0), expected, std::to_string(threads) + " threads");
  });
  for (size_t b = 0; b < all.lengths.size(); ++b) {
    const auto alone = run({3, 1, 32, {all.lengths[b]}, {}}, cu[b]);
    const auto n = static_cast<int64_t>(all.lengths[b]);
    std::vector<float> want(expected.begin() + cu[b] * 96, expected.begin() + (cu[b] + n) * 96);
    const auto gradients = expected.begin() + static_cast<int64_t>(tokens * 96);
    want.insert(want.end(), gradients + cu[b] * 160, gradients + (cu[b] + n) * 160);
    ExpectSameBits(alone, want, "sequence " + std::to_string(b));
  }
}

TEST(AttentionVarlenOnCuda, SaysWhoDoesIt) {
  int nothing = 0;
  const Launch launch{.stream = Stream::Borrow(Device::Cuda(0), &nothing)};
  try {
    Call(launch, AttentionVarlen{.shape = {}, .qkv = nullptr, .out = nullptr, .lse = nullptr});
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_NE(e.message().find("policy_model"), std::string::npos) << e.message();
  }
}

}  // namespace
}  // namespace plumb::kernels

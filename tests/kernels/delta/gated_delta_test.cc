#include "kernels/delta/gated_delta.h"

#include <algorithm>

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

// Sequences of a batch, those with a parent directly behind it.
struct Batch {
  std::vector<int32_t> cu_seqlens = {0}, parents;
  void Add(int32_t tokens, int32_t parent = -1) {
    cu_seqlens.push_back(cu_seqlens.back() + tokens);
    parents.push_back(parent);
  }
  bool shares() const {
    return std::any_of(parents.begin(), parents.end(), [](int32_t p) { return p >= 0; });
  }
};

struct Heads {
  int32_t k_heads, v_heads, k_dim, v_dim;
};

DeltaShape ShapeOf(const Batch& batch, const Heads& h) {
  return {.tokens = batch.cu_seqlens.back(),
          .sequences = static_cast<int32_t>(batch.parents.size()),
          .cu_seqlens = batch.cu_seqlens.data(),
          .parents = batch.shares() ? batch.parents.data() : nullptr,
          .k_heads = h.k_heads,
          .v_heads = h.v_heads,
          .k_dim = h.k_dim,
          .v_dim = h.v_dim};
}

struct Inputs {
  std::vector<double> qkv, g, beta;
};

Inputs Draw(const DeltaShape& s, DType dtype = DType::kFloat32) {
  const auto rows = static_cast<size_t>(s.tokens * s.v_heads);
  Inputs in{ToDouble(Normal(static_cast<size_t>(s.tokens * s.width()), 1, dtype)),
            ToDouble(Normal(rows, 2)), ToDouble(Normal(rows, 3))};
  // Decays from none to nearly all, strengths in (0, 1).
  for (double& g : in.g) g = static_cast<double>(static_cast<float>(-0.05 * std::exp(2 * g)));
  for (double& b : in.beta) b = static_cast<double>(static_cast<float>(1 / (1 + std::exp(-b))));
  return in;
}

std::vector<double> OfLength(const double* x, int32_t n, double length) {
  double sum = static_cast<double>(kDeltaNormEps);
  for (int32_t i = 0; i < n; ++i) sum += x[i] * x[i];
  std::vector<double> out(x, x + n);
  for (double& v : out) v *= length / std::sqrt(sum);
  return out;
}

// Token by token, as the formula of the header says.
std::vector<double> Reference(const DeltaShape& s, const Inputs& in) {
  std::vector<double> out(static_cast<size_t>(s.tokens * s.value_width()));
  for (int32_t h = 0; h < s.v_heads; ++h) {
    std::vector<std::vector<double>> ends;
    for (int32_t b = 0; b < s.sequences; ++b) {
      std::vector<double> state(static_cast<size_t>(s.k_dim) * static_cast<size_t>(s.v_dim));
      if (s.parents && s.parents[b] >= 0) state = ends[static_cast<size_t>(s.parents[b])];
      const auto at = [&](int32_t i, int32_t c) -> double& {
        return state[static_cast<size_t>(i * s.v_dim + c)];
      };
      for (int64_t t = s.cu_seqlens[b]; t < s.cu_seqlens[b + 1]; ++t) {
        const double* row = in.qkv.data() + t * s.width();
        const int64_t key = int64_t{h / (s.v_heads / s.k_heads)} * s.k_dim;
        const auto q = OfLength(row + key, s.k_dim, 1 / std::sqrt(s.k_dim)),
                   k = OfLength(row + s.key_width() + key, s.k_dim, 1);
        const double* v = row + 2 * s.key_width() + int64_t{h} * s.v_dim;
        const auto gate = static_cast<size_t>(t * s.v_heads + h);
        for (int32_t c = 0; c < s.v_dim; ++c) {
          double seen = 0, read = 0;
          for (int32_t i = 0; i < s.k_dim; ++i) {
            at(i, c) *= std::exp(in.g[gate]);
            seen += at(i, c) * k[static_cast<size_t>(i)];
          }
          for (int32_t i = 0; i < s.k_dim; ++i) {
            at(i, c) += k[static_cast<size_t>(i)] * in.beta[gate] * (v[c] - seen);
            read += at(i, c) * q[static_cast<size_t>(i)];
          }
          out[static_cast<size_t>(t * s.value_width() + int64_t{h} * s.v_dim + c)] = read;
        }
      }
      ends.push_back(state);
    }
  }
  return out;
}

std::vector<float> Compute(Target target, const DeltaShape& s, const Inputs& in, bool keep = false,
                           Array<float>* states = nullptr) {
  Tensor qkv(target, Floats(in.qkv)),
      out(target, std::vector<float>(static_cast<size_t>(s.tokens * s.value_width()), kPoison));
  Array<float> g(target.device, Floats(in.g)), beta(target.device, Floats(in.beta));
  Array<float> own(target.device, static_cast<size_t>(s.slots(keep) * s.v_heads * s.state()));
  Call(Launch{.stream = TestStream(target.device), .dtype = target.dtype},
       GatedDelta{.shape = s,
                  .qkv = qkv.data(),
                  .g = g.data(),
                  .beta = beta.data(),
                  .keep = keep,
                  .states = (states ? *states : own).data(),
                  .out = out.data()});
  return out.Host();
}

struct Gradients {
  std::vector<float> qkv, g, beta;
};

Gradients ComputeBackward(Target target, const DeltaShape& s, const Inputs& in,
                          const std::vector<double>& d) {
  Array<float> states(target.device, static_cast<size_t>(s.slots(true) * s.v_heads * s.state()));
  Compute(target, s, in, true, &states);
  Tensor qkv(target, Floats(in.qkv)), dout(target, Floats(d)),
      dqkv(target, std::vector<float>(in.qkv.size(), kPoison));
  Array<float> g(target.device, Floats(in.g)), beta(target.device, Floats(in.beta)),
      dg(target.device, in.g.size()), dbeta(target.device, in.g.size()),
      scratch(target.device, static_cast<size_t>(GatedDeltaScratch(s)));
  Call(Launch{.stream = TestStream(target.device), .dtype = target.dtype},
       GatedDeltaBackward{.shape = s,
                          .dout = dout.data(),
                          .qkv = qkv.data(),
                          .g = g.data(),
                          .beta = beta.data(),
                          .states = states.data(),
                          .dqkv = dqkv.data(),
                          .dg = dg.data(),
                          .dbeta = dbeta.data(),
                          .scratch = scratch.data()});
  return {dqkv.Host(), dg.Host(), dbeta.Host()};
}

class GatedDeltaTest : public KernelTest {
 protected:
  Target target() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Cpu, GatedDeltaTest,
                         ::testing::Values(Target{Device::kCpu, DType::kFloat32},
                                           Target{Device::kCpu, DType::kBFloat16}),
                         TargetName);
const Target kFloat{Device::kCpu, DType::kFloat32};

Batch Boundaries() {
  Batch batch;
  for (const int32_t tokens : {1, 63, 64, 65, 2, 130}) batch.Add(tokens);
  return batch;
}

// Errors of a chunk: its products sum up to 128 terms in float32 (a running sum of n terms errs by
// about n^1/2 roundings), its triangle solves up to 64 rows of coefficients below 1, and states are
// handed on by up to two chunks. Values are at most about 4.
constexpr double kChunkError = 4 * 3 * (11 + 8 + 4) * kEps;

TEST_P(GatedDeltaTest, ChunksAreTokenByToken) {
  for (const Heads& heads :
       {Heads{2, 4, 128, 128}, Heads{1, 1, 16, 16}, Heads{2, 2, 20, 24}, Heads{1, 3, 3, 5}}) {
    const Batch batch = Boundaries();
    const DeltaShape s = ShapeOf(batch, heads);
    const Inputs in = Draw(s, dtype());
    for (const bool keep : {false, true}) {
      Array<float> states(device(), static_cast<size_t>(s.slots(keep) * s.v_heads * s.state()));
      ExpectClose(Compute(target(), s, in, keep, &states), Reference(s, in),
                  OutputRounding(dtype()), kChunkError, "heads of " + std::to_string(heads.k_dim));
    }
  }
}

TEST_P(GatedDeltaTest, BackwardMatchesFiniteDifferences) {
  Batch alone, shared;
  for (const int32_t tokens : {3, 66, 64}) alone.Add(tokens);
  shared.Add(66);
  shared.Add(3, 0);
  shared.Add(65, 0);
  shared.Add(5);
  for (const Batch& batch : {alone, shared}) {
    const DeltaShape s = ShapeOf(batch, {1, 2, 3, 2});
    const Inputs in = Draw(s, dtype());
    const auto d = ToDouble(Normal(static_cast<size_t>(s.tokens * s.value_width()), 7, dtype()));
    const auto loss = [&](auto field) {
      return [&, field](const std::vector<double>& x) {
        Inputs other = in;
        other.*field = x;
        return Dot(Reference(s, other), d);
      };
    };
    // Differences of a sum of some hundred terms: good to 1e-6.
    const Gradients got = ComputeBackward(target(), s, in, d);
    const double rounding = OutputRounding(dtype()), error = 100 * kChunkError + 1e-5;
    ExpectClose(got.qkv, Gradient(loss(&Inputs::qkv), in.qkv), rounding + 1e-5, error, "dqkv");
    ExpectClose(got.g, Gradient(loss(&Inputs::g), in.g), 1e-5, error, "dg");
    ExpectClose(got.beta, Gradient(loss(&Inputs::beta), in.beta), 1e-5, error, "dbeta");
  }
}

TEST_P(GatedDeltaTest, NothingLeaksFromOneSequenceToTheNext) {
  const Batch batch = Boundaries();
  const Heads heads{2, 4, 20, 24};
  const DeltaShape s = ShapeOf(batch, heads);
  const Inputs in = Draw(s, dtype());
  const auto d = ToDouble(Normal(static_cast<size_t>(s.tokens * s.value_width()), 7, dtype()));
  const std::vector<float> out = Compute(target(), s, in);
  const Gradients gradients = ComputeBackward(target(), s, in, d);
  for (size_t b = 0; b < batch.parents.size(); ++b) {
    const int32_t begin = batch.cu_seqlens[b], tokens = batch.cu_seqlens[b + 1] - begin;
    Batch one;
    one.Add(tokens);
    const DeltaShape alone = ShapeOf(one, heads);
    const auto part = [&](const auto& x, int64_t width) {
      return std::decay_t<decltype(x)>(x.begin() + begin * width,
                                       x.begin() + (begin + tokens) * width);
    };
    const Inputs own{part(in.qkv, s.width()), part(in.g, s.v_heads), part(in.beta, s.v_heads)};
    const std::string what = "sequence " + std::to_string(b);
    ExpectSameBits(Compute(target(), alone, own), part(out, s.value_width()), what);
    const Gradients got = ComputeBackward(target(), alone, own, part(d, s.value_width()));
    ExpectSameBits(got.qkv, part(gradients.qkv, s.width()), what + ", dqkv");
    ExpectSameBits(got.g, part(gradients.g, s.v_heads), what + ", dg");
    ExpectSameBits(got.beta, part(gradients.beta, s.v_heads), what + ", dbeta");
  }
}

TEST(GatedDeltaSharingTest, WhatGoesOnFromAPrefixIsTheWholeSequence) {
  for (const int32_t prefix : {64, 70, 1}) {
    Batch shared, whole;
    shared.Add(prefix);
    for (const int32_t own : {9, 1, 100}) {
      shared.Add(own, 0);
      whole.Add(prefix + own);
    }
    const Heads heads{1, 2, 32, 32};
    const DeltaShape s = ShapeOf(shared, heads), w = ShapeOf(whole, heads);
    const Inputs in = Draw(s);
    Inputs all;
    std::vector<float> want;
    for (size_t b = 1; b < shared.parents.size(); ++b) {
      const auto append = [&](std::vector<double>& to, const std::vector<double>& from,
                              int64_t width) {
        to.insert(to.end(), from.begin(), from.begin() + prefix * width);
        to.insert(to.end(), from.begin() + shared.cu_seqlens[b] * width,
                  from.begin() + shared.cu_seqlens[b + 1] * width);
      };
      append(all.qkv, in.qkv, s.width());
      append(all.g, in.g, s.v_heads);
      append(all.beta, in.beta, s.v_heads);
    }
    const std::vector<float> together = Compute(kFloat, w, all);
    for (const bool keep : {false, true}) {
      Array<float> states(Device::kCpu, static_cast<size_t>(s.slots(keep) * s.v_heads * s.state()));
      const std::vector<float> out = Compute(kFloat, s, in, keep, &states);
      std::vector<float> got;
      std::vector<double> expected;
      for (size_t b = 1; b < shared.parents.size(); ++b) {
        const auto width = s.value_width();
        got.insert(got.end(), out.begin() + shared.cu_seqlens[b] * width,
                   out.begin() + shared.cu_seqlens[b + 1] * width);
        expected.insert(expected.end(),
                        together.begin() + (whole.cu_seqlens[b - 1] + prefix) * width,
                        together.begin() + whole.cu_seqlens[b] * width);
      }
      ExpectClose(got, expected, kEps, 2 * kChunkError, "behind " + std::to_string(prefix));
      // Chunks lie at the same places: the same bits.
      if (prefix == 64) ExpectSameBits(got, Floats(expected), "behind a whole chunk");
    }
  }
}

TEST(GatedDeltaThreadsTest, BitsDoNotDependOnThreads) {
  Batch batch;
  batch.Add(100);
  for (int i = 0; i < 5; ++i) batch.Add(40 + i, 0);
  const DeltaShape s = ShapeOf(batch, {2, 4, 64, 64});
  const Inputs in = Draw(s);
  const auto d = ToDouble(Normal(static_cast<size_t>(s.tokens * s.value_width()), 7));
  Gradients first;
  WithThreads([&](int threads) {
    const Gradients got = ComputeBackward(kFloat, s, in, d);
    if (threads == 1) first = got;
    ExpectSameBits(got.qkv, first.qkv, "dqkv");
    ExpectSameBits(got.g, first.g, "dg");
  });
}

}  // namespace
}  // namespace plumb::kernels

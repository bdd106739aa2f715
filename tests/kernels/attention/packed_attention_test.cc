#include "kernels/attention/packed_attention.h"

#include "tests/kernels/attention/packed_scene.h"

namespace plumb::kernels {
namespace {

struct Pass {
  std::vector<float> out, lse, dqkv;
};

// Forward and backward on a device; `given`: the backward reads the scene's results, not its own.
Pass Attend(Target target, const PackedScene& s, bool given = false) {
  const Device device = target.device;
  const Launch launch{.stream = TestStream(device), .dtype = target.dtype};
  Array<int32_t> cu(device, s.cu), parents(device, s.shape.parents), position(device, s.position);
  Array<float> cos_sin(device, s.cos_sin);
  VarlenShape shape = s.Varlen();
  const int64_t floats =
      device.is_cpu() ? AttentionVarlenScratch(shape) : PackedAttentionScratch(shape);
  shape.cu_seqlens = cu.data();
  if (shape.parents) shape.parents = parents.data();
  Tensor qkv(target, s.qkv), dout(target, s.dout), out(target, s.tokens() * s.mixed()),
      dqkv(target, s.qkv.size()), of_scene(target, s.out);
  Array<float> lse(device, s.lse.size()), lse_of_scene(device, s.lse),
      scratch(device, static_cast<size_t>(floats));
  Call(launch,
       PackedAttention{.shape = shape, .qkv = qkv.data(), .out = out.data(), .lse = lse.data()});
  TurnTable turn = s.Turn();
  turn.position = position.data();
  turn.cos_sin = cos_sin.data();
  Call(launch, PackedAttentionBackward{.shape = shape,
                                       .dout = dout.data(),
                                       .qkv = qkv.data(),
                                       .out = given ? of_scene.data() : out.data(),
                                       .lse = given ? lse_of_scene.data() : lse.data(),
                                       .turn = turn,
                                       .dqkv = dqkv.data(),
                                       .scratch = scratch.data()});
  return {out.Host(), lse.Host(), dqkv.Host()};
}

const Target kCpuBf16{Device::kCpu, DType::kBFloat16}, kCpuFloat{Device::kCpu, DType::kFloat32};

TEST(PackedAttention, OnTheCpuItIsTheDefinition) {
  for (const PackedShape& shape :
       {PackedShape{4, 2, 8, {3, 19, 1}, {}, 0, 8},
        PackedShape{4, 2, 16, {9, 5}, {-1, 0}, 0, 8, true}, PackedShape{2, 1, 8, {20}, {}, 5, 8}}) {
    const PackedScene scene(shape);
    EXPECT_TRUE(TurnsOnTheWay(scene.Varlen(), scene.Turn()));
    scene.ExpectGradient(Attend(kCpuFloat, scene, true).dqkv, "float32");
  }
}

// The scene's gradients, which the other tests compare with, are those of its forward.
TEST(PackedAttention, TheScenesGradientIsTheFiniteDifference) {
  const PackedShape shape{2, 1, 8, {5, 4, 2}, {-1, 0, 0}, 6, 8};
  const PackedScene scene(shape, false);
  const auto cu = scene.Varlen();
  // Loss dout . attention(turn(x)) in double, of queries and keys before they are turned.
  const std::vector<double> turned(scene.qkv.begin(), scene.qkv.end());
  const auto loss = [&](const std::vector<double>& x) {
    std::vector<double> y = x;
    const size_t w = scene.width(), d = 8;
    for (size_t t = 0; t < scene.tokens(); ++t) {
      const float* cs = scene.cos_sin.data() + scene.position[t] * 8;
      for (size_t h = 0; h < 3; ++h) {
        for (size_t i = 0; i < 4; ++i) {
          const double a = x[t * w + h * d + i], b = x[t * w + h * d + i + 4],
                       c = static_cast<double>(cs[i]), s = static_cast<double>(cs[i + 4]);
          y[t * w + h * d + i] = a * c - b * s;
          y[t * w + h * d + i + 4] = b * c + a * s;
        }
      }
    }
    double sum = 0;
    for (size_t t = 0; t < scene.tokens(); ++t) {
      std::vector<size_t> seen;
      if (scene.owner[t] > 0) {
        for (size_t j = 0; j < 5; ++j) seen.push_back(j);
      }
      for (auto j = static_cast<size_t>(cu.cu_seqlens[scene.owner[t]]); j <= t; ++j)
        seen.push_back(j);
      if (seen.size() > 6) seen.erase(seen.begin(), seen.end() - 6);
      for (size_t h = 0; h < 2; ++h) {
        double total = 0;
        std::vector<double> p;
        for (const size_t j : seen) {
          double s = 0;
          for (size_t i = 0; i < d; ++i) s += y[t * w + h * d + i] * y[j * w + 2 * d + i];
          p.push_back(std::exp(s * static_cast<double>(shape.Scale())));
          total += p.back();
        }
        for (size_t j = 0; j < seen.size(); ++j) {
          for (size_t i = 0; i < d; ++i)
            sum += p[j] / total * y[seen[j] * w + 3 * d + i] *
                   static_cast<double>(scene.dout[t * 2 * d + h * d + i]);
        }
      }
    }
    return sum;
  };
  // The scene's queries and keys are turned ones: back, and its gradient is that of those.
  std::vector<double> x = turned;
  const size_t w = scene.width();
  for (size_t t = 0; t < scene.tokens(); ++t) {
    const float* cs = scene.cos_sin.data() + scene.position[t] * 8;
    for (size_t h = 0; h < 3; ++h) {
      for (size_t i = 0; i < 4; ++i) {
        const double a = turned[t * w + h * 8 + i], b = turned[t * w + h * 8 + i + 4],
                     c = static_cast<double>(cs[i]), s = static_cast<double>(cs[i + 4]);
        x[t * w + h * 8 + i] = a * c + b * s;
        x[t * w + h * 8 + i + 4] = b * c - a * s;
      }
    }
  }
  const std::vector<double> expected = Gradient(loss, x);
  ExpectClose(Floats(scene.dqkv), expected, 1e-4, 1e-5, "gradients of the scene");
}

class PackedAttentionOnGpu : public ::testing::Test {
 protected:
  static constexpr Target kGpu{Device::Cuda(0), DType::kBFloat16};
  void SetUp() override {
    if (!CudaAvailable())
      GTEST_SKIP() << "NO GPU: attention of packed batches was NOT tested here (build with "
                      "-DPLUMB_CUDA=ON on a machine with a GPU)";
    const VarlenShape shape{.tokens = 1, .sequences = 1, .heads = 1, .kv_heads = 1, .head_dim = 64};
    if (!PackedAttentionFits({.stream = TestStream(Device::Cuda(0)), .dtype = DType::kBFloat16},
                             shape))
      GTEST_SKIP() << "this GPU has no products of four warps: packed attention was NOT tested";
  }
};

std::vector<PackedShape> Shapes() {
  return {{2, 1, 64, {1, 70, 0, 130}, {}, 0, 64},
          {9, 3, 64, {300, 63, 64, 65, 129}, {}, 0, 64},
          {14, 2, 64, {200, 130, 7, 90}, {-1, 0, 0, -1}, 0, 64},
          {4, 4, 128, {257, 3}, {}, 0, 128},
          {8, 2, 128, {150, 40, 70, 100}, {-1, 0, 0, 0}, 0, 128},
          {6, 2, 128, {330, 50}, {}, 100, 32, true},
          {4, 2, 64, {120, 130, 9, 64}, {-1, 0, 0, -1}, 90},
          {3, 3, 64, {400}, {}, 1, 64}};
}

TEST_F(PackedAttentionOnGpu, ForwardAndBackwardAreTheDefinition) {
  for (const PackedShape& shape : Shapes()) {
    const PackedScene scene(shape);
    const Pass gpu = Attend(kGpu, scene, true), cpu = Attend(kCpuBf16, scene, true);
    // As for paged rows (paged_scene.h).
    ExpectClose(gpu.out, ToDouble(cpu.out), 2 * kHalfBf16, 2.5 * kHalfBf16, shape.Name() + ", out");
    ExpectClose(gpu.lse, ToDouble(cpu.lse), 1e-5, kHalfBf16, shape.Name() + ", log-sum-exp");
    scene.ExpectGradient(gpu.dqkv, "GPU");
  }
}

TEST_F(PackedAttentionOnGpu, EveryRunHasTheSameBits) {
  for (const PackedShape& shape :
       {PackedShape{14, 2, 64, {512, 200, 300, 64, 700}}, PackedShape{8, 2, 128, {700, 333}}}) {
    const PackedScene scene(shape);
    const Pass first = Attend(kGpu, scene);
    for (int i = 0; i < 3; ++i) {
      const Pass again = Attend(kGpu, scene);
      ExpectSameBits(again.out, first.out, shape.Name() + ", out");
      ExpectSameBits(again.lse, first.lse, shape.Name() + ", log-sum-exp");
      ExpectSameBits(again.dqkv, first.dqkv, shape.Name() + ", gradients");
    }
  }
}

}  // namespace
}  // namespace plumb::kernels

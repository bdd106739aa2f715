#include "kernels/delta/delta_step.h"

#include "tests/kernels/kernel_test.h"

namespace plumb::kernels {
namespace {

const Launch kLaunch{.stream = Device::kCpu, .dtype = DType::kFloat32};
const DeltaShape kShape{.k_heads = 2, .v_heads = 4, .k_dim = 20, .v_dim = 24};
constexpr int32_t kTokens = 70;

struct Inputs {
  std::vector<float> qkv = Normal(static_cast<size_t>(kTokens * kShape.width()), 1),
                     g = Normal(kTokens * 4, 2), beta = Normal(kTokens * 4, 3);
  Inputs() {
    for (float& x : g) x = -0.05f * std::exp(2 * x);
    for (float& x : beta) x = 1 / (1 + std::exp(-x));
  }
};

// Rows of states that hold what others left there.
struct Memory {
  static constexpr int64_t kOffset = 5;
  const int64_t stride = kOffset + 4 * kShape.state() + 3;
  std::vector<float> floats = std::vector<float>(static_cast<size_t>(3 * stride), NAN);
  SequenceStates view() { return {floats.data(), stride}; }
};

// Tokens [begin, end) of the sequence in `slot`, and of another one in slot 0 where `beside`.
std::vector<float> Step(const Inputs& in, Memory& memory, int32_t begin, int32_t end, int32_t slot,
                        bool beside = false) {
  const auto count = static_cast<size_t>(end - begin), ahead = static_cast<size_t>(beside ? 1 : 0);
  std::vector<int32_t> slots(count + ahead, slot), positions(count + ahead);
  if (beside) slots[0] = 0;
  const auto part = [&](const std::vector<float>& x, int64_t width) {
    std::vector<float> out(x.begin() + begin * width, x.begin() + end * width);
    if (beside) out.insert(out.begin(), x.begin() + 7 * width, x.begin() + 8 * width);
    return out;
  };
  for (size_t i = 0; i < count; ++i) positions[i + ahead] = begin + static_cast<int32_t>(i);
  const std::vector<float> qkv = part(in.qkv, kShape.width()), g = part(in.g, 4),
                           beta = part(in.beta, 4);
  std::vector<float> out((count + ahead) * static_cast<size_t>(kShape.value_width()), kPoison);
  Call(kLaunch, DeltaStep{.shape = kShape,
                          .rows = {.rows = static_cast<int32_t>(count + ahead),
                                   .slot = slots.data(),
                                   .position = positions.data()},
                          .qkv = qkv.data(),
                          .g = g.data(),
                          .beta = beta.data(),
                          .states = memory.view(),
                          .offset = Memory::kOffset,
                          .out = out.data()});
  out.erase(out.begin(), out.begin() + static_cast<ptrdiff_t>(ahead) * kShape.value_width());
  return out;
}

TEST(DeltaStepTest, TokenByTokenIsTheChunkedForward) {
  const Inputs in;
  const std::vector<int32_t> cu_seqlens = {0, kTokens};
  DeltaShape s = kShape;
  s.tokens = kTokens;
  s.sequences = 1;
  s.cu_seqlens = cu_seqlens.data();
  std::vector<float> want(static_cast<size_t>(kTokens * s.value_width()));
  Call(kLaunch, GatedDelta{.shape = s,
                           .qkv = in.qkv.data(),
                           .g = in.g.data(),
                           .beta = in.beta.data(),
                           .out = want.data()});
  Memory memory;
  // As ChunksAreTokenByToken of gated_delta_test.cc.
  ExpectClose(Step(in, memory, 0, kTokens, 1), ToDouble(want), kEps, 4 * 3 * 20 * kEps, "out");
}

TEST(DeltaStepTest, BitsDependOnTheSequenceAlone) {
  const Inputs in;
  Memory memory;
  const std::vector<float> whole = Step(in, memory, 0, kTokens, 1);
  for (const int32_t cut : {1, 2, 30, 69}) {
    Memory other;
    std::vector<float> got = Step(in, other, 0, cut, 2, true);
    for (const int32_t end : {cut + 1, kTokens}) {
      const auto begin =
          static_cast<int32_t>(static_cast<int64_t>(got.size()) / kShape.value_width());
      if (begin == end) continue;
      const std::vector<float> more = Step(in, other, begin, end, 2, true);
      got.insert(got.end(), more.begin(), more.end());
    }
    ExpectSameBits(got, whole, "cut at " + std::to_string(cut));
  }
}

TEST(DeltaStepTest, PositionZeroForgetsWhatWasThereAndNeighboursStay) {
  const Inputs in;
  Memory memory;
  const std::vector<float> first = Step(in, memory, 0, 9, 1);
  for (size_t i = 0; i < memory.floats.size(); ++i) {
    const auto at = static_cast<int64_t>(i) - memory.stride;
    if (at < Memory::kOffset || at >= Memory::kOffset + 4 * kShape.state()) {
      ASSERT_TRUE(std::isnan(memory.floats[i])) << i;
    }
  }
  ExpectSameBits(Step(in, memory, 0, 9, 1), first, "again");
}

}  // namespace
}  // namespace plumb::kernels

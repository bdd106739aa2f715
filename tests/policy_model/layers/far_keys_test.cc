// Models whose tokens see beyond a window: those that a gate chose, all of them in global layers, a
// table in memory layers; through all layers, packed, shared and paged.
#include "policy_model/layers/far_keys.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/rng.h"
#include "policy_model/families/family.h"
#include "policy_model/families/model_config.h"
#include "policy_model/files/safetensors.h"
#include "policy_model/layers/branch.h"
#include "policy_model/transformer.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

constexpr int64_t kVocab = 40;

void WriteTable(const std::string& path, int64_t rows, int64_t width) {
  const auto tensor = [&](const char* name, uint64_t seed) {
    return TensorToWrite{name, DType::kFloat32, {rows, width}, [=](std::span<std::byte> bytes) {
                           RandomStream random(seed, 9);
                           for (size_t i = 0; i < bytes.size(); i += 4) {
                             const float x = random.NextNormal();
                             std::memcpy(bytes.data() + i, &x, 4);
                           }
                         }};
  };
  WriteSafetensors(path, {tensor("keys", 1), tensor("values", 2)}, {});
}

class FarKeysTest : public ::testing::Test {
 protected:
  FarKeysTest() {
    SetThreads(1);
    WriteTable(folder_ / "table.safetensors", 11, 8);
  }
  // local, global and memory, with gates in the first and the last.
  ModelShape Shape(const std::vector<std::string>& scales = {"local", "global", "memory"},
                   int64_t gate_top_k = 3, int64_t layers = 3) {
    ModelShape s;
    s.family = "plumb";
    s.layers = layers, s.hidden = 32, s.heads = 4, s.kv_heads = 2, s.head_dim = 8, s.ffn = 64;
    s.vocab = kVocab, s.max_positions = 64, s.window = 6, s.gate_top_k = gate_top_k;
    for (const std::string& name : scales) {
      if (name == "memory") s.table = DescribeKeyTable(folder_ / "table.safetensors", 8);
    }
    SetScales(scales, "test", s);
    return s;
  }
  // With gates of very different heights.
  static Weights Drawn(const ModelShape& shape) {
    Weights weights(shape, Device::kCpu, DType::kFloat32);
    weights.Initialise(3, 0.15);
    for (const TensorEntry& e : weights.table().entries()) {
      if (!e.name.ends_with("token_gate")) continue;
      for (int64_t i = 0; i < e.elements; ++i) weights.flat().f32()[e.offset + i] *= 3;
    }
    return weights;
  }
  static std::vector<int32_t> Tokens(size_t n, uint64_t seed = 1) {
    RandomStream random(seed, 1);
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(random.NextBelow(kVocab)));
    return tokens;
  }
  static std::vector<float> Logits(const Weights& weights, const std::vector<int32_t>& tokens) {
    PackedBatch batch;
    batch.Clear();
    batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
    Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
    std::vector<float> out(batch.rows.size() * kVocab);
    model.Logits(weights, batch, out);
    return out;
  }
  const std::string& folder() const { return folder_.path(); }

 private:
  testing::TempFolder folder_;
};

TEST_F(FarKeysTest, GradientsAreFiniteDifferences) {
  Weights weights = Drawn(Shape());
  for (const bool recompute : {false, true}) {
    Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
    model.RecomputeLayers(recompute);
    PackedBatch batch;
    batch.Clear();
    for (const size_t n : {30u, 9u}) batch.Append(Tokens(n, n), std::vector<uint8_t>(n, 1));
    std::vector<float> logprob(batch.rows.size()), g;
    for (size_t i = 0; i < logprob.size(); ++i) g.push_back(std::cos(static_cast<float>(i)));
    const auto loss = [&](bool keep) {
      model.Forward(weights, batch, {.entropy = false}, keep, logprob, {});
      double sum = 0;
      for (size_t i = 0; i < g.size(); ++i)
        sum += static_cast<double>(g[i]) * static_cast<double>(logprob[i]);
      return sum;
    };
    loss(true);
    FlatBuffer grad(Device::kCpu, DType::kFloat32, weights.flat().elements());
    model.Backward(weights, batch, g, {}, grad);
    size_t gates = 0;
    for (const TensorEntry& e : weights.table().entries()) {
      gates += e.name.ends_with("token_gate");
      float* w = weights.flat().f32() + e.offset;
      const std::vector<float> before(w, w + e.elements);
      double length = 0;
      for (int64_t i = 0; i < e.elements; ++i)
        length += std::pow(static_cast<double>(grad.f32()[e.offset + i]), 2);
      length = std::sqrt(length);
      ASSERT_GT(length, 1e-3) << e.name;
      // A step that is small enough for no set to change.
      double sides[2];
      const double step = 0.002;
      for (const int side : {0, 1}) {
        for (int64_t i = 0; i < e.elements; ++i) {
          w[i] = before[static_cast<size_t>(i)] +
                 static_cast<float>((side == 0 ? step : -step) *
                                    static_cast<double>(grad.f32()[e.offset + i]) / length);
        }
        sides[side] = loss(false);
      }
      std::copy(before.begin(), before.end(), w);
      // Float log-probs of 37 tokens over 2 step.
      EXPECT_NEAR((sides[0] - sides[1]) / (2 * step), length, 3e-3 * length + 5e-3) << e.name;
    }
    EXPECT_EQ(gates, 2u);
  }
}

// In one layer what a token sees is what its logits depend on: its window, and besides no more
// than k tokens, of which some are far away.
TEST_F(FarKeysTest, ATokenSeesItsWindowAndTheChosenOnes) {
  const Weights weights = Drawn(Shape({}, 3, 1));
  const auto tokens = Tokens(40);
  const auto before = Logits(weights, tokens);
  std::vector<int> far(tokens.size());
  for (size_t changed = 0; changed + 1 < tokens.size(); ++changed) {
    auto other = tokens;
    other[changed] = (other[changed] + 1) % kVocab;
    const auto after = Logits(weights, other);
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      bool same = true;
      for (size_t v = 0; v < kVocab; ++v)
        same = same && before[i * kVocab + v] == after[i * kVocab + v];
      if (changed > i) EXPECT_TRUE(same) << i << " sees what comes behind it: " << changed;
      else if (i < changed + 6) EXPECT_FALSE(same) << i << " does not see " << changed;
      else far[i] += same ? 0 : 1;
    }
  }
  int seen = 0;
  // A changed token may also come into a set or leave it: both count.
  for (const int n : far) seen += n;
  EXPECT_EQ(far[5], 0) << "nothing is outside the window yet";
  EXPECT_GT(far[38], 0);
  EXPECT_LT(seen, 39 * 39 / 4) << "far tokens are seen by few";
}

TEST_F(FarKeysTest, PagedStepsAreThePackedForward) {
  const Weights weights = Drawn(Shape());
  const ModelShape& shape = weights.shape();
  Transformer model(shape, Device::kCpu, DType::kFloat32);
  const auto tokens = Tokens(40);
  const auto packed = Logits(weights, tokens);
  kernels::PagedKv kv{.dtype = DType::kFloat32,
                      .layers = 3,
                      .num_pages = 10,
                      .page_tokens = 4,
                      .kv_heads = 2,
                      .head_dim = 8};
  std::vector<float> memory(static_cast<size_t>(kv.bytes() / 4), NAN);
  kv.pages = memory.data();
  const std::vector<int32_t> table = {7, 6, 5, 4, 3, 2, 1, 0, 9, 8};
  const int64_t stride = weights.table().plan().state();
  EXPECT_EQ(stride, 2 * (6 + 2 * 3)) << "two layers with gates";
  std::vector<float> state(static_cast<size_t>(stride), NAN);
  const kernels::SequenceStates states{state.data(), stride};
  // A prompt of 13 in one call, then token by token.
  for (size_t begin = 0, end = 13; begin + 1 < tokens.size(); begin = end, ++end) {
    std::vector<int32_t> slot(end - begin, 0), position, all;
    for (size_t i = begin; i < end; ++i) {
      position.push_back(static_cast<int32_t>(i));
      all.push_back(static_cast<int32_t>(i - begin));
    }
    const kernels::PagedRows rows{static_cast<int32_t>(slot.size()), slot.data(), position.data(),
                                  table.data(), 10};
    const float* logits = model.ForwardPaged(weights, std::span(tokens).subspan(begin, end - begin),
                                             rows, kv, all, nullptr, &states);
    for (size_t i = begin; i < end && i + 1 < tokens.size(); ++i) {
      for (size_t v = 0; v < kVocab; ++v) {
        const double want = packed[i * kVocab + v];
        ASSERT_NEAR(logits[(i - begin) * kVocab + v], want, 2e-5 * std::max(1.0, std::abs(want)))
            << "position " << i;
      }
    }
  }
}

TEST_F(FarKeysTest, AnswersThatShareAPromptAreThoseThatDoNot) {
  const Weights weights = Drawn(Shape());
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  const auto prompt = Tokens(17, 5), first = Tokens(12, 6), second = Tokens(9, 7);
  std::vector<float> apart, together;
  PackedBatch batch;
  batch.Clear();
  // All but the prompt's last token, which comes directly before a scored one.
  const std::span<const int32_t> front(prompt.data(), prompt.size() - 1);
  batch.AppendPrefix(front);
  for (const auto& answer : {first, second}) {
    auto whole = prompt;
    whole.insert(whole.end(), answer.begin(), answer.end());
    const auto logits = Logits(weights, whole);
    apart.insert(apart.end(), logits.begin() + static_cast<int64_t>(front.size() * kVocab),
                 logits.end());
    std::vector<uint8_t> mask(whole.size(), 1);
    std::fill_n(mask.begin(), prompt.size(), 0);
    batch.Append(whole, mask, static_cast<int32_t>(front.size()));
  }
  together.resize(batch.rows.size() * kVocab);
  model.Logits(weights, batch, together);
  ASSERT_EQ(together.size(), apart.size());
  for (size_t i = 0; i < apart.size(); ++i) ASSERT_NEAR(together[i], apart[i], 2e-5) << i;
}

TEST_F(FarKeysTest, AFolderHasItsTableAndComesBack) {
  const Weights weights = Drawn(Shape());
  const auto tokens = Tokens(30);
  const auto want = Logits(weights, tokens);
  const testing::TempFolder first, second;
  SaveModelDirectory(weights, first.path(), "");
  RealFileSystem().Remove(folder() + "/table.safetensors");  // the folder needs nothing else
  const ModelShape shape = ReadModelConfig(first.path());
  EXPECT_EQ(shape, weights.shape());
  EXPECT_EQ(shape.table.path, first / "memory_table.safetensors");
  Weights again(shape, Device::kCpu, DType::kFloat32);
  again.Load(first.path());
  EXPECT_EQ(Logits(again, tokens), want);
  SaveModelDirectory(again, second.path(), "");
  for (const char* name : {"config.json", "model.safetensors", "memory_table.safetensors"}) {
    EXPECT_EQ(RealFileSystem().ReadFile(first / name, 1 << 24),
              RealFileSystem().ReadFile(second / name, 1 << 24))
        << name;
  }
  SaveModelDirectory(again, first.path(), "");  // over itself
  EXPECT_EQ(ReadModelConfig(first.path()), shape);
}

}  // namespace
}  // namespace plumb::policy_model

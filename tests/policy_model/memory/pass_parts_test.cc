#include "policy_model/memory/pass_parts.h"

#include <gtest/gtest.h>

#include <string>

#include "policy_model/transformer.h"

namespace plumb::policy_model {
namespace {

// Everything where it always lies; says what it is told.
struct Told : PassParts {
  explicit Told(Weights& w, FlatBuffer& g) : weights(w), gradients(g) {}
  void Begin(Way way) override { said += way == Way::kForward ? "f:" : "b:"; }
  void Enter(Way, int64_t layer) override { said += std::to_string(layer); }
  void Leave(Way, int64_t) override { said += ","; }
  void End(Way) override { said += ";"; }
  const void* Weight(int64_t offset) const override {
    ++weights_read;
    return weights.flat().at(offset);
  }
  float* Gradient(int64_t offset) const override { return gradients.f32() + offset; }
  Weights& weights;
  FlatBuffer& gradients;
  std::string said;
  mutable int weights_read = 0;
};

ModelShape Shape() {
  return {.family = "llama",
          .layers = 3,
          .hidden = 32,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .ffn = 48,
          .vocab = 19,
          .max_positions = 64};
}

TEST(PassPartsTest, PassesSayHowFarTheyHaveComeAndGoWhereTheyAreTold) {
  Weights weights(Shape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(1, 0.2);
  Transformer transformer(Shape(), Device::kCpu, DType::kFloat32);
  PackedBatch batch;
  const std::vector<int32_t> tokens = {3, 4, 5, 6};
  const std::vector<uint8_t> mask = {0, 1, 1, 1};
  batch.Append(tokens, mask);
  std::vector<float> logprob(3), entropy(3);
  const std::vector<float> g(3, 1.0f);
  const auto step = [&](FlatBuffer& grad) {
    transformer.Forward(weights, batch, {}, true, logprob, entropy);
    transformer.Backward(weights, batch, g, {}, grad);
  };
  FlatBuffer plain(Device::kCpu, DType::kFloat32, weights.flat().elements()),
      told_to(Device::kCpu, DType::kFloat32, weights.flat().elements());
  step(plain);
  Told told(weights, told_to);
  transformer.SetParts(&weights.base(), &told);
  FlatBuffer nothing = FlatBuffer::WithoutMemory(Device::kCpu, DType::kFloat32, 0);
  step(nothing);
  EXPECT_EQ(told.said, "f:0,1,2,;b:2,1,0,;");
  EXPECT_GT(told.weights_read, 3 * 4);
  for (int64_t i = 0; i < plain.elements(); ++i) ASSERT_EQ(plain.f32()[i], told_to.f32()[i]) << i;
  told.said.clear();
  transformer.PassBy(weights, PassParts::Way::kForward);
  transformer.PassBy(weights, PassParts::Way::kBackward);
  EXPECT_EQ(told.said, "f:0,1,2,;b:2,1,0,;") << "as a rank without work";
  // Another model's passes are none of its business.
  Weights other(Shape(), Device::kCpu, DType::kFloat32);
  told.said.clear();
  transformer.PassBy(other, PassParts::Way::kForward);
  transformer.Forward(other, batch, {}, false, logprob, entropy);
  EXPECT_EQ(told.said, "");
}

}  // namespace
}  // namespace plumb::policy_model

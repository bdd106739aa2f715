// layers/linear.h where the product takes all parts of an adapter along (ops::JoinsLowRank),
// against the same adapter part by part.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/base/rng.h"
#include "policy_model/families/adapter_table.h"
#include "policy_model/layers/linear.h"
#include "policy_model/layers/ops.h"
#include "policy_model/transformer.h"

namespace plumb::policy_model {
namespace {

struct Result {
  std::vector<float> logprob;
  FlatBuffer grad;
};

PackedBatch SomeBatch() {
  PackedBatch batch;
  RandomStream random(3, 1);
  batch.Clear();
  for (const int n : {13, 3, 41}) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(random.NextBelow(31)));
    batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
  }
  return batch;
}

void Round(FlatBuffer& values) {
  if (values.dtype() != DType::kFloat32) return;
  for (int64_t i = 0; i < values.elements(); ++i)
    values.f32()[i] = ToFloat(ToBFloat16(values.f32()[i]));
}

// Of a model with an adapter on all of its linear parts; the numbers of both are bfloat16's,
// whatever they are kept in.
Result RunOnce(DType dtype, double dropout) {
  const ModelShape shape{.family = "llama",
                         .layers = 2,
                         .hidden = 64,
                         .heads = 4,
                         .kv_heads = 2,
                         .head_dim = 16,
                         .ffn = 80,
                         .vocab = 31,
                         .max_positions = 96,
                         .tied = true,
                         .eos_tokens = {2}};
  Weights weights(shape, Device::kCpu, dtype);
  weights.Initialise(11, 0.15);
  Round(weights.flat());
  weights.AddAdapter({.rank = 2, .alpha = 6, .dropout = dropout}, 5);
  ParameterSet& set = *weights.adapters()[0];
  RandomStream random(9, 9);
  for (const TensorEntry& e : set.table->entries()) {
    for (int64_t i = 0; i < e.elements; ++i) {
      const BFloat16 value = ToBFloat16(0.1f * random.NextNormal());
      if (dtype == DType::kFloat32) set.flat.f32()[e.offset + i] = ToFloat(value);
      else static_cast<BFloat16*>(set.flat.at(e.offset))[i] = value;
    }
  }
  const PackedBatch batch = SomeBatch();
  const size_t rows = batch.rows.size();
  Result out{std::vector<float>(rows),
             FlatBuffer(Device::kCpu, DType::kFloat32, set.flat.elements())};
  std::vector<float> entropy(rows), g(rows), h(rows);
  for (size_t i = 0; i < rows; ++i) {
    g[i] = random.NextNormal();
    h[i] = 0.3f * random.NextNormal();
  }
  Transformer model(shape, Device::kCpu, dtype);
  model.Forward(weights, batch, {.temperature = 0.9f, .dropout = 17}, true, out.logprob, entropy);
  FlatBuffer* const adapters[] = {&out.grad};
  Gradients gradients;
  gradients.adapters = adapters;
  model.Backward(weights, batch, g, h, gradients);
  return out;
}

double Distance(const FlatBuffer& a, const FlatBuffer& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.elements(); ++i)
    sum += std::pow(static_cast<double>(a.f32()[i]) - static_cast<double>(b.f32()[i]), 2);
  return std::sqrt(sum);
}

// A dropout that drops nothing keeps the parts apart. Both are float32's gradient with bfloat16's
// roundings, of which the joined product has fewer: it may be off by no more than chance makes of
// that, and neither by more than a rounding of 2^-8 in each of ten products one after the other.
TEST(JoinedAdapterTest, IsAsNearToTheExactAdapterAsPartByPart) {
  if (!ops::JoinsLowRank({.dtype = DType::kBFloat16}))
    GTEST_SKIP() << "the library's bfloat16 products are faster here: nothing is joined";
  const Result exact = RunOnce(DType::kFloat32, 0), joined = RunOnce(DType::kBFloat16, 0),
               parts = RunOnce(DType::kBFloat16, 1e-9);
  for (size_t i = 0; i < joined.logprob.size(); ++i)
    EXPECT_NEAR(joined.logprob[i], exact.logprob[i], 0.1) << i;
  const FlatBuffer none(Device::kCpu, DType::kFloat32, exact.grad.elements());
  const double size = Distance(exact.grad, none), of_joined = Distance(joined.grad, exact.grad),
               of_parts = Distance(parts.grad, exact.grad);
  EXPECT_LE(of_joined, 1.25 * of_parts);
  EXPECT_LE(of_parts, 10.0 / 256 * size);
  EXPECT_GT(Distance(joined.grad, parts.grad), 0) << "both took one path";
}

}  // namespace
}  // namespace plumb::policy_model

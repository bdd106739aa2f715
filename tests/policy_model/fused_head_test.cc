// The head that leaves no logits (kernels/head) within the transformer, against the one that does.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "common/record/kept_tokens.h"
#include "policy_model/batch_check.h"
#include "policy_model/pass_memory.h"
#include "policy_model/transformer.h"

namespace plumb::policy_model {
namespace {

constexpr int32_t kTokens = 31;

ModelShape Shape(int64_t vocab, bool tied) {
  ModelShape shape{.family = "llama",
                   .layers = 2,
                   .hidden = 32,
                   .heads = 4,
                   .kv_heads = 2,
                   .head_dim = 8,
                   .ffn = 40,
                   .vocab = vocab,
                   .max_positions = 96,
                   .tied = tied,
                   .eos_tokens = {2}};
  for (auto id = kTokens; id < vocab; ++id) shape.unused_tokens.push_back(id);
  return shape;
}

// The sets of the batch's targets, over a vocabulary of so many: every other token and the target.
std::vector<uint8_t> KeepHalf(PackedBatch& batch, int64_t vocab) {
  std::vector<uint8_t> sets;
  std::vector<size_t> ends;
  for (size_t r = 0; r < batch.targets.size(); ++r) {
    std::vector<uint32_t> words(static_cast<size_t>((vocab + 31) / 32), 0);
    for (int32_t j = 0; j < kTokens; ++j) {
      if (j == batch.targets[r] || (j + static_cast<int32_t>(r)) % 2 == 0)
        words[static_cast<size_t>(j / 32)] |= 1u << (j % 32);
    }
    AppendKeptTokens(words, vocab, sets);
    ends.push_back(sets.size());
  }
  for (size_t r = 0; r < ends.size(); ++r) {
    const size_t begin = r == 0 ? 0 : ends[r - 1];
    batch.kept[r] = std::span<const uint8_t>(sets).subspan(begin, ends[r] - begin);
  }
  batch.filtered = true;
  return sets;  // moved: the spans stay valid
}

// A small vocabulary padded to a large one with rows that are no token: the large one's head is
// fused, the small one's is not, and both are the same model.
void IsTheHeadWithLogits(DType dtype, bool tied, bool filtered, double tolerance) {
  const ModelShape plain = Shape(kTokens, tied), padded = Shape(5000, tied);
  const kernels::Launch launch{.dtype = dtype};
  ASSERT_FALSE(PassMemory::FusedHead(launch, plain));
  if (!PassMemory::FusedHead(launch, padded))
    GTEST_SKIP() << "the library's bfloat16 products are faster here: logits in chunks";
  Weights a(plain, Device::kCpu, dtype), b(padded, Device::kCpu, dtype);
  a.Initialise(11, 0.15);
  b.Initialise(12, 2.0);  // rows that would be likely
  const auto element = static_cast<int64_t>(ElementSize(dtype));
  const auto matching = [&](const TensorEntry& e) {
    return std::find_if(b.table().entries().begin(), b.table().entries().end(),
                        [&](const TensorEntry& other) { return other.name == e.name; });
  };
  for (const TensorEntry& e : a.table().entries()) {
    std::copy_n(static_cast<const std::byte*>(a.flat().at(e.offset)), e.elements * element,
                static_cast<std::byte*>(b.flat().at(matching(e)->offset)));
  }
  PackedBatch batch;
  batch.Clear();
  RandomStream random(2, 1);
  for (const int n : {13, 3, 21}) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(random.NextBelow(kTokens)));
    batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
  }
  PackedBatch wide = batch;
  const std::vector<uint8_t> sets = filtered ? KeepHalf(batch, kTokens) : std::vector<uint8_t>(),
                             wide_sets = filtered ? KeepHalf(wide, 5000) : std::vector<uint8_t>();
  const size_t rows = batch.rows.size();
  std::vector<float> logprob[2], entropy[2], g(rows), h(rows);
  for (size_t i = 0; i < rows; ++i) {
    g[i] = random.NextNormal();
    h[i] = 0.3f * random.NextNormal();
  }
  FlatBuffer grad[2] = {{Device::kCpu, DType::kFloat32, a.flat().elements()},
                        {Device::kCpu, DType::kFloat32, b.flat().elements()}};
  for (const int i : {0, 1}) {
    logprob[i].resize(rows);
    entropy[i].resize(rows);
    Transformer model(i == 0 ? plain : padded, Device::kCpu, dtype);
    model.Forward(i == 0 ? a : b, i == 0 ? batch : wide, {.temperature = 0.9f}, true, logprob[i],
                  entropy[i]);
    model.Backward(i == 0 ? a : b, i == 0 ? batch : wide, g, h, grad[i]);
  }
  for (size_t r = 0; r < rows; ++r) {
    EXPECT_NEAR(logprob[1][r], logprob[0][r], 1e-5) << r;
    EXPECT_NEAR(entropy[1][r], entropy[0][r], 1e-5) << r;
  }
  for (const TensorEntry& e : a.table().entries()) {
    const float *one = grad[0].f32() + e.offset, *other = grad[1].f32() + matching(e)->offset;
    float most = 0;
    for (int64_t i = 0; i < e.elements; ++i) most = std::max(most, std::abs(one[i]));
    ASSERT_GT(most, 0.0f) << e.name;
    for (int64_t i = 0; i < e.elements; ++i)
      ASSERT_NEAR(other[i], one[i], tolerance * static_cast<double>(most)) << e.name << " " << i;
  }
  const int64_t head = b.table().lm_head();
  for (int64_t i = kTokens * padded.hidden; i < padded.vocab * padded.hidden; ++i)
    ASSERT_EQ(grad[1].f32()[head + i], 0.0f) << i;
}

// The same sums in another order.
TEST(FusedHeadTest, IsTheHeadWithLogitsInFloat) {
  IsTheHeadWithLogits(DType::kFloat32, true, false, 1e-5);
  IsTheHeadWithLogits(DType::kFloat32, false, true, 1e-5);
}

// The trunk is the same to the bit up to the head. Where one of both rounds a logit's gradient
// otherwise, what comes back of it is rounded once more in each of the two layers' four products.
TEST(FusedHeadTest, IsTheHeadWithLogitsInBfloat16) {
  IsTheHeadWithLogits(DType::kBFloat16, true, true, 0.04);
  IsTheHeadWithLogits(DType::kBFloat16, false, false, 0.04);
}

// Rows that the head takes at a time do not grow with the batch, and neither do its bytes.
TEST(FusedHeadTest, TakesAsMuchMemoryForManyRowsAsForSome) {
  const ModelShape shape = Shape(5000, true);
  const kernels::Launch launch{};
  const int64_t some = PassMemory::HeadRows(launch, shape, 1'000'000);
  EXPECT_LE(some, 512);
  EXPECT_EQ(PassMemory::HeadRows(launch, shape, 7), 7);
  EXPECT_LT(PassMemory::HeadBytes(launch, shape, some), 4 * 1'000'000 * shape.vocab / 100);
}

TEST(BatchCheckTest, RefusesTokensAndTargetsThatAreNone) {
  const ModelShape shape = Shape(40, true);
  PackedBatch batch;
  batch.Clear();
  batch.Append(std::vector<int32_t>{1, 2, 30}, std::vector<uint8_t>(3, 1));
  CheckBatch(shape, TaskPass{}, batch);
  CheckTargets(shape, batch);
  batch.targets.back() = kTokens;
  EXPECT_THROW(CheckTargets(shape, batch), Error);
  batch.tokens[0] = 40;
  EXPECT_THROW(CheckBatch(shape, TaskPass{}, batch), Error);
}

}  // namespace
}  // namespace plumb::policy_model

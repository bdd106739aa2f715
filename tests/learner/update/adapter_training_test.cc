// What is trained is sets: optimizer, checkpoints, finite check and reference of a model with an
// adapter on a base that stays.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/base/error.h"
#include "common/base/file.h"
#include "learner/algorithms/grpo.h"
#include "learner/loop/finite.h"
#include "learner/offline/reference_sums.h"
#include "learner/offline/sft.h"
#include "learner/update/checkpoint.h"
#include "learner/update/optimizer.h"
#include "learner/update/reference_policy.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using policy_model::AdapterSpec;
using policy_model::Weights;

Weights TinyBase(uint64_t seed = 3, DType dtype = DType::kFloat32) {
  Weights weights(TinyShape(), Device::kCpu, dtype);
  weights.Initialise(seed, 0.2);
  return weights;
}

struct Adapted {
  explicit Adapted(const AdapterSpec& spec = {.rank = 2, .alpha = 8}, uint64_t base_seed = 3,
                   DType dtype = DType::kFloat32)
      : weights(TinyBase(base_seed, dtype)),
        transformer(TinyShape(), Device::kCpu, dtype),
        train(transformer, 512) {
    weights.AddAdapter(spec, 5);
  }
  Weights weights;
  policy_model::Transformer transformer;
  TrainStep train;
};

SftResult Teach(Adapted& model, Optimizer& optimizer, int64_t steps) {
  configs::SftConfig sft{.steps = steps, .batch = 16, .learning_rate = 0.02, .eval_every = 5};
  const auto train = RandomDemonstrations(64, 1), heldout = RandomDemonstrations(16, 2);
  return RunSft(model.train, model.weights, optimizer, sft, 1, train, heldout,
                [](const SftStep&, const SftResult&) { return true; });
}

// Bytes that an optimizer holds besides the parameters.
size_t StateBytes(Optimizer& optimizer) {
  size_t bytes = 0;
  for (Optimizer::SetState& state : optimizer.sets()) {
    bytes += state.grad.bytes() + state.m.bytes() + state.v.bytes() + state.own_master.bytes();
  }
  return bytes;
}

TEST(AdapterTrainingTest, NothingIsHeldForWhatIsNotTrained) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const size_t floats =
        dtype == DType::kFloat32 ? 3 : 4;  // gradient, two moments, a master beside rounded weights
    Adapted model({.rank = 2, .targets = {"q_proj"}}, 3, dtype);
    Optimizer optimizer(model.weights, {});
    ASSERT_EQ(optimizer.sets().size(), 1u);
    EXPECT_EQ(StateBytes(optimizer),
              static_cast<size_t>(model.weights.adapters()[0]->flat.elements()) * floats * 4);
    EXPECT_EQ(optimizer.gradients().base, nullptr);
    Weights whole = TinyBase(3, dtype);
    Optimizer all(whole, {});
    EXPECT_EQ(StateBytes(all), static_cast<size_t>(whole.flat().elements()) * floats * 4);
    EXPECT_EQ(all.gradients().base, &all.grad());
  }
  // Without padding: two matrices of rank 2 for q of two layers, against all parameters.
  Adapted model({.rank = 2, .targets = {"q_proj"}});
  EXPECT_EQ(model.weights.adapters()[0]->table->parameters(), 2 * (2 * 32 + 32 * 2));
  EXPECT_GT(model.weights.table().parameters(),
            50 * model.weights.adapters()[0]->table->parameters());
}

TEST(AdapterTrainingTest, LearnsAndLeavesTheBaseAsItIs) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Adapted model({.rank = 4, .alpha = 8}, 3, dtype);
    Optimizer optimizer(model.weights, {.weight_decay = 0.1});
    const Digest base = policy_model::DigestOf(model.weights.flat()),
                 before = model.weights.ComputeDigest();
    const SftResult taught = Teach(model, optimizer, 60);
    EXPECT_LT(taught.heldout_last, 0.7 * taught.heldout_first);
    EXPECT_EQ(policy_model::DigestOf(model.weights.flat()), base);
    EXPECT_EQ(model.weights.SetDigests()[0].second, base);
    EXPECT_NE(model.weights.ComputeDigest(), before);
  }
}

TEST(AdapterTrainingTest, DropsInUpdatesAloneByTheSeedAndTheUpdate) {
  const auto trained = [](double dropout, uint64_t seed, int64_t pause_after) {
    Adapted model({.rank = 2, .alpha = 8, .dropout = dropout});
    Optimizer optimizer(model.weights, {}, {.seed = seed});
    Teach(model, optimizer, pause_after);
    Teach(model, optimizer, 6 - pause_after);
    return model.weights.ComputeDigest();
  };
  const Digest dropped = trained(0.4, 1, 3);
  EXPECT_EQ(trained(0.4, 1, 3), dropped);
  EXPECT_NE(trained(0.4, 2, 3), dropped);
  EXPECT_NE(trained(0, 1, 3), dropped);
  EXPECT_EQ(trained(0, 2, 3), trained(0, 1, 3));

  Adapted model({.rank = 2, .alpha = 8, .dropout = 0.4}), whole({.rank = 2, .alpha = 8});
  Optimizer optimizer(model.weights, {}), other(whole.weights, {});
  Teach(whole, other, 3);
  std::copy_n(whole.weights.adapters()[0]->flat.f32(), whole.weights.adapters()[0]->flat.elements(),
              model.weights.adapters()[0]->flat.f32());
  const auto rows = RandomDemonstrations(8, 4);
  std::vector<SequenceView> views;
  for (const Demonstration& d : rows) views.push_back({d.tokens, d.loss_mask});
  EXPECT_EQ(model.train.Score(model.weights, views, 1.0f),
            whole.train.Score(whole.weights, views, 1.0f));
  const auto seen = [&](Adapted& of, Optimizer& by) {
    std::vector<float> logprobs;
    of.train.Accumulate(
        of.weights, views, 1.0f,
        [&](const ScoredToken& token) {
          logprobs.push_back(token.logprob);
          return TrainStep::Gradient{};
        },
        by.gradients());
    return logprobs;
  };
  const auto first = seen(model, optimizer);
  EXPECT_NE(first, seen(whole, other));
  EXPECT_EQ(first, seen(model, optimizer)) << "the same update drops the same";
  optimizer.ZeroGrad();
  optimizer.Update(0, 0);
  EXPECT_NE(first, seen(model, optimizer)) << "the next one does not";
}

TEST(AdapterTrainingTest, TheReferenceIsTheBaseWithoutACopyOfIt) {
  Adapted model;
  const Weights base = TinyBase();
  Optimizer optimizer(model.weights, {});
  ReferencePolicy reference(model.weights, model.train);
  EXPECT_EQ(&reference.weights().flat(), &model.weights.flat());
  const auto rows = RandomDemonstrations(8, 4);
  std::vector<SequenceView> views;
  for (const Demonstration& d : rows) views.push_back({d.tokens, d.loss_mask});
  const auto want = model.train.Score(base, views, 1.0f);
  EXPECT_EQ(reference.Score(views, 1.0f), want);
  Teach(model, optimizer, 10);
  EXPECT_NE(model.train.Score(model.weights, views, 1.0f), want);
  EXPECT_EQ(reference.Score(views, 1.0f), want);
  ReferenceSums sums(reference, nullptr);
  EXPECT_EQ(sums.digest(), base.ComputeDigest());
  const std::vector<double> of = sums.Of(views);
  for (size_t i = 0; i < of.size(); ++i) {
    double sum = 0;
    for (const float logprob : want[i]) sum += static_cast<double>(logprob);
    EXPECT_EQ(of[i], sum);
  }

  // After a warm start the adapter is a part of the reference: its numbers are copied, the base's
  // are not.
  ReferencePolicy taught(model.weights, model.train, /*keep_adapters=*/true);
  EXPECT_EQ(&taught.weights().flat(), &model.weights.flat());
  const auto then = model.train.Score(model.weights, views, 1.0f);
  EXPECT_EQ(taught.Score(views, 1.0f), then);
  Teach(model, optimizer, 5);
  EXPECT_NE(model.train.Score(model.weights, views, 1.0f), then);
  EXPECT_EQ(taught.Score(views, 1.0f), then);

  // Where the base is trained, the reference is a copy, as ever.
  Weights whole = TinyBase();
  ReferencePolicy copied(whole, model.train);
  EXPECT_NE(&copied.weights().flat(), &whole.flat());
  EXPECT_EQ(copied.weights().ComputeDigest(), whole.ComputeDigest());
}

TEST(AdapterTrainingTest, ACheckpointHoldsTheAdapterAndRefusesAnotherBase) {
  testing::TempFolder folder;
  Adapted model;
  Optimizer optimizer(model.weights, {});
  Teach(model, optimizer, 8);
  Checkpoints checkpoints(folder.path() + "/c", 2, "", "models/base");
  checkpoints.Save({.step = 3,
                    .policy = {.version = 3, .digest = model.weights.ComputeDigest()},
                    .counters = optimizer.counters(),
                    .moment_steps = optimizer.moment_steps()},
                   model.weights, optimizer);
  const auto found = checkpoints.FindNewest();
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(RealFileSystem().Exists(found->path + "/model/adapter_model.safetensors"));
  EXPECT_FALSE(RealFileSystem().Exists(found->path + "/model/model.safetensors"));
  EXPECT_EQ(found->state.base_digest, policy_model::DigestOf(model.weights.flat()));
  ReferencePolicy reference(model.weights, model.train);
  checkpoints.KeepReference(false, reference.weights());  // the base itself: nothing to keep
  EXPECT_FALSE(RealFileSystem().Exists(folder.path() + "/c/reference"));

  Adapted other;
  Optimizer restored(other.weights, {});
  checkpoints.Load(*found, other.weights, restored);
  EXPECT_EQ(other.weights.ComputeDigest(), model.weights.ComputeDigest());
  EXPECT_EQ(restored.counters(), optimizer.counters());
  Teach(model, optimizer, 3);
  Teach(other, restored, 3);
  EXPECT_EQ(other.weights.ComputeDigest(),
            model.weights.ComputeDigest());  // moments and masters came along

  const auto refused = [&](Weights& weights) {
    Optimizer any(weights, {});
    try {
      checkpoints.Load(*found, weights, any);
      ADD_FAILURE();
      return std::string();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kConflict);
      return std::string(e.what());
    }
  };
  Adapted elsewhere({.rank = 2, .alpha = 8}, 4), larger({.rank = 3, .alpha = 8});
  Weights whole = TinyBase();
  EXPECT_NE(refused(elsewhere.weights).find("digest"), std::string::npos);
  EXPECT_NE(refused(larger.weights).find("rank"), std::string::npos);
  EXPECT_NE(refused(whole).find("adapter only"), std::string::npos);
}

TEST(AdapterTrainingTest, AGradientOrWeightOfAnAdapterThatIsNotFiniteIsFound) {
  Adapted model;
  Optimizer optimizer(model.weights, {});
  const Digest before = model.weights.ComputeDigest();
  optimizer.grad().f32()[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(optimizer.Update(0.01, 0).applied);
  EXPECT_EQ(model.weights.ComputeDigest(), before);
  EXPECT_EQ(FirstNonFinite(model.weights), std::nullopt);
  model.weights.adapters()[0]->flat.f32()[0] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(FirstNonFinite(model.weights), model.weights.adapters()[0]->table->entries()[0].name);
}

}  // namespace
}  // namespace plumb::learner

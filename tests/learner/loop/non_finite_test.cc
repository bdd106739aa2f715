// RELIABILITY row 13 beside PPO's (ppo_test.cc): NaN and infinity in gradients, and in rewards,
// log-probs and weights of the GRPO family; three skipped updates in a row end a run whose newest
// checkpoint is the last good one; nothing not finite is published.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/base/error.h"
#include "learner/algorithms/grpo.h"
#include "learner/loop/learner_loop.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using policy_model::FlatBuffer;
using policy_model::Weights;

constexpr float kBad[] = {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()};

struct Tiny {
  policy_model::Transformer transformer{TinyShape(), Device::kCpu, DType::kFloat32};
  Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
  TrainStep train{transformer, 64};
  Tiny() { weights.Initialise(4, 0.2); }
};

std::vector<std::byte> Bytes(const FlatBuffer& flat) {
  std::vector<std::byte> out(flat.bytes());
  flat.CopyToHost(out);
  return out;
}

bool Finite(const FlatBuffer& flat) {
  for (int64_t i = 0; i < flat.elements(); ++i) {
    if (!std::isfinite(flat.f32()[i])) return false;
  }
  return true;
}

// A place in some tensor, drawn.
int64_t DrawPlace(const policy_model::TensorTable& table, RandomStream& random) {
  const auto& e = table.entries()[random.NextBelow(static_cast<uint32_t>(table.entries().size()))];
  return e.offset + random.NextBelow(static_cast<uint32_t>(e.elements));
}

TEST(NonFiniteTest, FiftyGradientsReachNeitherWeightsNorMoments) {
  Tiny tiny;
  Optimizer optimizer(tiny.weights, {.learning_rate = 0.1, .max_skipped_in_a_row = 3});
  RandomStream random(5, 1);
  for (int i = 0; i < 50; ++i) {
    optimizer.ZeroGrad();
    for (const auto& e : tiny.weights.table().entries()) optimizer.grad().f32()[e.offset] = 0.5f;
    // in between it goes on as if nothing had been
    ASSERT_TRUE(optimizer.Update(1e-3, 1.0).applied);
    const auto weights = Bytes(tiny.weights.flat()), m = Bytes(optimizer.m()),
               v = Bytes(optimizer.v());
    optimizer.grad().f32()[DrawPlace(tiny.weights.table(), random)] = kBad[i % 3];
    const UpdateResult result = optimizer.Update(1e-3, 1.0);
    EXPECT_FALSE(result.applied) << i;
    EXPECT_EQ(result.why_skipped, "the gradient is not finite");
    EXPECT_EQ(Bytes(tiny.weights.flat()), weights) << i;
    EXPECT_EQ(Bytes(optimizer.m()), m) << i;
    EXPECT_EQ(Bytes(optimizer.v()), v) << i;
  }
  EXPECT_EQ(optimizer.skipped(), 50);
}

TEST(NonFiniteTest, FiftyInjectionsIntoTheGrpoFamilyReachNoWeight) {
  const char* const names[] = {"grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce++", "cispo"};
  RandomStream random(22, 1);
  int noticed = 0;
  for (int i = 0; i < 50; ++i) {
    const std::string name = names[i % 7];
    const configs::Loaded loaded = configs::ParseRecipe(
        "[data]\ntrain = \"arithmetic\"\n[rollout]\nsamples_per_prompt = 4\n[[reward.parts]]\nkind "
        "= \"answer\"\n[algorithm]\nname = \"" +
            name + "\"\nkl_coef = 0.1\nlogprob_gate = " + (i % 3 ? "0.0" : "0.05") + "\n",
        "r.toml");
    Tiny tiny;
    Optimizer optimizer(tiny.weights, loaded.config.optimizer);
    ReferencePolicy reference(tiny.weights, tiny.train);
    Grpo grpo(loaded.config, tiny.train, tiny.weights, optimizer, &reference);
    auto groups = RandomGroups(2, 4, 9, tiny.train, tiny.weights, 0);
    Trajectory& t = groups[random.NextBelow(2)].trajectories[random.NextBelow(4)];
    const float bad = kBad[random.NextBelow(3)];
    const int where = i % 4;
    int64_t place = -1;
    if (where == 0) t.reward = static_cast<double>(bad);
    if (where == 1) t.logprobs.back() = bad;
    if (where == 2)
      tiny.weights.flat().f32()[place = DrawPlace(tiny.weights.table(), random)] = bad;
    if (where == 3) reference.weights().flat().f32()[DrawPlace(tiny.weights.table(), random)] = bad;
    const auto before = Bytes(tiny.weights.flat());
    try {
      const auto metrics = grpo.Train(groups, 1e-3, 0);
      const bool seen = metrics.at("optim/skipped") > 0;
      noticed += seen;
      // A row of the embedding that no token of the batch has spoils nothing; a score or a log-prob
      // always does.
      EXPECT_TRUE(seen || where >= 2) << i << " " << name;
      if (seen) {
        EXPECT_EQ(Bytes(tiny.weights.flat()), before) << i << " " << name;
      }
    } catch (const Error& e) {  // the gate between actor and learner
      EXPECT_TRUE(e.code() == ErrorCode::kConflict || e.code() == ErrorCode::kNonFinite)
          << e.what();
      EXPECT_EQ(Bytes(tiny.weights.flat()), before) << i << " " << name;
      ++noticed;
    }
    if (place >= 0) tiny.weights.flat().f32()[place] = 0;
    EXPECT_TRUE(Finite(tiny.weights.flat())) << i << " " << name;
  }
  EXPECT_GE(noticed, 25);
}

// A learner's loop over batches that are made here.
struct Loop : BatchSource, WeightSink {
  testing::TempFolder folder;
  configs::Config config;
  Tiny tiny;
  Checkpoints checkpoints{folder.path() + "/checkpoints", 2, ""};
  LearnerHooks hooks;
  int64_t bad_from = 1000;  // step from which on rewards are not finite
  std::vector<PolicyVersion> published;
  bool all_finite = true;

  Loop() {
    config.run.steps = 10;
    config.run.checkpoint_every = 1;
    config.rollout.prompts_per_step = 2;
    config.algorithm.logprob_gate = 0;
    config.optimizer.learning_rate = 1e-3;
  }
  std::vector<TrajectoryGroup> Next(int64_t step, Deadline) override {
    auto groups =
        RandomGroups(2, 4, static_cast<uint64_t>(step) + 9, tiny.train, tiny.weights, step);
    if (step >= bad_from)
      groups[1].trajectories[2].reward = std::numeric_limits<double>::quiet_NaN();
    return groups;
  }
  std::vector<TrajectoryGroup> Evaluate(int64_t, int, Deadline) override { return {}; }
  void Finish() override {}
  void Publish(const PolicyVersion& version, std::span<const WeightSet>) override {
    published.push_back(version);
    all_finite = all_finite && Finite(tiny.weights.flat());
  }
  // The error that ends the run.
  std::string Run() {
    LearnerLoop loop(config, tiny.weights, *this, *this, checkpoints, {}, {}, hooks);
    try {
      loop.Run(false);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kNonFinite);
      return e.what();
    }
    return "";
  }
};

TEST(NonFiniteTest, ThreeInARowStopAndTheNewestCheckpointIsTheLastGoodOne) {
  Loop loop;
  loop.bad_from = 4;
  const std::string error = loop.Run();
  EXPECT_NE(error.find("3 updates in a row were skipped because the loss is not finite"),
            std::string::npos)
      << error;
  // The steps before are said to be saved in another line.
  EXPECT_EQ(error.find("nothing of them was saved"), std::string::npos) << error;
  EXPECT_NE(error.find("resume with a lower learning rate. Where that is not finite again"),
            std::string::npos)
      << error;
  EXPECT_NE(error.find("--overwrite"), std::string::npos) << error;
  // Steps 0 to 3 were good; 4, 5 and 6 were not, and no checkpoint was made of them although one
  // was due after each.
  const auto found = loop.checkpoints.FindNewest();
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->state.step, 4);
  EXPECT_EQ(found->state.counters.skipped_in_a_row, 0);
  Tiny other;
  Optimizer restored(other.weights, {});
  loop.checkpoints.Load(*found, other.weights, restored);
  EXPECT_EQ(other.weights.ComputeDigest(), loop.published[4].digest);
  EXPECT_TRUE(Finite(other.weights.flat()));
  EXPECT_TRUE(loop.all_finite);
}

TEST(NonFiniteTest, ACheckpointThatWasPutOffIsMadeAfterTheNextGoodUpdate) {
  Loop loop;
  loop.config.run.steps = 8;
  loop.config.run.checkpoint_every = 3;
  loop.bad_from = 2;
  std::vector<int64_t> saved;
  loop.hooks.step = [&](int64_t step, std::map<std::string, double>& metrics) {
    EXPECT_EQ(metrics.at("optim/skipped") > 0, step >= 2);
    if (step == 2) loop.bad_from = 1000;  // one bad batch
  };
  loop.hooks.checkpointed = [&](int64_t) {
    saved.push_back(loop.checkpoints.FindNewest()->state.step);
  };
  EXPECT_EQ(loop.Run(), "");
  EXPECT_EQ(saved, (std::vector<int64_t>{4, 6, 8})) << "due after step 2, whose update was skipped";
}

TEST(NonFiniteTest, AWeightThatIsNotFiniteIsNeitherPublishedNorSaved) {
  for (const int64_t checkpoint_every : {0, 1}) {
    for (const bool embedding : {false, true}) {
      Loop loop;
      loop.config.run.checkpoint_every = checkpoint_every;
      loop.hooks.step = [&](int64_t step, std::map<std::string, double>&) {
        const auto& table = loop.tiny.weights.table();
        const int64_t place = embedding ? table.embedding() : table.layer(1).down;
        if (step == 2)
          loop.tiny.weights.flat().f32()[place] = std::numeric_limits<float>::infinity();
      };
      const std::string error = loop.Run();
      EXPECT_NE(error.find(checkpoint_every ? "the weights of the policy hold"
                                            : "the weights of version 4 hold"),
                std::string::npos)
          << error;
      EXPECT_NE(error.find(embedding ? "embedding" : "layers.1.down"), std::string::npos) << error;
      EXPECT_EQ(loop.published.back().version, 3);
      EXPECT_TRUE(loop.all_finite);
      const auto found = loop.checkpoints.FindNewest();
      ASSERT_EQ(found.has_value(), checkpoint_every > 0);
      if (!found) continue;
      EXPECT_EQ(found->state.step, 2);
      Tiny other;
      Optimizer restored(other.weights, {});
      loop.checkpoints.Load(*found, other.weights, restored);
      EXPECT_TRUE(Finite(other.weights.flat())) << found->path;
    }
  }
}

}  // namespace
}  // namespace plumb::learner

// TrainStep: tokens go to the experts that were recorded, in the policy's passes and no others.
#include <gtest/gtest.h>

#include <map>

#include "common/base/error.h"
#include "learner/update/expert_balance.h"
#include "learner/update/reference_policy.h"
#include "policy_model/families/experts/expert_form.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

policy_model::ModelShape MoeShape() {
  policy_model::ModelShape s = TinyShape();
  s.family = "plumb";
  s.experts = {.count = 6, .widths = {16}, .per_token = 2};
  return s;
}

struct Bench {
  policy_model::Weights weights{MoeShape(), Device::kCpu, DType::kFloat32};
  policy_model::Transformer transformer{weights.shape(), Device::kCpu, DType::kFloat32};
  TrainStep train{transformer, 4096};
  std::vector<TrajectoryGroup> groups;

  Bench() {
    weights.Initialise(5, 0.3);
    groups = RandomGroups(3, 4, 2, train, weights, 0);
    for (TrajectoryGroup& group : groups) {  // one prompt a group, and answers of its own
      for (Trajectory& t : group.trajectories) {
        const Trajectory& first = group.trajectories[0];
        std::copy_n(first.tokens.begin(), first.prompt_length(), t.tokens.begin());
      }
    }
  }
  std::vector<SequenceView> Views() const {
    std::vector<SequenceView> views;
    for (const TrajectoryGroup& g : groups) {
      for (const Trajectory& t : g.trajectories) views.push_back(ViewOf(t));
    }
    return views;
  }
  // What the routers of `of` choose, or, `moved`, the experts 0 and 1 for every token.
  void Record(bool moved) {
    const ExpertForm form = policy_model::ExpertFormOf(weights.shape());
    for (TrajectoryGroup& g : groups) {
      for (Trajectory& t : g.trajectories) {
        policy_model::PackedBatch batch;
        batch.Clear();
        batch.Append(t.tokens, std::vector<uint8_t>(t.tokens.size(), 1));
        std::vector<float> out(batch.rows.size());
        transformer.Forward(weights, batch, {.entropy = false}, false, out, {});
        t.experts = {form, {}};
        const std::vector<int32_t> first = {0, 1, 0, 1};
        for (size_t i = 0; i + 1 < t.tokens.size(); ++i) {
          AppendExperts(form,
                        moved ? std::span<const int32_t>(first)
                              : transformer.experts().subspan(i * form.numbers(), form.numbers()),
                        t.experts.bytes);
        }
      }
    }
  }
};

TEST(ExpertReplayTest, RecordedExpertsAreTakenInThePolicysPassesAlone) {
  Bench b;
  const auto chosen = b.train.Score(b.weights, b.Views(), 1.0f);
  b.Record(false);
  EXPECT_EQ(b.train.Score(b.weights, b.Views(), 1.0f), chosen) << "the same experts";
  b.Record(true);
  const auto moved = b.train.Score(b.weights, b.Views(), 1.0f);
  EXPECT_NE(moved, chosen);
  EXPECT_EQ(b.train.Score(b.weights, b.Views(), 1.0f, /*replay=*/false), chosen);
  ReferencePolicy reference(b.weights, b.train);
  EXPECT_EQ(reference.Score(b.Views(), 1.0f), chosen) << "its own routers choose";
  // Sequences one by one, without a shared prompt.
  const auto views = b.Views();
  for (size_t i = 0; i < views.size(); ++i) {
    const auto alone = b.train.Score(b.weights, std::span(views).subspan(i, 1), 1.0f)[0];
    ASSERT_EQ(alone.size(), moved[i].size());
    for (size_t k = 0; k < alone.size(); ++k) EXPECT_NEAR(alone[k], moved[i][k], 2e-5);
  }
}

// Only experts 0 and 1 have gradients, in the layers computed again as well, and the metric says
// how many choices differ.
TEST(ExpertReplayTest, TheBackwardGoesThroughThemToo) {
  Bench b;
  b.Record(true);
  const auto views = b.Views();
  std::map<bool, std::vector<float>> gradients;
  for (const bool again : {false, true}) {
    b.transformer.RecomputeLayers(again);
    b.transformer.TakeLoad();
    policy_model::FlatBuffer grad(Device::kCpu, DType::kFloat32, b.weights.flat().elements());
    b.train.Accumulate(
        b.weights, views, 1.0f,
        [](const ScoredToken&) { return TrainStep::Gradient{.logprob = -1}; }, grad);
    EXPECT_GT(b.train.TakeSharedTokens(), 0) << "prompts lie once";
    gradients[again].assign(grad.f32(), grad.f32() + grad.elements());
    for (const policy_model::LayerLoad& layer : b.transformer.TakeLoad()) {
      EXPECT_GT(layer.given, 0);
      EXPECT_LT(layer.given, 2 * layer.rows) << "an answer's last token has no record";
      EXPECT_GT(layer.otherwise, 0);
      EXPECT_LT(layer.otherwise, layer.given);
    }
  }
  EXPECT_EQ(gradients[false], gradients[true]);
  const auto& at = b.weights.table().layer(0);
  const int64_t h = b.weights.shape().hidden;
  const auto norm = [&](int64_t expert) {
    double sum = 0;
    for (int64_t i = 0; i < h * 16; ++i) {
      const auto g = static_cast<double>(
          gradients[false][static_cast<size_t>(at.experts_down[static_cast<size_t>(expert)] + i)]);
      sum += g * g;
    }
    return sum;
  };
  EXPECT_GT(norm(0), 0);
  EXPECT_GT(norm(1), 0);
  // Besides them only what an answer's last token went to, which nothing behind it sees.
  for (const int64_t e : {2, 3, 4, 5}) EXPECT_EQ(norm(e), 0) << e;
}

TEST(ExpertReplayTest, ExpertsOfAnotherModelAreRefused) {
  Bench b;
  b.Record(true);
  for (Trajectory& t : b.groups[1].trajectories) t.experts.form.experts = 8;
  try {
    b.train.Score(b.weights, b.Views(), 1.0f);
    ADD_FAILURE() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kConflict);
    EXPECT_NE(std::string(e.what()).find("2 of 8 experts in 2 layers"), std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace plumb::learner

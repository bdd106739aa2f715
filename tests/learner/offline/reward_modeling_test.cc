// Training of reward models (learner/offline/reward_modeling.h): scores, the gradient of a batch,
// and a preference that is learned.
#include "learner/offline/reward_modeling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "policy_model/memory/scalar_head.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {
namespace {

using policy_model::FlatBuffer;
using policy_model::PackedBatch;
using policy_model::Transformer;
using policy_model::Weights;

// The answer with more 5s than 7s is the better one; lengths differ.
std::vector<PreferencePair> Pairs(int n, uint64_t seed) {
  RandomStream random(seed, 3);
  std::vector<PreferencePair> out;
  for (int p = 0; p < n; ++p) {
    PreferencePair pair{.dataset = "toy", .row = static_cast<uint64_t>(p)};
    std::vector<int32_t> prompt;
    for (int k = 0; k < 3; ++k) prompt.push_back(static_cast<int32_t>(8 + random.NextBelow(10)));
    for (Demonstration* d : {&pair.chosen, &pair.rejected}) {
      d->tokens = prompt;
      const int length = 4 + static_cast<int>(random.NextBelow(5));
      const int32_t mark = d == &pair.chosen ? 5 : 7;
      for (int k = 0; k < length; ++k) {
        d->tokens.push_back(
            random.NextBelow(3) > 0 ? mark : static_cast<int32_t>(8 + random.NextBelow(10)));
      }
      d->tokens.push_back(2);
      d->loss_mask.assign(d->tokens.size(), 1);
      std::fill_n(d->loss_mask.begin(), prompt.size(), uint8_t{0});
    }
    if (p % 3 == 0) {
      pair.has_margin = true;
      pair.margin = 0.5;
    }
    out.push_back(std::move(pair));
  }
  return out;
}

std::vector<const PreferencePair*> Pointers(const std::vector<PreferencePair>& pairs) {
  std::vector<const PreferencePair*> out;
  for (const PreferencePair& pair : pairs) out.push_back(&pair);
  return out;
}

struct Model {
  explicit Model(double init_std = 0.3, double centering = 0, int64_t budget = 60, int32_t pad = -1)
      : weights([&] {
          policy_model::ModelShape shape = TinyShape();
          shape.pad_token = pad;
          Weights policy(shape, Device::kCpu, DType::kFloat32);
          policy.Initialise(5, init_std);
          return policy_model::ScalarHeadFrom(policy, 6);
        }()),
        transformer(weights.shape(), Device::kCpu, DType::kFloat32),
        optimizer(weights, {}),
        learner(transformer, weights, optimizer, budget, centering) {}
  Weights weights;
  Transformer transformer;
  Optimizer optimizer;
  RewardModeling learner;
};

TEST(RewardModelingTest, ScoresAreTheHeadsAtTheLastToken) {
  Model model;
  const auto pairs = Pairs(7, 1);
  const auto scores = model.learner.Score(Pointers(pairs));
  ASSERT_EQ(scores.size(), pairs.size());
  for (size_t p = 0; p < pairs.size(); ++p) {
    for (const bool chosen : {true, false}) {
      const auto& tokens = (chosen ? pairs[p].chosen : pairs[p].rejected).tokens;
      PackedBatch alone;
      alone.Clear();
      alone.AppendRows(tokens, std::vector<int32_t>{static_cast<int32_t>(tokens.size()) - 1});
      std::vector<float> value(1);
      model.transformer.ForwardValues(model.weights, alone, false, value);
      EXPECT_NEAR(chosen ? scores[p].chosen : scores[p].rejected, value[0], 1e-5) << p;
    }
    EXPECT_EQ(scores[p].margin, p % 3 == 0 ? 0.5f : 0.0f);
  }
}

// As LlamaForSequenceClassification: a model that pads with its end token is asked at the token
// before it.
TEST(RewardModelingTest, PaddingIsNotAskedForAScore) {
  Model plain, pads(0.3, 0, 60, /*pad=*/2);
  auto pairs = Pairs(5, 1);  // all end with token 2
  auto cut = pairs;
  for (PreferencePair& pair : cut) {
    for (Demonstration* d : {&pair.chosen, &pair.rejected})
      d->tokens.pop_back(), d->loss_mask.pop_back();
  }
  const auto expected = plain.learner.Score(Pointers(cut)),
             got = pads.learner.Score(Pointers(pairs)),
             at_end = plain.learner.Score(Pointers(pairs));
  for (size_t p = 0; p < pairs.size(); ++p) {
    EXPECT_NEAR(got[p].chosen, expected[p].chosen, 1e-5);
    EXPECT_NEAR(got[p].rejected, expected[p].rejected, 1e-5);
    EXPECT_GT(std::abs(at_end[p].chosen - got[p].chosen), 1e-4)
        << "the two places would hardly differ";
  }
}

TEST(RewardModelingTest, GradientMatchesFiniteDifferences) {
  Model model(0.3, 0.05);
  const auto pairs = Pairs(5, 2);
  const auto batch = Pointers(pairs);
  FlatBuffer grad(Device::kCpu, DType::kFloat32, model.weights.flat().elements());
  model.learner.Accumulate(batch, grad);
  RandomStream random(9, 9);
  for (const auto& e : model.weights.table().entries()) {
    // Along a random direction of each tensor; central difference, whose error is O(h^2).
    std::vector<float> direction(static_cast<size_t>(e.elements));
    double expected = 0, norm = 0;
    for (int64_t i = 0; i < e.elements; ++i) {
      const double g = grad.f32()[e.offset + i];
      direction[static_cast<size_t>(i)] = random.NextNormal();
      expected += double{direction[static_cast<size_t>(i)]} * g;
      norm += g * g;
    }
    ASSERT_GT(norm, 0) << e.name;
    float* at = model.weights.flat().f32() + e.offset;
    const std::vector<float> kept(at, at + e.elements);
    const double h = 2e-3 / std::sqrt(static_cast<double>(e.elements));
    double side[2];
    for (const int s : {0, 1}) {
      for (int64_t i = 0; i < e.elements; ++i) {
        at[i] = kept[static_cast<size_t>(i)] +
                static_cast<float>((s ? h : -h) * double{direction[static_cast<size_t>(i)]});
      }
      side[s] = model.learner.Evaluate(batch).loss;
    }
    std::copy(kept.begin(), kept.end(), at);
    EXPECT_NEAR((side[1] - side[0]) / (2 * h), expected, 0.02 * std::sqrt(norm) + 2e-3) << e.name;
  }
}

TEST(RewardModelingTest, MicroBatchesDoNotChangeTheGradient) {
  const auto pairs = Pairs(6, 3);
  Model one(0.3, 0.01, 100000), many(0.3, 0.01, 1);
  FlatBuffer a(Device::kCpu, DType::kFloat32, one.weights.flat().elements()),
      b(Device::kCpu, DType::kFloat32, one.weights.flat().elements());
  EXPECT_NEAR(one.learner.Accumulate(Pointers(pairs), a),
              many.learner.Accumulate(Pointers(pairs), b), 1e-6);
  double diff = 0, norm = 0;
  for (int64_t i = 0; i < a.elements(); ++i) {
    diff += std::pow(double{a.f32()[i]} - double{b.f32()[i]}, 2);
    norm += std::pow(double{a.f32()[i]}, 2);
  }
  EXPECT_GT(norm, 0);
  EXPECT_LT(diff, 1e-10 * norm);
}

// Both ways round from the same start: a head that happens to begin with the right sign cannot
// pass.
TEST(RewardModelingTest, LearnsToRankPairsItHasNotSeen) {
  for (const bool swapped : {false, true}) {
    Model model(0.1, 0.01, 2000);
    auto train = Pairs(64, 4), heldout = Pairs(64, 5);
    if (swapped) {
      for (auto* set : {&train, &heldout}) {
        for (PreferencePair& pair : *set) std::swap(pair.chosen, pair.rejected);
      }
    }
    const auto all = Pointers(train), unseen = Pointers(heldout);
    const RewardModelEval before = model.learner.Evaluate(unseen);
    std::map<std::string, double> last;
    for (int step = 0; step < 60; ++step) {
      last =
          model.learner.Train(std::span(all).subspan(static_cast<size_t>(step % 4) * 16, 16), 3e-3);
    }
    const RewardModelEval after = model.learner.Evaluate(unseen);
    EXPECT_GT(after.accuracy, 0.95) << swapped;
    EXPECT_LT(after.loss, 0.5 * before.loss) << swapped;
    EXPECT_NEAR(after.accuracy_stderr, std::sqrt(after.accuracy * (1 - after.accuracy) / 64),
                1e-12);
    EXPECT_NEAR(last.at("rm/margin"), last.at("rm/reward_chosen") - last.at("rm/reward_rejected"),
                1e-9);
    EXPECT_EQ(model.optimizer.updates(), 60);
  }
}

TEST(RewardModelingTest, SaysWhichPairItCannotRead) {
  Model model;
  auto pairs = Pairs(2, 6);
  pairs[1].rejected.tokens.assign(65, 3);
  try {
    model.learner.Score(Pointers(pairs));
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("toy row 1"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("65"), std::string::npos) << e.what();
  }
  EXPECT_THROW(model.learner.Train({}, 1e-3), Error);
  Weights policy(TinyShape(), Device::kCpu, DType::kFloat32);
  EXPECT_THROW(RewardModeling(model.transformer, policy, model.optimizer, 100), Error);
  EXPECT_THROW(RewardModeling(model.transformer, model.weights, model.optimizer, 100, -1), Error);
}

TEST(RewardModelingTest, EqualScoresRankLikeACoin) {
  Model model;
  float* head = model.weights.flat().f32() + model.weights.table().score();
  std::fill_n(head, TinyShape().hidden, 0.0f);
  const auto pairs = Pairs(4, 7);
  EXPECT_EQ(model.learner.Evaluate(Pointers(pairs)).accuracy, 0.5);
}

}  // namespace
}  // namespace plumb::learner

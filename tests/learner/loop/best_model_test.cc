// learner/loop/best_model.h: which evaluation is the best, and what is left of its model whatever
// ends the process.
#include "learner/loop/best_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/learner/loop/life.h"
#include "tests/learner/loop/short_run.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using plumb::testing::TempFolder;

EvalResult Solved(int64_t version, double accuracy, double reward = 0) {
  return {.version = version, .accuracy = accuracy, .reward = reward, .answers = 4};
}

struct Kept {
  TempFolder folder;
  policy_model::Weights weights{TinyShape(), Device::kCpu, DType::kFloat32};
  Checkpoints checkpoints{folder / "run/checkpoints", 1, ""};
  std::string path = BestModelFolder(checkpoints.folder());
  Kept() { weights.Initialise(3, 0.2); }
  std::string DigestThere() const {
    policy_model::Weights read(TinyShape(), Device::kCpu, DType::kFloat32);
    read.LoadTrained(path);
    return read.ComputeDigest();
  }
};

TEST(BestModel, IsOfTheHighestAccuracyThenTheHigherRewardThenTheEarlierOne) {
  Kept kept;
  BestModel best(kept.path, kept.checkpoints);
  EXPECT_FALSE(best.kept());
  best.Offer(Solved(0, 0.25, 0.5), kept.weights);
  EXPECT_EQ(best.kept()->version, 0);
  EXPECT_FALSE(best.Beaten(Solved(2, 0.25, 0.5)));
  EXPECT_FALSE(best.Beaten(Solved(2, 0.2, 0.9)));
  EXPECT_TRUE(best.Beaten(Solved(2, 0.25, 0.6)));
  EXPECT_TRUE(best.Beaten(Solved(2, 0.3, 0.1)));
  EXPECT_FALSE(best.Beaten(Solved(2, NAN, 0.9)));
  EvalResult unscored = Solved(2, 1);
  unscored.unscored = unscored.answers;
  EXPECT_FALSE(best.Beaten(unscored));
}

TEST(BestModel, OfDemonstrationsIsOfTheLowestLoss) {
  Kept kept;
  BestModel best(kept.path, kept.checkpoints);
  const auto loss = [](double nats) {
    return EvalResult{.loss = nats, .perplexity = std::exp(nats)};
  };
  EXPECT_FALSE(best.Beaten(loss(INFINITY)));
  best.Offer(loss(2), kept.weights);
  EXPECT_TRUE(best.Beaten(loss(1.5)));
  EXPECT_FALSE(best.Beaten(loss(2)));
  EXPECT_FALSE(best.Beaten(loss(2.5)));
  // As it was written.
  EXPECT_FALSE(BestModel(kept.path, kept.checkpoints).Beaten(loss(2)));
}

TEST(BestModel, IsReplacedAsAWholeAndFoundAgain) {
  Kept kept;
  BestModel best(kept.path, kept.checkpoints);
  best.Offer(Solved(0, 0.25), kept.weights);
  const std::string first = kept.weights.ComputeDigest();
  kept.weights.Initialise(4, 0.2);
  best.Offer(Solved(2, 0.2), kept.weights);  // is worse
  EXPECT_EQ(kept.DigestThere(), first);
  best.Offer(Solved(4, 0.5), kept.weights);
  EXPECT_EQ(kept.DigestThere(), kept.weights.ComputeDigest());
  EXPECT_EQ(BestModel(kept.path, kept.checkpoints).kept()->version, 4);
  EXPECT_FALSE(std::filesystem::exists(kept.path + ".new"));
}

TEST(BestModel, OneThatWasWholeBesideTheOldOneTakesItsPlaceAndAPartOfOneGoes) {
  Kept kept;
  BestModel(kept.path, kept.checkpoints).Offer(Solved(2, 0.5), kept.weights);
  // The process ended when the old one was gone.
  std::filesystem::rename(kept.path, kept.path + ".new");
  EXPECT_EQ(BestModel(kept.path, kept.checkpoints).kept()->version, 2);
  EXPECT_EQ(kept.DigestThere(), kept.weights.ComputeDigest());
  // Or while the new one was written.
  std::filesystem::create_directories(kept.path + ".new");
  EXPECT_EQ(BestModel(kept.path, kept.checkpoints).kept()->version, 2);
  EXPECT_FALSE(std::filesystem::exists(kept.path + ".new"));
}

TEST(BestModel, ADamagedEvaluationIsNamed) {
  Kept kept;
  BestModel(kept.path, kept.checkpoints).Offer(Solved(2, 0.5), kept.weights);
  RealFileSystem().WriteFileAtomic(kept.path + "/evaluation.json", "{");
  try {
    BestModel best(kept.path, kept.checkpoints);
    ADD_FAILURE() << "read";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCorruption);
    EXPECT_NE(std::string(e.what()).find("best/evaluation.json"), std::string::npos) << e.what();
  }
}

// A run keeps that of the best of its evaluations, also over a resume.
TEST(BestModel, ARunKeepsTheWeightsOfItsBestEvaluation) {
  configs::Config config = Recipe();
  config.data.eval = "held out";
  config.eval.every = 2;
  config.eval.keep_best = true;
  const TempFolder folder;
  // The share solved, by version: the best is in the middle.
  const std::vector<double> share = {0, 0, 1, 1, 0.5, 0.5, 0};
  std::string digest;
  const auto prepare = [&](Life& life) {
    life.hooks.evaluated = nullptr;
    life.solved = [&](int64_t version) { return share[static_cast<size_t>(version)]; };
    life.on_publish = [&life, &digest](int64_t version) {
      if (version == 2) digest = life.weights.ComputeDigest();
    };
  };
  Life life(config, folder / "run/checkpoints");
  prepare(life);
  life.on_next = [](int64_t step) {
    if (step == 4) throw Error(ErrorCode::kDeadline, "nobody answered");
  };
  EXPECT_ANY_THROW(life.Run(false));
  Life next(config, folder / "run/checkpoints");
  prepare(next);
  const LearnerResult result = next.Run(true);
  ASSERT_TRUE(result.best);
  EXPECT_EQ(result.best->version, 2);
  EXPECT_EQ(result.best->accuracy, 1);
  policy_model::Weights read(TinyShape(), Device::kCpu, DType::kFloat32);
  read.LoadTrained(folder / "run/best");
  EXPECT_EQ(read.ComputeDigest(), digest);
  EXPECT_NE(read.ComputeDigest(), next.weights.ComputeDigest());
}

}  // namespace
}  // namespace plumb::learner

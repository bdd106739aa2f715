// configs/checks/expert_ranks.h: what does not go with run.parallel's ep and experts.sync_every.
#include "configs/checks/expert_ranks.h"

#include <gtest/gtest.h>

#include <functional>

#include "common/base/error.h"

namespace plumb::configs {
namespace {

std::string ErrorOf(const std::function<void(Config&)>& change) {
  Config config;
  config.algorithm.name = AlgorithmName::kGrpo;
  change(config);
  try {
    CheckParallel(config, ReadParallel(config.run.parallel).ranks());
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(ExpertRanksCheckTest, WhatRanksThatShareExpertsOutCannotDoIsRefused) {
  const auto error = [](const std::function<void(Config&)>& change) {
    return ErrorOf([&](Config& config) {
      config.run.parallel = "dp=2,ep=2";
      change(config);
    });
  };
  EXPECT_EQ(error([](Config&) {}), "");
  EXPECT_EQ(error([](Config& c) { c.run.zero = 0; }), "");
  EXPECT_EQ(error([](Config& c) { c.algorithm.name = AlgorithmName::kSft; }), "");
  EXPECT_EQ(error([](Config& c) { c.experts.aux_coef = c.experts.capacity = 1; }), "");
  const std::vector<std::pair<std::function<void(Config&)>, std::string>> refused = {
      {[](Config& c) { c.run.parallel = "tp=2,ep=2"; }, "leave tp out"},
      {[](Config& c) { c.run.parallel = "pp=2,ep=2"; }, "leave pp out"},
      {[](Config& c) { c.run.device = "cuda"; }, "set run.device to \"cpu\""},
      {[](Config& c) { c.run.zero = 2; }, "set run.zero to 1"},
      {[](Config& c) { c.run.gradient_wire = GradientWire::kInt8; }, "run.gradient_wire"},
      {[](Config& c) { c.policy.adapter = Adapter::kLora; }, "policy.adapter"},
      {[](Config& c) { c.eval.keep_best = true; }, "eval.keep_best"},
      {[](Config& c) { c.optimizer.name = OptimizerName::kMuon; }, "muon"},
      {[](Config& c) { c.optimizer.moments = Moments::kInt8; }, "int8"},
      {[](Config& c) { c.optimizer.masters = Masters::kNone; }, "masters"},
      {[](Config& c) { c.algorithm.name = AlgorithmName::kPpo; }, "algorithm.name"},
      {[](Config& c) { c.algorithm.reference_sync_every = 2; }, "reference_sync_every to 0"}};
  for (const auto& [change, says] : refused) {
    const std::string what = error(change);
    EXPECT_NE(what.find("run.parallel: asks for ep=2, and"), std::string::npos) << says << what;
    EXPECT_NE(what.find(says), std::string::npos) << what;
    EXPECT_NE(what.find("or share the work as dp"), std::string::npos) << what;
  }
}

TEST(ExpertRanksCheckTest, WhatExpertsThatAreUpdatedLessOftenCannotDoIsRefused) {
  const auto error = [](const std::function<void(Config&)>& change) {
    return ErrorOf([&](Config& config) {
      config.run.parallel = "dp=2";
      config.experts.sync_every = 4;
      change(config);
    });
  };
  EXPECT_EQ(error([](Config&) {}), "");
  const std::vector<std::pair<std::function<void(Config&)>, std::string>> refused = {
      {[](Config& c) { c.run.parallel = "dp=2,tp=2"; }, "as dp and ep"},
      {[](Config& c) { c.run.zero = 3; }, "run.zero = 3"},
      {[](Config& c) { c.run.gradient_wire = GradientWire::kInt8; }, "run.gradient_wire"},
      {[](Config& c) { c.run.device = "cuda"; }, "run.device"},
      {[](Config& c) { c.policy.adapter = Adapter::kLora; }, "policy.adapter"},
      {[](Config& c) { c.optimizer.moments = Moments::kInt8; }, "optimizer.moments"},
      {[](Config& c) { c.optimizer.gradients = Gradients::kBFloat16; }, "optimizer.gradients"},
      {[](Config& c) { c.algorithm.name = AlgorithmName::kPpo; }, "a critic"}};
  for (const auto& [change, says] : refused) {
    const std::string what = error(change);
    EXPECT_NE(what.find("experts.sync_every: is 4, and"), std::string::npos) << says << what;
    EXPECT_NE(what.find(says), std::string::npos) << what;
    EXPECT_NE(what.find("or experts.sync_every to 1"), std::string::npos) << what;
  }
}

TEST(ExpertRanksCheckTest, SyncEveryHasARange) {
  const auto read = [](const std::string& value) {
    return ParseRecipe(
               "[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nname = \"a\"\nkind = "
               "\"answer\"\n[experts]\ncount = 4\n",
               "recipe", {"experts.sync_every=" + value})
        .config.experts.sync_every;
  };
  EXPECT_EQ(read("8"), 8);
  EXPECT_THROW(read("0"), Error);
  EXPECT_THROW(read("2000"), Error);
}

}  // namespace
}  // namespace plumb::configs

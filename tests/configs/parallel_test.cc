// configs/parallel.h: what run.parallel may say, and what of it is refused.
#include "configs/parallel.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::configs {
namespace {

std::string ErrorOf(const std::string& parallel, int64_t ranks, const std::string& device = "cpu") {
  Config config;
  config.run.parallel = parallel;
  config.run.device = device;
  try {
    CheckParallel(config, ranks);
  } catch (const Error& e) {
    return std::string(ErrorCodeName(e.code())) + " " + e.where() + ": " + e.message();
  }
  return "";
}

TEST(ParallelTest, ReadsFactorsInAnyOrder) {
  EXPECT_EQ(ReadParallel(""), Parallel{});
  EXPECT_EQ(ReadParallel("dp=4"), (Parallel{.dp = 4}));
  EXPECT_EQ(ReadParallel("tp=2,dp=3"), (Parallel{.dp = 3, .tp = 2}));
  EXPECT_EQ(ReadParallel("dp=2,tp=2,pp=2,ep=2").ranks(), 16);
}

TEST(ParallelTest, RefusesWhatIsNone) {
  for (const char* text :
       {"2", "dp", "dp=", "dp=0", "dp=-1", "dp=2x", "dp=2,", ",dp=2", "dp=2,dp=2", "xp=2",
        "dp=1025", "dp=2 tp=2", "dp=99999999999999999999"}) {
    EXPECT_THROW(ReadParallel(text), Error) << text;
    try {
      ParseRecipe("[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = \"answer\"\n", "r.toml",
                  {"run.parallel=\"" + std::string(text) + "\""});
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("run.parallel"), std::string::npos) << e.what();
    }
  }
}

TEST(ParallelTest, NamesWhatIsNotThere) {
  EXPECT_EQ(ErrorOf("dp=2", 2), "");
  EXPECT_EQ(ErrorOf("", 4), "");
  for (const auto& [parallel, words] : {std::pair("pp=2,ep=2", "leave pp out"),
                                        {"tp=2,ep=2", "leave tp out"},
                                        {"tp=2,pp=2", "leave tp out"}}) {
    const std::string error = ErrorOf(parallel, 4);
    EXPECT_NE(error.find("unsupported run.parallel: asks for "), std::string::npos) << error;
    EXPECT_NE(error.find(words), std::string::npos) << error;
  }
  EXPECT_EQ(ErrorOf("dp=2", 2, "cuda:1"), "") << "each rank has its own GPU";
  EXPECT_EQ(ErrorOf("", 1, "cuda:1"), "");
}

// What only several ranks go by is not passed over in silence where there is one, whoever says how
// many there are.
TEST(ParallelTest, OneRankIsToldOfOptionsOfSeveral) {
  const auto error = [](int64_t ranks, GradientWire wire, int64_t zero) {
    Config config;
    config.run.gradient_wire = wire;
    config.run.zero = zero;
    try {
      CheckParallel(config, ranks);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(error(1, GradientWire::kFloat32, 0), "");
  EXPECT_EQ(error(1, GradientWire::kFloat32, 1), "");
  EXPECT_EQ(error(2, GradientWire::kInt8, 1), "");
  EXPECT_NE(error(1, GradientWire::kInt8, 1).find("run.gradient_wire: is \"int8\""),
            std::string::npos)
      << error(1, GradientWire::kInt8, 1);
  for (const int64_t zero : {2, 3}) {
    const std::string what = error(1, GradientWire::kFloat32, zero);
    EXPECT_NE(what.find("run.zero: is " + std::to_string(zero)), std::string::npos) << what;
  }
}

// What is trained of a model that ranks have shares of is all of it, and it alone.
TEST(ParallelTest, WhatASharedModelCannotDoIsRefused) {
  Config config;
  config.run.parallel = "dp=2,tp=2";
  const auto error = [&](int64_t ranks) {
    try {
      CheckParallel(config, ranks);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(error(4), "") << "rollouts";
  config.algorithm.name = AlgorithmName::kPpo;
  EXPECT_NE(error(4).find("run.parallel: asks for tp=2, and a critic is not cut"),
            std::string::npos)
      << error(4);
  config.algorithm.name = AlgorithmName::kGrpo;
  config.algorithm.reference_sync_every = 3;
  EXPECT_NE(error(4).find("algorithm.reference_sync_every"), std::string::npos) << error(4);
  config.algorithm.reference_sync_every = 0;
  config.rollout.top_p = 0.9;
  EXPECT_NE(error(4).find("top_p"), std::string::npos) << error(4);
  config.algorithm.name = AlgorithmName::kSft;
  EXPECT_EQ(error(4), "");
  config.run.zero = 3;
  EXPECT_EQ(error(4), "");
  config.run.device = "cuda";
  EXPECT_NE(error(4).find("between the same GPUs at once"), std::string::npos) << error(4);
  config.run.device = "cpu";
  config.run.parallel = "tp=2";
  EXPECT_NE(error(2).find("run.zero: is 3, which is about ranks that share out batches"),
            std::string::npos)
      << error(2);
  config.run.zero = 1;
  EXPECT_EQ(error(2), "");
  config.run.gradient_wire = GradientWire::kInt8;
  EXPECT_NE(error(2).find("run.gradient_wire"), std::string::npos);
  config.run.gradient_wire = GradientWire::kFloat32;
  config.policy.adapter = Adapter::kLora;
  EXPECT_NE(error(2).find("adapters are not cut"), std::string::npos) << error(2);
  config.policy.adapter = Adapter::kNone;
  config.eval.keep_best = true;
  EXPECT_NE(error(2).find("eval.keep_best"), std::string::npos) << error(2);
}

TEST(ParallelTest, WhatAPipelineCannotDoIsRefused) {
  Config config;
  config.run.parallel = "dp=2,pp=2";
  const auto error = [&](int64_t ranks) {
    try {
      CheckParallel(config, ranks);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  const auto has = [&](const char* what) {
    const std::string text = error(4);
    EXPECT_NE(text.find("run.parallel: asks for pp=2, and "), std::string::npos) << text;
    EXPECT_NE(text.find(what), std::string::npos) << text;
  };
  EXPECT_EQ(error(4), "") << "rollouts";
  config.rollout.top_p = 0.9;
  EXPECT_EQ(error(4), "") << "the last stage has all of the head";
  config.algorithm.name = AlgorithmName::kPpo;
  has("a critic");
  config.algorithm.name = AlgorithmName::kGrpo;
  config.algorithm.reference_sync_every = 3;
  has("algorithm.reference_sync_every");
  config.algorithm.reference_sync_every = 0;
  config.algorithm.name = AlgorithmName::kRewardModel;
  has("reward models");
  for (const auto name : {AlgorithmName::kSft, AlgorithmName::kDpo}) {
    config.algorithm.name = name;
    EXPECT_EQ(error(4), "");
  }
  config.run.zero = 2;
  has("run.zero = 2");
  config.run.zero = 1;
  config.policy.adapter = Adapter::kLora;
  has("adapters");
  config.policy.adapter = Adapter::kNone;
  config.policy.frozen = {"embed"};
  has("policy.frozen");
  config.policy.frozen.clear();
  config.eval.keep_best = true;
  has("eval.keep_best");
  config.eval.keep_best = false;
  config.run.parallel = "tp=2,pp=2";
  has("leave tp out");
  config.run.parallel = "pp=2";
  config.run.gradient_wire = GradientWire::kInt8;
  EXPECT_NE(error(2).find("run.gradient_wire"), std::string::npos) << "there is one of each stage";
}

TEST(ParallelTest, WhatPartsOfAModelCannotDoIsRefused) {
  Config config;
  config.run.zero = 3;
  const auto error = [&] {
    try {
      CheckParallel(config, 2);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(error().find("run.zero: is 3"), std::string::npos) << "rollouts: " << error();
  config.run.zero = 2;
  EXPECT_EQ(error(), "");
  config.algorithm.name = AlgorithmName::kSft;
  config.run.zero = 3;
  EXPECT_EQ(error(), "");
  config.experts.bias_rate = 0.1;
  EXPECT_NE(error().find("experts.bias_rate: is above 0"), std::string::npos) << error();
  config.experts.bias_rate = 0;
  config.run.device = "cuda";
  EXPECT_EQ(error(), "");
  config.run.gradient_wire = GradientWire::kInt8;
  EXPECT_NE(error().find("run.gradient_wire: is \"int8\""), std::string::npos) << error();
}

}  // namespace
}  // namespace plumb::configs

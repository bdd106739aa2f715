// run/roles/rank_start.h: ranks that were started otherwise than rank 0 are refused.
#include "run/roles/rank_start.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "tests/learner/rank_threads.h"

namespace plumb::run {
namespace {

// What each of three ranks throws where `change` makes rank 2's recipe another.
std::vector<std::string> ErrorsWhere(const std::function<void(configs::Config&)>& change) {
  std::vector<std::string> out;
  for (const auto& each : learner::TryAsRanks(3, [&](learner::Ranks* ranks) {
         configs::Config config;
         config.reward.parts.resize(1);
         if (ranks->rank() == 2) change(config);
         CheckSameRecipe(*ranks, config);
         ranks->Barrier();
       })) {
    try {
      if (each) std::rethrow_exception(each);
      out.emplace_back();
    } catch (const Error& e) {
      out.push_back(e.code() == ErrorCode::kInvalidArgument ? e.what() : "another error");
    }
  }
  return out;
}

TEST(CheckSameRecipe, NamesRankOptionAndBothValues) {
  const auto errors = ErrorsWhere([](configs::Config& config) {
    config.run.seed = 77;
    config.optimizer.beta1 = 0.5;
  });
  ASSERT_EQ(errors.size(), 3u);
  for (const std::string& error : errors) {
    EXPECT_EQ(error, errors[0]) << "all ranks say the same";
    EXPECT_NE(error.find("run.seed"), std::string::npos) << error;
    EXPECT_NE(error.find("is 77 for rank 2 and " + std::to_string(configs::Config().run.seed) +
                         " for rank 0"),
              std::string::npos)
        << error;
  }
  const auto parts =
      ErrorsWhere([](configs::Config& config) { config.reward.parts.emplace_back(); });
  EXPECT_NE(parts[0].find("for rank 2"), std::string::npos) << parts[0];
}

TEST(CheckSameRecipe, MachinesMayDiffer) {
  const auto errors = ErrorsWhere([](configs::Config& config) {
    config.run.out = "elsewhere";
    config.run.threads = 3;
    config.run.memory_gb = 5;
  });
  EXPECT_EQ(errors, std::vector<std::string>(3));
}

}  // namespace
}  // namespace plumb::run

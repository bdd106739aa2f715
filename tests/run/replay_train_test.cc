// Batches of on-policy and replayed groups ([replay], replay/table/step_planner.h), sampled
// prompts, and resuming over the store that the checkpoint was made with.
#include <gtest/gtest.h>

#include <filesystem>

#include "replay/table/step_planner.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using testing::Has;

std::vector<std::string> Mixed(std::vector<std::string> more = {}) {
  // A rate that does not depend on the number of steps: a part of a run is then what the whole run
  // does.
  std::vector<std::string> sets = {"--quiet",
                                   "--set",
                                   "optimizer.lr_schedule=constant",
                                   "--set",
                                   "optimizer.warmup_fraction=0",
                                   "--set",
                                   "replay.groups_per_step=2",
                                   "--set",
                                   "replay.max_age_steps=3",
                                   "--set",
                                   "replay.max_times_sampled=2",
                                   "--set",
                                   "replay.prompts=difficulty",
                                   "--set",
                                   "checkpoint.optimizer=always"};
  sets.insert(sets.end(), more.begin(), more.end());
  return sets;
}

TEST(ReplayTrainTest, MixedBatchesAreWeightedAndResumeBitForBit) {
  const TempFolder temp;
  const auto whole = testing::Train(temp / "whole", 8, Mixed());
  ASSERT_EQ(whole.code, 0) << whole.err;
  const auto lines = testing::Lines(temp / "whole" + "/metrics.jsonl");
  ASSERT_EQ(lines.size(), 8u);
  double total = 0;
  for (size_t step = 0; step < lines.size(); ++step) {
    const auto& line = lines[step];
    total += line["replay/groups"].get<double>();
    EXPECT_EQ(line["replay/groups"], step == 0 ? 0 : 2) << step;
    EXPECT_LE(line["offpolicy/staleness_max"].get<double>(), 3);
    // Four prompts, four answers of at most 12 tokens are what the step generated; replayed answers
    // are not counted again.
    EXPECT_LE(line["perf/generated_tokens"].get<double>(), 4 * 4 * 12);
    if (line["policy/updates"].get<double>() > 0) {
      EXPECT_GT(line["sampling/importance_ratio"].get<double>(), 0);
      EXPECT_LE(line["sampling/importance_ratio"].get<double>(), 2.0);  // algorithm.tis_cap
    }
  }
  EXPECT_EQ(total, 14);
  EXPECT_GT(lines.back()["offpolicy/staleness_max"].get<double>(), 0);
  const auto summary = nlohmann::json::parse(testing::Read(temp / "whole" + "/summary.json"));
  EXPECT_EQ(summary["counters"]["replay/drawn"], 14);

  ASSERT_EQ(testing::Train(temp / "parts", 5, Mixed()).code, 0);
  const auto resumed = testing::Train(temp / "parts", 8, Mixed({"--resume"}));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  testing::ExpectSameRun(temp / "whole", temp / "parts");

  // What is replayed matters: the same run without it ends elsewhere.
  ASSERT_EQ(
      testing::Train(temp / "plain", 8, {"--quiet", "--set", "replay.prompts=difficulty"}).code, 0);
  EXPECT_NE(
      nlohmann::json::parse(testing::Read(temp / "plain" + "/summary.json"))["weights_sha256"],
      summary["weights_sha256"]);
}

TEST(ReplayTrainTest, OptionsThatContradictAreSaidAtTheStart) {
  const TempFolder temp;
  const auto off = testing::Train(temp / "off", 2, Mixed({"--set", "algorithm.off_policy=off"}));
  EXPECT_EQ(off.code, 2);
  EXPECT_TRUE(Has(off.err, "importance weights")) << off.err;
  const auto name = testing::Train(temp / "name", 2, Mixed({"--set", "replay.sampler=lifo"}));
  EXPECT_EQ(name.code, 2);
  EXPECT_TRUE(Has(name.err, "replay.sampler")) << name.err;
}

TEST(ReplayTrainTest, AResumeOverAnotherStoreIsRefused) {
  const TempFolder temp;
  ASSERT_EQ(testing::Train(temp / "run", 4, {"--quiet"}).code, 0);
  std::filesystem::remove_all(temp / "run" + "/store");
  const auto resumed = testing::Train(temp / "run", 6, {"--quiet", "--resume"});
  EXPECT_EQ(resumed.code, 4) << resumed.err;
  EXPECT_TRUE(Has(resumed.err, "acknowledged groups are missing")) << resumed.err;
}

}  // namespace
}  // namespace plumb::run

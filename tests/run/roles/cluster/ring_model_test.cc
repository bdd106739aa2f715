#include "run/roles/cluster/ring_model.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

RingRates Rates() {
  return {.sync = true,
          .steps = 10,
          .groups = 64,
          .tokens = 64'000,
          .tokens_per_s = 1000,  // 64 s of one actor
          .reward_s = 8,
          .train_s = 4,
          .publish_s = 0.5,
          .latency_s = 0.25,
          .other_s = 0.25,
          .weight_bytes = 1e9,
          .group_bytes = 1e5,
          .disk_bytes_per_s = 1e9,
          .sync_s = 0.01,
          .network_bytes_per_s = 1e10};
}

TEST(RingModel, UnderSyncTimesAddUpAndUnderAsyncTheSlowestCounts) {
  RingRates rates = Rates();
  const RingTime sync = PredictStep(rates, {.actors = 4, .rewards = 1, .learners = 1});
  EXPECT_DOUBLE_EQ(sync.stage[0], 16) << "16 groups each";
  EXPECT_NEAR(sync.stage[3], 0.4, 0.01) << "four copies of the weights";
  EXPECT_NEAR(sync.step, 16 + 0.25 + sync.stage[3] + 4.75, 1e-9) << "rewards run beside it";
  EXPECT_EQ(RingTime::kStages[sync.bottleneck], std::string("generate"));
  rates.sync = false;
  const RingTime async = PredictStep(rates, {.actors = 16, .rewards = 1, .learners = 1});
  EXPECT_EQ(RingTime::kStages[async.bottleneck], std::string("reward"));
  EXPECT_DOUBLE_EQ(async.step, 8);
  EXPECT_EQ(RingTime::kStages[PredictStep(rates, {.actors = 16, .rewards = 8}).bottleneck],
            std::string("learner"));
}

TEST(RingModel, AnActorAnswersWholeGroupsAndMoreActorsThanGroupsAreIdle) {
  const RingRates rates = Rates();
  EXPECT_DOUBLE_EQ(PredictStep(rates, {.actors = 48}).stage[0], 2) << "some have two groups";
  const RingTime many = PredictStep(rates, {.actors = 1000});
  EXPECT_DOUBLE_EQ(many.stage[0], 1);
  EXPECT_EQ(many.idle_actors, 936);
  EXPECT_EQ(RingTime::kStages[many.bottleneck], std::string("transfer"))
      << "a thousand copies of a gigabyte through one network";
}

TEST(RingModel, MachinesGoWhereTheyHelpMost) {
  RingRates rates = Rates();
  rates.train_s = 400;
  rates.tokens = 64;
  EXPECT_GE(BestRing(rates, 64, 8).learners, 16) << "all the time is training's";
  rates = Rates();
  rates.train_s = 0.01;
  EXPECT_EQ(BestRing(rates, 8, 8).learners, 1) << "all the time is generation's";
  EXPECT_EQ(BestRing(rates, 8, 8).actors, 7);
}

// In a tree the head sends to so many, however many there are.
TEST(RingModel, ATreeSparesTheHeadsNetwork) {
  RingRates rates = Rates();
  rates.weight_bytes = 1e9;
  rates.network_bytes_per_s = 1e9;
  rates.groups = 1024;
  rates.group_bytes = 0;
  const auto transfer = [&](int64_t actors) {
    return PredictStep(rates, {.actors = actors}).stage[3];
  };
  EXPECT_DOUBLE_EQ(transfer(64), 64);
  rates.relay = 2;
  EXPECT_DOUBLE_EQ(transfer(1), 1);
  EXPECT_DOUBLE_EQ(transfer(2), 2);
  EXPECT_GT(transfer(64), 2);
  EXPECT_LT(transfer(64), 2.2) << "each level is an answer behind";
}

// One run's numbers, as it writes them: means of the steps behind the first.
TEST(RingModel, ReadsWhatARunMeasured) {
  const plumb::testing::TempFolder run;
  std::string lines =
      R"({"step":0,"time/step":100,"time/generate":90,"time/wait":90,"replay/bytes":1000,"replay/inserts":10})"
      "\n";
  for (int i = 1; i <= 2; ++i) {
    lines += R"({"step":)" + std::to_string(i) +
             R"(,"time/step":10,"time/wait":6.5,"time/generate":6,"time/reward":1,"time/train":2,)"
             R"("time/publish":0.5,"perf/decode_tokens_per_s":100,"replay/bytes":)" +
             std::to_string(1000 + 500 * i) + R"(,"replay/inserts":)" + std::to_string(10 + 5 * i) +
             "}\n";
  }
  RealFileSystem().WriteFileAtomic(run / "metrics.jsonl", lines);
  const RingRates rates = ReadRingRates(run.path(), run.path(), 1);
  EXPECT_EQ(rates.steps, 2);
  EXPECT_DOUBLE_EQ(rates.tokens, 600);
  EXPECT_DOUBLE_EQ(rates.tokens_per_s, 100);
  EXPECT_DOUBLE_EQ(rates.latency_s, 0.5);
  EXPECT_DOUBLE_EQ(rates.other_s, 1);
  EXPECT_DOUBLE_EQ(rates.group_bytes, 100);
  EXPECT_GT(rates.sync_s, 0);
  EXPECT_GT(rates.disk_bytes_per_s, 0);
  RingRates same = rates;
  same.groups = 4;
  EXPECT_NEAR(PredictStep(same, {}).step, 10, 0.5) << "the ring that was measured";
  EXPECT_THROW(ReadRingRates(run / "nothing", run.path(), 1), Error);
  RealFileSystem().WriteFileAtomic(run / "metrics.jsonl", "{}\n");
  EXPECT_THROW(ReadRingRates(run.path(), run.path(), 1), Error);
}

}  // namespace
}  // namespace plumb::run

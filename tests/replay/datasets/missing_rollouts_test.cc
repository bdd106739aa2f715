#include "replay/datasets/missing_rollouts.h"

#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

TEST(MissingRolloutsTest, WhatWasTrimmedIsToldFromWhatNeverWas) {
  TempFolder folder;
  auto store = OpenStore(folder / "s");
  EXPECT_TRUE(WhyNoRollouts(*store, Purpose::kTrain).starts_with("no rollouts were ever stored"));
  EXPECT_TRUE(WhyNoRollouts(*store, Purpose::kEval).starts_with("no evaluation was ever stored"));
  store->Insert(Answer(PlainLease(3), 7));
  store->Trim(Purpose::kTrain, 4);
  const std::string why = WhyNoRollouts(*store, Purpose::kTrain);
  EXPECT_NE(why.find("train with replay.keep_steps = -1"), std::string::npos) << why;
  EXPECT_EQ(why.find("samples.jsonl"), std::string::npos) << "a store that is in no run's folder";
  RealFileSystem().WriteFileAtomic(folder / "samples.jsonl", "{}\n");
  EXPECT_TRUE(WhyNoRollouts(*store, Purpose::kTrain)
                  .ends_with("two answers of a prompt every metrics.samples_every steps are in " +
                             (folder / "samples.jsonl")));
  EXPECT_TRUE(WhyNoRollouts(*store, Purpose::kEval).starts_with("no evaluation was ever stored"));
}

}  // namespace
}  // namespace plumb::replay

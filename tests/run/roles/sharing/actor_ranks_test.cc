// run/roles/sharing/actor_ranks.h: an actor of two processes answers as one of one process does, in
// a run; one of them that is killed comes back with the other.
#include "run/roles/sharing/actor_ranks.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run::testing {
namespace {

using plumb::testing::TempFolder;

TEST(ActorRanksTest, ARequestTravelsWhole) {
  actor::GenerateRequest r{.id = uint64_t{1} << 63 | 5,
                           .tokens = {1, -2, 30000},
                           .num_samples = 4,
                           .first_sample = 7,
                           .prompt_key = ~uint64_t{0},
                           .limit = 9};
  r.greedy_last = true;
  r.sampling = kernels::SamplingOptions{
      .temperature = 0.1f, .top_k = 3, .top_p = 0.7f, .min_p = 1e-3f, .seed = ~uint64_t{1}};
  const actor::GenerateRequest back = RequestOf(nlohmann::json::parse(ToJson(r).dump()));
  EXPECT_EQ(back.id, r.id);
  EXPECT_EQ(back.tokens, r.tokens);
  EXPECT_EQ(back.num_samples, 4);
  EXPECT_EQ(back.first_sample, 7u);
  EXPECT_EQ(back.prompt_key, r.prompt_key);
  EXPECT_EQ(back.limit, 9);
  EXPECT_TRUE(back.greedy_last);
  EXPECT_EQ(back.sampling, r.sampling);
}

TEST(ActorRanksTest, TwoProcessesAnswerAsOne) {
  const TempFolder temp;
  const std::vector<std::string> processes = {"--roles", "processes"};
  std::vector<std::string> two = processes;
  two.insert(two.end(), {"--set", "rollout.tp=2"});
  ASSERT_EQ(TrainInProgram(temp / "one", 3, processes), 0) << Read(temp / "one.out");
  ASSERT_EQ(TrainInProgram(temp / "two", 3, two), 0) << Read(temp / "two.out");
  const auto x = Lines(temp / "one/metrics.jsonl"), y = Lines(temp / "two/metrics.jsonl");
  ASSERT_EQ(x.size(), y.size());
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(x[i]["reward/mean"], y[i]["reward/mean"]) << i;
    EXPECT_NEAR(x[i]["policy/loss"].get<double>(), y[i]["policy/loss"].get<double>(), 1e-5) << i;
    EXPECT_LT(y[i]["sampling/logprob_diff_max"].get<double>(), 1e-4) << i;
  }
  const auto a = Lines(temp / "one/samples.jsonl"), b = Lines(temp / "two/samples.jsonl");
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i]["completion"], b[i]["completion"]) << i;
  EXPECT_NE(Read(temp / "two/logs/actor-0-1.log").find("rank 1 of 2"), std::string::npos);
}

TEST(ActorRanksTest, OneThatIsKilledComesBackWithTheOther) {
  const TempFolder temp;
  const std::string out = temp / "run";
  const pid_t run = StartProgram(
      TrainLine(out, 12,
                {"--roles", "processes", "--set", "rollout.tp=2", "--set", "run.stall_seconds=60"}),
      out);
  const auto steps = [&] {
    return RealFileSystem().Exists(out + "/metrics.jsonl") ? Lines(out + "/metrics.jsonl").size()
                                                           : 0;
  };
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (steps() < 2 && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const auto pids = nlohmann::json::parse(Read(out + "/pids.json"));
  ASSERT_TRUE(pids.contains("actor-0-1")) << pids.dump();
  kill(pids["actor-0-1"].get<pid_t>(), SIGKILL);
  int status = 0;
  waitpid(run, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0) << Read(out + ".out");
  EXPECT_EQ(steps(), 12u);
  EXPECT_NE(Read(out + ".out").find("roles started again: 1"), std::string::npos)
      << Read(out + ".out");
}

TEST(ActorRanksTest, WhatIsNotSharedIsRefusedBeforeTheRunBegins) {
  const TempFolder temp;
  EXPECT_NE(TrainInProgram(temp / "run", 1, {"--roles", "processes", "--set", "rollout.tp=3"}), 0);
  EXPECT_NE(Read(temp / "run.out").find("rollout.tp"), std::string::npos) << Read(temp / "run.out");
}

}  // namespace
}  // namespace plumb::run::testing

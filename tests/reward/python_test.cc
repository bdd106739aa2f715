// Python reward functions of TRL, verl and OpenRLHF run unchanged (reward/python.h, python_runner.py).
#include "reward/python.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/reward/testing.h"
#include "tests/testing/temp_folder.h"

namespace plumb::reward {
namespace {

class PythonReward : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::system("python3 -c 'import json' > /dev/null 2>&1") != 0) {
      GTEST_SKIP() << "NOT TESTED: python3 is not here, rewards in Python are not shown to work";
    }
  }
  static configs::RewardConfig Config(const std::string& path, std::vector<std::string> args = {}) {
    configs::RewardConfig config;
    config.parts = {TestPart("python", std::string(PLUMB_SOURCE_DIR "/") + path, std::move(args))};
    config.retries = 0;
    return config;
  }
};

TEST_F(PythonReward, Trl) {
  GroupScorer scorer(Config("examples/rewards/trl_reward.py"), TestHost());
  TrajectoryGroup group = TestGroup({"it is 12", "it is 13", "no"}, "12", R"({"subject":"maths"})");
  for (int round = 0; round < 2; ++round) {
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    EXPECT_EQ(group.trajectories[0].reward, 1);
    EXPECT_EQ(group.trajectories[1].reward, 0.2);
    EXPECT_EQ(group.trajectories[2].reward, 0);
  }
  // Conversational: completions are message lists, as TRL gives them.
  group.lease.prompt.text.clear();
  group.lease.prompt.messages = {{"user", "What is it?"}};
  ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
  EXPECT_EQ(group.trajectories[0].reward, 1);
  // None: not applicable.
  TrajectoryGroup none = TestGroup({"x"}, "");
  EXPECT_EQ(scorer.ScoreGroup(none), Outcome::kDropGroup);
  EXPECT_NE(none.trajectories[0].unscored_reason.find("applies"), std::string::npos);
}

TEST_F(PythonReward, Verl) {
  GroupScorer scorer(Config("examples/rewards/verl_reward.py"), TestHost());
  TrajectoryGroup group = TestGroup({"so 7", "so it must be 7", "8"}, "7",
                                    R"({"data_source":"gsm8k","extra_info":{"max_chars":10}})");
  ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
  EXPECT_EQ(group.trajectories[0].reward, 1);
  EXPECT_EQ(group.trajectories[1].reward, 0.5);
  EXPECT_EQ(group.trajectories[2].reward, 0);
  ASSERT_EQ(group.trajectories[1].rewards.size(), 3u);
  EXPECT_EQ(group.trajectories[1].rewards[1].name, "code.right");
  EXPECT_EQ(group.trajectories[1].rewards[1].value, 1);
}

TEST_F(PythonReward, OpenRlhf) {
  GroupScorer scorer(Config("examples/rewards/openrlhf_reward.py"), TestHost());
  TrajectoryGroup group = TestGroup({"7", "8"}, "7");
  ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
  EXPECT_EQ(group.trajectories[0].reward, 1);
  EXPECT_EQ(group.trajectories[1].reward, -1);
  EXPECT_EQ(group.trajectories[0].rewards[1].name, "code.length");
  EXPECT_EQ(group.trajectories[0].rewards[1].value, 12) << "queries are prompt and answer";
}

// The same functions, called by their own framework's rules in a plain Python: every bit of every number has to agree.
TEST_F(PythonReward, NumbersEqualThoseOfADirectCall) {
  struct Case {
    const char *file, *style, *function;
  };
  const std::vector<std::string> answers = {
      "<think>2 + 2</think>\n<answer>4</answer>", "<answer>5</answer>", "the sum is 4", "4", "-3.5 or so", "", "no number \xc3\xa9",
      "<think>long</think> <answer> 4 </answer>"};
  const std::string extra = R"({"data_source":"hard","extra_info":{"max_chars":37},"max_words":9})";
  for (const Case& c :
       {Case{"trl_chat.py", "trl", "format_reward"}, Case{"trl_chat.py", "trl", "accuracy_reward"},
        Case{"trl_chat.py", "trl", "length_reward"}, Case{"trl_chat.py", "trl", "uneven_reward"},
        Case{"verl_math.py", "verl", "compute_score"}, Case{"verl_math.py", "verl", "compute_score_plain"},
        Case{"openrlhf_length.py", "openrlhf", "reward_func"}}) {
    const std::string file = std::string("tests/reward/python/functions/") + c.file;
    auto config = Config(file, {std::string("function=") + c.function});
    GroupScorer scorer(config, TestHost());
    TrajectoryGroup group = TestGroup(answers, "4", extra);
    const bool chat = std::string(c.style) == "trl";
    nlohmann::json direct = {{"prompt", group.lease.prompt.text}, {"completions", answers}, {"ground_truth", "4"},
                             {"extra", nlohmann::json::parse(extra)}, {"messages", {{{"role", "user"}, {"content", "What is it?"}}}}};
    if (chat) {
      group.lease.prompt.text.clear();
      group.lease.prompt.messages = {{"user", "What is it?"}};
    }
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << c.function << ": " << group.trajectories[0].unscored_reason;
    const plumb::testing::TempFolder temp;
    { std::ofstream(temp / "group.json") << direct.dump(); }
    const std::string command = "python3 " PLUMB_SOURCE_DIR "/tests/reward/python/direct.py " PLUMB_SOURCE_DIR "/" + file + " " +
                                c.style + " " + c.function + " < " + (temp / "group.json") + " > " + (temp / "out.json");
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
    std::ifstream out(temp / "out.json");
    const nlohmann::json want = nlohmann::json::parse(out);
    ASSERT_EQ(want.size(), answers.size());
    for (size_t i = 0; i < answers.size(); ++i) {
      EXPECT_EQ(group.trajectories[i].reward, want[i].get<double>()) << c.function << " of '" << answers[i] << "'";
    }
  }
}

TEST_F(PythonReward, MisbehaviourIsNamedAndNeverANumber) {
  struct Case {
    const char *function, *kind, *says;
  };
  for (const Case& c : {Case{"raises", "reported", "ValueError: no idea"}, Case{"too_few", "wrong_count", "1 scores for 2"},
                        Case{"not_a_number", "not_finite", "NaN"}, Case{"text", "bad_reply", "str"},
                        Case{"leaves", "exit", "exit(0)"}, Case{"leaves_hard", "exit", "exit code 0"},
                        Case{"hangs", "timeout", "deadline"}, Case{"greedy", "memory", "MemoryError"}}) {
    Notices notices;
    auto config = Config("tests/reward/python/hostile.py", {std::string("function=") + c.function});
    if (std::string(c.kind) == "timeout") config.parts[0].timeout_s = 1;
    GroupScorer scorer(config, TestHost());
    TrajectoryGroup group = TestGroup({"a", "b"});
    EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kDropGroup) << c.function;
    EXPECT_EQ(scorer.Counters().count(std::string("reward/failed/code/") + c.kind), 1u) << c.function;
    EXPECT_NE(group.trajectories[0].unscored_reason.find(c.says), std::string::npos)
        << group.trajectories[0].unscored_reason;
  }
}

TEST_F(PythonReward, PrintingAndCoroutines) {
  Notices notices;
  for (const auto& [function, want] : {std::pair{"function=prints", 0.25}, std::pair{"function=later", 0.75}}) {
    GroupScorer scorer(Config("tests/reward/python/hostile.py", {function}), TestHost());
    TrajectoryGroup group = TestGroup({"a", "b"});
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    EXPECT_EQ(group.trajectories[1].reward, want);
  }
}

TEST_F(PythonReward, RefusesBeforeTheRunBegins) {
  struct Case {
    const char* path;
    std::vector<std::string> args;
    const char* says;
  };
  for (const Case& c : {Case{"tests/reward/python/hostile.py", {}, "function=NAME"},
                        Case{"tests/reward/python/hostile.py", {"function=nope"}, "no function nope"},
                        Case{"tests/reward/python/absent.py", {}, "no such Python file"},
                        Case{"README-absent", {"style=other"}, "style=auto|trl"},
                        Case{"tests/CMakeLists.txt", {}, "AttributeError"}}) {
    try {
      GroupScorer scorer(Config(c.path, c.args), TestHost());
      ADD_FAILURE() << c.path;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(c.says), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace plumb::reward

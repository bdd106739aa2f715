// Python reward functions of TRL, verl and OpenRLHF run unchanged (reward/doors/python.h,
// python_runner.py).
#include "reward/doors/python.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

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
  // One that was written for texts is told so.
  GroupScorer texts(Config("tests/reward/python/hostile.py", {"function=of_texts"}), TestHost());
  EXPECT_EQ(texts.ScoreGroup(group), Outcome::kUnscored);
  EXPECT_NE(group.trajectories[0].unscored_reason.find("its text is completion[0][\"content\"]"),
            std::string::npos)
      << group.trajectories[0].unscored_reason;
  // Or is given them, where the recipe says so.
  GroupScorer given(
      Config("tests/reward/python/hostile.py", {"function=of_texts", "completions=text"}),
      TestHost());
  EXPECT_EQ(given.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
  EXPECT_NE(given.Digests(), texts.Digests());
  // None: not applicable.
  TrajectoryGroup none = TestGroup({"x"}, "");
  EXPECT_EQ(scorer.ScoreGroup(none), Outcome::kUnscored);
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

TEST_F(PythonReward, AFileThatIsNotReadInTimeIsToldWhatTookIt) {
  const testing::TempFolder folder;
  const std::string file = folder / "slow.py";
  RealFileSystem().WriteFileAtomic(
      file, "import time\ntime.sleep(60)\n\n\ndef f(completions): return [0]\n");
  HostOptions host = TestHost();
  host.start_grace = std::chrono::seconds(1);
  configs::RewardConfig config = Config("");
  config.parts[0].path = file;
  try {
    const GroupScorer scorer(config, host);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("did not get ready: its start, with all that it imports, took "
                               "more than 1 s"),
              std::string::npos)
        << e.message();
  }
}

// "" is in every text: a row without an answer gave each of its answers the full score.
TEST_F(PythonReward, ARowWithoutAnAnswerHasNoneAndTheFunctionSaysThatItTakesOne) {
  const std::string file = "tests/reward/python/functions/trl_inclusion.py";
  GroupScorer scorer(Config(file), TestHost());
  EXPECT_EQ(scorer.Truths(),
            (std::vector<std::vector<TruthName>>{{{"answer", /*required=*/true}}}));
  TrajectoryGroup with = TestGroup({"it is 12", "no"}, "12"), without = TestGroup({"it is 12"}, "");
  ASSERT_EQ(scorer.ScoreGroup(with), Outcome::kScored) << with.trajectories[0].unscored_reason;
  EXPECT_EQ(with.trajectories[0].reward, 1);
  EXPECT_EQ(with.trajectories[1].reward, 0);
  EXPECT_EQ(scorer.ScoreGroup(without), Outcome::kUnscored) << without.trajectories[0].reward;
  const auto truths = [](const std::string& path, std::vector<std::string> args) {
    return GroupScorer(Config(path, std::move(args)), TestHost()).Truths().at(0);
  };
  EXPECT_TRUE(truths(file, {R"(kwargs={"answer": ["4"]})"}).empty()) << "the recipe gives it";
  EXPECT_TRUE(truths("tests/reward/python/functions/trl_api.py", {"function=half_of"}).empty());
  EXPECT_EQ(truths("examples/rewards/verl_reward.py", {}),
            (std::vector<TruthName>{{"ground_truth", /*required=*/false}}));
}

// The same functions, called by their own framework's rules in a plain Python: every bit of every
// number has to agree.
TEST_F(PythonReward, NumbersEqualThoseOfADirectCall) {
  struct Case {
    const char *file, *style, *function;
  };
  const std::vector<std::string> answers = {"<think>2 + 2</think>\n<answer>4</answer>",
                                            "<answer>5</answer>",
                                            "the sum is 4",
                                            "4",
                                            "-3.5 or so",
                                            "",
                                            "no number \xc3\xa9",
                                            "<think>long</think> <answer> 4 </answer>"};
  const std::string extra = R"({"data_source":"hard","extra_info":{"max_chars":37},"max_words":9})";
  for (const Case& c :
       {Case{"trl_chat.py", "trl", "format_reward"}, Case{"trl_chat.py", "trl", "accuracy_reward"},
        Case{"trl_chat.py", "trl", "length_reward"}, Case{"trl_chat.py", "trl", "uneven_reward"},
        Case{"verl_math.py", "verl", "compute_score"},
        Case{"verl_math.py", "verl", "compute_score_plain"},
        Case{"openrlhf_length.py", "openrlhf", "reward_func"}}) {
    const std::string file = std::string("tests/reward/python/functions/") + c.file;
    auto config = Config(file, {std::string("function=") + c.function});
    GroupScorer scorer(config, TestHost());
    TrajectoryGroup group = TestGroup(answers, "4", extra);
    const bool chat = std::string(c.style) == "trl";
    nlohmann::json direct = {{"prompt", group.lease.prompt.text},
                             {"completions", answers},
                             {"ground_truth", "4"},
                             {"extra", nlohmann::json::parse(extra)},
                             {"messages", {{{"role", "user"}, {"content", "What is it?"}}}}};
    if (chat) {
      group.lease.prompt.text.clear();
      group.lease.prompt.messages = {{"user", "What is it?"}};
    }
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored)
        << c.function << ": " << group.trajectories[0].unscored_reason;
    const plumb::testing::TempFolder temp;
    { std::ofstream(temp / "group.json") << direct.dump(); }
    const std::string command = "python3 " PLUMB_SOURCE_DIR
                                "/tests/reward/python/direct.py " PLUMB_SOURCE_DIR "/" +
                                file + " " + c.style + " " + c.function + " < " +
                                (temp / "group.json") + " > " + (temp / "out.json");
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
    std::ifstream out(temp / "out.json");
    const nlohmann::json want = nlohmann::json::parse(out);
    ASSERT_EQ(want.size(), answers.size());
    for (size_t i = 0; i < answers.size(); ++i) {
      EXPECT_EQ(group.trajectories[i].reward, want[i].get<double>())
          << c.function << " of '" << answers[i] << "'";
    }
  }
}

// ---- what the frameworks hand over beside texts ----

TEST_F(PythonReward, TrlTokensStateLoggersAndColumns) {
  const std::string file = "tests/reward/python/functions/trl_api.py";
  TrajectoryGroup group = TestGroup({"12", "13"}, "12");
  group.policy.version = 7;
  group.trajectories[1].tokens = {1, 2, 3, 4, 5};
  group.trajectories[1].segments = {{Origin::kPrompt, 0, 1}, {Origin::kPolicy, 1, 5}};
  {
    GroupScorer scorer(Config(file, {"function=overlong"}), TestHost());
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    EXPECT_EQ(group.trajectories[0].reward, -0.25) << "two tokens of its own";
    EXPECT_EQ(group.trajectories[1].reward, -0.75);
  }
  {
    Notices notices;
    GroupScorer scorer(Config(file, {"function=logging_reward"}), TestHost());
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    const std::vector<RewardPart>& parts = group.trajectories[0].rewards;
    ASSERT_EQ(parts.size(), 3u);
    EXPECT_EQ(parts[0].value, 1) << "the truth under the name of its column";
    EXPECT_EQ(parts[1].name + " " + parts[2].name, "code.size code.step");
    EXPECT_EQ(parts[1].value, 2);
    EXPECT_EQ(parts[2].value, 7);
    EXPECT_EQ(group.trajectories[1].reward, 0);
    // What the worker writes to its standard error arrives beside its answer.
    const auto said = [&] {
      return notices.text().find("logged 'words' is not kept") != std::string::npos;
    };
    for (int i = 0; i < 500 && !said(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_TRUE(said()) << notices.text();
  }
  {
    GroupScorer scorer(Config(file, {"function=half_of", "kwargs={\"share\": 0.5}"}), TestHost());
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    EXPECT_EQ(group.trajectories[1].reward, 0.5);
    EXPECT_NE(scorer.Digests()[0].second,
              GroupScorer(Config(file, {"function=half_of"}), TestHost()).Digests()[0].second);
  }
  {
    Notices notices;
    GroupScorer scorer(Config(file, {"function=wants_state"}), TestHost());
    EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored);
    EXPECT_NE(group.trajectories[0].unscored_reason.find("trainer_state has no epoch here"),
              std::string::npos)
        << group.trajectories[0].unscored_reason;
  }
  {
    GroupScorer scorer(Config(file, {"function=with_session"}), TestHost());
    for (int call = 0; call < 2; ++call) {
      ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored)
          << call << ": " << group.trajectories[0].unscored_reason;
      EXPECT_EQ(group.trajectories[1].reward, 2);
    }
  }
  {
    Notices notices;
    // as a text-only worker gets them
    for (Trajectory& t : group.trajectories) t.tokens.clear(), t.segments.clear();
    GroupScorer scorer(Config(file, {"function=overlong"}), TestHost());
    EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored);
    EXPECT_NE(group.trajectories[0].unscored_reason.find("wants completion_ids"), std::string::npos)
        << group.trajectories[0].unscored_reason;
  }
}

// TRL and verl decode without special tokens, OpenRLHF with them; a chat's prompt is what the model
// read.
TEST_F(PythonReward, TextIsWhatTheFrameworkWouldDecode) {
  HostOptions host = TestHost();
  host.decode = [](std::span<const int32_t> tokens, bool skip_special) {
    std::string text;
    for (const int32_t token : tokens) {
      if (token == 9) text += skip_special ? "" : "<eos>";
      else if (token == 8) text += skip_special ? "q" : "<user>q";
      else text += std::to_string(token);
    }
    return text;
  };
  TrajectoryGroup group = TestGroup({"47<eos>", "<eos>42<eos>"}, "47<eos>");
  group.lease.prompt.text.clear();
  group.lease.prompt.messages = {{"user", "q"}};
  for (size_t i = 0; i < 2; ++i) {
    Trajectory& t = group.trajectories[i];
    t.tokens = i == 0 ? std::vector<int32_t>{8, 4, 7, 9} : std::vector<int32_t>{8, 9, 4, 2, 9};
    t.segments = {{Origin::kPrompt, 0, 1},
                  {Origin::kPolicy, 1, static_cast<int32_t>(t.tokens.size())}};
  }
  {
    GroupScorer scorer(Config("tests/reward/python/functions/openrlhf_names.py"), host);
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    EXPECT_EQ(group.trajectories[0].reward, 1) << "prompt and answer with their special tokens";
    EXPECT_EQ(group.trajectories[1].reward, 0);
    ASSERT_EQ(group.trajectories[1].rewards.size(), 3u);
    EXPECT_EQ(group.trajectories[1].rewards[1].name, "code.accuracy");
    EXPECT_EQ(group.trajectories[1].rewards[1].value, 0.5) << "one number for all answers";
    EXPECT_EQ(group.trajectories[1].rewards[2].value, 1) << "the chat template's text, not JSON";
  }
  {
    GroupScorer scorer(Config("tests/reward/python/functions/verl_forms.py",
                              {"function=batch", "kwargs={\"bonus\": 10}"}),
                       host);
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    EXPECT_EQ(group.trajectories[0].reward, 12);
    EXPECT_EQ(group.trajectories[1].reward, 12) << "special tokens are left out everywhere";
  }
  {
    GroupScorer scorer(Config("tests/reward/python/functions/verl_forms.py", {"function=batch"}),
                       TestHost());
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    EXPECT_EQ(group.trajectories[0].reward, 2) << "without a tokenizer the known ones at the end";
  }
}

TEST_F(PythonReward, FormsOfVerl) {
  const std::string file = "tests/reward/python/functions/verl_forms.py";
  {
    GroupScorer scorer(Config(file, {"function=together"}), TestHost());
    TrajectoryGroup group = TestGroup({"a", "bb", "ccc", "dddd"});
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    EXPECT_EQ(group.trajectories[3].reward, 4);
  }
  {
    GroupScorer scorer(Config(file, {"function=in_targets"}), TestHost());
    TrajectoryGroup group =
        TestGroup({"a", "c"}, R"({"target":["a","b"]})",
                  R"({"reward_model":{"style":"rule","ground_truth":{"target":["a","b"]}}})");
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    EXPECT_EQ(group.trajectories[0].reward, 1);
    EXPECT_EQ(group.trajectories[1].reward, 0);
  }
  {
    GroupScorer scorer(Config(file, {"function=first_of_two"}), TestHost());
    TrajectoryGroup group = TestGroup({"a"});
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    EXPECT_EQ(group.trajectories[0].reward, 0.75);
  }
  {
    Notices notices;
    auto config = Config(file, {"function=raises_on_b"});
    config.on_failure = configs::OnFailure::kPenalty;
    config.penalty = -3;
    GroupScorer scorer(config, TestHost());
    TrajectoryGroup group = TestGroup({"a", "b", "c"});
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    EXPECT_EQ(group.trajectories[0].reward, 1);
    EXPECT_EQ(group.trajectories[1].reward, -3) << "one answer's exception is that answer's";
    EXPECT_EQ(group.trajectories[2].reward, 1);
  }
}

// TRL's list of functions with weights: nansum(weight * reward), None left out.
TEST_F(PythonReward, SeveralFunctionsWithWeights) {
  auto config = Config("tests/reward/python/functions/trl_api.py", {"function=only_some"});
  config.parts[0].name = "some", config.parts[0].weight = 2;
  config.parts.push_back(config.parts[0]);
  config.parts[1].name = "size", config.parts[1].weight = 0.25,
  config.parts[1].args = {"function=with_session"};
  GroupScorer scorer(config, TestHost());
  TrajectoryGroup group = TestGroup({"four", "why?"});
  ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
  EXPECT_EQ(group.trajectories[0].reward, 2 * 0.5 + 0.25 * 4);
  EXPECT_EQ(group.trajectories[1].reward, 0.25 * 4);
  EXPECT_EQ(group.trajectories[1].rewards.size(), 1u) << "only what applies";
}

// Also under /tmp, which is another one in there: the environment's folder comes along.
TEST_F(PythonReward, AVirtualEnvironmentIsTheOneThatIsNamed) {
  const plumb::testing::TempFolder temp;
  if (std::system(
          ("python3 -m venv --without-pip " + (temp / "env") + " > /dev/null 2>&1").c_str()) != 0) {
    GTEST_SKIP() << "NOT TESTED: python3 -m venv does not work here";
  }
  std::filesystem::create_directory(temp / "code");
  std::ofstream(temp / "code/reward.py")
      << "import only_there\n\n"
         "def compute_score(solution_str):\n    return only_there.VALUE\n"
      << std::flush;
  const std::string site = "$(echo " + (temp / "env") + "/lib/python3*/site-packages)";
  ASSERT_EQ(std::system(("echo 'VALUE = 0.375' > " + site + "/only_there.py").c_str()), 0);
  configs::RewardConfig config;
  config.parts = {
      TestPart("python", temp / "code/reward.py", {"python=" + (temp / "env/bin/python3")})};
  GroupScorer scorer(config, TestHost());
  TrajectoryGroup group = TestGroup({"a"});
  ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
  EXPECT_EQ(group.trajectories[0].reward, 0.375);
}

// The functions that the frameworks ship, where they are installed; CONTRIBUTING.md says how.
TEST_F(PythonReward, InstalledFunctionsOfTrlVerlAndOpenRlhf) {
  const char* python = std::getenv("PLUMB_TEST_FRAMEWORKS_PYTHON");
  if (python == nullptr)
    GTEST_SKIP()
        << "NOT TESTED: PLUMB_TEST_FRAMEWORKS_PYTHON names no interpreter with trl or verl";
  const std::string list =
      std::string("'") + python + "' " PLUMB_SOURCE_DIR "/tests/reward/python/installed.py ";
  const plumb::testing::TempFolder temp;
  ASSERT_EQ(std::system((list + temp.path() + " > " + (temp / "cases.json")).c_str()), 0) << list;
  std::ifstream in(temp / "cases.json");
  const nlohmann::json cases = nlohmann::json::parse(in);
  ASSERT_GT(cases.size(), 0u) << "neither trl nor verl is installed for " << python;
  for (const nlohmann::json& c : cases) {
    configs::RewardConfig config;
    const std::string function = c["function"];
    config.parts = {
        TestPart("python", c["file"], {"function=" + function, std::string("python=") + python})};
    config.parts[0].memory_mb = 65536;  // torch
    config.retries = 0;
    GroupScorer scorer(config, TestHost());
    TrajectoryGroup group = TestGroup(c["completions"], c["ground_truth"]);
    group.lease.prompt.text = c["chat"] ? "" : "What is it?";
    if (c["chat"]) group.lease.prompt.messages = {{"user", "What is it?"}};
    for (size_t i = 0; i < group.trajectories.size(); ++i) {
      Trajectory& t = group.trajectories[i];
      t.tokens = {1};
      for (const int32_t id : c["completion_ids"][i]) t.tokens.push_back(id);
      t.segments = {{Origin::kPrompt, 0, 1},
                    {Origin::kPolicy, 1, static_cast<int32_t>(t.tokens.size())}};
    }
    const std::string who = c["file"].get<std::string>() + " " + function;
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored)
        << who << ": " << group.trajectories[0].unscored_reason;
    for (size_t i = 0; i < group.trajectories.size(); ++i) {
      EXPECT_EQ(group.trajectories[i].reward, c["expected"][i].get<double>())
          << who << " of " << c["completions"][i];
    }
  }
}

TEST_F(PythonReward, MisbehaviourIsNamedAndNeverANumber) {
  struct Case {
    const char *function, *kind, *says;
  };
  for (const Case& c :
       {Case{"raises", "reported", "ValueError: no idea (hostile.py:8 in raises)"},
        Case{"lacks", "reported",
             "TypeError: missing a required argument: 'nocolumn'; what the function may take "
             "here: "},
        Case{"nothing", "bad_reply", "returned nothing where a list of 2 scores belongs"},
        Case{"too_few", "wrong_count", "returned 1 score for 2 answers"},
        Case{"not_a_number", "not_finite", "NaN"}, Case{"text", "bad_reply", "str"},
        Case{"leaves", "exit", "exit(0)"}, Case{"leaves_hard", "exit", "exit code 0"},
        Case{"hangs", "timeout", "the part's timeout_s = 1 is the limit"},
        Case{"greedy", "memory", "MemoryError"}}) {
    if (!kMemoryLimited && std::string(c.kind) == "memory") continue;
    Notices notices;
    auto config = Config("tests/reward/python/hostile.py", {std::string("function=") + c.function});
    if (std::string(c.kind) == "timeout") config.parts[0].timeout_s = 1;
    GroupScorer scorer(config, TestHost());
    TrajectoryGroup group = TestGroup({"a", "b"});
    EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored) << c.function;
    EXPECT_EQ(scorer.Counters().count(std::string("reward/failed/code/") + c.kind), 1u)
        << c.function;
    EXPECT_NE(group.trajectories[0].unscored_reason.find(c.says), std::string::npos)
        << group.trajectories[0].unscored_reason;
  }
}

TEST_F(PythonReward, PrintingAndCoroutines) {
  Notices notices;
  for (const auto& [function, want] :
       {std::pair{"function=prints", 0.25}, std::pair{"function=later", 0.75}}) {
    GroupScorer scorer(Config("tests/reward/python/hostile.py", {function}), TestHost());
    TrajectoryGroup group = TestGroup({"a", "b"});
    ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
    EXPECT_EQ(group.trajectories[1].reward, want);
  }
  // What print() says is no error.
  for (int i = 0; i < 500 && notices.text().find("' printed ") == std::string::npos; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_NE(notices.text().find("'code' printed "), std::string::npos) << notices.text();
  EXPECT_EQ(notices.text().find("stderr"), std::string::npos) << notices.text();
}

TEST_F(PythonReward, RefusesBeforeTheRunBegins) {
  struct Case {
    const char* path;
    std::vector<std::string> args;
    const char* says;
  };
  for (const Case& c :
       {Case{"tests/reward/python/hostile.py", {}, "say which: args = [\"function=NAME\"]"},
        Case{"tests/reward/python/hostile.py", {"function=nope"}, "no function nope; it has "},
        Case{"tests/reward/python/hostile.py", {"function=nope"}, "raises, "},
        Case{"tests/reward/python/absent.py", {}, "no such Python file"},
        Case{"README-absent", {"style=other"}, "style=auto|trl"},
        Case{"examples/rewards/verl_reward.py", {"kwargs={\"strict\": 1}"}, "no parameter strict"},
        Case{"examples/rewards/verl_reward.py", {"kwargs=[1]"}, "kwargs= is no JSON object"},
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

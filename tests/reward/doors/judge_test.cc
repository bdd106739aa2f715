// A judge behind an OpenAI-compatible endpoint (reward/doors/judge.h).
#include "reward/doors/judge.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/reward/testing.h"
#include "tests/testing/http_server.h"

namespace plumb::reward {
namespace {

using Json = nlohmann::json;
using plumb::testing::HttpOk;
using plumb::testing::HttpRequest;
using plumb::testing::HttpServer;

configs::RewardPartConfig JudgePart(const std::string& endpoint) {
  auto part = TestPart("judge");
  part.endpoint = endpoint;
  part.model = "critic-7b";
  return part;
}

configs::RewardConfig Config(const configs::RewardPartConfig& part) {
  configs::RewardConfig config;
  config.parts = {part};
  config.retries = 0;
  return config;
}

std::string Says(const std::string& words) {
  return HttpOk(
      Json{{"choices", {{{"message", {{"role", "assistant"}, {"content", words}}}}}}}.dump());
}

TEST(Judge, AsksInTheFormOfTheEndpointAndScales) {
  ::setenv("PLUMB_TEST_JUDGE_KEY", "sk-judge", 1);
  Json seen;
  std::string head;
  HttpServer server([&](const HttpRequest& request) {
    seen = Json::parse(request.body);
    head = request.head;
    return Says("First I thought Score: 2.\nBut no.\n**Score: 7**");
  });
  auto part = JudgePart(server.url());
  part.api_key_env = "PLUMB_TEST_JUDGE_KEY";
  GroupScorer scorer(Config(part));
  TrajectoryGroup group = TestGroup({"It is 4.<|im_end|>"}, "4");
  ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
  EXPECT_EQ(group.trajectories[0].reward, 0.7);
  EXPECT_EQ(head.rfind("POST /v1/chat/completions HTTP/1.1", 0), 0u) << head;
  EXPECT_NE(head.find("Authorization: Bearer sk-judge"), std::string::npos);
  EXPECT_EQ(seen["model"], "critic-7b");
  EXPECT_EQ(seen["temperature"], 0);
  EXPECT_EQ(seen["max_tokens"], 1024);
  ASSERT_EQ(seen["messages"].size(), 1u);
  EXPECT_EQ(seen["messages"][0]["role"], "user");
  const std::string asked = seen["messages"][0]["content"];
  EXPECT_NE(asked.find("<question>\nWhat is it?\n"), std::string::npos);
  EXPECT_NE(asked.find("<answer>\nIt is 4.\n"), std::string::npos) << "without special tokens";
  EXPECT_NE(asked.find("<reference>\n4\n"), std::string::npos);
}

TEST(Judge, OwnTemplateRegexAndScale) {
  HttpServer server([&](const HttpRequest& request) {
    EXPECT_EQ(Json::parse(request.body)["messages"][0]["content"], "Rate: it. Q: What is it?");
    return Says("grade=4/5");
  });
  auto part = JudgePart(server.url("/v1/"));
  part.judge_prompt = "Rate: {completion}. Q: {prompt}";
  part.score_regex = "grade=(\\d)";
  part.scale = 5;
  GroupScorer scorer(Config(part));
  TrajectoryGroup group = TestGroup({"it"});
  ASSERT_EQ(scorer.ScoreGroup(group), Outcome::kScored) << group.trajectories[0].unscored_reason;
  EXPECT_EQ(group.trajectories[0].reward, 0.8);
  part.score_regex.clear();  // then the last number of the text: the 5
  GroupScorer last(Config(part));
  ASSERT_EQ(last.ScoreGroup(group), Outcome::kScored);
  EXPECT_EQ(group.trajectories[0].reward, 1);
}

TEST(Judge, WhatIsPutInIsNotReadAgain) {
  Prompt prompt;
  prompt.text = "{completion}";
  prompt.ground_truth = "{prompt}";
  EXPECT_EQ(
      FillJudgePrompt("{prompt}|{completion}|{ground_truth}|{other}", prompt, "{ground_truth}"),
      "{completion}|{ground_truth}|{prompt}|{other}");
}

TEST(Judge, NoScoreIsAFailureAndNeverANumber) {
  struct Case {
    const char *words, *kind;
  };
  for (const Case& c :
       {Case{"I cannot tell.", "bad_reply"}, Case{"Score: ten", "bad_reply"},
        Case{"Score: 11", "bad_reply"}, Case{"Score: -1", "bad_reply"}, Case{"", "bad_reply"}}) {
    Notices notices;
    HttpServer server([&](const HttpRequest&) { return Says(c.words); });
    GroupScorer scorer(Config(JudgePart(server.url())));
    TrajectoryGroup group = TestGroup({"Score: 10"});  // the answer's own words do not count
    EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored) << c.words;
    EXPECT_EQ(scorer.Counters().count("reward/failed/code/" + std::string(c.kind)), 1u)
        << group.trajectories[0].unscored_reason;
  }
  for (const char* body :
       {"{}", R"({"choices":[]})", R"({"choices":[{"message":{"content":null}}]})", "words"}) {
    Notices notices;
    HttpServer server([&](const HttpRequest&) { return HttpOk(body); });
    GroupScorer scorer(Config(JudgePart(server.url())));
    TrajectoryGroup group = TestGroup({"x"});
    EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kUnscored) << body;
    EXPECT_EQ(scorer.Counters().count("reward/failed/code/bad_reply"), 1u) << body;
  }
}

TEST(Judge, ProvenanceCoversTemplateModelAndScale) {
  std::set<std::string> digests;
  auto part = JudgePart("http://127.0.0.1:9/v1");
  digests.insert(MakeJudge(part)->digest());
  EXPECT_EQ(MakeJudge(part)->digest(), *digests.begin()) << "the same twice";
  EXPECT_EQ(digests.begin()->rfind("judge:critic-7b:sha256:", 0), 0u);
  part.model = "other";
  digests.insert(MakeJudge(part)->digest());
  part.judge_prompt = "{completion}";
  digests.insert(MakeJudge(part)->digest());
  part.scale = 5;
  digests.insert(MakeJudge(part)->digest());
  part.score_regex = "(\\d+)";
  digests.insert(MakeJudge(part)->digest());
  EXPECT_EQ(digests.size(), 5u);
}

TEST(Judge, RefusesBeforeTheRunBegins) {
  const auto says = [](configs::RewardPartConfig part) {
    try {
      MakeJudge(part);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  auto part = JudgePart("http://127.0.0.1:9/v1");
  part.judge_prompt = "no place for the answer";
  EXPECT_NE(says(part).find("{completion}"), std::string::npos) << says(part);
  part = JudgePart("http://127.0.0.1:9/v1"), part.score_regex = "(";
  EXPECT_NE(says(part).find("does not compile"), std::string::npos);
  part.score_regex = "Score: \\d+";
  EXPECT_NE(says(part).find("group"), std::string::npos);
  part = JudgePart("http://127.0.0.1:9/v1"), part.model.clear();
  EXPECT_NE(says(part).find("model"), std::string::npos);
  part = JudgePart("http://127.0.0.1:9/v1"), part.scale = 0;
  EXPECT_NE(says(part).find("scale"), std::string::npos);
  part = JudgePart(""), part.scale = 10;
  EXPECT_NE(says(part).find("endpoint"), std::string::npos);
  part = JudgePart("http://127.0.0.1:9/v1"), part.api_key_env = "PLUMB_TEST_NOT_SET";
  EXPECT_NE(says(part).find("PLUMB_TEST_NOT_SET"), std::string::npos);
}

}  // namespace
}  // namespace plumb::reward

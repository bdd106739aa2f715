// Many clients at once: they share a batch, leave it, are refused, and see the server end.
#include "run/serve/batch_engine.h"

#include <atomic>
#include <future>
#include <thread>

#include "tests/run/serve/serving.h"

namespace plumb::run {
namespace {

using nlohmann::json;
using std::chrono::seconds;
using SteadyClock = std::chrono::steady_clock;
using testing::HttpReply;
using testing::Reader;
using testing::RequestText;

class BatchEngineTest : public Serving {
 protected:
  static std::string LongStream(int max_tokens = 10000) {
    return RequestText(
        "POST", "/v1/completions",
        json{{"prompt", "1+1="}, {"max_tokens", max_tokens}, {"stream", true}}.dump());
  }
  // Polls, for what another thread does in its own time.
  template <class Condition>
  static bool Soon(Condition condition) {
    for (const auto until = SteadyClock::now() + seconds(20); SteadyClock::now() < until;) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }
};

TEST_F(BatchEngineTest, ThirtyTwoClientsAreAnsweredAsIfEachWereAlone) {
  Open(Endless(), {.max_batch = 12, .max_new_tokens = 100});
  const auto body = [](int i) {
    return json{{"prompt", std::to_string(i) + "+" + std::to_string(7 * i) + "="},
                {"max_tokens", 20 + i},
                {"seed", i},
                {"temperature", 0.5 + 0.1 * (i % 5)},
                {"stream", i % 2 == 0}};
  };
  const auto text = [](const HttpReply& reply) {
    std::string out;
    EXPECT_EQ(reply.status, 200);
    for (const json& event :
         reply.body.starts_with("data") ? reply.events() : std::vector<json>{reply.json()})
      out += event["choices"][0]["text"].get<std::string>();
    return out;
  };
  std::vector<std::future<std::string>> together;
  for (int i = 0; i < 32; ++i)
    together.push_back(std::async(std::launch::async, [&, i] { return text(Complete(body(i))); }));
  std::vector<std::string> said;
  for (auto& one : together) said.push_back(one.get());
  for (int i = 0; i < 32; ++i)
    EXPECT_EQ(said[static_cast<size_t>(i)], text(Complete(body(i)))) << i;
}

// The aim of a server under load: two hundred connections at once, every one of them answered.
TEST_F(BatchEngineTest, TwoHundredConnectionsAreAllAnswered) {
  Open(Endless(), {.max_batch = 24, .max_new_tokens = 100});
  std::vector<std::future<HttpReply>> replies;
  for (int i = 0; i < 200; ++i) {
    replies.push_back(std::async(std::launch::async, [&, i] {
      json asked = {{"prompt", std::to_string(i) + "+1="}, {"max_tokens", 5 + i % 7}, {"seed", i}};
      if (i % 2 == 0)
        asked.update({{"stream", true}, {"stream_options", {{"include_usage", true}}}});
      return Complete(asked);
    }));
  }
  int64_t wanted = 0, got = 0;
  for (int i = 0; i < 200; ++i) {
    const HttpReply reply = replies[static_cast<size_t>(i)].get();
    ASSERT_EQ(reply.status, 200) << i << ": " << reply.body;
    wanted += 5 + i % 7;
    if (i % 2 == 0) {
      ASSERT_NE(reply.body.find("[DONE]"), std::string::npos) << i;
      got += reply.events().back()["usage"]["completion_tokens"].get<int64_t>();
    } else {
      got += reply.json()["usage"]["completion_tokens"].get<int64_t>();
    }
  }
  EXPECT_EQ(got, wanted);
  const BatchCounters counters = engine_->counters();
  EXPECT_EQ(counters.answers_length, 200u);
  EXPECT_EQ(counters.requests_left, 0u);
  EXPECT_EQ(counters.held_pages, 0);
  EXPECT_TRUE(Soon([&] { return engine_->counters().requests == 0; }));
}

// A conversation asks for all that was said before: its keys and values are there.
TEST_F(BatchEngineTest, AConversationIsNotComputedAgain) {
  const auto talk = [&](bool share) {
    Open(Endless(), {.max_batch = 2, .max_new_tokens = 100, .share_prefixes = share});
    std::vector<json> said;
    std::vector<int32_t> tokens(40, 3);
    for (int turn = 0; turn < 4; ++turn) {
      const json reply = Complete({{"prompt", tokens},
                                   {"max_tokens", 20},
                                   {"seed", turn},
                                   {"logprobs", 0},
                                   {"return_token_ids", true}})
                             .json();
      said.push_back(reply["choices"][0]);
      for (const json& token : said.back()["token_ids"]) tokens.push_back(token.get<int32_t>());
      tokens.push_back(5);
    }
    const BatchCounters counters = engine_->counters();
    EXPECT_EQ(counters.held_pages, 0);
    // 40 + 61 + 82 + 103 tokens of prompts, of each all but the last.
    EXPECT_EQ(counters.prompt_tokens + counters.reused_tokens, 282u);
    if (share) {  // whole pages of 16 tokens
      EXPECT_EQ(counters.reused_tokens, 48u + 80u + 96u);
      EXPECT_NE(testing::Get(port(), "/metrics").body.find("prompt_tokens_reused_total 224\n"),
                std::string::npos);
    } else {
      EXPECT_EQ(counters.reused_tokens, 0u);
    }
    server_.reset();
    engine_.reset();
    return said;
  };
  EXPECT_EQ(talk(true), talk(false));
}

TEST_F(BatchEngineTest, ANewcomerJoinsTheBatchThatRuns) {
  Open(Endless(20000), {.max_batch = 4, .max_new_tokens = 10000});
  Reader first(port(), LongStream());
  ASSERT_TRUE(first.ReadUntil("data: {"));
  EXPECT_EQ(Complete({{"prompt", "2"}, {"max_tokens", 3}}).status, 200);
  EXPECT_EQ(engine_->counters().answers_length, 1u) << "the first one still runs";
  EXPECT_EQ(engine_->counters().requests_left, 0u);
}

TEST_F(BatchEngineTest, AClientThatLeavesFreesItsSlot) {
  Open(Endless(20000), {.max_batch = 1, .max_new_tokens = 10000});
  for (const bool stream : {true, false}) {
    json asked = {{"prompt", "1+1="}, {"max_tokens", 10000}, {"stream", stream}};
    Reader reader(port(), RequestText("POST", "/v1/completions", asked.dump()));
    if (stream) {
      ASSERT_TRUE(reader.ReadUntil("data: {"));
    }
    ASSERT_TRUE(Soon([&] { return engine_->counters().running == 1; }));
    const uint64_t left = engine_->counters().requests_left;
    reader.Leave();
    EXPECT_TRUE(Soon([&] { return engine_->counters().requests_left == left + 1; }));
    EXPECT_EQ(Complete({{"prompt", "2"}, {"max_tokens", 3}}).status, 200);
    EXPECT_TRUE(Soon([&] { return engine_->counters().requests == 0; }));
    EXPECT_TRUE(Soon([&] { return engine_->counters().running == 0; }));
    EXPECT_TRUE(Soon([&] { return engine_->counters().held_pages == 0; }));
  }
  EXPECT_LT(engine_->counters().generated_tokens, 20000u);
}

TEST_F(BatchEngineTest, OneRequestTooManyIsToldToComeLater) {
  Open(Endless(20000), {.max_batch = 1, .max_requests = 2, .max_new_tokens = 10000});
  Reader first(port(), LongStream()), second(port(), LongStream());
  ASSERT_TRUE(Soon([&] { return engine_->counters().requests == 2; }));
  const HttpReply reply = Complete({{"prompt", "2"}});
  EXPECT_EQ(reply.status, 429);
  EXPECT_NE(reply.head.find("Retry-After"), std::string::npos);
  EXPECT_EQ(reply.json()["error"]["type"], "rate_limit_error");
  first.Leave();
  second.Leave();
  EXPECT_TRUE(Soon([&] { return Complete({{"prompt", "2"}, {"max_tokens", 1}}).status == 200; }));
}

TEST_F(BatchEngineTest, WhatRunsEndsBeforeTheServerDoes) {
  Open(Endless(20000), {.max_batch = 4, .max_new_tokens = 10000});
  Reader running(port(), LongStream(1500));
  ASSERT_TRUE(running.ReadUntil("data: {"));
  auto drained = std::async(std::launch::async, [&] { return server_->Drain(seconds(60)); });
  ASSERT_TRUE(Soon([&] { return engine_->closed(); }));
  const HttpReply late = Complete({{"prompt", "2"}});
  EXPECT_EQ(late.status, 503);
  EXPECT_EQ(late.json()["error"]["code"], "ending");
  EXPECT_EQ(testing::Get(port(), "/health").status, 503);
  EXPECT_TRUE(running.ReadUntil("data: [DONE]"));
  EXPECT_NE(running.got().find("\"finish_reason\":\"length\""), std::string::npos);
  EXPECT_TRUE(drained.get());
  server_.reset();
}

TEST_F(BatchEngineTest, WhatDoesNotEndInTimeIsCutOffAndTold) {
  Open(Endless(20000), {.max_batch = 4, .max_new_tokens = 10000});
  Reader running(port(), LongStream());
  ASSERT_TRUE(running.ReadUntil("data: {"));
  EXPECT_FALSE(server_->Drain(std::chrono::milliseconds(1)));
  EXPECT_TRUE(running.ReadUntil("\"code\":\"ending\""));
  EXPECT_EQ(running.got().find("[DONE]"), std::string::npos);
  EXPECT_EQ(engine_->counters().requests, 0);
}

TEST_F(BatchEngineTest, AnAnswerThatNobodyWaitsForIsGivenUp) {
  Open(Endless(20000), {.max_batch = 2, .max_new_tokens = 10000});
  const std::vector<int32_t> tokens = models_->folder().EncodeText("1+1=");
  const auto asked = [&] {
    Asked out;
    out.prompts = {{.tokens = tokens, .limit = 9000}, {.tokens = tokens, .limit = 9000}};
    out.n = 3;  // more than run at once
    return out;
  };
  auto one = engine_->Ask(asked());
  News news;
  while (news.empty()) news = one->Wait(SteadyClock::now() + seconds(20));
  EXPECT_FALSE(news.parts.empty());
  EXPECT_FALSE(news.all_ended);
  one.reset();
  EXPECT_TRUE(engine_->WaitIdle(SteadyClock::now() + seconds(20)));
  EXPECT_TRUE(Soon([&] { return engine_->counters().running == 0; }));
  EXPECT_TRUE(Soon([&] { return engine_->counters().held_pages == 0; }));
  EXPECT_EQ(engine_->counters().waiting, 0);
  // What the engine refuses comes back as a refusal.
  Asked long_one = asked();
  long_one.prompts[1].limit = 10000;
  long_one.prompts[1].tokens.resize(15000, tokens[0]);
  auto refused = engine_->Ask(long_one);
  do news = refused->Wait(SteadyClock::now() + seconds(20));
  while (!news.failure && !news.all_ended && !news.empty());
  ASSERT_TRUE(news.failure);
  EXPECT_EQ(news.failure->status, 400);
  engine_->Close();
  EXPECT_THROW(engine_->Ask(asked()), ApiError);
}

}  // namespace
}  // namespace plumb::run

// Conversations over workers: deadlines, lost peers, ends, and what is counted.
#include "environment/doors/environment_pool.h"

#include <atomic>
#include <set>

#include "tests/environment/testing.h"

namespace plumb::environment {
namespace {

using std::chrono::milliseconds;

// Answers "n" with the number of its turn; other texts make it misbehave.
class FakePeer : public Peer {
 public:
  explicit FakePeer(std::atomic<int>* starts) : starts_(starts) {}
  Problem Start(std::string* tools) override {
    *tools = "";
    turns_.clear();
    ++*starts_;
    return std::nullopt;
  }
  PeerReply Call(const PeerRequest& request, Deadline deadline) override {
    PeerReply reply;
    if (request.ask == Ask::kEnd) {
      turns_.erase(request.episode);
      return reply;
    }
    if (request.ask == Ask::kBegin) {
      turns_[request.episode] = 0;
      if (request.prompt->ground_truth == "bad") reply.error = "not this row";
      return reply;
    }
    if (request.text == "die") throw PeerLost(Failure::kCrash, "ended by signal 11");
    if (request.text == "hang") {
      std::this_thread::sleep_until(deadline);
      throw PeerLost(Failure::kTimeout, "no answer");
    }
    reply.messages = {{"user", std::to_string(++turns_.at(request.episode))}};
    reply.reward = 0.5;
    return reply;
  }

 private:
  std::atomic<int>* starts_;
  std::map<uint64_t, int> turns_;
};

struct Rig {
  std::atomic<int> starts{0};
  std::unique_ptr<EnvironmentPool> pool;
  explicit Rig(EnvironmentPoolOptions options) {
    ConversationRules rules;
    rules.max_turns = 100;
    options.what = "environment fake";
    pool = std::make_unique<EnvironmentPool>(
        options, std::move(rules), [this] { return std::make_unique<FakePeer>(&starts); });
  }
};

TEST(EnvironmentPool, HoldsManyConversationsSideBySide) {
  Rig rig({.workers = 3});
  for (uint64_t e = 0; e < 30; ++e) rig.pool->Begin(e, TestPrompt(), 0);
  std::map<uint64_t, int> replies;
  int open = 30, acts = 0;
  while (open > 0) {
    const auto some = rig.pool->Poll(After(std::chrono::seconds(20)));
    ASSERT_FALSE(some.empty());
    for (const EnvironmentReply& reply : some) {
      EXPECT_EQ(reply.error, "");
      const int turn = replies[reply.episode]++;
      EXPECT_EQ(Said(reply), turn == 0 ? "" : "user: " + std::to_string(turn) + "|");
      if (turn < 3) {
        rig.pool->Act(reply.episode, "n");
        ++acts;
      } else {
        rig.pool->End(reply.episode);
        --open;
      }
    }
  }
  EXPECT_EQ(acts, 90);
  EXPECT_EQ(rig.starts, 3);
  const auto counters = rig.pool->Counters();
  EXPECT_EQ(counters.at("environment/episodes"), 30);
  EXPECT_EQ(counters.at("environment/turns"), 90);
  EXPECT_FALSE(counters.contains("environment/errors"));
}

TEST(EnvironmentPool, RefusesWhatCannotBe) {
  Rig rig({});
  EXPECT_THROW(rig.pool->Act(1, "n"), Error);
  rig.pool->Begin(1, TestPrompt(), 0);
  EXPECT_THROW(rig.pool->Begin(1, TestPrompt(), 0), Error);
  Next(*rig.pool);
  rig.pool->End(1);
  EXPECT_THROW(rig.pool->Act(1, "n"), Error);
  EXPECT_TRUE(rig.pool->Poll(After(milliseconds(20))).empty());
}

TEST(EnvironmentPool, SaysNothingOfAConversationThatEnded) {
  Rig rig({.timeout = milliseconds(300)});
  rig.pool->Begin(1, TestPrompt(), 0);
  Next(*rig.pool);
  rig.pool->Act(1, "hang");
  rig.pool->Act(1, "n");
  rig.pool->End(1);
  EXPECT_TRUE(rig.pool->Poll(After(milliseconds(600))).empty());
}

TEST(EnvironmentPool, ALostProcessEndsItsConversationsAndStartsAgain) {
  Rig rig({.workers = 1});
  for (uint64_t e : {1, 2}) {
    rig.pool->Begin(e, TestPrompt(), 0);
    Next(*rig.pool);
  }
  rig.pool->Act(1, "die");
  EXPECT_EQ(Next(*rig.pool).error, "ended by signal 11");
  rig.pool->Act(2, "n");
  EXPECT_EQ(Next(*rig.pool).error, "the process that it was in is gone: ended by signal 11");
  const auto again = Talk(*rig.pool, TestPrompt(), {"n"}, 3);
  EXPECT_EQ(Said(again[1]), "user: 1|");
  EXPECT_EQ(rig.starts, 2);
  const auto counters = rig.pool->Counters();
  EXPECT_EQ(counters.at("environment/errors"), 2);
  EXPECT_EQ(counters.at("environment/errors/crash"), 1);
}

TEST(EnvironmentPool, HoldsDeadlinesOfCallsAndConversations) {
  Rig rig({.timeout = milliseconds(100), .episode = milliseconds(60000)});
  EXPECT_EQ(Talk(*rig.pool, TestPrompt(), {"hang"})[1].error,
            "no answer; environment.timeout_s = 0.1 is the limit");
  Rig brief({.timeout = milliseconds(10000), .episode = milliseconds(150)});
  EXPECT_EQ(Talk(*brief.pool, TestPrompt(), {"hang"})[1].error,
            "no answer; environment.episode_seconds = 0.15 is the limit");
  brief.pool->Begin(2, TestPrompt(), 0);
  Next(*brief.pool);
  std::this_thread::sleep_for(milliseconds(200));
  brief.pool->Act(2, "n");
  EXPECT_EQ(Next(*brief.pool).error,
            "the conversation took longer than environment.episode_seconds = 0.15");
  EXPECT_EQ(brief.pool->Counters().at("environment/errors/episode"), 1);
}

TEST(EnvironmentPool, IsGivenUpWhenItBreaksTooOften) {
  Rig rig({.lost_at_most = 2});
  for (uint64_t e : {1, 2})
    EXPECT_EQ(Talk(*rig.pool, TestPrompt(), {"die"}, e)[1].error, "ended by signal 11");
  const auto after = Talk(*rig.pool, TestPrompt(), {}, 3);
  EXPECT_NE(after[0].error.find("is given up: it broke 2 times"), std::string::npos)
      << after[0].error;
}

TEST(EnvironmentPool, ARowThatDoesNotFitIsThatConversationsAlone) {
  Rig rig({});
  EXPECT_EQ(Talk(*rig.pool, TestPrompt("bad"), {"n"}, 1)[0].error, "not this row");
  EXPECT_EQ(Talk(*rig.pool, TestPrompt(), {"n"}, 2)[1].reward, 0.5);
}

}  // namespace
}  // namespace plumb::environment

#include "run/roles/cluster/scoring_hub.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::run {
namespace {

using std::chrono::milliseconds;

// What a worker was told: nullopt while it waits.
struct Asked {
  std::optional<std::vector<std::string>> bodies;
  std::vector<uint64_t> ids;
};

std::shared_ptr<Asked> Ask(ScoringHub& hub, const std::string& worker, uint32_t most,
                           std::vector<uint64_t> done = {}, uint64_t wait_ms = 60'000) {
  auto asked = std::make_shared<Asked>();
  hub.Take({.worker = worker, .done = std::move(done), .most = most, .wait_ms = wait_ms},
           RpcResponder([asked](RpcResponder::Answer answer) {
             asked->bodies.emplace();
             for (const ScoringWork& work : DecodeWork(answer.payload)) {
               asked->bodies->push_back(work.body.str());
               asked->ids.push_back(work.id);
             }
           }));
  return asked;
}

class ScoringHubTest : public ::testing::Test {
 protected:
  void Offer(const std::string& body) {
    hub_.Offer(Payload(body), [this, body] { done_.push_back(body); });
  }
  ScoringHub hub_{milliseconds(60'000)};
  std::vector<std::string> done_;
};

using Bodies = std::vector<std::string>;

TEST_F(ScoringHubTest, AWorkerGetsWhatItAskedForAndSaysWhatIsDone) {
  hub_.ShareAmong(1);
  auto asked = Ask(hub_, "w", 2);
  EXPECT_FALSE(asked->bodies) << "there is nothing yet";
  Offer("a");
  ASSERT_TRUE(asked->bodies);
  EXPECT_EQ(*asked->bodies, Bodies{"a"});
  for (const char* body : {"b", "c", "d"}) Offer(body);
  auto next = Ask(hub_, "w", 2, asked->ids);
  EXPECT_EQ(done_, Bodies{"a"}) << "said with the next question";
  EXPECT_EQ(*next->bodies, (Bodies{"b", "c"}));
  hub_.Done(next->ids);
  hub_.Done(next->ids);
  EXPECT_EQ(done_, (Bodies{"a", "b", "c"})) << "each once";
  EXPECT_EQ(hub_.waiting(), 1u);
}

TEST_F(ScoringHubTest, WhatALostWorkerHadIsGivenToOthersFirst) {
  hub_.ShareAmong(2);
  for (const char* body : {"a", "b", "c", "d"}) Offer(body);
  auto lost = Ask(hub_, "lost", 4);
  EXPECT_EQ(*lost->bodies, (Bodies{"a", "b"})) << "its share of two workers";
  hub_.Left("lost");
  auto other = Ask(hub_, "other", 8, {}, 0);
  EXPECT_EQ(*other->bodies, (Bodies{"a", "b"}));
  hub_.Done(lost->ids);  // it was not lost, only slow
  EXPECT_EQ(done_, (Bodies{"a", "b"}));
  hub_.Done(other->ids);
  EXPECT_EQ(done_, (Bodies{"a", "b"})) << "the second scores are no second group";
  EXPECT_EQ(hub_.counters().at("taken_back"), 2);
}

TEST_F(ScoringHubTest, TheHeadScoresOnlyWhileNobodyElseDoes) {
  Offer("a");
  hub_.ShareAmong(1);
  EXPECT_TRUE(hub_.TakeHere(4, After(milliseconds(1))).empty());
  hub_.ShareAmong(0);
  const auto work = hub_.TakeHere(4, After(milliseconds(1)));
  ASSERT_EQ(work.size(), 1u);
  EXPECT_EQ(work[0].body.str(), "a");
  hub_.Done({work[0].id});
  EXPECT_EQ(done_, Bodies{"a"});
  EXPECT_EQ(hub_.counters().at("scored_here"), 1);
  EXPECT_EQ(hub_.counters().at("scored"), 0);
}

TEST_F(ScoringHubTest, WorkThatIsHeldForTooLongGoesBack) {
  ScoringHub hub(milliseconds(0));
  hub.ShareAmong(1);
  hub.Offer(Payload(std::string("a")), [] {});
  EXPECT_EQ(*Ask(hub, "slow", 1)->bodies, Bodies{"a"});
  EXPECT_EQ(hub.waiting(), 0u);
  hub.Tick();
  EXPECT_EQ(hub.waiting(), 1u);
}

TEST_F(ScoringHubTest, NobodyWaitsForAHubThatHasClosed) {
  auto asked = Ask(hub_, "w", 1);
  hub_.Close();
  ASSERT_TRUE(asked->bodies);
  EXPECT_TRUE(asked->bodies->empty());
  Offer("late");
  EXPECT_TRUE(done_.empty()) << "its sender keeps it";
}

TEST(ScoringWire, MalformedQuestionsAndAnswersAreRefused) {
  const std::string take = EncodeTake({.worker = "w", .done = {1, 2}, .most = 3, .wait_ms = 4});
  const TakeQuestion back = DecodeTake(take);
  EXPECT_EQ(back.worker, "w");
  EXPECT_EQ(back.done, (std::vector<uint64_t>{1, 2}));
  const std::string work = EncodeWork({{7, Payload(std::string("body"))}});
  EXPECT_EQ(DecodeWork(Payload(work))[0].body.str(), "body");
  for (size_t cut = 0; cut < take.size(); ++cut)
    EXPECT_THROW(DecodeTake(take.substr(0, cut)), Error) << cut;
  for (size_t cut = 0; cut < work.size(); ++cut)
    EXPECT_THROW(DecodeWork(Payload(work.substr(0, cut))), Error) << cut;
}

}  // namespace
}  // namespace plumb::run

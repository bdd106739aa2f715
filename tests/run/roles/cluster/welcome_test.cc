#include "run/roles/cluster/welcome.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "run/roles/cluster/member_kind.h"

namespace plumb::run {
namespace {

Welcome SomeWelcome() {
  return {.life = "life",
          .run_id = "run",
          .recipe = "[run]\nseed = 1\n",
          .recipe_digest = "d1",
          .model_digest = "d2",
          .files = {.files = {{.name = "model/tokenizer.json",
                               .path = "/head/tokenizer.json",
                               .bytes = 3,
                               .digest = "d3",
                               .runs = true}},
                    .paths = {{"model.path", "model"}}},
          .ports = {.leases = 1, .weights = 2, .groups = 3, .scores = 4},
          .beat_ms = 5};
}

TEST(WelcomeWire, SaysEverythingButWhereFilesLieAtTheHead) {
  const std::string text = EncodeWelcome(SomeWelcome());
  EXPECT_EQ(text.find("/head/"), std::string::npos);
  const Welcome back = DecodeWelcome(text);
  EXPECT_EQ(back.recipe, "[run]\nseed = 1\n");
  ASSERT_EQ(back.files.files.size(), 1u);
  EXPECT_EQ(back.files.files[0].digest, "d3");
  EXPECT_TRUE(back.files.files[0].runs);
  EXPECT_EQ(back.files.paths[0].option, "model.path");
  EXPECT_EQ(back.ports.scores, 4);
  EXPECT_EQ(back.beat_ms, 5);
}

TEST(WelcomeWire, WhatIsNoWelcomeIsRefused) {
  const std::string text = EncodeWelcome(SomeWelcome());
  for (size_t cut = 0; cut < text.size(); ++cut)
    EXPECT_THROW(DecodeWelcome(text.substr(0, cut)), Error) << cut;
  Welcome out = SomeWelcome();
  out.files.files[0].name = "../../etc/passwd";
  EXPECT_THROW(DecodeWelcome(EncodeWelcome(out)), Error);
  out = SomeWelcome();
  out.ports.groups = 70'000;
  EXPECT_THROW(DecodeWelcome(EncodeWelcome(out)), Error);
  std::string other = text;
  other.replace(other.find("\"format\":2"), 10, "\"format\":1");  // an older build
  try {
    DecodeWelcome(other);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kConflict) << e.what();
  }
}

TEST(WelcomeWire, RequestsAndBeatsComeBackAsTheyWere) {
  const JoinRequest back = DecodeJoin(EncodeJoin(
      {.member = {.name = "a", .kind = MemberKind::kReward, .epoch = ~uint64_t{0}, .machine = "m"},
       .build = BuildName(),
       .recipe = "digest"}));
  EXPECT_EQ(back.member.kind, MemberKind::kReward);
  EXPECT_EQ(back.member.epoch, ~uint64_t{0});
  EXPECT_EQ(back.recipe, "digest");
  const BeatReply beat =
      DecodeBeat(EncodeBeat({.life = "l", .known = true, .ended = false, .relay = {}}));
  EXPECT_TRUE(beat.known && !beat.ended && beat.life == "l" && !beat.relay);
  EXPECT_EQ(DecodeWho(EncodeWho({"a", 7, {}})).epoch, 7u);
  EXPECT_FALSE(DecodeWho(EncodeWho({"a", 7, {}})).relay);
  EXPECT_EQ(DecodeFileQuestion(EncodeFileQuestion({MemberKind::kActor, "f"})).name, "f");
  std::string learner = EncodeJoin({.member = {.name = "a"}});
  learner.replace(learner.find("\"actor\""), 7, "\"learner\"");
  EXPECT_THROW(DecodeJoin(learner), Error);
}

TEST(WelcomeWire, BeatsSayWhoHandsWeightsOnToWhom) {
  const Who who = DecodeWho(EncodeWho(
      {"a", 7, RelaySaying{.endpoint = "tcp://h:1", .key = "k", .left = {"b"}, .heard = 9}}));
  ASSERT_TRUE(who.relay);
  EXPECT_EQ(who.relay->endpoint, "tcp://h:1");
  EXPECT_EQ(who.relay->left, std::vector<std::string>{"b"});
  EXPECT_EQ(who.relay->heard, 9u);
  const RelayWord word{.state = RelayState::kReached,
                       .places = {{.name = "b", .endpoint = "tcp://h:2", .key = "kb"}},
                       .keys = {"k", "kb"},
                       .below = 2};
  const BeatReply sent{.life = "l", .known = true, .ended = false, .relay = word};
  const std::string text = EncodeBeat(sent);
  const BeatReply back = DecodeBeat(text);
  ASSERT_TRUE(back.relay);
  EXPECT_EQ(back.relay->places, word.places);
  EXPECT_EQ(back.relay->keys, word.keys);
  EXPECT_EQ(back.relay->below, 2);
  EXPECT_EQ(SumOf(*back.relay), SumOf(word));
  RelayWord other = word;
  other.below = 3;
  EXPECT_NE(SumOf(other), SumOf(word));
  for (size_t cut = 0; cut < text.size(); ++cut)
    EXPECT_THROW(DecodeBeat(text.substr(0, cut)), Error) << cut;
  other.places.assign(RelayWord::kMaxPlaces + 1, word.places[0]);
  EXPECT_THROW(DecodeBeat(EncodeBeat({.life = "l", .relay = other})), Error);
  other = word;
  other.keys = {std::string(1000, 'k')};
  EXPECT_THROW(DecodeBeat(EncodeBeat({.life = "l", .relay = other})), Error);
}

}  // namespace
}  // namespace plumb::run

// A group's body: sealed once, read whole or in part, refused where it lies.
// common/record/group_body.h
#include "common/record/group_body.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "common/base/error.h"
#include "tests/testing/body_parts.h"

namespace plumb {
namespace {

using plumb::testing::BodyParts;

// Answers of several kinds: an environment's turn in the middle, one that was given up, one by two
// versions.
TrajectoryGroup MakeGroup(int samples, int completion_tokens, uint32_t seed) {
  std::mt19937 random(seed);
  TrajectoryGroup g;
  g.run_id = "run-\xff\x01";
  g.actor = "actor-0";
  g.lease = {.lease_id = ~uint64_t{0} - 3,
             .purpose = Purpose::kEval,
             .attempt = 7,
             .num_samples = samples,
             .policy_version = 12,
             .deadline_ms = -5};
  g.lease.prompt = {.dataset = "sums",
                    .row = uint64_t{1} << 63,
                    .text = std::string("1+1=\0?", 6),
                    .messages = {{"system", ""}, {"assistant", "", R"({"content":null})"}},
                    .ground_truth = "2",
                    .extra_json = R"({"a":[1,2]})",
                    .weight = 0.1,
                    .tokens = {1, 2, std::numeric_limits<int32_t>::max()}};
  g.policy = {12, std::string(32, 'a')};
  for (int i = 0; i < samples; ++i) {
    Trajectory t;
    t.sample = static_cast<uint32_t>(i);
    t.tokens = g.lease.prompt.tokens;
    const int32_t prompt = static_cast<int32_t>(t.tokens.size()), n = prompt + completion_tokens;
    for (int k = 0; k < completion_tokens; ++k)
      t.tokens.push_back(static_cast<int32_t>(random() % 50000));
    t.segments = {{Origin::kPrompt, 0, prompt}, {Origin::kPolicy, prompt, n}};
    if (i == 1 && completion_tokens >= 6) {
      t.segments = {{Origin::kPrompt, 0, prompt},
                    {Origin::kPolicy, prompt, prompt + 2},
                    {Origin::kEnvironment, prompt + 2, prompt + 4},
                    {Origin::kPolicy, prompt + 4, n},
                    {Origin::kPolicy, n, n}};
    }
    t.loss_mask.assign(t.tokens.size(), 0);
    t.logprobs.assign(t.tokens.size(), 0.0f);
    t.policy_versions.assign(t.tokens.size(), -1);
    for (const Segment& s : t.segments) {
      for (int32_t k = s.begin; s.origin == Origin::kPolicy && k < s.end; ++k) {
        const auto at = static_cast<size_t>(k);
        t.loss_mask[at] = i == 2 ? 0 : i == 1 ? k % 3 != 0 : 1;
        t.logprobs[at] = k % 5 == 0 ? -0.0f : -std::ldexp(static_cast<float>(random()), -31);
        t.policy_versions[at] = i == 1 && k > prompt + 4 ? 12 : 11;
      }
    }
    t.finish = i == 2  ? FinishReason::kAborted
               : i % 2 ? FinishReason::kLength
                       : FinishReason::kStop;
    t.completion = "answer \xf0\x28 " + std::to_string(i);
    if (i == 2) t.unscored_reason = "given up";
    g.trajectories.push_back(std::move(t));
  }
  return g;
}

void ExpectCorrupt(std::string bytes, const std::string& what = "") {
  try {
    GroupBody::Open(Payload(std::move(bytes)), /*summed=*/true);
    ADD_FAILURE() << "accepted: " << what;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCorruption) << e.what();
    EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
  }
}

TEST(GroupBody, EveryFieldComesBackBitForBit) {
  for (const int tokens : {0, 1, 40}) {
    const TrajectoryGroup group = MakeGroup(4, tokens, 1);
    const GroupBody sealed = GroupBody::Seal(group);
    const GroupBody opened = GroupBody::Open(Payload(sealed.bytes().str()));
    const TrajectoryGroup back = opened.Unpack();
    EXPECT_EQ(back, group);
    for (size_t i = 0; i < group.trajectories.size(); ++i) {  // == takes -0.0 for 0.0
      const auto &a = group.trajectories[i].logprobs, &b = back.trajectories[i].logprobs;
      EXPECT_EQ(std::memcmp(a.data(), b.data(), 4 * a.size()), 0);
    }
    EXPECT_EQ(GroupBody::Seal(back).bytes().view(), sealed.bytes().view());
    EXPECT_EQ(opened.sum(), sealed.sum());
    EXPECT_EQ(opened.head().oldest_version, tokens == 0 ? 12 : 11);
    EXPECT_EQ(sealed.head().oldest_version, opened.head().oldest_version);
    EXPECT_EQ(opened.head().answers.at(2).finish, FinishReason::kAborted);
    EXPECT_EQ(opened.head().answers.at(0).tokens, static_cast<uint32_t>(tokens + 3));
  }
}

TEST(GroupBody, ScoringSeesTextsAndTokensOnly) {
  const TrajectoryGroup group = MakeGroup(3, 40, 2);
  TrajectoryGroup expected = group;
  for (Trajectory& t : expected.trajectories)
    t.logprobs.clear(), t.policy_versions.clear(), t.loss_mask.clear();
  EXPECT_EQ(GroupBody::Seal(group).ForScoring(), expected);
}

TEST(GroupBody, APromptOfAStoreTravelsByItsName) {
  TrajectoryGroup group = MakeGroup(2, 5, 3);
  const size_t whole = GroupBody::Seal(group).bytes().size();
  group.lease.prompt.extra_json = std::string(100'000, 'x');
  group.lease.prompt_sum = 17;
  const GroupBody body = GroupBody::Open(GroupBody::Seal(group).bytes());
  EXPECT_LT(body.bytes().size(), whole);
  const PromptLease lease = body.Unpack().lease;
  EXPECT_EQ(
      lease.prompt,
      (Prompt{.dataset = "sums", .row = uint64_t{1} << 63, .tokens = group.lease.prompt.tokens}));
  EXPECT_EQ(lease.prompt_sum, 17u);
}

// What sampling filters kept is part of the record, and the prompt's share of it is not written for
// every answer.
TEST(GroupBody, KeptTokensTravelAndHoldTheToken) {
  TrajectoryGroup group = MakeGroup(1, 2, 4);
  Trajectory& t = group.trajectories[0];
  t.tokens[3] = 5, t.tokens[4] = 6;
  t.kept = {0, 0, 0, 2, 5, 0};
  EXPECT_EQ(GroupBody::Open(GroupBody::Seal(group).bytes()).Unpack(), group);
  t.tokens[3] = 4;
  EXPECT_THROW(GroupBody::Seal(group), Error);
  BodyParts parts;
  parts.kept = {2, 7, 0, 0};
  EXPECT_EQ(GroupBody::Open(Payload(parts.Bytes()), true).Unpack().trajectories[0].kept,
            (std::vector<uint8_t>{0, 0, 2, 7, 0, 0}));
  parts.kept = {2, 6, 0, 0};
  ExpectCorrupt(parts.Bytes(), "token 0 is not among");
  parts.kept = {2, 7, 0};
  ExpectCorrupt(parts.Bytes(), "end at token 2");
}

// Bodies without experts are the bytes that they were before there was a place for them.
TEST(GroupBody, WithoutExpertsTheBytesAreThoseOfOlderVersions) {
  EXPECT_EQ(GroupBody::Seal(MakeGroup(4, 0, 1)).sum(), 2800972735u);
  EXPECT_EQ(GroupBody::Seal(MakeGroup(4, 1, 1)).sum(), 2477672416u);
  EXPECT_EQ(GroupBody::Seal(MakeGroup(4, 40, 1)).sum(), 2561256453u);
}

// Experts of every token but the last; `of_prompt` are those of all prompt tokens but the last.
void AddExperts(TrajectoryGroup& group, const ExpertForm& form, uint32_t seed) {
  const size_t shared = group.lease.prompt.tokens.size() - 1;
  std::vector<uint8_t> of_prompt;
  for (Trajectory& t : group.trajectories) {
    std::mt19937 random(seed++);
    t.experts.form = form;
    t.experts.bytes = of_prompt;
    while (t.experts.tokens() + 1 < t.tokens.size()) {
      std::vector<int32_t> numbers;
      for (int32_t layer = 0; layer < form.layers; ++layer) {
        const auto first = static_cast<int32_t>(
            random() % static_cast<uint32_t>(form.experts - form.per_token + 1));
        for (int32_t k = 0; k < form.per_token; ++k) numbers.push_back(first + k);
      }
      AppendExperts(form, numbers, t.experts.bytes);
    }
    of_prompt = t.experts.bytes;
    of_prompt.resize(shared * form.bytes());
  }
}

TEST(GroupBody, ExpertsTravelAndThePromptsOnlyOnce) {
  const ExpertForm form = {48, 8, 128};  // 336 bytes
  TrajectoryGroup group = MakeGroup(4, 40, 8);
  const size_t without = GroupBody::Seal(group).bytes().size();
  AddExperts(group, form, 1);
  group.trajectories[2].experts = {};  // given up before anything was computed
  const GroupBody body = GroupBody::Seal(group);
  EXPECT_EQ(GroupBody::Open(Payload(body.bytes().str())).Unpack(), group);
  EXPECT_EQ(GroupBody::Seal(body.Unpack()).bytes().view(), body.bytes().view());
  EXPECT_TRUE(body.ForScoring().trajectories[0].experts.bytes.empty());
  // 3 answers of 40 tokens, and 2 prompt tokens; the rest is tables and padding.
  EXPECT_NEAR(static_cast<double>(body.bytes().size() - without), (3 * 40 + 2) * 336, 80);
  // A prompt that another version computed again is written with its answer.
  std::vector<uint8_t>& moved = group.trajectories[1].experts.bytes;
  std::copy_n(moved.begin() + 336, 336, moved.begin());
  EXPECT_EQ(GroupBody::Open(GroupBody::Seal(group).bytes()).Unpack(), group);
  group.trajectories[1].tokens[0] = 99;
  EXPECT_EQ(GroupBody::Open(GroupBody::Seal(group).bytes()).Unpack(), group);
}

TEST(GroupBody, ExpertsThatCannotBeAreRefused) {
  const ExpertForm form = {3, 2, 16};
  TrajectoryGroup group = MakeGroup(2, 6, 9);
  AddExperts(group, form, 1);
  const TrajectoryGroup good = group;
  const auto refused = [&](const std::string& says) {
    try {
      GroupBody::Seal(group);
      ADD_FAILURE() << "sealed: " << says;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
    }
    group = good;
  };
  group.trajectories[0].experts.bytes.resize(5 * form.bytes());
  refused("experts of 5 of 9 tokens");
  group.trajectories[0].experts.bytes[0] = 0x11;
  refused("expert 1 behind 1");
  group.trajectories[1].experts.form.experts = 15;
  refused("experts");
  group.trajectories[1].experts.form = {};
  refused("without their form");
  BodyParts parts;
  parts.experts = {0x10, 0x32, 0x54, 0x10, 0x32, 0x54, 0x10, 0x32, 0x54, 0x10, 0x32, 0x54};
  ExpectCorrupt(parts.Bytes(), "experts of no form");
  parts.form = {3, 2, 16};
  EXPECT_EQ(GroupBody::Open(Payload(parts.Bytes()), true).Unpack().trajectories[0].experts.bytes,
            parts.experts);
  parts.experts.resize(9);
  ExpectCorrupt(parts.Bytes(), "9 bytes of experts of 5 tokens");
  parts.prompt_experts = {0x10, 0x32, 0x54};
  EXPECT_EQ(GroupBody::Open(Payload(parts.Bytes()), true).Unpack().trajectories[0].experts.bytes,
            (std::vector<uint8_t>{0x10, 0x32, 0x54, 0x10, 0x32, 0x54, 0x10, 0x32, 0x54, 0x10, 0x32,
                                  0x54}));
  parts.own_prompt = 1;
  parts.segments = {{1, 3}};
  ExpectCorrupt(parts.Bytes(), "9 bytes of experts of 3 tokens");
  parts = {};
  parts.form = {3, 2, 16};
  parts.experts = {0x10, 0x32, 0x55, 0x10, 0x32, 0x54, 0x10, 0x32, 0x54, 0x10, 0x32, 0x54};
  ExpectCorrupt(parts.Bytes(), "expert 5 behind 5");
  parts.prompt_experts = {0x10};
  ExpectCorrupt(parts.Bytes(), "no whole number of tokens");
}

// An answer whose prompt is not its group's has tokens of its own.
TEST(GroupBody, AnAnswerMayHaveAnotherPrompt) {
  TrajectoryGroup group = MakeGroup(3, 8, 5);
  group.trajectories[1].tokens[0] = 99;
  group.trajectories[2].segments = {
      {Origin::kPrompt, 0, 2}, {Origin::kPrompt, 2, 3}, {Origin::kPolicy, 3, 11}};
  EXPECT_EQ(GroupBody::Open(GroupBody::Seal(group).bytes()).Unpack(), group);
}

// 8 answers of 512 tokens to a prompt of 256, as a wire and a disk hold them: text apart, which is
// as long as it is.
TEST(GroupBody, ATokenTakesNoMoreThanNineBytes) {
  TrajectoryGroup group = MakeGroup(8, 512, 6);
  group.lease.prompt.tokens.resize(256, 7);
  group.lease.prompt_sum = 1;
  size_t text = 0, tokens = 256;
  for (Trajectory& t : group.trajectories) {
    t.tokens.insert(t.tokens.begin() + 3, 253, 7);
    t.segments = {{Origin::kPrompt, 0, 256}, {Origin::kPolicy, 256, 768}};
    t.loss_mask.assign(768, 1), t.logprobs.assign(768, -0.5f), t.policy_versions.assign(768, 3);
    for (size_t i = 0; i < 256; ++i)
      t.loss_mask[i] = 0, t.logprobs[i] = 0, t.policy_versions[i] = -1;
    t.completion.assign(2000, 'x');
    text += t.completion.size();
    tokens += 512;
  }
  const size_t bytes = GroupBody::Seal(group).bytes().size() - text;
  const double each = static_cast<double>(bytes) / static_cast<double>(tokens);
  RecordProperty("bytes_a_token", std::to_string(each));
  EXPECT_LE(each, 9.0);
  EXPECT_GT(each, 7.0) << "the test does not measure what it should";
}

TEST(GroupBody, BytesMayLieAnywhere) {
  const TrajectoryGroup group = MakeGroup(2, 5, 2);
  const GroupBody sealed = GroupBody::Seal(group);
  for (size_t shift = 0; shift < 8; ++shift) {
    const std::string moved = std::string(shift, '#') + sealed.bytes().str();
    EXPECT_EQ(GroupBody::Open(Payload(nullptr, std::string_view(moved).substr(shift))).Unpack(),
              group);
  }
}

TEST(GroupBody, EveryFlippedBitAndTruncationIsNoticed) {
  const std::string bytes = GroupBody::Seal(MakeGroup(2, 6, 7)).bytes().str();
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_THROW(GroupBody::Open(Payload(std::move(flipped))), Error) << "bit " << bit;
  }
  for (size_t n = 0; n < bytes.size(); ++n) ExpectCorrupt(bytes.substr(0, n));
}

// With a right sum, for all that a peer could write.
TEST(GroupBody, WhatNobodyWouldSealIsRefusedByItsRule) {
  ASSERT_NO_THROW(GroupBody::Open(Payload(BodyParts().Bytes()), true));
  const auto broken = [](const std::string& what, auto change) {
    BodyParts parts;
    change(parts);
    ExpectCorrupt(parts.Bytes(), what);
  };
  broken("a token is negative", [](auto& p) { p.tokens[1] = -1; });
  broken("a token is negative", [](auto& p) { p.prompt[1] = -1; });
  broken("not finite", [](auto& p) { p.logprobs[2] = std::nanf(""); });
  broken("not finite", [](auto& p) { p.logprobs[0] = -INFINITY; });
  broken("above 0", [](auto& p) { p.logprobs[0] = 1e-30f; });
  broken("2 log-probs of 3", [](auto& p) { p.logprobs.pop_back(); });
  broken("loss mask is of 2 of 3", [](auto& p) { p.mask_runs = {1, 1}; });
  broken("loss mask", [](auto& p) { p.mask_runs = {~uint32_t{0}, 4}; });
  broken("versions of 2 of 3", [](auto& p) { p.versions = {{3, 2}}; });
  broken("no version", [](auto& p) { p.versions = {{-1, 3}}; });
  broken("no version", [](auto& p) { p.versions = {{3, 3}, {4, 0}}; });
  broken("behind the last", [](auto& p) { p.segments = {{0, 2}, {1, 4}}; });
  broken("behind the last", [](auto& p) { p.segments = {{0, 2}, {1, ~uint32_t{0}}}; });
  broken("before the last", [](auto& p) { p.segments = {{0, 2}, {1, 2}}; });
  broken("group's prompt", [](auto& p) { p.segments = {{0, 1}, {1, 3}}; });
  broken("group's prompt", [](auto& p) { p.segments = {{1, 2}, {1, 3}}; });
  broken("group's prompt", [](auto& p) { p.segments.clear(); });
  broken("before the last", [](auto& p) { p.own_prompt = 1, p.segments.clear(); });
  broken("own_prompt", [](auto& p) { p.own_prompt = 2; });
  broken("origin", [](auto& p) { p.segments = {{0, 2}, {9, 3}}; });
  broken("finish", [](auto& p) { p.finish = 3; });
  broken("purpose", [](auto& p) { p.purpose = 9; });
  broken("policy version -5", [](auto& p) { p.policy_version = -5; });
  broken("neither here nor of a store", [](auto& p) { p.prompt_sum = 0; });
  broken("malformed", [](auto& p) { p.answers = 1000; });
}

// Many answers to one long prompt in few bytes.
TEST(GroupBody, ASharedPromptDoesNotUnpackToGigabytes) {
  BodyParts parts;
  parts.prompt.assign(100'000, 1);
  parts.segments = {{0, 100'000}, {1, 0}};
  parts.tokens.clear(), parts.logprobs.clear(), parts.mask_runs.clear(), parts.versions.clear();
  parts.answers = 2000;
  ExpectCorrupt(parts.Bytes(), "unpacks to more than");
}

}  // namespace
}  // namespace plumb

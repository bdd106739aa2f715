// Records survive the wire bit for bit; bytes that lie are refused. common/record/codec.h
#include "common/record/codec.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "common/base/error.h"
#include "common/record/schema/trajectory_generated.h"

namespace plumb {
namespace {

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
  g.lease.prompt.dataset = "sums";
  g.lease.prompt.row = uint64_t{1} << 63;
  g.lease.prompt.text = std::string("1+1=\0?", 6);
  g.lease.prompt.messages = {{"system", ""},
                             {"user", "h\xc3\xa9"},
                             {"assistant", "", R"({"content":null,"tool_calls":[{"b":1,"a":2}]})"}};
  g.lease.prompt.ground_truth = "2";
  g.lease.prompt.extra_json = R"({"a":[1,2]})";
  g.lease.prompt.weight = 0.1;
  g.lease.prompt.tokens = {1, 2, std::numeric_limits<int32_t>::max()};
  g.policy = {12, std::string(32, 'a')};
  for (int i = 0; i < samples; ++i) {
    Trajectory t;
    t.sample = static_cast<uint32_t>(i);
    t.tokens = g.lease.prompt.tokens;
    const int32_t prompt = static_cast<int32_t>(t.tokens.size());
    for (int k = 0; k < completion_tokens; ++k)
      t.tokens.push_back(static_cast<int32_t>(random() % 50000));
    const size_t n = t.tokens.size();
    t.segments = {{Origin::kPrompt, 0, prompt}, {Origin::kPolicy, prompt, static_cast<int32_t>(n)}};
    t.loss_mask.assign(n, 1);
    t.logprobs.assign(n, -0.0f);
    t.policy_versions.assign(n, 12);
    for (int32_t k = 0; k < prompt; ++k)
      t.loss_mask[k] = 0, t.logprobs[k] = 0, t.policy_versions[k] = -1;
    for (size_t k = prompt; k < n; ++k)
      t.logprobs[k] = -std::ldexp(static_cast<float>(random()), -31);
    if (n > static_cast<size_t>(prompt))
      t.logprobs.back() = -std::numeric_limits<float>::denorm_min();
    t.finish = i % 2 ? FinishReason::kLength : FinishReason::kAborted;
    t.completion = "answer \xf0\x28 " + std::to_string(i);
    t.rewards = {{"correct", 1.0 / 3, 0.7, RewardScope::kTrajectory, 0, "sha"},
                 {"token", -0.0, 1, RewardScope::kToken, 1, ""}};
    t.reward = i ? -0.0 : std::nextafter(0.3, 1);
    t.scored = i != 1;
    t.unscored_reason = i == 1 ? "timeout" : "";
    g.trajectories.push_back(std::move(t));
  }
  return g;
}

// A part's index is a token or a segment that is there; whoever reads it may use it without
// looking.
TEST(Trajectory, ARewardOfATokenOrSegmentThatIsNotThereIsRefused) {
  const TrajectoryGroup good = MakeGroup(1, 4, 3);
  const auto n = static_cast<int32_t>(good.trajectories[0].tokens.size());
  ASSERT_EQ(n, 7);
  struct Case {
    RewardScope scope;
    int32_t index;
    bool holds;
  };
  for (const Case& c :
       {Case{RewardScope::kToken, n - 1, true}, Case{RewardScope::kToken, n, false},
        Case{RewardScope::kToken, -1, false}, Case{RewardScope::kSegment, 1, true},
        Case{RewardScope::kSegment, 2, false}, Case{RewardScope::kSegment, 5, false},
        Case{RewardScope::kTrajectory, 0, true}, Case{RewardScope::kTrajectory, -1, false}}) {
    TrajectoryGroup group = good;
    group.trajectories[0].rewards[1].scope = c.scope;
    group.trajectories[0].rewards[1].index = c.index;
    const std::string what =
        std::to_string(static_cast<int>(c.scope)) + " " + std::to_string(c.index);
    if (c.holds) {
      EXPECT_NO_THROW(CheckInvariants(group)) << what;
      continue;
    }
    try {
      CheckInvariants(group);
      ADD_FAILURE() << what;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kCorruption) << what;
      EXPECT_NE(std::string(e.what()).find("'token'"), std::string::npos) << e.what();
    }
  }
}

// The rules of tokens are looked at many at once: each is noticed at every place, and named.
TEST(Codec, ABrokenTokenIsNamedWhereverItStands) {
  const TrajectoryGroup whole = MakeGroup(1, 75, 4);  // 3 tokens of prompt, 75 of the policy
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinite = std::numeric_limits<float>::infinity();
  using Break = void (*)(Trajectory&, size_t, float);
  const struct {
    Break make;
    float value;
    const char* what;
    bool prompt;  // breaks a rule there as well
  } cases[] = {
      {[](Trajectory& t, size_t k, float) { t.tokens[k] = -1; }, 0, "is negative", true},
      {[](Trajectory& t, size_t k, float v) { t.logprobs[k] = v; }, nan, "is not finite", true},
      {[](Trajectory& t, size_t k, float v) { t.logprobs[k] = v; }, -infinite, "is not finite",
       true},
      {[](Trajectory& t, size_t k, float v) { t.logprobs[k] = v; }, 1e-30f, "out of place", true},
      {[](Trajectory& t, size_t k, float) { t.loss_mask[k] = 2; }, 0, "loss mask", true},
      {[](Trajectory& t, size_t k, float) { t.policy_versions[k] = k < 3 ? 0 : -1; }, 0,
       "policy version", true},
      {[](Trajectory& t, size_t k, float v) { t.logprobs[k] = v; }, -0.5f, "out of place", false},
  };
  for (const auto& c : cases) {
    for (size_t k = 0; k < 78; ++k) {
      if (!c.prompt && k >= 3) break;
      TrajectoryGroup group = whole;
      c.make(group.trajectories[0], k, c.value);
      try {
        CheckInvariants(group);
        ADD_FAILURE() << c.what << " at " << k;
      } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find(c.what), std::string::npos) << e.what();
        EXPECT_NE(std::string(e.what()).find("token " + std::to_string(k)), std::string::npos)
            << e.what();
      }
    }
  }
}

TEST(Codec, RowsThroughOneBufferAreTheSameBytes) {
  RowEncoder encoder;
  for (int i = 0; i < 5; ++i) {
    Prompt prompt = MakeGroup(1, 1, 1).lease.prompt;
    prompt.text.append(static_cast<size_t>(3000 * (i % 3)), 'x');
    prompt.row = 0;
    const std::string zero(encoder.Encode(prompt));
    EXPECT_EQ(zero, Encode(prompt));
    prompt.row = uint64_t{1} << 40 | static_cast<uint64_t>(i);
    EXPECT_EQ(encoder.WithRow(prompt.row), Encode(prompt));
    PreferenceRecord record;
    record.prompt = {{"user", "u"}, {"assistant", "a"}};
    record.chosen = {{"assistant", std::string(static_cast<size_t>(10 * i), 'c')}};
    record.margin = -0.0;
    EXPECT_EQ(encoder.Encode(record), Encode(record));
    record.row = 7;
    EXPECT_EQ(encoder.WithRow(7), Encode(record));
    EXPECT_EQ(encoder.Behind(0x04030201), "\x01\x02\x03\x04" + Encode(record));
  }
}

TEST(Codec, UnalignedBytesDecodeAsWell) {
  const PromptLease lease = MakeGroup(2, 5, 2).lease;
  const std::string bytes = Encode(lease);
  for (size_t shift = 1; shift < 8; ++shift) {
    const std::string moved = std::string(shift, '#') + bytes;
    EXPECT_EQ(DecodePromptLease(BytesOf(std::string_view(moved).substr(shift))), lease);
  }
}

TEST(Codec, LeasesPromptsAndListsRoundTrip) {
  TrajectoryGroup group = MakeGroup(2, 5, 3);
  group.lease.prompt_sum = ~uint32_t{0};
  EXPECT_EQ(DecodePromptLease(BytesOf(Encode(group.lease))), group.lease);
  EXPECT_EQ(DecodePrompt(BytesOf(Encode(group.lease.prompt))), group.lease.prompt);
  EXPECT_EQ(DecodePrompt(BytesOf(Encode(Prompt{}))), Prompt{});
  const std::vector<PromptLease> leases = {group.lease, PromptLease{}};
  EXPECT_EQ(DecodePromptLeases(BytesOf(Encode(leases))), leases);
  EXPECT_TRUE(DecodePromptLeases(BytesOf(Encode(std::span<const PromptLease>{}))).empty());
}

void ExpectCorrupt(std::string_view bytes) {
  try {
    DecodePromptLease(BytesOf(bytes));
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCorruption) << e.what();
  }
}

// A message that says no more than two texts costs what it always did, and is read from stores of
// earlier builds.
TEST(Codec, AMessageWithoutFurtherFieldsHasNoneOnTheWire) {
  Prompt prompt;
  prompt.messages = {{"user", "q"}};
  const std::string plain = Encode(prompt);
  const auto* wire = flatbuffers::GetRoot<wire::Prompt>(plain.data());
  EXPECT_EQ(wire->messages()->Get(0)->fields_json(), nullptr);
  prompt.messages[0].fields_json = R"({"name":"ann"})";
  EXPECT_GT(Encode(prompt).size(), plain.size() + 14);
  EXPECT_EQ(DecodePrompt(BytesOf(Encode(prompt))), prompt);
}

TEST(Codec, OtherRecordsTruncationsAndNothingAreRefused) {
  const PromptLease lease = MakeGroup(2, 5, 6).lease;
  ExpectCorrupt("");
  ExpectCorrupt(Encode(lease.prompt));
  const std::string bytes = Encode(lease);
  for (size_t n = 0; n < bytes.size(); ++n) ExpectCorrupt(std::string_view(bytes).substr(0, n));
}

TEST(Codec, BrokenValuesAreRefused) {
  const auto broken = [](auto change) {
    PromptLease lease = MakeGroup(2, 5, 7).lease;
    change(lease);
    ExpectCorrupt(Encode(lease));
  };
  broken([](auto& l) { l.purpose = static_cast<Purpose>(9); });
  broken([](auto& l) { l.num_samples = -1; });
  broken([](auto& l) { l.policy_version = -2; });
  broken([](auto& l) { l.prompt.weight = NAN; });
  broken([](auto& l) { l.prompt.tokens[0] = -1; });
}

// A small verified buffer whose offsets all point at one large trajectory.
TEST(Codec, SharedOffsetsDoNotUnpackToGigabytes) {
  namespace fb = flatbuffers;
  fb::FlatBufferBuilder builder;
  builder.ForceDefaults(true);
  const auto text = builder.CreateString(std::string(100000, 'x'));
  const auto empty = builder.CreateString("");
  const std::vector<fb::Offset<wire::Message>> one = {wire::CreateMessage(builder, empty, text)};
  const std::vector<fb::Offset<wire::Message>> many(20000, one[0]);
  const auto messages = builder.CreateVector(many);
  const auto tokens = builder.CreateVector(std::vector<int32_t>{});
  builder.Finish(wire::CreatePrompt(builder, empty, 0, empty, messages, empty, empty, 1, tokens),
                 "PPR1");
  const std::string_view bytes(reinterpret_cast<const char*>(builder.GetBufferPointer()),
                               builder.GetSize());
  ASSERT_LT(bytes.size(), 300000u);
  try {
    DecodePrompt(BytesOf(bytes));
    FAIL() << "unpacked 2 GB from " << bytes.size() << " bytes";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCorruption);
    EXPECT_NE(std::string(e.what()).find("twice"), std::string::npos) << e.what();
  }
}

TEST(Codec, FlippedBytesAreAnErrorOrAnotherValidRecord) {
  const std::string bytes = Encode(MakeGroup(3, 20, 9).lease);
  std::mt19937 random(10);
  int refused = 0, accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string flipped = bytes;
    const int flips = 1 + static_cast<int>(random() % 3);
    for (int k = 0; k < flips; ++k)
      flipped[random() % flipped.size()] = static_cast<char>(random());
    try {
      DecodePromptLease(BytesOf(flipped));
      ++accepted;
    } catch (const Error& e) {
      ASSERT_EQ(e.code(), ErrorCode::kCorruption);
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);  // structure
  EXPECT_GT(accepted,
            1000);  // a changed letter is a valid record: sums guard against that, not the codec
}

}  // namespace
}  // namespace plumb

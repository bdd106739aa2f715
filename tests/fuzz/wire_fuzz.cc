// Messages between roles and values of the store.
#include <cmath>

#include "common/base/error.h"
#include "common/net/rpc/call_frame.h"
#include "common/net/stream/stream_frame.h"
#include "common/net/weight_wire.h"
#include "common/net/weights/block_change.h"
#include "common/record/codec.h"
#include "common/record/group_body.h"
#include "replay/store/record.h"
#include "targets.h"
#include "tests/testing/old_store.h"

namespace plumb::fuzz {
namespace {

PromptLease SomeLease(int32_t samples) {
  PromptLease lease;
  lease.lease_id = 7;
  lease.num_samples = samples;
  lease.policy_version = 3;
  lease.prompt.dataset = "train";
  lease.prompt.text = "1+1=?";
  lease.prompt.messages = {{"system", "s"}, {"user", "h\xc3\xa9"}};
  lease.prompt.ground_truth = "2";
  lease.prompt.extra_json = R"({"a":1})";
  lease.prompt.tokens = {1, 2, 3};
  return lease;
}

TrajectoryGroup SomeGroup(int32_t samples) {
  TrajectoryGroup g;
  g.run_id = "run";
  g.actor = "actor-0";
  g.lease = SomeLease(samples);
  g.policy = {3, "digest"};
  for (int32_t i = 0; i < samples; ++i) {
    Trajectory t;
    t.sample = static_cast<uint32_t>(i);
    t.tokens = {1, 2, 3, 10 + i, 11};
    t.segments = {{Origin::kPrompt, 0, 3}, {Origin::kPolicy, 3, 5}};
    t.loss_mask = {0, 0, 0, 1, 1};
    t.logprobs = {0, 0, 0, -0.5f, -1.25f};
    t.policy_versions = {-1, -1, -1, 3, 3};
    if (i == 0) t.kept = {0, 0, 0, 2, 10, 0};
    t.experts = {{2, 1, 4}, {0, 5, static_cast<uint8_t>(i), 15}};
    t.completion = "answer";
    t.rewards = {{"correct", 1, 1, RewardScope::kTrajectory, 0, "sha"}};
    t.reward = 1;
    t.scored = true;
    g.trajectories.push_back(std::move(t));
  }
  return g;
}

PreferenceRecord SomePreference() {
  PreferenceRecord r;
  r.prompt_text = "p";
  r.chosen = {{"assistant", "good"}};
  r.rejected = {{"assistant", "bad"}};
  r.has_margin = true;
  r.margin = 0.5;
  return r;
}

// The value of a group as a store before December 2026 held it.
std::string OldGroup() {
  for (const auto& record : plumb::testing::OldStoreRecords()) {
    if (record.family == "groups") return record.value;
  }
  PLUMB_CHECK(false, "tests/golden/store_before_bodies.txt has no group");
}

std::string Tagged(char which, const std::string& bytes) { return std::string(1, which) + bytes; }

// What was decoded has to encode, and to decode to itself again.
template <class Decode, class Record>
void Again(const Decode& decode, const Record& record) {
  const std::string bytes = Encode(record);
  PLUMB_CHECK(Encode(decode(BytesOf(bytes))) == bytes, "a record changed on its way");
}

}  // namespace

void FuzzRecords(std::string_view input) {
  if (input.empty()) return;
  const auto bytes = BytesOf(input.substr(1));
  switch (input[0] % 6) {
    case 0: return Use(DecodeTrajectoryGroup(bytes).trajectories.size());
    case 1: return Again(DecodePromptLease, DecodePromptLease(bytes));
    case 2: return Again(DecodePrompt, DecodePrompt(bytes));
    case 3: return Again(DecodePreferenceRecord, DecodePreferenceRecord(bytes));
    case 4: {
      const TrajectoryGroup group =
          GroupBody::Open(Payload(std::string(input.substr(1))), /*summed=*/true).Unpack();
      const GroupBody again = GroupBody::Seal(group);
      PLUMB_CHECK(GroupBody::Open(again.bytes()).Unpack() == group, "a body changed on its way");
      return;
    }
    case 5: return Use(DecodePromptLeases(bytes).size());
  }
}

Seeds RecordSeeds() {
  const std::vector<PromptLease> leases = {SomeLease(1), SomeLease(4)};
  return {Tagged(0, OldGroup().substr(5)),
          Tagged(1, Encode(SomeLease(2))),
          Tagged(2, Encode(SomeLease(2).prompt)),
          Tagged(3, Encode(SomePreference())),
          Tagged(4, GroupBody::Seal(SomeGroup(3)).bytes().str()),
          Tagged(5, Encode(std::span(leases)))};
}

void FuzzFrames(std::string_view input) {
  if (input.empty()) return;
  const std::string_view bytes = input.substr(1);
  switch (input[0] % 7) {
    case 0: {
      const StreamFrame frame = DecodeStreamFrame(bytes);
      PLUMB_CHECK(EncodeStreamFrame(frame) == bytes);
      return Use(frame.acked.size());
    }
    case 1: {
      const CallFrame frame = DecodeCallFrame(bytes);
      PLUMB_CHECK(EncodeCallFrame(frame) == bytes);
      return Use(frame.ids.size());
    }
    case 2: {
      const WeightOffer offer = weight_wire::DecodeOffer(bytes);
      PLUMB_CHECK(weight_wire::EncodeOffer(offer) == bytes);
      return Use(offer.sets.size());
    }
    case 3: {
      const PolicyVersion version = weight_wire::DecodeVersion(bytes);
      PLUMB_CHECK(weight_wire::EncodeVersion(version) == bytes);
      return Use(version.digest.size());
    }
    case 4: {
      const auto question = weight_wire::DecodeBlocksQuestion(bytes);
      PLUMB_CHECK(weight_wire::EncodeBlocksQuestion(question) == bytes);
      return Use(question.most);
    }
    case 5: return Use(weight_wire::DecodeBlocks(Payload(std::string(bytes))).size());
    case 6: {
      // What is read of a change is that change.
      const std::vector<std::byte> base(101, std::byte{5});
      std::vector<std::byte> into(base.size()), again(base.size());
      DecodeBlock(bytes, base, into);
      DecodeBlock(EncodeBlock(into, base), base, again);
      PLUMB_CHECK(into == again, "a change is another one the second time");
      return Use(into.size());
    }
  }
}

Seeds FrameSeeds() {
  StreamFrame stream;
  stream.kind = wire::StreamKind::Data;
  stream.run = "run";
  stream.producer = "actor-0";
  stream.epoch = 5;
  stream.acked = {1, 2, 3};
  stream.pending = {4};
  CallFrame call;
  call.client = "learner";
  call.verb = "weights.await";
  call.ids = {1, 2};
  WeightOffer offer;
  offer.version = {4, "digest"};
  offer.sets.push_back({"base", "a", 16});
  offer.sets.push_back({"lora", "b", 4});
  const std::vector<weight_wire::BlockOnWire> blocks = {{Payload(std::string("abc")), true},
                                                        {Payload(SameBlock()), false}};
  return {Tagged(0, EncodeStreamFrame(stream)),
          Tagged(1, EncodeCallFrame(call)),
          Tagged(2, weight_wire::EncodeOffer(offer)),
          Tagged(3, weight_wire::EncodeVersion(offer.version)),
          Tagged(4, weight_wire::EncodeBlocksQuestion(
                        {.who = "a", .version = 1, .set = "s", .base = "b", .first = 2})),
          Tagged(5, weight_wire::EncodeBlocks(blocks)),
          Tagged(6, std::string("\1\2\0\3\7\7\7\7", 8)),
          Tagged(6, std::string("\2\3\0\0\0\0\0\0\1\1\1\1", 12))};
}

void FuzzStoreRecords(std::string_view input) {
  using namespace replay;
  if (input.empty()) return;
  const std::string_view bytes = input.substr(1);
  switch (input[0] % 11) {
    case 0: {
      const std::string key = LeaseKey(Purpose::kTrain, 0);
      return Use(OpenStoredGroup(key, Seal(key, bytes), "").group.trajectories.size());
    }
    case 1: return Use(EncodeLeaseRecord(DecodeLeaseRecord("key", bytes)).size());
    case 2: return Use(DecodeBatch(bytes).size());
    case 3: return Use(DecodePromptRow("key", bytes).tokens.size());
    case 4: return Use(DecodePreferenceRow("key", bytes).chosen.size());
    case 5: {
      for (const float v : DecodeLogprobs("key", bytes)) PLUMB_CHECK(std::isfinite(v) && v <= 0);
      return;
    }
    case 6: {
      uint32_t sum = 0;
      const GroupScore score = DecodeGroupScore("key", bytes, &sum);
      PLUMB_CHECK(DecodeGroupScore("key", EncodeGroupScore(score, sum)) == score);
      return;
    }
    case 7: return Use(EncodeStepPlan(DecodeStepPlan("key", bytes)).size());
    case 8: return Use(DecodeEvaluation("key", bytes).prompts);
    case 9: {
      const auto [key, value] = Halves(bytes);
      Use(ReadableKey("groups", key).size() + ReadableKey("prompts", key).size());
      return Use(Unseal("groups", key, value).size());
    }
    case 10: return Use(ParseLeaseKey(bytes).second);
  }
}

Seeds StoreRecordSeeds() {
  using namespace replay;
  const TrajectoryGroup group = SomeGroup(2);
  const GroupBody body = GroupBody::Seal(group);
  GroupScore dropped = ScoresOf(group);
  dropped.dropped = "unscored";
  GroupScore score;
  score.answers = {
      {.reward = 0.5, .parts = {{"correct", 1, 0.5, RewardScope::kTrajectory, 0, "sha"}}}};
  StepPlan plan{.prompt_rows = {1, 2, 3},
                .drawn = true,
                .replayed = {9},
                .total_replayed = 1,
                .chosen = {8, 2}};
  const std::vector<float> logprobs = {-0.5f, -1.0f};
  BatchWriter batch(2);
  const std::string key = LeaseKey(Purpose::kTrain, group.lease.lease_id);
  for (const GroupScore& scores : {ScoresOf(group), dropped}) {
    batch.Add(key, body.bytes(), Seal(key, EncodeGroupScore(scores, body.sum())));
  }
  return {
      Tagged(0, OldGroup().substr(4)),
      Tagged(6, EncodeGroupScore(dropped, 1)),
      Tagged(1, EncodeLeaseRecord({.complete = true, .attempt = 2, .requeues = 1, .sequence = 9})),
      Tagged(2, batch.Take()),
      Tagged(3, Encode(SomeLease(1).prompt)),
      Tagged(4, Encode(SomePreference())),
      Tagged(5, EncodeLogprobs(logprobs)),
      Tagged(6, EncodeGroupScore(score, 7)),
      Tagged(7, EncodeStepPlan(plan)),
      Tagged(8, EncodeEvaluation({.version = 3, .samples = 4, .prompts = 5})),
      Tagged(9, Joined("key", Seal("key", "value"))),
      Tagged(10, LeaseKey(Purpose::kEval, 77))};
}

}  // namespace plumb::fuzz

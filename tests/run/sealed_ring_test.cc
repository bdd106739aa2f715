// A group's way through the parts of a run in processes, here in one: actor -> reward worker ->
// store -> learner. Its body is encoded once and decoded once; what lies in the store are the bytes
// that the actor sent.
#include <gtest/gtest.h>

#include <future>
#include <memory>

#include "common/net/stream/transport.h"
#include "common/record/group_body.h"
#include "replay/store/prompt_cache.h"
#include "replay/store/record.h"
#include "replay/table/remote.h"
#include "run/roles/scoring_line.h"
#include "tests/replay/fixtures.h"

namespace plumb::run {
namespace {

using namespace std::chrono_literals;

// Scores by what only the store has of a prompt.
class ByGroundTruth : public Scorer {
 public:
  void Score(TrajectoryGroup& group) override {
    for (Trajectory& t : group.trajectories) {
      EXPECT_TRUE(t.logprobs.empty()) << "a reward has no use for them";
      t.reward = std::stod(group.lease.prompt.ground_truth) + t.sample;
      t.rewards = {{.name = "truth", .value = t.reward}};
      t.scored = true;
      texts.insert(group.lease.prompt.text);
    }
  }
  std::set<std::string> texts;
};

TEST(SealedRing, ABodyIsEncodedOnceAndDecodedOnceOnItsWay) {
  const replay::TempFolder folder;
  const auto store = replay::OpenStore(folder / "store");
  std::vector<Prompt> prompts = replay::SomePrompts(8);
  for (Prompt& p : prompts) {
    p.tokens.assign(64, 7);
    p.extra_json = R"({"tests":")" + std::string(100'000, 'x') + "\"}";
  }
  store->PutPrompts(replay::kTrainDataset, prompts);
  replay::TableOptions options;
  options.steps = 1;
  options.prompts_per_step = 8;
  options.samples_per_prompt = 8;
  replay::ReplayTable table(store.get(), options);
  const replay::ReplayServer server(&table, "ipc://" + (folder / "store.sock"));
  replay::ReplayClient actor(server.endpoint(), {.actor = "actor-0"}),
      worker(server.endpoint(), {.actor = "reward-0"}),
      learner(server.endpoint(), {.actor = "learner"});

  ByGroundTruth scorer;
  int questions = 0;
  replay::PromptCache cache([&](std::span<const replay::PromptRef> refs) {
    ++questions;
    return worker.Prompts(refs);
  });
  ScoringLine scoring(
      [&](FinishedGroup& sealed) { return ScoreSealed(sealed, scorer, cache); },
      [&](std::span<const replay::ScoredBody> groups) { worker.InsertMany(groups); }, {});
  Receiver receiver({.endpoint = "ipc://" + (folder / "reward.sock"), .run = "run"},
                    [&](TransportMessage message, Ack ack) {
                      auto right = std::make_shared<Ack>(std::move(ack));
                      FinishedGroup sealed{{}, GroupBody::Open(std::move(message.payload))};
                      cache.Want(replay::RefOf(sealed.body->head().lease));
                      scoring.Push(sealed, Deadline{}, [right] { right->Complete(); });
                    });
  Sender sender({.endpoint = receiver.endpoint(), .run = "run", .producer = "actor-0", .epoch = 1});

  const GroupBody::Counts before = GroupBody::counts();
  auto batch = std::async(std::launch::async, [&] { return learner.Next(0, After(30s)); });
  std::map<uint64_t, std::string> sent;
  std::vector<TrajectoryGroup> made;
  while (sent.size() < 8) {
    for (const PromptLease& lease : actor.Lease(8, After(10s))) {
      EXPECT_NE(lease.prompt_sum, 0u);
      EXPECT_EQ(lease.prompt.tokens.size(), 64u);
      EXPECT_TRUE(lease.prompt.text.empty() && lease.prompt.ground_truth.empty() &&
                  lease.prompt.extra_json.empty());
      TrajectoryGroup group = replay::Answer(lease, 0, "run", 510);
      for (Trajectory& t : group.trajectories) {
        t.rewards.clear();
        t.scored = false;
        t.tokens.erase(t.tokens.begin(), t.tokens.begin() + 2);
        t.tokens.insert(t.tokens.begin(), 64, 7);
        t.segments = {{Origin::kPrompt, 0, 64}, {Origin::kPolicy, 64, 574}};
        for (auto insert = 0; insert < 62; ++insert) {
          t.loss_mask.insert(t.loss_mask.begin(), 0);
          t.logprobs.insert(t.logprobs.begin(), 0.0f);
          t.policy_versions.insert(t.policy_versions.begin(), -1);
        }
      }
      const GroupBody body = GroupBody::Seal(group);
      sent[lease.lease_id] = body.bytes().str();
      sender.Send(body.bytes().str(), After(10s));
      made.push_back(std::move(group));
    }
  }
  const auto got = batch.get();
  const GroupBody::Counts after = GroupBody::counts();
  EXPECT_EQ(after.sealed - before.sealed, 8);
  EXPECT_EQ(after.unpacked - before.unpacked, 8);
  ASSERT_EQ(got.size(), 8u);
  EXPECT_EQ(scorer.texts.size(), 8u);
  EXPECT_LE(questions, 8);
  for (size_t i = 0; i < 8; ++i) {
    TrajectoryGroup expected = made[i];
    const std::string truth = store->FindPrompt(replay::RefOf(expected.lease)).ground_truth;
    for (Trajectory& t : expected.trajectories) {
      t.reward = std::stod(truth) + t.sample;
      t.rewards = {{.name = "truth", .value = t.reward}};
      t.scored = true;
    }
    expected.lease.prompt.weight = 1;  // stays with the store as well
    EXPECT_EQ(got[i], expected);
    size_t stored = 0;
    EXPECT_TRUE(store->ReadSealed(
        Purpose::kTrain, i, [&](std::string_view, std::string_view value, std::string_view scores) {
          EXPECT_EQ(value, sent[i]) << "another encoding";
          stored = value.size() + scores.size();
        }));
    // 8 answers of 510 tokens and the prompt's 64, with the scores: text is 10 bytes an answer
    // here.
    EXPECT_LE(static_cast<double>(stored) / (8 * 510 + 64), 9.0);
  }
}

// Whoever asks for a prompt that the store has another row for is told so.
TEST(SealedRing, APromptThatChangedIsAnErrorThatSaysSo) {
  const replay::TempFolder folder;
  const auto store = replay::OpenStore(folder / "store");
  store->PutPrompts(replay::kTrainDataset, replay::SomePrompts(2));
  uint32_t sum = 0;
  store->ReadPrompt(replay::kTrainDataset, 1, &sum);
  EXPECT_EQ(store->FindPrompt({replay::kTrainDataset, 1, sum}).text, "question 1");
  EXPECT_THROWS(ErrorCode::kConflict, "a run's prompts never change",
                store->FindPrompt({replay::kTrainDataset, 1, sum + 1}));
  EXPECT_THROWS(ErrorCode::kNotFound, "prompts train/7",
                store->FindPrompt({replay::kTrainDataset, 7, sum}));
  TrajectoryGroup group = replay::PlainGroup(0);
  group.lease.prompt.row = 1;
  group.lease.prompt_sum = sum;
  ASSERT_EQ(store->Insert(group), InsertResult::kInserted);
  EXPECT_EQ(store->Read(Purpose::kTrain, 0)->group.lease.prompt.text, "question 1");
  group.lease.lease_id = 1;
  group.lease.prompt_sum = sum ^ 1;
  ASSERT_EQ(store->Insert(group), InsertResult::kInserted);
  EXPECT_THROWS(ErrorCode::kConflict, "train/1 is another one", store->Read(Purpose::kTrain, 1));
  EXPECT_TRUE(store->Read(Purpose::kTrain, 1, /*texts=*/false));
}

}  // namespace
}  // namespace plumb::run

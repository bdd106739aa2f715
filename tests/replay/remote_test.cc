#include "replay/remote.h"

#include <future>
#include <thread>

#include "fixtures.h"
#include "replay/record.h"

namespace plumb::replay {
namespace {

using namespace std::chrono_literals;

struct Service {
  explicit Service(TableOptions o = Default()) {
    store = OpenStore(folder / "store");
    store->PutPrompts(kTrainDataset, SomePrompts(10));
    store->PutPrompts(kEvalDataset, SomePrompts(3, "held out "));
    table = std::make_unique<ReplayTable>(store.get(), o);
    server = std::make_unique<ReplayServer>(table.get(), "ipc://" + (folder / "store.sock"));  // mkdtemp makes it 0700
  }
  static TableOptions Default() {
    TableOptions o;
    o.steps = 10;
    o.prompts_per_step = 4;
    o.samples_per_prompt = 2;
    return o;
  }
  std::unique_ptr<ReplayClient> Client(const std::string& actor, uint64_t epoch = 0) {
    ReplayClientOptions options;
    options.actor = actor;
    options.epoch = epoch;
    return std::make_unique<ReplayClient>(server->endpoint(), options);
  }
  TempFolder folder;
  std::unique_ptr<Store> store;
  std::unique_ptr<ReplayTable> table;
  std::unique_ptr<ReplayServer> server;
};

// The store of a restarted role that holds less than was acknowledged (here: an older copy) refuses to go on.
TEST(RemoteTest, AStoreThatForgotWhatItAcknowledgedIsRefused) {
  Service service;
  auto learner = service.Client("learner");
  auto actor = service.Client("actor-0");
  auto asked = std::async(std::launch::async, [&] { return learner->Next(0, After(20s)); });
  auto leases = actor->Lease(4, After(20s));
  while (leases.size() < 4) {
    for (const auto& lease : actor->Lease(4, After(20s))) leases.push_back(lease);
  }
  EXPECT_EQ(actor->Insert(Answer(leases[0], 0)), InsertResult::kInserted);
  service.store->Snapshot(service.folder / "older");
  EXPECT_EQ(actor->Insert(Answer(leases[1], 0)), InsertResult::kInserted);
  const auto restart = [&](const std::string& name) {
    service.server.reset();
    service.table.reset();
    service.store.reset();
    service.store = OpenStore(service.folder / name);
    service.table = std::make_unique<ReplayTable>(service.store.get(), Service::Default());
    service.server = std::make_unique<ReplayServer>(service.table.get(), "ipc://" + (service.folder / "store.sock"));
  };
  restart("older");
  EXPECT_THROWS(ErrorCode::kCorruption, "holds 1 inserts and has acknowledged 2", actor->Insert(Answer(leases[2], 0)));
  EXPECT_EQ(service.store->Sequence(), 1u);
  restart("store");
  for (const size_t i : {2, 3}) EXPECT_EQ(actor->Insert(Answer(leases[i], 0)), InsertResult::kInserted);
  try {
    asked.get();
  } catch (const Error&) {  // the question died with the first server
  }
}

TEST(RemoteTest, AWholeStepThroughTheSocket) {
  Service service;
  auto learner = service.Client("learner");
  std::vector<std::thread> actors;
  for (int a = 0; a < 2; ++a) {
    actors.emplace_back([&service, a] {
      auto actor = service.Client("actor-" + std::to_string(a));
      while (!actor->Finished()) {
        for (const PromptLease& lease : actor->Lease(1, After(5s))) {
          const int64_t version = lease.policy_version;
          EXPECT_EQ(actor->Insert(Answer(lease, version)), InsertResult::kInserted);
        }
      }
    });
  }
  for (int64_t step = 0; step < 3; ++step) {
    const auto batch = learner->Next(step, After(20s));
    ASSERT_EQ(batch.size(), 4u);
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(batch[i].lease.lease_id, static_cast<uint64_t>(step) * 4 + i);
      EXPECT_EQ(batch[i].trajectories, Answer(batch[i].lease, step).trajectories);
    }
  }
  const auto answers = learner->Evaluate(3, 1, After(20s));
  EXPECT_EQ(answers.size(), 3u);
  learner->Finish();
  for (auto& a : actors) a.join();
  auto counters = learner->Counters();
  EXPECT_EQ(counters["inserts"], 15);
  EXPECT_EQ(counters["duplicates"], 0);
  EXPECT_GT(service.server->Counters()["rpc/requests"], 15);
}

TEST(RemoteTest, DeadlinesNameWhatIsMissing) {
  Service service;
  auto learner = service.Client("learner"), actor = service.Client("actor-7");
  EXPECT_THROWS(ErrorCode::kDeadline, "waiting for 4 of 4 groups of step 0", learner->Next(0, After(30ms)));
  ASSERT_EQ(actor->Lease(1, After(5s)).size(), 1u);
  EXPECT_THROWS(ErrorCode::kDeadline, "lease 0 at actor 'actor-7'", learner->Next(0, After(30ms)));
  EXPECT_EQ(actor->Lease(10, After(5s)).size(), 3u);
  EXPECT_TRUE(actor->Lease(10, After(30ms)).empty());
  EXPECT_THROWS(ErrorCode::kInvalidArgument, "asked for step 99", learner->Next(99, After(30ms)));
}

TEST(RemoteTest, ANewLifeOfAnActorTakesOver) {
  Service service;
  auto learner = service.Client("learner");
  EXPECT_THROW(learner->Next(0, After(0ms)), Error);
  auto first = service.Client("actor-0", 1);
  const auto held = first->Lease(4, After(5s));
  ASSERT_EQ(held.size(), 4u);
  auto second = service.Client("actor-0", 2);
  const auto again = second->Lease(4, After(5s));
  ASSERT_EQ(again.size(), 4u);
  EXPECT_EQ(again[0].lease_id, held[0].lease_id);
  EXPECT_EQ(again[0].attempt, 1u);
  EXPECT_THROWS(ErrorCode::kConflict, "newer process of actor 'actor-0'", first->Lease(1, After(1s)));
  // What the first had sent before it died may still arrive, through a reward worker: it counts once.
  EXPECT_EQ(first->Insert(Answer(held[0], 0)), InsertResult::kInserted);
  EXPECT_EQ(second->Insert(Answer(again[0], 0)), InsertResult::kDuplicate);
  second->Release(std::span(again).subspan(1, 1));
  EXPECT_EQ(second->Lease(4, After(5s)).at(0).lease_id, 1u);
  EXPECT_EQ(learner->ReleaseActor("actor-0"), 3);
}

// An actor that was frozen while the store answered has forgotten its call; the leases must not wait for their time to run out.
TEST(RemoteTest, LeasesWhoseReplyWasLostComeWithTheNextCall) {
  Service service;
  auto learner = service.Client("learner"), actor = service.Client("actor-0", 1);
  EXPECT_THROW(learner->Next(0, After(0ms)), Error);
  RpcClient lost(service.server->endpoint());
  lost.Call("lease", ByteWriter().Bytes("actor-0").U64(1).U64(0).U32(4).U64(5000).Take(), After(5s));
  const auto leases = actor->Lease(2, After(5s));
  ASSERT_EQ(leases.size(), 4u) << "all that the lost reply held";
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(leases[i].lease_id, i);
    EXPECT_EQ(leases[i].attempt, 0u);
  }
  EXPECT_TRUE(actor->Lease(4, After(30ms)).empty()) << "the next question is a new one";
  // Another life does not inherit the answer: its leases are handed out anew.
  auto second = service.Client("actor-0", 2);
  const auto again = second->Lease(4, After(5s));
  ASSERT_EQ(again.size(), 4u);
  EXPECT_EQ(again[0].attempt, 1u);
}

TEST(RemoteTest, AWaitingLeaseIsAnsweredWhenTheLearnerAsks) {
  Service service;
  auto actor = service.Client("actor-0"), learner = service.Client("learner");
  auto leases = std::async(std::launch::async, [&] { return actor->Lease(4, After(20s)); });
  std::this_thread::sleep_for(30ms);
  const auto asked = std::chrono::steady_clock::now();
  auto batch = std::async(std::launch::async, [&] { return learner->Next(0, After(20s)); });
  const auto got = leases.get();
  EXPECT_LT(std::chrono::steady_clock::now() - asked, 5s);
  ASSERT_EQ(got.size(), 4u);
  std::vector<TrajectoryGroup> groups;
  for (const auto& lease : got) groups.push_back(Answer(lease, 0));
  groups[2].trajectories[0].scored = false;
  EXPECT_EQ(actor->InsertMany(groups), std::vector<InsertResult>(4, InsertResult::kInserted));
  const auto result = batch.get();
  ASSERT_EQ(result.size(), 4u);
  EXPECT_TRUE(result[2].trajectories.empty());  // dropped: its lease travels all the same
  EXPECT_EQ(result[2].lease, got[2]);
  learner->Finish();
  EXPECT_TRUE(actor->Lease(1, After(20s)).empty());
  EXPECT_TRUE(actor->Finished());
}

TEST(RemoteTest, CursorTrimAndErrorsKeepTheirCode) {
  Service service;
  auto client = service.Client("learner");
  EXPECT_THROW(client->Next(0, After(0ms)), Error);
  for (const auto& lease : client->Lease(4, After(5s))) client->Insert(Answer(lease, 0));
  const auto cursor = client->CursorAt(1);
  EXPECT_EQ(cursor.next_step, 1);
  EXPECT_EQ(cursor.sequence, 4u);
  client->CheckCursor(cursor);
  EXPECT_THROWS(ErrorCode::kCorruption, "acknowledged groups are missing", client->CheckCursor({1, 5}));
  client->Trim(1);
  EXPECT_THROWS(ErrorCode::kNotFound, "trimmed", client->Next(0, After(5s)));
  TrajectoryGroup broken = Answer(PlainLease(5), 0);
  broken.trajectories[0].tokens.clear();
  EXPECT_THROWS(ErrorCode::kCorruption, "", client->Insert(broken));
}

TEST(RemoteTest, WhatRolesReportIsSummedOverThemAndTheirLives) {
  Service service;
  auto learner = service.Client("learner");
  service.Client("actor-0", 1)->Report({{"actor/tokens", 100}, {"actor/leases", 3}});
  service.Client("actor-0", 1)->Report({{"actor/tokens", 150}, {"actor/leases", 4}});  // totals replace totals
  service.Client("reward-0", 1)->Report({{"reward/groups", 7}});
  service.Client("actor-1", 5)->Report({{"actor/tokens", 1}});
  auto counters = learner->Counters();
  EXPECT_EQ(counters["actor/tokens"], 151);
  EXPECT_EQ(counters["actor/leases"], 4);
  EXPECT_EQ(counters["reward/groups"], 7);
  EXPECT_TRUE(counters.contains("inserts")) << "the table's own are there as before";
  // Killed and started again: it counts from 0, the sum goes on; a late word of the life before changes nothing.
  service.Client("actor-0", 2)->Report({{"actor/tokens", 10}});
  service.Client("actor-0", 1)->Report({{"actor/tokens", 9000}});
  EXPECT_EQ(learner->Counters()["actor/tokens"], 161);
  EXPECT_EQ(learner->Counters()["actor/leases"], 4);
}

TEST(RemoteTest, MalformedRequestsChangeNothing) {
  Service service;
  RpcClient raw(service.server->endpoint());
  for (const char* verb : {"insert", "lease", "next", "evaluate", "release", "release_actor", "cursor", "check_cursor", "trim", "report"}) {
    for (const std::string& payload : {std::string(), std::string("\x05"), std::string(100, '\xFF')}) {
      EXPECT_THROW(raw.Call(verb, payload, After(5s)), Error) << verb << " with " << payload.size() << " bytes";
    }
  }
  EXPECT_THROWS(ErrorCode::kUnsupported, "format_disk", raw.Call("format_disk", "", After(5s)));
  EXPECT_EQ(service.table->Counters()["inserts"], 0);
  EXPECT_EQ(service.table->Counters()["held"], 0);
}

TEST(RecordTest, KeysSortAndValuesKnowTheirKey) {
  EXPECT_LT(LeaseKey(Purpose::kTrain, 255), LeaseKey(Purpose::kTrain, 256));
  EXPECT_LT(LeaseKey(Purpose::kTrain, UINT64_MAX), LeaseKey(Purpose::kEval, 0));
  EXPECT_EQ(ParseLeaseKey(LeaseKey(Purpose::kEval, 77)), std::pair(Purpose::kEval, uint64_t{77}));
  EXPECT_THROW(ParseLeaseKey("short"), Error);
  const std::string value = Seal("key", "payload");
  EXPECT_EQ(Unseal("meta", "key", value), "payload");
  EXPECT_THROWS(ErrorCode::kCorruption, "meta kez", Unseal("meta", "kez", value));
  EXPECT_THROW(Unseal("meta", "key", "abc"), Error);
  for (size_t i = 0; i < value.size() * 8; ++i) {
    std::string flipped = value;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << (i % 8)));
    EXPECT_THROW(Unseal("meta", "key", flipped), Error) << "bit " << i;
  }
}

}  // namespace
}  // namespace plumb::replay

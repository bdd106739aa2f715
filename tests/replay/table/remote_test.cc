#include "replay/table/remote.h"

#include <future>
#include <thread>

#include "replay/store/record.h"
#include "replay/store/rocks.h"
#include "tests/replay/fixtures.h"

namespace plumb::replay {
namespace {

using namespace std::chrono_literals;

struct Service {
  explicit Service(TableOptions o = Default()) {
    store = OpenStore(folder / "store");
    store->PutPrompts(kTrainDataset, SomePrompts(10));
    store->PutPrompts(kEvalDataset, SomePrompts(3, "held out "));
    table = std::make_unique<ReplayTable>(store.get(), o);
    server = std::make_unique<ReplayServer>(
        table.get(), "ipc://" + (folder / "store.sock"));  // mkdtemp makes it 0700
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

// The store of a restarted role that holds less than was acknowledged (here: an older copy) refuses
// to go on.
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
    service.server = std::make_unique<ReplayServer>(service.table.get(),
                                                    "ipc://" + (service.folder / "store.sock"));
  };
  restart("older");
  EXPECT_THROWS(ErrorCode::kCorruption, "holds 1 inserts and has acknowledged 2",
                actor->Insert(Answer(leases[2], 0)));
  EXPECT_EQ(service.store->Sequence(), 1u);
  restart("store");
  for (const size_t i : {2, 3})
    EXPECT_EQ(actor->Insert(Answer(leases[i], 0)), InsertResult::kInserted);
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

// One step with a dropped group and one of an earlier step: what comes through the socket is what
// the table itself returns, and the bytes are the store's own.
TEST(RemoteTest, ServedBytesAreThoseOfTheStore) {
  TableOptions options = Service::Default();
  options.planner.groups_per_step = 1;
  options.planner.remover.max_steps = 4;
  Service service(options);
  auto learner = service.Client("learner");
  auto actor = service.Client("actor-0");
  for (int64_t step = 0; step < 2; ++step) {
    auto asked =
        std::async(std::launch::async, [&, step] { return learner->Next(step, After(20s)); });
    for (size_t answered = 0; answered < 4;) {
      for (const PromptLease& lease : actor->Lease(4, After(20s))) {
        TrajectoryGroup group = Answer(lease, step, "run", 40);
        if (lease.lease_id == 5) {
          group.trajectories[1].scored = false;
          group.trajectories[1].unscored_reason = "timeout";
        }
        EXPECT_EQ(actor->Insert(group), InsertResult::kInserted);
        ++answered;
      }
    }
    const auto remote = asked.get();
    EXPECT_EQ(remote, service.table->Next(step, After(1s)));
    if (step == 0) continue;
    ASSERT_EQ(remote.size(), 5u);
    for (const Trajectory& t : remote[1].trajectories) EXPECT_FALSE(t.scored);
    EXPECT_EQ(remote[1].lease.lease_id, 5u);
    EXPECT_EQ(remote[1].lease.num_samples, 2);
    EXPECT_LT(remote[4].lease.lease_id, 4u);  // of step 0
    EXPECT_TRUE(remote[4].trajectories.at(0).scored);
    BatchWriter expected(5);
    for (const TrajectoryGroup& group : remote) {
      const uint64_t id = group.lease.lease_id;
      const std::string value = GroupBody::Seal(group).bytes().str();  // as its actor sealed it
      EXPECT_TRUE(service.store->ReadSealed(
          Purpose::kTrain, id, [&](std::string_view k, std::string_view v, std::string_view s) {
            EXPECT_EQ(k, LeaseKey(Purpose::kTrain, id));
            // What 5 says of its answers' reasons came with its scores.
            EXPECT_TRUE(id == 5 || v == value);
            expected.Add(k, v, s);
          }));
    }
    EXPECT_EQ(*service.table->TryNext(1), expected.Take());
    EXPECT_FALSE(service.store->ReadSealed(
        Purpose::kTrain, 99, [](std::string_view, std::string_view, std::string_view) { FAIL(); }));
  }
  auto evaluated =
      std::async(std::launch::async, [&] { return learner->Evaluate(2, 1, After(20s)); });
  for (size_t answered = 0; answered < 3;) {
    for (const PromptLease& lease : actor->Lease(4, After(20s))) {
      if (lease.purpose != Purpose::kEval) continue;
      EXPECT_EQ(actor->Insert(Answer(lease, 2)), InsertResult::kInserted);
      ++answered;
    }
  }
  EXPECT_EQ(evaluated.get(), service.table->Evaluate(2, 1, After(1s)));
}

// A group that is damaged in the store ends the question, by name; no byte of the step is served.
TEST(RemoteTest, ADamagedGroupIsNamedToTheLearner) {
  Service service;
  {
    auto learner = service.Client("learner");
    auto actor = service.Client("actor-0");
    auto asked = std::async(std::launch::async, [&] { return learner->Next(0, After(20s)); });
    for (size_t answered = 0; answered < 4;) {
      for (const PromptLease& lease : actor->Lease(4, After(20s))) {
        EXPECT_EQ(actor->Insert(Answer(lease, 0, "run", 40)), InsertResult::kInserted);
        ++answered;
      }
    }
    EXPECT_EQ(asked.get().size(), 4u);
  }
  service.server.reset();
  service.table.reset();
  service.store.reset();
  {
    RocksFolder rocks;  // below the store's sums, where RocksDB's own are right
    rocks.Open(service.folder / "store", {});
    const std::string key = LeaseKey(Purpose::kTrain, 2);
    std::string value;
    {
      RocksFolder::Pinned pinned;
      ASSERT_TRUE(rocks.Get(Family::kGroups, key, &pinned).ok());
      value = pinned.value.ToString();
    }
    value[value.size() / 2] = static_cast<char>(value[value.size() / 2] ^ 4);
    rocksdb::WriteBatch batch;
    batch.Put(rocks.handle(Family::kGroups), key, value);
    rocks.Write(batch, true);
  }
  service.store = OpenStore(service.folder / "store");
  service.table = std::make_unique<ReplayTable>(service.store.get(), Service::Default());
  service.server = std::make_unique<ReplayServer>(service.table.get(),
                                                  "ipc://" + (service.folder / "store.sock"));
  auto learner = service.Client("learner");
  EXPECT_THROWS(ErrorCode::kCorruption, "groups train lease 2", learner->Next(0, After(20s)));
  EXPECT_EQ(learner->Counters()["corrupt_reads"], 1);
}

TEST(RemoteTest, DeadlinesNameWhatIsMissing) {
  Service service;
  auto learner = service.Client("learner"), actor = service.Client("actor-7");
  EXPECT_THROWS(ErrorCode::kDeadline, "waiting for 4 of 4 groups of step 0",
                learner->Next(0, After(30ms)));
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
  EXPECT_THROWS(ErrorCode::kConflict, "newer process of actor 'actor-0'",
                first->Lease(1, After(1s)));
  // What the first had sent before it died may still arrive, through a reward worker: it counts
  // once.
  EXPECT_EQ(first->Insert(Answer(held[0], 0)), InsertResult::kInserted);
  EXPECT_EQ(second->Insert(Answer(again[0], 0)), InsertResult::kDuplicate);
  second->Release(std::span(again).subspan(1, 1));
  EXPECT_EQ(second->Lease(4, After(5s)).at(0).lease_id, 1u);
  EXPECT_EQ(learner->ReleaseActor("actor-0"), 3);
}

// An actor that was frozen while the store answered has forgotten its call; the leases must not
// wait for their time to run out.
TEST(RemoteTest, LeasesWhoseReplyWasLostComeWithTheNextCall) {
  Service service;
  auto learner = service.Client("learner"), actor = service.Client("actor-0", 1);
  EXPECT_THROW(learner->Next(0, After(0ms)), Error);
  RpcClient lost(service.server->endpoint());
  lost.Call("lease", ByteWriter().Bytes("actor-0").U64(1).U64(0).U32(4).U64(5000).Take(),
            After(5s));
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
  std::vector<ScoredBody> sealed;
  for (const auto& group : groups) sealed.push_back({GroupBody::Seal(group), ScoresOf(group)});
  EXPECT_EQ(actor->InsertMany(sealed), std::vector<InsertResult>(4, InsertResult::kInserted));
  const auto result = batch.get();
  ASSERT_EQ(result.size(), 4u);
  ASSERT_EQ(result[2].trajectories.size(), 2u);
  // dropped: it travels all the same
  for (const Trajectory& t : result[2].trajectories) EXPECT_FALSE(t.scored);
  EXPECT_EQ(result[2].lease.lease_id, got[2].lease_id);
  EXPECT_EQ(RefOf(result[2].lease), RefOf(got[2]));
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
  EXPECT_EQ(client->Resume(cursor), 0);
  EXPECT_THROWS(ErrorCode::kCorruption, "acknowledged groups are missing", client->Resume({1, 5}));
  client->Trim(1);
  EXPECT_THROWS(ErrorCode::kNotFound, "trimmed", client->Next(0, After(5s)));
  TrajectoryGroup broken = Answer(PlainLease(5), 0);
  broken.trajectories[0].tokens.clear();
  EXPECT_THROWS(ErrorCode::kCorruption, "", client->Insert(broken));
}

TEST(RemoteTest, WhatRolesReportIsSummedOverThemAndTheirLives) {
  Service service;
  auto learner = service.Client("learner");
  service.Client("actor-0", 1)->Report("actor-0", {{"actor/tokens", 100}, {"actor/leases", 3}});
  service.Client("actor-0", 1)
      ->Report("actor-0", {{"actor/tokens", 150}, {"actor/leases", 4}});  // totals replace totals
  service.Client("reward-0", 1)->Report("reward-0", {{"reward/groups", 7}});
  service.Client("actor-1", 5)->Report("actor-1", {{"actor/tokens", 1}});
  auto counters = learner->Counters();
  EXPECT_EQ(counters["actor/tokens"], 151);
  EXPECT_EQ(counters["actor/leases"], 4);
  EXPECT_EQ(counters["reward/groups"], 7);
  EXPECT_TRUE(counters.contains("inserts")) << "the table's own are there as before";
  // Killed and started again: it counts from 0, the sum goes on; a late word of the life before
  // changes nothing.
  service.Client("actor-0", 2)->Report("actor-0", {{"actor/tokens", 10}});
  service.Client("actor-0", 1)->Report("actor-0", {{"actor/tokens", 9000}});
  EXPECT_EQ(learner->Counters()["actor/tokens"], 161);
  EXPECT_EQ(learner->Counters()["actor/leases"], 4);
}

TEST(RemoteTest, AStepOfAnySizeTravelsInPieces) {
  Service service;
  RpcServerOptions small;
  small.piece_bytes = 1000;
  const ReplayServer server(service.table.get(), "ipc://" + (service.folder / "small.sock"), small);
  auto actor = service.Client("actor-0");
  auto learner = service.Client("learner");
  EXPECT_THROW(learner->Next(0, After(0ms)), Error);
  for (const auto& lease : actor->Lease(4, After(5s))) actor->Insert(Answer(lease, 0, "run", 2000));
  ReplayClient other(server.endpoint(), {.actor = "learner", .rpc = {.piece_bytes = 700}});
  EXPECT_EQ(other.Next(0, After(5s)), learner->Next(0, After(5s)));
  EXPECT_GT(server.Counters()["rpc/pieces"], 50);
}

TEST(RemoteTest, AnImportIsSeenToGetOn) {
  TempFolder folder;
  std::atomic<int64_t> rows{5};
  const std::string endpoint = "ipc://" + (folder / "store.sock");
  auto importing = std::make_unique<ImportingServer>(endpoint, &rows);
  ReplayClient client(endpoint, {.actor = "learner"});
  EXPECT_EQ(client.Counters()["import/rows"], 5);
  rows = 70;
  EXPECT_EQ(client.Counters()["import/rows"], 70);
  EXPECT_THROWS(ErrorCode::kUnavailable, "70 rows so far", client.Next(0, After(20s)));
  EXPECT_THROWS(ErrorCode::kUnavailable, "imports its prompts", client.Lease(1, After(20s)));
  importing.reset();
  auto store = OpenStore(folder / "store");
  store->PutPrompts(kTrainDataset, SomePrompts(10));
  ReplayTable table(store.get(), Service::Default());
  const ReplayServer server(&table, endpoint);  // the same place at once
  EXPECT_EQ(client.CursorAt(0).sequence, 0u);
}

// A life that is over cannot keep what it held, nor what the new life holds under the same name.
TEST(RemoteTest, ALifeThatIsOverRenewsNothing) {
  TableOptions options = Service::Default();
  std::atomic<int64_t> now{1000};
  options.lease_timeout_ms = 1000;
  options.now_ms = [&] { return now.load(); };
  Service service(options);
  auto learner = service.Client("learner");
  EXPECT_THROW(learner->Next(0, After(0ms)), Error);
  auto old = service.Client("actor-0", 1);
  ASSERT_EQ(old->Lease(2, After(5s)).size(), 2u);
  for (int i = 0; i < 3; ++i) {
    now += 700;
    old->Renew();
  }
  EXPECT_EQ(learner->Counters()["expired"], 0);
  auto anew = service.Client("actor-0", 2);
  ASSERT_EQ(anew->Lease(4, After(5s)).size(), 4u) << "what the life before held is free at once";
  EXPECT_THROWS(ErrorCode::kConflict, "taken over", old->Renew());
  now += 1001;
  EXPECT_EQ(service.Client("actor-1")->Lease(4, After(5s)).size(), 4u);
  EXPECT_EQ(learner->Counters()["expired"], 4);
}

// What the learner says of its weights, through the socket.
TEST(RemoteTest, GroupsOfOtherWeightsAreRefused) {
  Service service;
  auto learner = service.Client("learner");
  auto actor = service.Client("actor-0");
  learner->Announce({0, "digest-0"});
  EXPECT_THROW(learner->Next(0, After(0ms)), Error);
  const auto leases = actor->Lease(4, After(5s));
  TrajectoryGroup other = Answer(leases[0], 0);
  other.policy.digest = "of a life before";
  EXPECT_EQ(actor->Insert(other), InsertResult::kRefused);
  EXPECT_EQ(actor->Lease(4, After(5s)).at(0).lease_id, leases[0].lease_id);
  EXPECT_EQ(actor->Insert(Answer(leases[0], 0)), InsertResult::kInserted);
  EXPECT_EQ(learner->Counters()["refused/other_weights"], 1);
}

TEST(RemoteTest, MalformedRequestsChangeNothing) {
  Service service;
  RpcClient raw(service.server->endpoint());
  for (const char* verb :
       {"insert", "lease", "await_next", "next_sealed", "await_evaluate", "evaluate_sealed",
        "release", "release_actor", "renew", "announce", "cursor", "resume", "trim", "report"}) {
    for (const std::string& payload :
         {std::string(), std::string("\x05"), std::string(100, '\xFF')}) {
      EXPECT_THROW(raw.Call(verb, payload, After(5s)), Error)
          << verb << " with " << payload.size() << " bytes";
    }
  }
  EXPECT_THROWS(ErrorCode::kUnsupported, "format_disk", raw.Call("format_disk", "", After(5s)));
  // A learner of an older build, which would take the answer for another form.
  const std::string step = ByteWriter().U64(0).U64(0).Take();
  EXPECT_THROWS(ErrorCode::kUnsupported, "another version", raw.Call("next", step, After(5s)));
  EXPECT_EQ(service.table->Counters()["inserts"], 0);
  EXPECT_EQ(service.table->Counters()["held"], 0);
}

// What a learner makes of a batch: each flipped bit of it is an Error (which bits of a key lead
// where is found out by the sum).
TEST(RecordTest, BatchesTrustNothing) {
  BatchWriter writer(2);
  std::vector<TrajectoryGroup> groups = {PlainGroup(3), PlainGroup(4)};
  for (const TrajectoryGroup& group : groups) {
    const std::string key = LeaseKey(Purpose::kTrain, group.lease.lease_id);
    const GroupBody body = GroupBody::Seal(group);
    writer.Add(key, body.bytes(), Seal(key, EncodeGroupScore(ScoresOf(group), body.sum())));
  }
  const std::string bytes = writer.Take();
  EXPECT_EQ(DecodeBatch(bytes), groups);
  for (size_t shift = 1; shift < 8; ++shift) {  // wherever a message begins
    EXPECT_EQ(DecodeBatch(std::string_view(std::string(shift, '#') + bytes).substr(shift)), groups);
  }
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_THROW(DecodeBatch(flipped), Error) << "bit " << bit;
  }
  for (size_t n = 0; n < bytes.size(); ++n)
    EXPECT_THROW(DecodeBatch(bytes.substr(0, n)), Error) << n << " bytes";
  EXPECT_THROWS(ErrorCode::kCorruption, "left over", DecodeBatch(bytes + "x"));
  EXPECT_TRUE(DecodeBatch(BatchWriter(0).Take()).empty());
  // a right sum under a key that is not the group's
  const std::string key = LeaseKey(Purpose::kTrain, 5);
  BatchWriter other(1);
  std::string value = GroupBody::Seal(groups[0]).bytes().str();
  value = Seal(key, std::string_view(value).substr(4));
  other.Add(key, value, Seal(key, EncodeGroupScore(ScoresOf(groups[0]), SumOf(value))));
  EXPECT_THROWS(ErrorCode::kCorruption, "groups train lease 5", DecodeBatch(other.Take()));
}

// Small and large, one after the other through the same memory of the thread, and one that is too
// large for it.
TEST(RecordTest, GroupsOfAnySizeOpenAndFlipsAreNoticed) {
  for (const int tokens : {3, 50'000, 1, 1'100'000, 200}) {
    const TrajectoryGroup group = Answer(PlainLease(7), 0, "run", tokens);
    const std::string key = LeaseKey(Purpose::kTrain, 7);
    std::string value = GroupBody::Seal(group).bytes().str();
    const std::string scores = Seal(key, EncodeGroupScore(ScoresOf(group), SumOf(value)));
    EXPECT_EQ(OpenStoredGroup(key, value, scores).group, group) << tokens;
    EXPECT_THROWS(ErrorCode::kCorruption, "another answer",
                  OpenStoredGroup(key, value,
                                  Seal(key, EncodeGroupScore(ScoresOf(group), SumOf(value) + 1))));
    for (const size_t at : {size_t{0}, size_t{4}, size_t{5}, value.size() / 3, value.size() - 1}) {
      value[at] = static_cast<char>(value[at] ^ 1);
      EXPECT_THROWS(ErrorCode::kCorruption, "groups train lease 7",
                    OpenStoredGroup(key, value, scores));
      value[at] = static_cast<char>(value[at] ^ 1);
    }
  }
  EXPECT_THROWS(ErrorCode::kCorruption, "shorter",
                OpenStoredGroup(LeaseKey(Purpose::kTrain, 7), "abc", ""));
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

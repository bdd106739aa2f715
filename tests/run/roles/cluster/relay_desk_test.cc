#include "run/roles/cluster/relay_desk.h"

#include <gtest/gtest.h>

#include <atomic>

#include "actor/relay/weight_relay.h"
#include "common/base/file.h"
#include "run/roles/cluster/cluster_keys.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using std::chrono::milliseconds;

RelaySaying At(const std::string& endpoint, const std::string& key = "") {
  return {.endpoint = endpoint, .key = key, .left = {}};
}

// What `name` hears, once the head has tried to reach it.
RelayWord Tried(RelayDesk& desk, const std::string& name, const RelaySaying& saying) {
  const Deadline until = After(milliseconds(10'000));
  for (;;) {
    const auto word = desk.Hear(name, saying);
    if ((word && word->state != RelayState::kTrying) || std::chrono::steady_clock::now() > until)
      return word.value_or(RelayWord{});
    std::this_thread::sleep_for(milliseconds(2));
  }
}

TEST(RelayDeskTest, SendsToThoseThatItHasReached) {
  RelayDesk desk({.fanout = 1, .doors = {}, .reach = [](const weight_wire::Place& place) {
                    return place.endpoint != "tcp://shut:1";
                  }});
  EXPECT_EQ(Tried(desk, "a", At("tcp://a:1")).state, RelayState::kReached);
  RelayWord word = Tried(desk, "shut", At("tcp://shut:1"));
  EXPECT_EQ(word.state, RelayState::kUnreachable) << "and it is told";
  ASSERT_EQ(word.places.size(), 1u);
  EXPECT_EQ(word.places[0].endpoint, "tcp://a:1");
  EXPECT_EQ(Tried(desk, "listens not", At("")).state, RelayState::kUnreachable);
  EXPECT_EQ(desk.counters()["relays_reached"], 1);
  EXPECT_EQ(desk.counters()["relays_unreachable"], 1);
  // The one that hands on has moved to the front; nothing new is not said.
  word = Tried(desk, "a", At("tcp://a:1"));
  EXPECT_TRUE(word.places.empty());
  EXPECT_EQ(word.below, 1);
  RelaySaying again = At("tcp://a:1");
  again.heard = SumOf(word);
  EXPECT_FALSE(desk.Hear("a", again));
  desk.Gone("a");
  EXPECT_TRUE(Tried(desk, "shut", At("tcp://shut:1")).places.empty());
}

TEST(RelayDeskTest, WhoWasSilentHandsNothingOnForAWhile) {
  RelayDesk desk({.fanout = 1,
                  .doors = {},
                  .forgive = milliseconds(300),
                  .reach = [](const weight_wire::Place&) { return true; }});
  Tried(desk, "a", At("tcp://a:1"));
  Tried(desk, "b", At("tcp://b:1"));
  Tried(desk, "c", At("tcp://c:1"));
  RelaySaying complaint = At("tcp://b:1");
  complaint.left = {"c", "nobody"};  // neither is above it
  EXPECT_EQ(Tried(desk, "b", complaint).places.at(0).name, "a");
  EXPECT_EQ(desk.counters()["relays_left"], 0);
  complaint.left = {"a"};
  const RelayWord word = Tried(desk, "b", complaint);
  for (const auto& place : word.places) EXPECT_NE(place.name, "a");
  EXPECT_EQ(desk.counters()["relays_left"], 1);
  EXPECT_EQ(Tried(desk, "a", At("tcp://a:1")).below, 0);
  std::this_thread::sleep_for(milliseconds(350));
  Tried(desk, "a", At("tcp://a:1"));
  EXPECT_EQ(Tried(desk, "b", At("tcp://b:1")).below + Tried(desk, "a", At("tcp://a:1")).below +
                Tried(desk, "c", At("tcp://c:1")).below,
            2)
      << "all three are a chain again";
}

// By a connection: where nobody listens, and where somebody does who has another key.
TEST(RelayDeskTest, TriesItBeforeItSendsOthersThere) {
  const TempFolder temp;
  const std::string keys = temp / "keys";
  WriteClusterKeys(keys);
  const HeadDoors doors = ReadHeadDoors(keys, "tcp://127.0.0.1:1", false);
  const CurveClient actor = ReadMemberKeys(keys, MemberKind::kActor, "tcp://127.0.0.1:1", false);
  const actor::WeightRelay relay(
      {.endpoint = "tcp://127.0.0.1:*", .keys = actor, .folder = temp.path()});
  CurveClient other = actor;
  other.own = GenerateCurveKeys();
  RealFileSystem().CreateDirectories(temp / "other");
  const actor::WeightRelay impostor(
      {.endpoint = "tcp://127.0.0.1:*", .keys = other, .folder = temp / "other"});
  RelayDesk desk({.fanout = 1, .doors = doors.actors, .reach = {}});
  const std::string key = actor.own.public_key;
  EXPECT_EQ(Tried(desk, "a", At(relay.endpoint(), key)).state, RelayState::kReached);
  EXPECT_EQ(Tried(desk, "away", At("tcp://127.0.0.1:9", key)).state, RelayState::kUnreachable);
  EXPECT_EQ(Tried(desk, "b", At(impostor.endpoint(), key)).state, RelayState::kUnreachable);
  EXPECT_EQ(desk.counters()["relays_unreachable"], 2);
}

// A key that may not join gets no children, and nobody is told to let it in.
TEST(RelayDeskTest, OnlyKeysOfActorsCount) {
  const TempFolder temp;
  const std::string keys = temp / "keys";
  WriteClusterKeys(keys);
  const HeadDoors doors = ReadHeadDoors(keys, "tcp://127.0.0.1:1", false);
  const std::string good = ReadPublicKey(keys + "/actor.pub"),
                    stranger = GenerateCurveKeys().public_key;
  std::atomic<int> tried{0};
  RelayDesk desk({.fanout = 2, .doors = doors.actors, .reach = [&](const weight_wire::Place&) {
                    ++tried;
                    return true;
                  }});
  EXPECT_EQ(Tried(desk, "stranger", At("tcp://s:1", stranger)).state, RelayState::kUnreachable);
  EXPECT_EQ(Tried(desk, "keyless", At("tcp://k:1")).state, RelayState::kUnreachable);
  EXPECT_EQ(tried, 0);
  const RelayWord word = Tried(desk, "a", At("tcp://a:1", good));
  EXPECT_EQ(word.state, RelayState::kReached);
  EXPECT_EQ(word.keys, std::vector<std::string>{good});
  // Its line is taken out.
  RealFileSystem().WriteFileAtomic(keys + "/actor.allowed", "# nobody\n");
  std::this_thread::sleep_for(milliseconds(1100));
  EXPECT_TRUE(Tried(desk, "a", At("tcp://a:1", good)).keys.empty());
  EXPECT_EQ(Tried(desk, "a", At("tcp://a:1", good)).below, 0);
}

}  // namespace
}  // namespace plumb::run

// The learner's publisher and the actors of a cluster, in one process over the loopback, with keys:
// who sends how much, and that everybody has the same bytes.
#include "run/roles/cluster/member_weights.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <thread>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash/digest.h"
#include "learner/loop/weight_publisher.h"
#include "run/roles/cluster/cluster_keys.h"
#include "run/roles/cluster/relay_desk.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
using std::chrono::milliseconds;
using Bytes = std::vector<std::byte>;

constexpr size_t kBytes = 3 * kDigestBlockBytes + 4321;
constexpr int64_t kLeaves = 4 * 16;  // of each actor, of the learner

Bytes Some(int seed) {
  Bytes out(kBytes);
  for (size_t i = 0; i < kBytes; ++i)
    out[i] = static_cast<std::byte>(i * 131 + i / 977 + static_cast<size_t>(seed));
  return out;
}

// A head without a run: the publisher, and the desk that makes the tree.
class Cluster {
 public:
  Cluster(int actors, int64_t relay, bool deltas) {
    config_.run.relay = relay;
    config_.run.weight_deltas = deltas;
    WriteClusterKeys(temp_ / "keys");
    const HeadDoors doors = ReadHeadDoors(temp_ / "keys", "tcp://127.0.0.1:1", false);
    publisher_ = std::make_unique<learner::WeightPublisher>(
        "tcp://127.0.0.1:*", RpcServerOptions{.curve = doors.actors}, /*lends=*/false,
        learner::WeightBlocks{.on = relay > 0 || deltas, .changes = deltas});
    if (relay > 0)
      desk_.emplace(RelayDeskOptions{.fanout = relay, .doors = doors.actors, .reach = {}});
    for (int i = 0; i < actors; ++i)
      Join(i == actors - 1 && relay > 0 ? MemberWeights::kNowhere : "");
    if (relay > 0) {
      // Beats, until everybody knows its place.
      for (auto& [name, actor] : actors_) {
        const Deadline until = After(milliseconds(10'000));
        while (!actor->Tried() && std::chrono::steady_clock::now() < until) Beat(name);
      }
      Beats();
    }
  }
  void Join(const std::string& listen) {
    const std::string name = "actor-" + std::to_string(actors_.size());
    RealFileSystem().CreateDirectories(temp_ / name);
    actors_[name] = std::make_unique<MemberWeights>(
        config_, MemberWeightsOptions{.name = name,
                                      .learner = publisher_->endpoint(),
                                      .head = "tcp://127.0.0.1:1",
                                      .listen = listen,
                                      .keys = ReadMemberKeys(temp_ / "keys", MemberKind::kActor,
                                                             "tcp://127.0.0.1:1", false),
                                      .folder = temp_ / name});
  }
  void Beat(const std::string& name) {
    MemberWeights& actor = *actors_.at(name);
    const auto word = desk_->Hear(name, actor.Saying());
    if (word) actor.Hear(*word);
    else std::this_thread::sleep_for(milliseconds(5));
  }
  void Beats() {
    for (int round = 0; round < 2; ++round) {
      for (auto& [name, actor] : actors_) Beat(name);
    }
  }
  void Publish(int64_t version, const Bytes& bytes) {
    const WeightSet set{.name = "base", .digest = WeightDigest(bytes), .bytes = bytes};
    publisher_->Publish({version, set.digest}, std::span(&set, 1));
  }
  // All fetch at once; how much the learner sent meanwhile.
  int64_t Fetch(const Bytes& expected, const PolicyVersion& held = {}) {
    const int64_t before = Sent();
    std::vector<std::thread> threads;
    for (auto& [name, actor] : actors_) {
      threads.emplace_back([&, name = name, actor = actor.get()] {
        Bytes into(kBytes);
        const auto offer = actor->source().Await(held, After(milliseconds(20'000)));
        ASSERT_TRUE(offer) << name;
        ASSERT_TRUE(actor->source().Read(offer->sets[0].digest, into)) << name;
        EXPECT_EQ(into, expected) << name;
      });
    }
    for (std::thread& thread : threads) thread.join();
    return Sent() - before;
  }
  int64_t Sent() const { return publisher_->counters().at("weight_bytes"); }
  int64_t Counted(const std::string& counter) const {
    int64_t sum = 0;
    for (const auto& [name, actor] : actors_) {
      const auto all = actor->counters();
      const auto found = all.find(counter);
      sum += found == all.end() ? 0 : found->second;
    }
    return sum;
  }
  void Lose(const std::string& name) { actors_.erase(name); }
  RelayDesk& desk() { return *desk_; }

 private:
  const TempFolder temp_;
  configs::Config config_;
  std::unique_ptr<learner::WeightPublisher> publisher_;
  std::optional<RelayDesk> desk_;
  std::map<std::string, std::unique_ptr<MemberWeights>> actors_;
};

// Seven actors, one of which listens nowhere: the learner sends two copies and not seven.
TEST(MemberWeightsTest, TheLearnerSendsToTheFirstOfATreeOnly) {
  Cluster cluster(7, /*relay=*/2, /*deltas=*/false);
  cluster.Publish(0, Some(1));
  EXPECT_EQ(cluster.Fetch(Some(1)), 2 * int64_t{kBytes} + 7 * kLeaves);
  EXPECT_EQ(cluster.Counted("actor/weight_bytes_handed_on"), 5 * int64_t{kBytes});
  cluster.Publish(1, Some(2));
  EXPECT_EQ(cluster.Fetch(Some(2), {0, WeightDigest(Some(1))}), 2 * int64_t{kBytes} + 7 * kLeaves)
      << "and of the next version";
  EXPECT_EQ(cluster.Counted("actor/weights_elsewhere"), 0);
  EXPECT_EQ(cluster.desk().counters()["relays_reached"], 6);

  Cluster star(7, /*relay=*/0, /*deltas=*/true);  // without a tree
  star.Publish(0, Some(1));
  EXPECT_EQ(star.Fetch(Some(1)), 7 * (int64_t{kBytes} + kLeaves));
}

// One in the middle is lost: its children get the rest from above, and the tree closes.
TEST(MemberWeightsTest, WhoIsLostInTheMiddleIsGoneAround) {
  Cluster cluster(4, /*relay=*/1, /*deltas=*/false);
  cluster.Publish(0, Some(1));
  EXPECT_EQ(cluster.Fetch(Some(1)), int64_t{kBytes} + 4 * kLeaves) << "a chain";
  cluster.Lose("actor-1");
  cluster.Publish(1, Some(2));
  EXPECT_EQ(cluster.Fetch(Some(2), {0, WeightDigest(Some(1))}), int64_t{kBytes} + 3 * kLeaves)
      << "from whom is above it";
  EXPECT_EQ(cluster.Counted("actor/weights_elsewhere"), 1);
  cluster.Beats();  // its child says so
  EXPECT_EQ(cluster.desk().counters()["relays_left"], 1);
  cluster.desk().Gone("actor-1");
  cluster.Beats();
  cluster.Publish(2, Some(3));
  EXPECT_EQ(cluster.Fetch(Some(3), {1, WeightDigest(Some(2))}), int64_t{kBytes} + 3 * kLeaves);
  EXPECT_EQ(cluster.Counted("actor/weights_elsewhere"), 1) << "nobody asks it any more";
}

TEST(MemberWeightsTest, ChangesGoThroughTheTree) {
  Cluster cluster(4, /*relay=*/1, /*deltas=*/true);
  Bytes bytes = Some(1);
  cluster.Publish(0, bytes);
  EXPECT_EQ(cluster.Fetch(bytes), int64_t{kBytes} + 4 * kLeaves);
  const Digest before = WeightDigest(bytes);
  for (size_t i = 0; i < kBytes; i += 400) bytes[i] ^= std::byte{1};
  cluster.Publish(1, bytes);
  const int64_t sent = cluster.Fetch(bytes, {0, before});
  EXPECT_GT(sent, 0);
  EXPECT_LT(sent, int64_t{kBytes} / 50);
  EXPECT_GT(cluster.Counted("actor/weight_bytes_saved"), 4 * int64_t{kBytes} * 49 / 50);
}

TEST(MemberWeightsTest, AnAddressThatAPersonNamedHasToBeOne) {
  const TempFolder temp;
  configs::Config config;
  config.run.relay = 1;
  const MemberWeightsOptions options{.name = "a",
                                     .learner = "tcp://127.0.0.1:9",
                                     .head = "tcp://127.0.0.1:1",
                                     .listen = "tcp://192.0.2.1:*",
                                     .keys = {},
                                     .folder = temp.path()};
  EXPECT_THROW(MemberWeights(config, options), Error);
  MemberWeightsOptions way = options;
  way.listen.clear();
  EXPECT_NE(MemberWeights(config, way).Saying().endpoint, "");
  way.listen = MemberWeights::kNowhere;
  EXPECT_EQ(MemberWeights(config, way).Saying().endpoint, "");
}

}  // namespace
}  // namespace plumb::run

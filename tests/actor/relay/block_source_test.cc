#include "actor/relay/block_source.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <thread>

#include "actor/relay/weight_relay.h"
#include "common/base/error.h"
#include "common/net/weights/block_change.h"
#include "tests/testing/temp_folder.h"

namespace plumb::actor {
namespace {

using std::chrono::milliseconds;
using testing::TempFolder;
using weight_wire::Place;
using Bytes = std::vector<std::byte>;

constexpr size_t kBlocks = 5;
constexpr size_t kBytes = kBlocks * kDigestBlockBytes - 1000;

Bytes Some(int seed) {
  Bytes out(kBytes);
  for (size_t i = 0; i < kBytes; ++i)
    out[i] = static_cast<std::byte>(i * 31 + i / 4096 + static_cast<size_t>(seed));
  return out;
}

// The learner's side, which tests/learner/loop/weight_publisher_test.cc has whole.
class Learner {
 public:
  explicit Learner(const std::string& endpoint)
      : server_(endpoint, [this](const RpcRequest& request, RpcResponder responder) {
          if (request.verb == weight_wire::kAwaitVerb) {
            const PolicyVersion held = weight_wire::DecodeVersion(request.payload);
            std::lock_guard lock(mu_);
            if (offer_.version.version >= 0 && offer_.version != held)
              return responder.Reply(weight_wire::EncodeOffer(offer_));
            throw Error(ErrorCode::kDeadline, "nothing new");
          }
          if (request.verb == weight_wire::kLeavesVerb) {
            std::lock_guard lock(mu_);
            return responder.Reply(weight_wire::EncodeLeaves(leaves_.at(request.payload.str())));
          }
          ++asked;
          if (gone_back) return responder.Reply(weight_wire::EncodeBlocks({}));
          responder.Reply(
              shelf_.Answer(weight_wire::DecodeBlocksQuestion(request.payload), Deadline{}));
        }) {}

  void Publish(int64_t version, const std::map<std::string, Bytes>& sets) {
    std::lock_guard lock(mu_);
    const auto before = offer_;
    offer_ = {.version = {version, "v" + std::to_string(version)}, .sets = {}};
    std::vector<Digest> all;
    for (const auto& [name, bytes] : sets) {
      offer_.sets.push_back({name, WeightDigest(bytes), bytes.size()});
      all.push_back(offer_.sets.back().digest);
    }
    shelf_.Open(version, all);
    for (const auto& [name, bytes] : sets) {
      const Digest digest = WeightDigest(bytes);
      if (leaves_.contains(digest)) continue;
      leaves_[digest] = HashBlocks(bytes);
      Digest base;
      for (const OfferedSet& old : before.sets) base = old.name == name ? old.digest : base;
      shelf_.Begin(name, digest, bytes.size(), base);
      for (size_t i = 0; i * kDigestBlockBytes < bytes.size(); ++i) {
        const std::span block = BlockOf(bytes, i);
        Payload change;
        if (!base.empty()) change = Payload(EncodeBlock(block, BlockOf(last_.at(name), i)));
        shelf_.Put(digest, i,
                   Payload(std::string(reinterpret_cast<const char*>(block.data()), block.size())),
                   change);
      }
    }
    shelf_.Close();
    last_ = sets;
  }
  int64_t sent() const { return shelf_.counters().at("weight_bytes"); }
  std::atomic<int> asked{0};
  std::atomic<bool> gone_back{false};  // to a version before the one that is asked for

 private:
  static std::span<const std::byte> BlockOf(const Bytes& bytes, size_t i) {
    return std::span(bytes).subspan(
        i * kDigestBlockBytes, std::min(kDigestBlockBytes, bytes.size() - i * kDigestBlockBytes));
  }
  std::mutex mu_;
  WeightOffer offer_;
  std::map<Digest, std::vector<BlockHash>> leaves_;
  std::map<std::string, Bytes> last_;
  BlockShelf shelf_;
  RpcServer server_;
};

BlockSourceOptions Quick(BlockShelf* shelf = nullptr) {
  return {
      .who = "child", .shelf = shelf, .silence = milliseconds(1500), .patience = milliseconds(600)};
}

// Awaits and reads all sets of what there is; what came.
std::map<std::string, Bytes> Fetch(BlockSource& source, const PolicyVersion& held = {}) {
  std::map<std::string, Bytes> out;
  const auto offer = source.Await(held, After(milliseconds(10'000)));
  if (!offer) return out;
  for (const OfferedSet& set : offer->sets) {
    Bytes into(set.bytes);
    if (source.Read(set.digest, into)) out[set.name] = std::move(into);
  }
  return out;
}

struct Parent {
  explicit Parent(const TempFolder& folder, const std::string& learner)
      : relay({.endpoint = "tcp://127.0.0.1:*", .keys = {}, .folder = folder.path()}),
        source(learner, {}, {.who = "parent", .changes = true, .shelf = &relay.shelf()}) {}
  Place place() const { return {.name = "parent", .endpoint = relay.endpoint(), .key = {}}; }
  WeightRelay relay;
  BlockSource source;
};

TEST(BlockSource, ComesFromTheLearnerWhereNobodyElseIsNamed) {
  const TempFolder folder;
  Learner learner(folder.Ipc("l"));
  learner.Publish(1, {{"base", Some(1)}});
  BlockSource source(folder.Ipc("l"), {}, Quick());
  EXPECT_EQ(Fetch(source)["base"], Some(1));
  EXPECT_EQ(source.counters().at("actor/weight_bytes"), int64_t{kBytes + kBlocks});
  EXPECT_EQ(source.counters().at("actor/weight_bytes_saved"), 0);
  Bytes into(kBytes);
  EXPECT_FALSE(source.Read("none of the offer", into));
}

TEST(BlockSource, ComesFromTheNearestPlaceAndIsEqual) {
  const TempFolder folder;
  Learner learner(folder.Ipc("l"));
  learner.Publish(1, {{"base", Some(1)}});
  Parent parent(folder, folder.Ipc("l"));
  BlockSource child(folder.Ipc("l"), {}, Quick());
  child.SetPlaces({parent.place()}, false);
  std::thread above([&] { EXPECT_EQ(Fetch(parent.source)["base"], Some(1)); });
  EXPECT_EQ(Fetch(child)["base"], Some(1)) << "waits for what its parent has not yet";
  above.join();
  EXPECT_EQ(learner.sent(), int64_t{kBytes}) << "one copy for both";
  EXPECT_EQ(parent.relay.counters().at("actor/weight_bytes_handed_on"), int64_t{kBytes});
  EXPECT_TRUE(child.TakeComplaints().empty());
  // The first version is handed on by all, later ones by whom others ask.
  learner.Publish(2, {{"base", Some(2)}});
  EXPECT_EQ(Fetch(parent.source, {1, "v1"})["base"], Some(2));
  EXPECT_EQ(Fetch(child, {1, "v1"})["base"], Some(2)) << "of the learner";
  EXPECT_EQ(parent.relay.counters().at("actor/weight_bytes_handed_on"), int64_t{kBytes});
  EXPECT_TRUE(child.TakeComplaints().empty()) << "it was not its turn";
}

// A learner that began again at an older version in the middle of a set has nothing of it, and will
// not: what it has now is awaited.
TEST(BlockSource, OfALearnerThatWentBackNothingIsWaitedFor) {
  const TempFolder folder;
  Learner learner(folder.Ipc("l"));
  learner.Publish(9, {{"base", Some(1)}});
  learner.gone_back = true;
  BlockSource source(folder.Ipc("l"), {}, Quick());
  const auto offer = source.Await({}, After(milliseconds(10'000)));
  ASSERT_TRUE(offer);
  Bytes into(kBytes);
  EXPECT_FALSE(source.Read(offer->sets[0].digest, into));
  EXPECT_EQ(learner.asked, 1);
}

// A server that gives what a spoiler makes of right answers.
class Spoiling {
 public:
  Spoiling(const Bytes& bytes, std::function<std::optional<std::string>(std::string)> spoil)
      : server_("tcp://127.0.0.1:*",
                [this, spoil](const RpcRequest& request, RpcResponder r) {
                  kept_.push_back(r);
                  auto answer = spoil(shelf_.Answer(
                      weight_wire::DecodeBlocksQuestion(request.payload), Deadline{}));
                  if (answer) r.Reply(std::move(*answer));
                },
                {.workers = 1}) {
    shelf_.Open(1, {});
    const Digest digest = WeightDigest(bytes);
    shelf_.Begin("base", digest, bytes.size(), "");
    for (size_t i = 0; i < kBlocks; ++i) {
      const size_t at = i * kDigestBlockBytes, n = std::min(kDigestBlockBytes, kBytes - at);
      shelf_.Put(digest, i, Payload(std::string(reinterpret_cast<const char*>(&bytes[at]), n)), {});
    }
  }
  Place place() const { return {.name = "middle", .endpoint = server_.endpoint(), .key = {}}; }

 private:
  BlockShelf shelf_;
  std::vector<RpcResponder> kept_;
  RpcServer server_;
};

// In the middle of a set its place becomes silent, or wrong: the rest comes from elsewhere, and it
// is named.
TEST(BlockSource, WhatAPlaceDoesNotGiveComesFromElsewhere) {
  const Bytes bytes = Some(1);
  const struct {
    const char* what;
    std::function<std::optional<std::string>(std::string)> spoil;
    bool some;  // of it was of use
    bool complains;
  } cases[] = {
      {"silent from the second answer on",
       [n = 0](std::string right) mutable -> std::optional<std::string> {
         if (++n > 1) return std::nullopt;
         return right;
       },
       true, true},
      {"one wrong byte",
       [n = 0](std::string right) mutable -> std::optional<std::string> {
         if (++n > 1) right[right.size() / 2] ^= 1;
         return right;
       },
       true, true},
      {"cut", [](std::string right) { return std::optional(right.substr(0, right.size() / 2)); },
       false, true},
      {"not what was asked for",
       [](const std::string& right) {
         return std::optional(std::string("\xff\xff\xff\x7f", 4) + right);
       },
       false, true},
      {"it has let it go",
       [](const std::string&) -> std::optional<std::string> {
         throw Error(ErrorCode::kNotFound, "gone");
       },
       false, false},
      {"it never has anything",
       [](const std::string&) { return std::optional(weight_wire::EncodeBlocks({})); }, false,
       false},
  };
  for (const auto& each : cases) {
    const TempFolder folder;
    Learner learner(folder.Ipc("l"));
    learner.Publish(1, {{"base", bytes}});
    Spoiling middle(bytes, each.spoil);
    BlockSource child(folder.Ipc("l"), {}, Quick());
    child.SetPlaces({middle.place()}, false);
    EXPECT_EQ(Fetch(child)["base"], bytes) << each.what;
    if (each.some) {
      EXPECT_LT(learner.sent(), int64_t{kBytes}) << each.what;
    } else {
      EXPECT_EQ(learner.sent(), int64_t{kBytes}) << each.what;
    }
    const auto complaints = child.TakeComplaints();
    EXPECT_EQ(complaints.size(), each.complains ? 1u : 0u) << each.what;
    // It is named, and not asked again at once.
    if (each.complains) {
      EXPECT_EQ(complaints.at(0), "middle");
      learner.Publish(2, {{"base", Some(2)}});
      EXPECT_EQ(Fetch(child, {1, "v1"})["base"], Some(2)) << each.what;
      EXPECT_TRUE(child.TakeComplaints().empty());
    }
  }
}

// One that answers, but slowly, is compared with the next place; who is as slow as that is kept.
TEST(BlockSource, ASlowPlaceIsLeftForAFasterOne) {
  const Bytes bytes = Some(1);
  for (const bool slow : {true, false}) {
    const TempFolder folder;
    Learner learner(folder.Ipc("l"));
    learner.Publish(1, {{"base", bytes}});
    Spoiling middle(bytes, [&](std::string right) {
      std::this_thread::sleep_for(milliseconds(slow ? 600 : 0));
      return std::optional(std::move(right));
    });
    BlockSourceOptions options = Quick();
    options.compare_after = milliseconds(slow ? 500 : 0);
    options.silence = milliseconds(20'000);
    BlockSource child(folder.Ipc("l"), {}, options);
    child.SetPlaces({middle.place()}, false);
    EXPECT_EQ(Fetch(child)["base"], bytes);
    EXPECT_GT(learner.asked, 0) << "to compare";
    if (!slow) continue;  // either may be the faster one
    EXPECT_EQ(child.counters().at("actor/weights_elsewhere"), 1);
    EXPECT_EQ(learner.sent(), int64_t{kBytes - kDigestBlockBytes}) << "all but the first block";
    EXPECT_TRUE(child.TakeComplaints().empty()) << "it may be slow for whom it asks is";
  }
}

// Behind a lost parent is the next one above, and the learner is the last.
TEST(BlockSource, TheNextPlaceIsTheOneAbove) {
  const TempFolder folder;
  Learner learner(folder.Ipc("l"));
  learner.Publish(1, {{"base", Some(1)}});
  Parent above(folder, folder.Ipc("l"));
  EXPECT_EQ(Fetch(above.source)["base"], Some(1));
  BlockSource child(folder.Ipc("l"), {}, Quick());
  Place nobody{.name = "nobody", .endpoint = "tcp://127.0.0.1:9", .key = {}};
  child.SetPlaces({nobody, above.place()}, false);
  EXPECT_EQ(Fetch(child)["base"], Some(1));
  EXPECT_EQ(learner.sent(), int64_t{kBytes});
  EXPECT_EQ(child.TakeComplaints(), std::vector<std::string>{"nobody"});
  EXPECT_EQ(child.counters().at("actor/weights_elsewhere"), 1);
}

// Whoever ends waits neither for a place nor for the learner, and blames nobody.
TEST(BlockSource, StopEndsAReadAtOnce) {
  for (const bool at_a_place : {true, false}) {
    const TempFolder folder;
    auto learner = std::make_unique<Learner>(folder.Ipc("l"));
    learner->Publish(1, {{"base", Some(1)}});
    std::atomic<bool> asked{false};
    std::vector<RpcResponder> kept;
    const RpcServer silent("tcp://127.0.0.1:*", [&](const RpcRequest&, RpcResponder responder) {
      kept.push_back(std::move(responder));
      asked = true;
    });
    BlockSourceOptions options = Quick();
    options.silence = milliseconds(60'000);
    BlockSource child(folder.Ipc("l"), {}, options);
    const auto offer = child.Await({}, After(milliseconds(10'000)));
    ASSERT_TRUE(offer);
    if (at_a_place)
      child.SetPlaces({{.name = "silent", .endpoint = silent.endpoint(), .key = {}}}, false);
    else learner.reset();
    const auto begin = std::chrono::steady_clock::now();
    std::thread reads([&] {
      Bytes into(kBytes);
      EXPECT_THROW(child.Read(offer->sets[0].digest, into), Error);
    });
    if (at_a_place) {
      while (!asked) std::this_thread::sleep_for(milliseconds(1));
    }
    child.Stop();
    reads.join();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(30'000)) << at_a_place;
    EXPECT_TRUE(child.TakeComplaints().empty());
    EXPECT_EQ(child.counters().at("actor/weights_elsewhere"), 0);
  }
}

// Only what has changed comes, from the learner and from a parent, and of a set that is not trained
// nothing.
TEST(BlockSource, OfTheNextVersionOnlyChangesCome) {
  const TempFolder folder;
  Learner learner(folder.Ipc("l"));
  Bytes lora = Some(1);
  learner.Publish(1, {{"base", Some(7)}, {"lora", lora}});
  Parent parent(folder, folder.Ipc("l"));
  BlockSourceOptions options = Quick();
  options.changes = true;
  BlockSource child(folder.Ipc("l"), {}, options);
  parent.source.SetPlaces({}, /*hands_on=*/true);
  child.SetPlaces({parent.place()}, false);
  EXPECT_EQ(Fetch(parent.source)["lora"], lora);
  EXPECT_EQ(Fetch(child)["lora"], lora);
  int64_t sent = learner.sent();
  EXPECT_EQ(sent, int64_t{2 * kBytes});
  for (int64_t version = 2; version < 5; ++version) {
    // A number of the first block, and one in ten of the last.
    const auto change = static_cast<std::byte>(version);
    lora[100] ^= change;
    for (size_t i = (kBlocks - 1) * kDigestBlockBytes; i < kBytes; i += 20) lora[i] ^= change;
    learner.Publish(version, {{"base", Some(7)}, {"lora", lora}});
    const int asked = learner.asked;
    for (BlockSource* source : {&parent.source, &child}) {
      const auto offer = source->Await({version - 1, "v" + std::to_string(version - 1)},
                                       After(milliseconds(10'000)));
      ASSERT_TRUE(offer);
      Bytes into(kBytes);
      ASSERT_TRUE(source->Read(offer->sets[1].digest, into));
      EXPECT_EQ(into, lora) << version;
    }
    EXPECT_GT(learner.asked, asked);
    EXPECT_LT(learner.sent() - sent, int64_t{200'000})
        << "of the child nothing, of the parent a bit";
    sent = learner.sent();
  }
  EXPECT_GT(child.counters().at("actor/weight_bytes_saved"), int64_t{3 * kBytes - 600'000});
  EXPECT_TRUE(child.TakeComplaints().empty());
  // One that missed versions gets equal blocks from its own memory and the rest whole.
  lora[100] ^= std::byte{1};
  learner.Publish(5, {{"base", Some(7)}, {"lora", lora}});
  lora[101] ^= std::byte{1};
  learner.Publish(6, {{"base", Some(7)}, {"lora", lora}});
  const auto offer = child.Await({4, "v4"}, After(milliseconds(10'000)));
  ASSERT_TRUE(offer);
  child.SetPlaces({}, false);
  Bytes into(kBytes);
  ASSERT_TRUE(child.Read(offer->sets[1].digest, into));
  EXPECT_EQ(into, lora);
  EXPECT_EQ(learner.sent() - sent, int64_t{kDigestBlockBytes}) << "the first block, whole";
}

}  // namespace
}  // namespace plumb::actor

// learner/loop/weight_publisher.h met by the actor's side of the wire, over ipc.
#include "learner/loop/weight_publisher.h"

#include <gtest/gtest.h>

#include <span>
#include <thread>
#include <vector>

#include "common/base/hash/digest.h"
#include "common/net/weight_wire.h"
#include "common/net/weights/block_change.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using std::chrono::milliseconds;

std::vector<std::byte> Buffer(size_t n, int seed) {
  std::vector<std::byte> out(n);
  for (size_t i = 0; i < n; ++i)
    out[i] = static_cast<std::byte>((i * 31 + static_cast<size_t>(seed)) & 0xFF);
  return out;
}

// The actor's side, which tests/actor/weight_subscriber_test.cc has whole: learner and actor never
// include one another.
struct Caller {
  explicit Caller(const std::string& endpoint) : client(endpoint, {.piece_bytes = 100'000}) {}
  WeightOffer Await(const PolicyVersion& held, milliseconds wait) {
    try {
      return weight_wire::DecodeOffer(
          client.Call(weight_wire::kAwaitVerb, weight_wire::EncodeVersion(held), After(wait)));
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kDeadline) << e.what();
      return {};
    }
  }
  std::string Bytes(const Digest& set) {
    return client.Call(weight_wire::kBytesVerb, set, After(milliseconds(10000)));
  }
  RpcClient client;
};

// A policy that is its base alone.
void Publish(WeightPublisher& publisher, int64_t version, const std::vector<std::byte>& bytes) {
  const WeightSet base{.name = "base", .digest = WeightDigest(bytes), .bytes = bytes};
  publisher.Publish({.version = version, .digest = base.digest}, std::span(&base, 1));
}

Digest DigestOf(const std::string& bytes) { return WeightDigest(std::as_bytes(std::span(bytes))); }

TEST(WeightPublisherTest, ServesTheNewestAndTellsWhoAwaitsIt) {
  const testing::TempFolder folder;
  WeightPublisher publisher(folder.Ipc("weights"), {.piece_bytes = 100'000});
  Caller caller(folder.Ipc("weights"));
  EXPECT_EQ(caller.Await({}, milliseconds(100)), WeightOffer{});  // nothing in time

  WeightOffer told;
  std::thread waiter([&] { told = caller.Await({}, milliseconds(10000)); });
  std::this_thread::sleep_for(milliseconds(100));
  const auto first = Buffer(3'000'001, 1);
  const Digest digest = WeightDigest(first);
  Publish(publisher, 0, first);
  waiter.join();
  EXPECT_EQ(told, (WeightOffer{{0, digest}, {{"base", digest, first.size()}}}));
  EXPECT_EQ(DigestOf(caller.Bytes(digest)), digest);
  EXPECT_GE(caller.client.counters()["pieces"], 29u);

  const auto second = Buffer(3'000'001, 2);
  Publish(publisher, 1, second);
  const WeightOffer newest = caller.Await(told.version, milliseconds(10000));
  EXPECT_EQ(newest.version, (PolicyVersion{1, WeightDigest(second)}));
  EXPECT_EQ(caller.Await(newest.version, milliseconds(50)), WeightOffer{});
  // Who holds what this learner has not published (a life before published it) is told what there
  // is, older number or not.
  EXPECT_EQ(caller.Await({1, "of a life before"}, milliseconds(10000)), newest);
  EXPECT_EQ(caller.Await({7, "of a life before"}, milliseconds(10000)), newest);
  for (const Digest& gone : {digest, Digest("another"), Digest()}) {
    try {
      caller.Bytes(gone);
      ADD_FAILURE() << gone;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kNotFound) << e.what();
    }
  }
}

TEST(WeightPublisherTest, ANumberNeverMeansTwoPolicies) {
  const testing::TempFolder folder;
  WeightPublisher publisher(folder.Ipc("weights"));
  const auto bytes = Buffer(100, 1);
  Publish(publisher, 3, bytes);
  EXPECT_NO_THROW(Publish(publisher, 3, bytes));
  EXPECT_THROW(Publish(publisher, 3, Buffer(100, 2)), Error);
  EXPECT_THROW(Publish(publisher, 2, bytes), Error);
}

TEST(WeightPublisherTest, ASetThatDidNotChangeIsHandedOverOnceAndServedOn) {
  const testing::TempFolder folder;
  WeightPublisher publisher(folder.Ipc("weights"));
  Caller caller(folder.Ipc("weights"));
  const auto base = Buffer(5000, 1), adapter = Buffer(100, 2), trained = Buffer(100, 3);
  std::vector<WeightSet> sets = {{"base", WeightDigest(base), base},
                                 {"lora", WeightDigest(adapter), adapter}};
  publisher.Publish({0, "v0"}, sets);
  sets = {{"base", WeightDigest(base), {}}, {"lora", WeightDigest(trained), trained}};
  publisher.Publish({1, "v1"}, sets);
  const WeightOffer offer = caller.Await({0, "v0"}, milliseconds(10000));
  ASSERT_EQ(offer.sets.size(), 2u);
  EXPECT_EQ(offer.sets[0], (OfferedSet{"base", WeightDigest(base), base.size()}));
  EXPECT_EQ(DigestOf(caller.Bytes(offer.sets[0].digest)), WeightDigest(base));
  EXPECT_EQ(DigestOf(caller.Bytes(offer.sets[1].digest)), WeightDigest(trained));
  EXPECT_THROW(caller.Bytes(WeightDigest(adapter)), Error) << "no longer at hand";
}

// By a handle where it can be followed, else as bytes; the newest version only.
TEST(WeightPublisherTest, LendsWhatItHasOnOneMachine) {
  const testing::TempFolder folder;
  WeightPublisher publisher(folder.Ipc("weights"), {.piece_bytes = 100'000}, /*lends=*/true);
  EXPECT_TRUE(publisher.TakesFromDevice());
  Caller caller(folder.Ipc("weights"));
  const auto ask = [&](const char* verb, const Digest& set) {
    return caller.client.Call(verb, set, After(milliseconds(10000)));
  };
  const auto first = Buffer(300'000, 1), second = Buffer(300'000, 2);
  Publish(publisher, 0, first);
  EXPECT_EQ(caller.Await({}, milliseconds(10000)).sets,
            (std::vector<OfferedSet>{{"base", WeightDigest(first), 300'000}}));
  const kernels::BorrowedMemory borrowed(ask(weight_wire::kLendVerb, WeightDigest(first)),
                                         Device::kCpu);
  std::vector<std::byte> copy(borrowed.bytes());
  borrowed.CopyTo(Device::kCpu, copy.data(), 0, copy.size());
  EXPECT_EQ(copy, first);
  ask(weight_wire::kReturnVerb, WeightDigest(first));
  EXPECT_EQ(DigestOf(caller.Bytes(WeightDigest(first))), WeightDigest(first)) << "who cannot";
  Publish(publisher, 1, second);
  EXPECT_THROW(ask(weight_wire::kLendVerb, WeightDigest(first)), Error);
  EXPECT_THROW(caller.Bytes(WeightDigest(first)), Error);
  EXPECT_EQ(DigestOf(caller.Bytes(WeightDigest(second))), WeightDigest(second));

  WeightPublisher keeps(folder.Ipc("others"));  // its actors are elsewhere
  EXPECT_FALSE(keeps.TakesFromDevice());
  Publish(keeps, 0, first);
  Caller other(folder.Ipc("others"));
  EXPECT_THROW(
      other.client.Call(weight_wire::kLendVerb, WeightDigest(first), After(milliseconds(5000))),
      Error);
}

// In blocks: their hashes, what has changed since the version before, and how much was sent.
TEST(WeightPublisherTest, GivesBlocksAndWhatHasChangedInThem) {
  const testing::TempFolder folder;
  WeightPublisher publisher(folder.Ipc("weights"), {}, /*lends=*/false,
                            {.on = true, .changes = true});
  Caller caller(folder.Ipc("weights"));
  const auto ask = [&](const Digest& set, const Digest& base, uint32_t most) {
    const weight_wire::BlocksQuestion question{
        .who = "a", .version = 0, .set = set, .base = base, .first = 0, .most = most};
    return weight_wire::DecodeBlocks(caller.client.CallPayload(
        weight_wire::kBlocksVerb, Payload(weight_wire::EncodeBlocksQuestion(question)),
        After(milliseconds(10000))));
  };
  const auto leaves = [&](const std::vector<std::byte>& bytes) {
    return weight_wire::DecodeLeaves(
        caller.client.Call(weight_wire::kLeavesVerb, WeightDigest(bytes),
                           After(milliseconds(9000))),
        WeightDigest(bytes), bytes.size());
  };
  const auto frozen = Buffer(1000, 9);
  auto bytes = Buffer(2'500'000, 1);
  const Digest first = WeightDigest(bytes);
  const auto publish = [&](int64_t version) {
    std::vector<WeightSet> sets = {{"base", WeightDigest(frozen), frozen},
                                   {"lora", WeightDigest(bytes), bytes}};
    if (version > 0) sets[0].bytes = {};
    publisher.Publish({version, "v" + std::to_string(version)}, sets);
  };
  publish(0);
  EXPECT_EQ(leaves(bytes), HashBlocks(bytes));
  EXPECT_EQ(ask(first, "", 3).size(), 3u);
  EXPECT_EQ(publisher.counters().at("weight_bytes"), 2'500'000 + 3 * 16);
  bytes[5] ^= std::byte{1};
  publish(1);
  const Digest second = WeightDigest(bytes);
  const auto changes = ask(second, first, 3);
  ASSERT_EQ(changes.size(), 3u);
  std::vector<std::byte> block(kDigestBlockBytes);
  const auto before = Buffer(2'500'000, 1);
  DecodeBlock(changes[0], std::span(before).first(kDigestBlockBytes), block);
  EXPECT_EQ(HashBlock(block), HashBlocks(bytes)[0]);
  EXPECT_EQ(changes[1].view(), SameBlock());
  EXPECT_LT(publisher.counters().at("weight_bytes"), 2'500'000 + 200);
  EXPECT_GT(publisher.counters().at("weight_bytes_saved"), 2'499'000);
  EXPECT_EQ(ask(WeightDigest(frozen), "", 1).size(), 1u) << "for who joins late";
  EXPECT_EQ(WholeBlock(ask(second, "another", 1)[0]).size(), kDigestBlockBytes);
  EXPECT_THROW(ask(first, "", 1), Error) << "nobody was in the middle of it";
  EXPECT_THROW(leaves(before), Error);
  EXPECT_EQ(DigestOf(caller.Bytes(second)), second) << "and as today";
}

TEST(WeightPublisherTest, AnUnknownVerbIsAnError) {
  const testing::TempFolder folder;
  WeightPublisher publisher(folder.Ipc("weights"));
  RpcClient client(folder.Ipc("weights"));
  EXPECT_THROW(client.Call("weights.steal", "", After(milliseconds(5000))), Error);
}

}  // namespace
}  // namespace plumb::learner

// learner/weight_publisher.h met by the actor's side of the wire, over ipc.
#include "learner/weight_publisher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <thread>

#include "common/digest.h"
#include "common/weight_wire.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using std::chrono::milliseconds;

std::vector<std::byte> Buffer(size_t n, int seed) {
  std::vector<std::byte> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<std::byte>((i * 31 + static_cast<size_t>(seed)) & 0xFF);
  return out;
}

// The actor's side, which tests/actor/weight_subscriber_test.cc has whole: learner and actor never include one another.
struct Caller {
  explicit Caller(const std::string& endpoint) : client(endpoint) {}
  weight_wire::Offer Fetch(const PolicyVersion& held, int64_t wait_ms) {
    return weight_wire::DecodeOffer(
        client.Call(weight_wire::kFetchVerb, weight_wire::EncodeFetchRequest({held, wait_ms}), After(milliseconds(5000))));
  }
  std::string Part(const PolicyVersion& version, uint64_t offset, uint64_t bytes) {
    return client.Call(weight_wire::kPartVerb, weight_wire::EncodePartRequest({version, offset, bytes}), After(milliseconds(5000)));
  }
  std::string All(const weight_wire::Offer& offer, uint64_t part) {
    std::string out;
    while (out.size() < offer.bytes) out += Part(offer.version, out.size(), std::min<uint64_t>(part, offer.bytes - out.size()));
    return out;
  }
  RpcClient client;
};

Digest DigestOf(const std::string& bytes) { return WeightDigest(std::as_bytes(std::span(bytes))); }

TEST(WeightPublisherTest, ServesTheNewestAndHoldsFetchesUntilThereIsOne) {
  const testing::TempFolder folder;
  WeightPublisher publisher(folder.Ipc("weights"));
  Caller caller(folder.Ipc("weights"));
  EXPECT_EQ(weight_wire::DecodeOffer(caller.client.Call(weight_wire::kNewestVerb, "", After(milliseconds(5000)))), weight_wire::Offer{});
  EXPECT_EQ(caller.Fetch({}, 100), weight_wire::Offer{});  // nothing in time

  weight_wire::Offer waited;
  std::thread waiter([&] { waited = caller.Fetch({}, 4000); });
  std::this_thread::sleep_for(milliseconds(100));
  const auto first = Buffer(3'000'001, 1);
  publisher.Publish({.version = 0, .digest = WeightDigest(first)}, first);
  waiter.join();
  EXPECT_EQ(waited, (weight_wire::Offer{{0, WeightDigest(first)}, first.size()}));
  EXPECT_EQ(DigestOf(caller.All(waited, 1'000'000)), WeightDigest(first));

  const auto second = Buffer(3'000'001, 2);
  publisher.Publish({.version = 1, .digest = WeightDigest(second)}, second);
  const auto offer = caller.Fetch(waited.version, 1000);
  EXPECT_EQ(offer.version.version, 1);
  EXPECT_EQ(caller.Fetch(offer.version, 50).version.version, -1);
  // Who holds what this learner has not published (a life before published it) is offered what there is, older number or not.
  EXPECT_EQ(caller.Fetch({1, "of a life before"}, 1000), offer);
  EXPECT_EQ(caller.Fetch({7, "of a life before"}, 1000), offer);
}

TEST(WeightPublisherTest, AVersionThatIsBeingFetchedStaysUntilItIsWhole) {
  const testing::TempFolder folder;
  WeightPublisher publisher(folder.Ipc("weights"));
  Caller caller(folder.Ipc("weights"));
  const auto first = Buffer(1000, 1), second = Buffer(1000, 2), third = Buffer(1000, 3);
  publisher.Publish({.version = 0, .digest = WeightDigest(first)}, first);
  const auto offer = caller.Fetch({}, 1000);
  const std::string head = caller.Part(offer.version, 0, 600);
  publisher.Publish({.version = 1, .digest = WeightDigest(second)}, second);
  EXPECT_EQ(DigestOf(head + caller.Part(offer.version, 600, 400)), offer.version.digest);
  publisher.Publish({.version = 2, .digest = WeightDigest(third)}, third);
  for (const auto& [version, code] : {std::pair{PolicyVersion{1, WeightDigest(second)}, ErrorCode::kNotFound},  // nobody asked
                                      std::pair{PolicyVersion{2, "another"}, ErrorCode::kNotFound}}) {
    try {
      caller.Part(version, 0, 10);
      ADD_FAILURE() << version.version;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
    }
  }
  for (const auto& [offset, bytes] : {std::pair<uint64_t, uint64_t>{0, 1001}, {1001, 0}, {1, 1000}, {UINT64_MAX, 2}, {0, UINT64_MAX}}) {
    EXPECT_THROW(caller.Part({2, WeightDigest(third)}, offset, bytes), Error) << offset << " " << bytes;
  }
}

TEST(WeightPublisherTest, ANumberNeverMeansTwoPolicies) {
  const testing::TempFolder folder;
  WeightPublisher publisher(folder.Ipc("weights"));
  const auto bytes = Buffer(100, 1);
  publisher.Publish({.version = 3, .digest = "a"}, bytes);
  EXPECT_NO_THROW(publisher.Publish({.version = 3, .digest = "a"}, bytes));
  EXPECT_THROW(publisher.Publish({.version = 3, .digest = "b"}, bytes), Error);
  EXPECT_THROW(publisher.Publish({.version = 2, .digest = "a"}, bytes), Error);
}

TEST(WeightPublisherTest, AnUnknownVerbIsAnError) {
  const testing::TempFolder folder;
  WeightPublisher publisher(folder.Ipc("weights"));
  RpcClient client(folder.Ipc("weights"));
  EXPECT_THROW(client.Call("weights.steal", "", After(milliseconds(5000))), Error);
}

}  // namespace
}  // namespace plumb::learner

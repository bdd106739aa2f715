// learner/weight_publisher.h met by the actor's side of the wire, over ipc.
#include "learner/weight_publisher.h"

#include <gtest/gtest.h>

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
  explicit Caller(const std::string& endpoint) : client(endpoint, {.piece_bytes = 100'000}) {}
  PolicyVersion Await(const PolicyVersion& held, milliseconds wait) {
    try {
      return weight_wire::DecodeVersion(
          client.Call(weight_wire::kAwaitVerb, weight_wire::EncodeVersion(held), After(wait)));
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kDeadline) << e.what();
      return {};
    }
  }
  std::string Bytes(const PolicyVersion& version) {
    return client.Call(weight_wire::kBytesVerb, weight_wire::EncodeVersion(version),
                       After(milliseconds(10000)));
  }
  RpcClient client;
};

Digest DigestOf(const std::string& bytes) { return WeightDigest(std::as_bytes(std::span(bytes))); }

TEST(WeightPublisherTest, ServesTheNewestAndTellsWhoAwaitsIt) {
  const testing::TempFolder folder;
  WeightPublisher publisher(folder.Ipc("weights"), {.piece_bytes = 100'000});
  Caller caller(folder.Ipc("weights"));
  EXPECT_EQ(caller.Await({}, milliseconds(100)), PolicyVersion{});  // nothing in time

  PolicyVersion told;
  std::thread waiter([&] { told = caller.Await({}, milliseconds(10000)); });
  std::this_thread::sleep_for(milliseconds(100));
  const auto first = Buffer(3'000'001, 1);
  publisher.Publish({.version = 0, .digest = WeightDigest(first)}, first);
  waiter.join();
  EXPECT_EQ(told, (PolicyVersion{0, WeightDigest(first)}));
  EXPECT_EQ(DigestOf(caller.Bytes(told)), WeightDigest(first));
  EXPECT_GE(caller.client.counters()["pieces"], 29u);

  const auto second = Buffer(3'000'001, 2);
  publisher.Publish({.version = 1, .digest = WeightDigest(second)}, second);
  const PolicyVersion newest = caller.Await(told, milliseconds(10000));
  EXPECT_EQ(newest, (PolicyVersion{1, WeightDigest(second)}));
  EXPECT_EQ(caller.Await(newest, milliseconds(50)), PolicyVersion{});
  // Who holds what this learner has not published (a life before published it) is told what there
  // is, older number or not.
  EXPECT_EQ(caller.Await({1, "of a life before"}, milliseconds(10000)), newest);
  EXPECT_EQ(caller.Await({7, "of a life before"}, milliseconds(10000)), newest);
  for (const PolicyVersion& gone : {told, PolicyVersion{1, "another"}, PolicyVersion{}}) {
    try {
      caller.Bytes(gone);
      ADD_FAILURE() << gone.version;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kNotFound) << e.what();
    }
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

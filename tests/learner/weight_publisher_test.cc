// learner/weight_publisher.h met by the actor's side of the wire, over ipc.
#include "learner/weight_publisher.h"

#include <gtest/gtest.h>

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

TEST(WeightPublisherTest, ServesTheNewestAndHoldsFetchesUntilThereIsOne) {
  const testing::TempFolder folder;
  WeightPublisher publisher(folder.Ipc("weights"));
  RpcClient client(folder.Ipc("weights"));
  const auto fetch = [&](int64_t than, int64_t wait_ms) {
    return client.Call(weight_wire::kFetchVerb, weight_wire::EncodeFetchRequest({.than = than, .wait_ms = wait_ms}),
                       After(milliseconds(5000)));
  };
  EXPECT_EQ(weight_wire::DecodeReply(client.Call(weight_wire::kNewestVerb, "", After(milliseconds(5000)))).version.version, -1);
  EXPECT_EQ(weight_wire::DecodeReply(fetch(-1, 100)).version.version, -1);  // nothing in time

  std::string waited;
  std::thread waiter([&] { waited = fetch(-1, 4000); });
  std::this_thread::sleep_for(milliseconds(100));
  const auto first = Buffer(3'000'001, 1);
  publisher.Publish({.version = 0, .digest = WeightDigest(first)}, first);
  waiter.join();
  const auto reply = weight_wire::DecodeReply(waited);
  EXPECT_EQ(reply.version.version, 0);
  EXPECT_EQ(reply.version.digest, WeightDigest(reply.flat));
  EXPECT_EQ(reply.flat.size(), first.size());

  const auto second = Buffer(3'000'001, 2);
  publisher.Publish({.version = 1, .digest = WeightDigest(second)}, second);
  EXPECT_EQ(weight_wire::DecodeReply(fetch(0, 1000)).version.version, 1);
  EXPECT_EQ(weight_wire::DecodeReply(fetch(1, 50)).version.version, -1);
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

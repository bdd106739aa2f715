#include "actor/weight_subscriber.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "common/error.h"
#include "common/weight_wire.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

using std::chrono::milliseconds;

// Serves the weights it is told to, spoiled for the first `spoil` fetches.
class FakeSource : public WeightSource {
 public:
  void Set(const policy_model::Weights& weights, int64_t version) {
    bytes.resize(weights.flat().bytes());
    weights.flat().CopyToHost(bytes);
    newest = {version, weights.ComputeDigest()};
  }
  PolicyVersion Newest() override { return newest; }
  std::optional<PolicyVersion> Fetch(int64_t than, std::span<std::byte> flat, Deadline) override {
    ++fetches;
    if (away-- > 0) throw Error(ErrorCode::kUnavailable, "the learner is away");
    if (newest.version <= than) return std::nullopt;
    EXPECT_EQ(flat.size(), bytes.size());
    std::memcpy(flat.data(), bytes.data(), bytes.size());
    if (spoil-- > 0) flat[flat.size() / 2] ^= std::byte{1};
    return newest;
  }
  std::vector<std::byte> bytes;
  PolicyVersion newest;
  int spoil = 0, away = 0, fetches = 0;
};

bool SameBytes(const policy_model::Weights& a, const policy_model::Weights& b) {
  return std::memcmp(a.flat().data(), b.flat().data(), a.flat().bytes()) == 0;
}

TEST(FetchedPolicy, TakesVerifiedVersionsOnly) {
  const policy_model::Weights first = TinyWeights(1), second = TinyWeights(2);
  FakeSource source;
  FetchedPolicy policy(TinyShape(), Device::kCpu, DType::kFloat32, &source);
  EXPECT_FALSE(policy.Update(0, After(milliseconds(1))));
  EXPECT_EQ(policy.current().version, -1);
  source.Set(first, 4);
  ASSERT_TRUE(policy.Update(-1, After(milliseconds(500))));
  EXPECT_EQ(policy.current(), (PolicyVersion{4, first.ComputeDigest()}));
  EXPECT_TRUE(SameBytes(policy.weights(), first));

  source.Set(second, 5);
  source.spoil = 1000;  // always wrong: the old weights stay
  EXPECT_FALSE(policy.Update(5, After(milliseconds(120))));
  EXPECT_EQ(policy.current().version, 4);
  EXPECT_TRUE(SameBytes(policy.weights(), first));
  const uint64_t refused = policy.counters().refused_digest;
  EXPECT_GE(refused, 2u) << "fetched again";

  source.spoil = 1;  // right at the second try
  EXPECT_TRUE(policy.Update(5, After(milliseconds(2000))));
  EXPECT_EQ(policy.counters().refused_digest, refused + 1);
  EXPECT_EQ(policy.counters().fetched, 2u);
  EXPECT_TRUE(SameBytes(policy.weights(), second));
}

TEST(FetchedPolicy, ASourceThatIsAwayIsTriedAgain) {
  const policy_model::Weights first = TinyWeights(1);
  FakeSource source;
  source.Set(first, 0);
  source.away = 2;
  FetchedPolicy policy(TinyShape(), Device::kCpu, DType::kFloat32, &source);
  EXPECT_TRUE(policy.Update(0, After(milliseconds(2000))));
  EXPECT_EQ(source.fetches, 3);
}

TEST(FetchedPolicy, TheNewestAtHandDoesNotWait) {
  FakeSource source;
  source.Set(TinyWeights(1), 0);
  FetchedPolicy policy(TinyShape(), Device::kCpu, DType::kFloat32, &source);
  ASSERT_TRUE(policy.Update(-1, After(milliseconds(500))));
  EXPECT_TRUE(policy.Update(-1, After(milliseconds(60000))));  // nothing newer: returns at once
  EXPECT_EQ(source.fetches, 1);
  source.Set(TinyWeights(2), 9);
  EXPECT_TRUE(policy.Update(-1, Deadline{}));
  EXPECT_EQ(policy.current().version, 9);
}

TEST(SharedPolicy, WaitsForTheVersionAndCopiesNothing) {
  const policy_model::Weights weights = TinyWeights(1);
  std::atomic<int64_t> version = -1;
  SharedPolicy policy(&weights, [&] { return PolicyVersion{version.load(), "d"}; });
  EXPECT_FALSE(policy.Update(-1, After(milliseconds(5))));
  version = 0;
  EXPECT_TRUE(policy.Update(-1, Deadline{}));
  EXPECT_FALSE(policy.Update(1, Deadline{}));
  std::jthread learner([&] {
    std::this_thread::sleep_for(milliseconds(20));
    version = 1;
  });
  EXPECT_TRUE(policy.Update(1, After(milliseconds(2000))));
  EXPECT_EQ(&policy.weights(), &weights);
}

TEST(RemoteWeightSource, SpeaksTheWire) {
  const policy_model::Weights weights = TinyWeights(1);
  FakeSource server;
  int answered = 0;
  RemoteWeightSource remote([&](const std::string& verb, const std::string& payload, Deadline) {
    ++answered;
    if (verb == weight_wire::kNewestVerb) return weight_wire::EncodeReply(server.newest, {});
    EXPECT_EQ(verb, weight_wire::kFetchVerb);
    const weight_wire::FetchRequest request = weight_wire::DecodeFetchRequest(payload);
    EXPECT_LE(request.wait_ms, 5000);
    if (server.newest.version <= request.than) return weight_wire::EncodeReply({}, {});
    return weight_wire::EncodeReply(server.newest, server.bytes);
  });
  std::vector<std::byte> flat(weights.flat().bytes());
  EXPECT_EQ(remote.Newest().version, -1);
  EXPECT_EQ(remote.Fetch(-1, flat, After(milliseconds(2))), std::nullopt);
  server.Set(weights, 3);
  EXPECT_EQ(remote.Newest(), server.newest);
  EXPECT_EQ(remote.Fetch(2, flat, After(milliseconds(100))), server.newest);
  EXPECT_EQ(flat, server.bytes);
  EXPECT_EQ(remote.Fetch(3, flat, Deadline{}), std::nullopt);
  EXPECT_GE(answered, 5);
  flat.pop_back();  // another model
  EXPECT_THROW(remote.Fetch(2, flat, After(milliseconds(100))), Error);
}

}  // namespace
}  // namespace plumb::actor

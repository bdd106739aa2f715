#include "actor/weight_subscriber.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <thread>
#include <utility>

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
  std::optional<PolicyVersion> Fetch(const PolicyVersion& held, std::span<std::byte> flat, Deadline) override {
    ++fetches;
    if (away-- > 0) throw Error(ErrorCode::kUnavailable, "the learner is away");
    if (newest.version < 0 || newest == held) return std::nullopt;
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

// A learner that died and resumed from a checkpoint publishes other weights under numbers that the actor knows.
TEST(FetchedPolicy, WhatALearnersLifeBeforeHadPublishedIsFetchedAgain) {
  const policy_model::Weights old = TinyWeights(1), anew = TinyWeights(2), later = TinyWeights(3);
  FakeSource source;
  FetchedPolicy policy(TinyShape(), Device::kCpu, DType::kFloat32, &source);
  source.Set(old, 17);
  ASSERT_TRUE(policy.Update(17, After(milliseconds(500))));
  EXPECT_TRUE(policy.Update(17, Deadline{}));
  EXPECT_EQ(source.fetches, 1) << "the same as before: nothing moves";
  source.Set(anew, 10);  // gone back
  EXPECT_TRUE(policy.Update(10, After(milliseconds(500))));
  EXPECT_EQ(policy.current(), (PolicyVersion{10, anew.ComputeDigest()}));
  source.Set(later, 17);
  EXPECT_TRUE(policy.Update(-1, Deadline{}));
  EXPECT_TRUE(SameBytes(policy.weights(), later));
  source.Set(old, 17);  // the same number, other bytes
  EXPECT_TRUE(policy.Update(17, After(milliseconds(500))));
  EXPECT_TRUE(SameBytes(policy.weights(), old));
  source.Set(later, 18);  // a newer one is not asked for
  EXPECT_TRUE(policy.Update(17, Deadline{}));
  EXPECT_EQ(policy.version(), 17);
}

TEST(SharedPolicy, WaitsForTheVersionAndCopiesNothing) {
  const policy_model::Weights weights = TinyWeights(1);
  std::atomic<int64_t> version = -1;
  SharedPolicy policy(&weights, [&] { return PolicyVersion{version.load(), "d"}; }, [&] { return version.load(); });
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

// The learner's side, which tests/learner/weight_publisher_test.cc has whole.
struct FakeServer {
  Payload Answer(const std::string& verb, const std::string& payload) {
    if (verb == weight_wire::kNewestVerb) return Payload(weight_wire::EncodeOffer({source.newest, source.bytes.size()}));
    if (verb == weight_wire::kFetchVerb) {
      ++offers;
      const weight_wire::FetchRequest request = weight_wire::DecodeFetchRequest(payload);
      EXPECT_LE(request.wait_ms, 5000);
      if (source.newest.version < 0 || source.newest == request.held) return Payload(weight_wire::EncodeOffer({}));
      return Payload(weight_wire::EncodeOffer({source.newest, source.bytes.size()}));
    }
    EXPECT_EQ(verb, weight_wire::kPartVerb);
    const weight_wire::PartRequest part = weight_wire::DecodePartRequest(payload);
    if (before_part) std::exchange(before_part, {})();
    if (part.version != source.newest) throw Error(ErrorCode::kNotFound, "no longer at hand");
    ++parts;
    largest = std::max(largest, part.bytes);
    return Payload(std::string(reinterpret_cast<const char*>(source.bytes.data()) + part.offset, part.bytes - (cut ? 1 : 0)));
  }
  FakeSource source;
  int offers = 0, parts = 0;
  uint64_t largest = 0;
  bool cut = false;
  std::function<void()> before_part;
};

TEST(RemoteWeightSource, FetchesInPartsOfABoundedSize) {
  const policy_model::Weights weights = TinyWeights(1);
  FakeServer server;
  RemoteWeightSource remote([&](const std::string& verb, std::string payload, Deadline) { return server.Answer(verb, payload); }, 1000);
  std::vector<std::byte> flat(weights.flat().bytes());
  ASSERT_GT(flat.size(), 3000u);
  EXPECT_EQ(remote.Newest().version, -1);
  EXPECT_EQ(remote.Fetch({}, flat, After(milliseconds(2))), std::nullopt);
  server.source.Set(weights, 3);
  EXPECT_EQ(remote.Newest(), server.source.newest);
  EXPECT_EQ(remote.Fetch({2, "other"}, flat, After(milliseconds(100))), server.source.newest);
  EXPECT_EQ(flat, server.source.bytes);
  EXPECT_EQ(server.largest, 1000u);
  EXPECT_EQ(static_cast<size_t>(server.parts), (flat.size() + 999) / 1000);
  EXPECT_EQ(remote.Fetch(server.source.newest, flat, Deadline{}), std::nullopt);
  server.cut = true;
  EXPECT_THROW(remote.Fetch({}, flat, After(milliseconds(100))), Error);
  server.cut = false;
  flat.pop_back();  // another model
  EXPECT_THROW(remote.Fetch({}, flat, After(milliseconds(100))), Error);
}

TEST(RemoteWeightSource, BeginsAnewWhenTheVersionIsGoneMeanwhile) {
  const policy_model::Weights first = TinyWeights(1), second = TinyWeights(2);
  FakeServer server;
  RemoteWeightSource remote([&](const std::string& verb, std::string payload, Deadline) { return server.Answer(verb, payload); }, 1000);
  server.source.Set(first, 3);
  std::vector<std::byte> flat(first.flat().bytes());
  server.before_part = [&] { server.before_part = [&] { server.source.Set(second, 4); }; };  // behind the first part
  EXPECT_EQ(remote.Fetch({}, flat, After(milliseconds(1000))), (PolicyVersion{4, second.ComputeDigest()}));
  EXPECT_EQ(flat, server.source.bytes);
  EXPECT_EQ(server.offers, 2);
}

}  // namespace
}  // namespace plumb::actor

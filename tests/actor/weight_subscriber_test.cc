#include "actor/weight_subscriber.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/net/weight_wire.h"
#include "tests/actor/tiny.h"
#include "tests/testing/temp_folder.h"

namespace plumb::actor {
namespace {

using std::chrono::milliseconds;

struct ServedSet {
  OfferedSet offered;
  std::vector<std::byte> bytes;
};

std::vector<ServedSet> SetsOf(const policy_model::Weights& weights) {
  std::vector<ServedSet> out;
  for (const auto& [name, digest] : weights.SetDigests()) {
    const policy_model::FlatBuffer& flat = weights.sets()[out.size()]->flat;
    ServedSet& set = out.emplace_back(
        ServedSet{{name, digest, flat.bytes()}, std::vector<std::byte>(flat.bytes())});
    flat.CopyToHost(set.bytes);
  }
  return out;
}

WeightOffer OfferOf(const PolicyVersion& version, const std::vector<ServedSet>& sets) {
  WeightOffer offer{.version = version, .sets = {}};
  for (const ServedSet& set : sets) offer.sets.push_back(set.offered);
  return offer;
}

// Serves the weights it is told to, spoiled for the first `spoil` fetches.
class FakeSource : public WeightSource {
 public:
  void Set(const policy_model::Weights& weights, int64_t version) {
    std::lock_guard lock(mu);
    sets = SetsOf(weights);
    newest = {version, weights.ComputeDigest()};
    changed.notify_all();
  }
  std::optional<WeightOffer> Await(const PolicyVersion& held, Deadline deadline) override {
    std::unique_lock lock(mu);
    if (broken) throw Error(ErrorCode::kCorruption, "another model");
    if (away > 0 && away-- > 0) throw Error(ErrorCode::kUnavailable, "the learner is away");
    if (!changed.wait_until(lock, deadline, [&] { return newest.version >= 0 && newest != held; }))
      return std::nullopt;
    return OfferOf(newest, sets);
  }
  bool Read(const Digest& digest, std::span<std::byte> into) override {
    std::unique_lock lock(mu);
    ++fetches;
    changed.wait(lock, [&] { return !held_back; });
    for (const ServedSet& set : sets) {
      if (set.offered.digest != digest) continue;
      EXPECT_EQ(into.size(), set.bytes.size());
      std::memcpy(into.data(), set.bytes.data(), set.bytes.size());
      if (spoil > 0 && spoil-- > 0) into[into.size() / 2] ^= std::byte{1};
      read.push_back(set.offered.name);
      return true;
    }
    return false;
  }
  std::optional<std::string> Lend(const Digest& digest) override {
    std::lock_guard lock(mu);
    for (const ServedSet& set : sets) {
      if (!lends || set.offered.digest != digest) continue;
      auto& memory = lent[set.offered.name];
      if (!memory) memory = std::make_unique<kernels::LentMemory>(Device::kCpu, set.bytes.size());
      std::memcpy(memory->data(), set.bytes.data(), set.bytes.size());
      if (spoil > 0 && spoil-- > 0) memory->data()[set.bytes.size() / 2] ^= std::byte{1};
      ++out;
      // Of another process: it leads nowhere here.
      return elsewhere ? "lent1 7" + memory->handle().substr(6) : memory->handle();
    }
    return std::nullopt;
  }
  void Return(const Digest&) override { --out; }
  void HoldBack(bool hold) {
    std::lock_guard lock(mu);
    held_back = hold;
    changed.notify_all();
  }
  std::mutex mu;
  std::condition_variable changed;
  std::vector<ServedSet> sets;
  std::vector<std::string> read;  // names, in order
  PolicyVersion newest;
  bool held_back = false;
  bool lends = false, elsewhere = false;
  std::map<std::string, std::unique_ptr<kernels::LentMemory>> lent;
  std::atomic<int> out{0};  // lent and not given back
  std::atomic<bool> broken{false};
  std::atomic<int> spoil{0}, away{0}, fetches{0};
};

// What arrives in the background is here sooner or later: Update takes it then.
bool Becomes(FetchedPolicy& policy, int64_t wanted, const PolicyVersion& version) {
  const Deadline until = After(milliseconds(10000));
  while (std::chrono::steady_clock::now() < until) {
    policy.Update(wanted, After(milliseconds(5)));
    if (policy.current() == version) return true;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return false;
}

bool SameBytes(const policy_model::ParameterSet& a, const policy_model::ParameterSet& b) {
  return std::memcmp(a.flat.data(), b.flat.data(), a.flat.bytes()) == 0;
}
bool SameBytes(const policy_model::Weights& a, const policy_model::Weights& b) {
  return SameBytes(a.base(), b.base());
}

TEST(FetchedPolicy, TakesVerifiedVersionsOnly) {
  const policy_model::Weights first = TinyWeights(1), second = TinyWeights(2);
  FakeSource source;
  FetchedPolicy policy(TinyShape(), Device::kCpu, DType::kFloat32, &source);
  EXPECT_FALSE(policy.Update(0, After(milliseconds(1))));
  EXPECT_EQ(policy.current().version, -1);
  source.Set(first, 4);
  ASSERT_TRUE(policy.Update(-1, After(milliseconds(10000))));
  EXPECT_EQ(policy.current(), (PolicyVersion{4, first.ComputeDigest()}));
  EXPECT_TRUE(SameBytes(policy.weights(), first));

  source.spoil = 1000;  // always wrong: the old weights stay
  source.Set(second, 5);
  EXPECT_FALSE(policy.Update(5, After(milliseconds(300))));
  EXPECT_EQ(policy.current().version, 4);
  EXPECT_TRUE(SameBytes(policy.weights(), first));
  while (policy.counters().refused_digest < 2)
    std::this_thread::sleep_for(milliseconds(5));  // fetched again
  source.spoil = 0;                                // right at the next try
  EXPECT_TRUE(policy.Update(5, After(milliseconds(10000))));
  EXPECT_EQ(policy.counters().fetched, 2u);
  EXPECT_TRUE(SameBytes(policy.weights(), second));
}

TEST(FetchedPolicy, WhatIsLentIsCopiedWhereItLiesAndVerified) {
  const policy_model::Weights first = TinyWeights(1), second = TinyWeights(2);
  FakeSource source;
  source.lends = true;
  source.Set(first, 0);
  FetchedPolicy policy(TinyShape(), Device::kCpu, DType::kFloat32, &source);
  ASSERT_TRUE(policy.Update(0, After(milliseconds(10000))));
  EXPECT_TRUE(SameBytes(policy.weights(), first));
  EXPECT_EQ(source.fetches, 0) << "nothing was read";
  source.spoil = 1;  // overwritten by a newer version in the middle
  source.Set(second, 1);
  ASSERT_TRUE(policy.Update(1, After(milliseconds(10000))));
  EXPECT_TRUE(SameBytes(policy.weights(), second));
  EXPECT_EQ(policy.counters().refused_digest, 1u);
  EXPECT_EQ(policy.counters().borrowed_sets, 3u);
  EXPECT_EQ(source.out, 0) << "each was given back";
}

TEST(FetchedPolicy, WhatCannotBeBorrowedIsRead) {
  const policy_model::Weights first = TinyWeights(1), second = TinyWeights(2);
  FakeSource source;
  source.lends = source.elsewhere = true;
  source.Set(first, 0);
  FetchedPolicy policy(TinyShape(), Device::kCpu, DType::kFloat32, &source);
  ASSERT_TRUE(policy.Update(0, After(milliseconds(10000))));
  source.Set(second, 1);
  ASSERT_TRUE(policy.Update(1, After(milliseconds(10000))));
  EXPECT_TRUE(SameBytes(policy.weights(), second));
  EXPECT_EQ(source.fetches, 2);
  EXPECT_EQ(policy.counters().borrowed_sets, 0u);
  EXPECT_EQ(source.out, 0);
}

TEST(FetchedPolicy, ASourceThatIsAwayIsTriedAgain) {
  const policy_model::Weights first = TinyWeights(1);
  FakeSource source;
  source.Set(first, 0);
  source.away = 2;
  FetchedPolicy policy(TinyShape(), Device::kCpu, DType::kFloat32, &source);
  EXPECT_TRUE(policy.Update(0, After(milliseconds(10000))));
  EXPECT_EQ(source.fetches, 1);
  EXPECT_EQ(source.away, 0);
}

TEST(FetchedPolicy, WhatTheSourceDoesNotGetOverIsThrownByUpdate) {
  FakeSource source;
  source.broken = true;
  FetchedPolicy policy(TinyShape(), Device::kCpu, DType::kFloat32, &source);
  EXPECT_THROW(policy.Update(0, After(milliseconds(10000))), Error);
  EXPECT_THROW(policy.Update(-1, Deadline{}), Error) << "again";
}

TEST(FetchedPolicy, NewWeightsArriveWhileTheOldOnesAreUsed) {
  const policy_model::Weights old = TinyWeights(1), anew = TinyWeights(2);
  FakeSource source;
  source.Set(old, 0);
  FetchedPolicy policy(TinyShape(), Device::kCpu, DType::kFloat32, &source);
  ASSERT_TRUE(policy.Update(-1, After(milliseconds(10000))));
  source.HoldBack(true);
  source.Set(anew, 9);
  while (source.fetches < 2) std::this_thread::sleep_for(milliseconds(2));
  EXPECT_TRUE(policy.Update(-1, After(milliseconds(60000))));  // on the way: does not wait for it
  EXPECT_EQ(policy.version(), 0);
  EXPECT_TRUE(SameBytes(policy.weights(), old));
  source.HoldBack(false);
  EXPECT_TRUE(Becomes(policy, -1, {9, anew.ComputeDigest()}));
  EXPECT_TRUE(SameBytes(policy.weights(), anew));
  EXPECT_EQ(source.fetches, 2);
}

// A learner that died and resumed from a checkpoint publishes other weights under numbers that the
// actor knows.
TEST(FetchedPolicy, WhatALearnersLifeBeforeHadPublishedIsFetchedAgain) {
  const policy_model::Weights old = TinyWeights(1), anew = TinyWeights(2), later = TinyWeights(3);
  FakeSource source;
  FetchedPolicy policy(TinyShape(), Device::kCpu, DType::kFloat32, &source);
  source.Set(old, 17);
  ASSERT_TRUE(policy.Update(17, After(milliseconds(10000))));
  EXPECT_TRUE(policy.Update(17, Deadline{}));
  EXPECT_EQ(source.fetches, 1) << "the same as before: nothing moves";
  source.Set(anew, 10);  // gone back
  EXPECT_TRUE(policy.Update(10, After(milliseconds(10000))));
  EXPECT_EQ(policy.current(), (PolicyVersion{10, anew.ComputeDigest()}))
      << "waited for, as what is here is beyond";
  source.Set(later, 17);
  EXPECT_TRUE(Becomes(policy, -1, {17, later.ComputeDigest()}));
  EXPECT_TRUE(SameBytes(policy.weights(), later));
  source.Set(old, 17);  // the same number, other bytes
  EXPECT_TRUE(Becomes(policy, 17, {17, old.ComputeDigest()}));
  EXPECT_TRUE(SameBytes(policy.weights(), old));
  const int fetched = source.fetches;
  source.Set(TinyWeights(4), 18);  // a newer one is at hand, and is not asked for
  while (source.fetches == fetched) std::this_thread::sleep_for(milliseconds(2));
  EXPECT_TRUE(policy.Update(17, Deadline{}));
  EXPECT_TRUE(policy.Update(16, After(milliseconds(50))));
  EXPECT_EQ(policy.version(), 17);
  EXPECT_TRUE(SameBytes(policy.weights(), old));
  EXPECT_TRUE(policy.Update(18, After(milliseconds(10000))));
}

// One policy of a base and an adapter whose B is `b` everywhere.
policy_model::Weights Adapted(float b, int base = 1) {
  policy_model::Weights weights = TinyWeights(base);
  weights.AddAdapter({.rank = 2, .alpha = 4}, 7);
  policy_model::ParameterSet& set = *weights.adapters()[0];
  for (const auto& e : set.table->entries()) {
    if (e.name.ends_with("lora_B")) std::fill_n(set.flat.f32() + e.offset, e.elements, b);
  }
  return weights;
}

policy_model::Weights EmptyAdapted() {
  policy_model::Weights empty(TinyShape(), Device::kCpu, DType::kFloat32);
  empty.AddAdapter({.rank = 2, .alpha = 4}, 0);
  return empty;
}

TEST(FetchedPolicy, FetchesTheBaseOnceAndThenWhatIsTrained) {
  FakeSource source;
  FetchedPolicy policy(EmptyAdapted(), &source);
  for (int64_t version = 0; version < 4; ++version) {
    const policy_model::Weights weights = Adapted(0.1f * static_cast<float>(version));
    source.Set(weights, version);
    ASSERT_TRUE(policy.Update(version, After(milliseconds(10000)))) << version;
    EXPECT_EQ(policy.current(), source.newest);
    EXPECT_EQ(policy.weights().ComputeDigest(), weights.ComputeDigest()) << version;
    EXPECT_TRUE(SameBytes(policy.weights(), weights));
    EXPECT_TRUE(SameBytes(*policy.weights().sets()[1], *weights.sets()[1]));
  }
  EXPECT_EQ(source.read, (std::vector<std::string>{"base", "lora", "lora", "lora", "lora"}));

  source.Set(Adapted(0.5f, 2), 9);
  EXPECT_THROW(policy.Update(9, After(milliseconds(10000))), Error) << "of another run";
}

TEST(FetchedPolicy, ABaseThatArrivesSpoiledIsFetchedAgain) {
  const policy_model::Weights weights = Adapted(0.1f);
  FakeSource source;
  source.spoil = 1;
  source.Set(weights, 0);
  FetchedPolicy policy(EmptyAdapted(), &source);
  ASSERT_TRUE(policy.Update(0, After(milliseconds(10000))));
  EXPECT_EQ(policy.weights().ComputeDigest(), weights.ComputeDigest());
  EXPECT_TRUE(SameBytes(policy.weights(), weights));
  EXPECT_EQ(policy.counters().refused_digest, 1u);
  EXPECT_EQ(source.read, (std::vector<std::string>{"base", "base", "lora"}));
}

TEST(FetchedPolicy, AModelOfOtherSetsIsRefusedAndBothAreDescribed) {
  FakeSource source;
  source.Set(TinyWeights(1), 0);  // without the adapter
  FetchedPolicy policy(EmptyAdapted(), &source);
  try {
    policy.Update(0, After(milliseconds(10000)));
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kConflict);
    EXPECT_NE(std::string(e.what()).find("of lora; learner and actor must use the same [model]"),
              std::string::npos)
        << e.what();
  }
  EXPECT_EQ(source.fetches, 0);
}

TEST(SharedPolicy, WaitsForTheVersionAndCopiesNothing) {
  const policy_model::Weights weights = TinyWeights(1);
  std::atomic<int64_t> version = -1;
  SharedPolicy policy(
      &weights,
      [&] {
        return PolicyVersion{version.load(), "d"};
      },
      [&] { return version.load(); });
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

// The learner's side, which tests/learner/loop/weight_publisher_test.cc has whole.
struct FakeServer {
  explicit FakeServer(const testing::TempFolder& folder) : endpoint(folder.Ipc("weights")) {
    server = std::make_unique<RpcServer>(
        endpoint,
        [this](const RpcRequest& request, RpcResponder responder) {
          std::lock_guard lock(mu);
          if (request.verb == weight_wire::kAwaitVerb) {
            const PolicyVersion held = weight_wire::DecodeVersion(request.payload);
            if (newest.version.version >= 0 && newest.version != held)
              responder.Reply(weight_wire::EncodeOffer(newest));
            else kept.push_back(responder);
            return;
          }
          EXPECT_EQ(request.verb, weight_wire::kBytesVerb);
          if (newest.sets.empty() || request.payload.view() != newest.sets[0].digest)
            throw Error(ErrorCode::kNotFound, "no longer at hand");
          responder.Reply(std::string(bytes));
        },
        RpcServerOptions{.piece_bytes = 1000});
  }
  const std::string endpoint;
  std::mutex mu;
  WeightOffer newest;
  std::string bytes;
  std::vector<RpcResponder> kept;
  std::unique_ptr<RpcServer> server;
};

// The learner is there and says nothing any more, in the middle of a fetch: the actor's end is not
// held up by the minute that it would have.
TEST(FetchedPolicy, ItsEndDoesNotWaitForALearnerThatHasGone) {
  const testing::TempFolder folder;
  std::atomic<bool> asked{false};
  std::vector<RpcResponder> kept;
  const policy_model::Weights weights = TinyWeights(1);
  const std::vector<ServedSet> sets = SetsOf(weights);
  const RpcServer server(folder.Ipc("weights"), [&](const RpcRequest& request,
                                                    RpcResponder responder) {
    if (request.verb == weight_wire::kAwaitVerb)
      return responder.Reply(weight_wire::EncodeOffer(OfferOf({1, weights.ComputeDigest()}, sets)));
    if (request.verb != weight_wire::kBytesVerb) return responder.Fail({ErrorCode::kNotFound, ""});
    kept.push_back(responder);
    asked = true;
  });
  RemoteWeightSource remote(server.endpoint());
  const auto begin = std::chrono::steady_clock::now();
  {
    FetchedPolicy policy(TinyShape(), Device::kCpu, DType::kFloat32, &remote);
    while (!asked) std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(30'000));
  EXPECT_THROW(remote.Await({}, After(milliseconds(60'000))), Error);
}

TEST(RemoteWeightSource, AwaitsAndReadsOrSaysWhyNot) {
  const testing::TempFolder folder;
  FakeServer server(folder);
  RemoteWeightSource remote(server.endpoint, {.piece_bytes = 1000});
  EXPECT_EQ(remote.Await({}, After(milliseconds(50))), std::nullopt);
  {
    std::lock_guard lock(server.mu);
    server.newest = {{3, "digest"}, {{"base", "digest", 5000}}};
    server.bytes = std::string(5000, 'w');
  }
  EXPECT_EQ(remote.Await({2, "other"}, After(milliseconds(10000))), server.newest);
  std::vector<std::byte> flat(5000);
  EXPECT_TRUE(remote.Read("digest", flat));
  EXPECT_EQ(std::memcmp(flat.data(), server.bytes.data(), flat.size()), 0);
  EXPECT_EQ(remote.Await(server.newest.version, After(milliseconds(50))), std::nullopt);
  EXPECT_FALSE(remote.Read("gone", flat));
  flat.pop_back();  // not as large as was said
  try {
    remote.Read("digest", flat);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCorruption);
  }
}

}  // namespace
}  // namespace plumb::actor

// Which weights the actor samples with, and how new ones arrive.
//
// Purpose: Policy is what the rollout sees. SharedPolicy reads the learner's weights in place (one
// process, sync); FetchedPolicy keeps two buffers of what is trained: a thread of its own awaits
// new versions of a WeightSource, has the sets that changed written straight into the idle one and
// verifies their digests there, and Update changes the two over. A source on this machine lends
// what it has, and the copy goes from its memory to the idle buffer, from GPU to GPU; others are
// read through the host's memory. RemoteWeightSource is the client side of that port.
// Thread safety: none, the rollout's thread owns them; RemoteWeightSource: all methods.
// Ownership: FetchedPolicy owns its weights and its thread; SharedPolicy's weights and the sources
// are the caller's.
// Errors: kDeadline and kUnavailable of the source mean "not yet"; what else it throws is thrown by
// the next Update, as are sets of another model or run (kConflict).
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "common/net/rpc/rpc.h"
#include "common/record/ports.h"
#include "kernels/device/lent_memory.h"
#include "policy_model/memory/weight_arrival.h"
#include "policy_model/memory/weights.h"

namespace plumb::actor {

struct PolicyCounters {
  uint64_t fetched = 0;         // versions taken over
  uint64_t borrowed_sets = 0;   // sets that came from memory that the source lent
  uint64_t refused_digest = 0;  // versions whose bytes were not what their digest says
};

class Policy {
 public:
  virtual ~Policy() = default;
  // What the next step samples with; version -1 before the first.
  virtual PolicyVersion current() const = 0;
  // current().version, without a lock or an allocation: asked for in every decode step.
  virtual int64_t version() const = 0;
  // REQUIRES: current().version >= 0. Valid until the next Update.
  virtual const policy_model::Weights& weights() const = 0;
  // Brings current() to at least `wanted` (-1: the newest at hand; waits only for the first).
  // Blocks until then or the deadline; false: not yet. May overshoot `wanted` when the source is
  // already beyond it. A source that went back, to an older number or to other bytes under the same
  // one, is followed; while it is still unsaid whether it did, a version beyond `wanted` is waited
  // on.
  virtual bool Update(int64_t wanted, Deadline deadline) = 0;
  virtual PolicyCounters counters() const { return {}; }
};

// The learner's own Weights object, read in place. Under sync nobody writes it while leases of its
// version are out.
class SharedPolicy : public Policy {
 public:
  // `policy` says what stands in `weights` now, `version` its number alone, without a lock; called
  // from the rollout's thread.
  SharedPolicy(const policy_model::Weights* weights, std::function<PolicyVersion()> policy,
               std::function<int64_t()> version);
  PolicyVersion current() const override { return policy_(); }
  int64_t version() const override { return version_(); }
  const policy_model::Weights& weights() const override { return *weights_; }
  bool Update(int64_t wanted, Deadline deadline) override;  // polls `version` every millisecond

 private:
  const policy_model::Weights* weights_;
  std::function<PolicyVersion()> policy_;
  std::function<int64_t()> version_;
};

class FetchedPolicy : public Policy {
 public:
  // A model to fetch into: of the sets that are not trained there will be one copy, of the others
  // two.
  FetchedPolicy(policy_model::Weights weights, WeightSource* source);
  FetchedPolicy(const policy_model::ModelShape& shape, const Stream& stream, DType dtype,
                WeightSource* source)
      : FetchedPolicy(policy_model::Weights(shape, stream, dtype), source) {}
  // Stops the source and waits for the fetch that goes on.
  ~FetchedPolicy() override;
  PolicyVersion current() const override { return current_; }
  int64_t version() const override { return current_.version; }
  const policy_model::Weights& weights() const override { return buffers_[active_]; }
  // A version whose digest does not match is refused, counted and logged; the old weights stay and
  // it is fetched again.
  bool Update(int64_t wanted, Deadline deadline) override;
  PolicyCounters counters() const override;

 private:
  void Run();
  // Awaits the next version, and has it ready. False: it was refused or gone.
  bool Fetch();
  // Has the idle buffer's set `i` be the one that is offered. False: as above.
  bool FetchSet(size_t i, const WeightOffer& offer);
  // To `into`; the digest of what arrived. nullopt: no longer at hand.
  std::optional<Digest> Arrive(const OfferedSet& offered, void* into);
  std::optional<Digest> Borrow(const OfferedSet& offered, void* into);
  bool Refuse(const PolicyVersion& offered, const std::string& why);
  void Take() PLUMB_REQUIRES(mu_);  // REQUIRES: ready_
  bool Shared(size_t set) const { return buffers_[0].sets()[set] == buffers_[1].sets()[set]; }

  WeightSource* source_;
  policy_model::Weights buffers_[2];
  std::vector<Digest> held_[2];  // the fetching thread's: of each buffer's sets; empty: unknown
  // The fetching thread's: what copies and hashes, where sets of a device that cannot be borrowed
  // come through, and what is borrowed, by its handle.
  policy_model::WeightArrival arrival_;
  std::vector<std::byte> host_;
  std::map<std::string, kernels::BorrowedMemory> borrowed_;  // by the set's name
  bool borrows_ = true;                                      // until that fails once
  int active_ = 0;         // changed by Update, while nothing is being written
  PolicyVersion current_;  // the rollout's thread's

  mutable Mutex mu_;
  CondVar changed_;
  PolicyVersion known_;  // the fetching thread's: what is ready, else what is current
  std::optional<PolicyVersion> ready_ PLUMB_GUARDED_BY(mu_);  // what Update may take
  PolicyCounters counters_ PLUMB_GUARDED_BY(mu_);
  std::exception_ptr error_ PLUMB_GUARDED_BY(mu_);
  bool stopping_ PLUMB_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

class RemoteWeightSource : public WeightSource {
 public:
  explicit RemoteWeightSource(const std::string& endpoint, RpcClientOptions options = {})
      : client_(endpoint, std::move(options)) {}
  std::optional<WeightOffer> Await(const PolicyVersion& held, Deadline deadline) override;
  bool Read(const Digest& set, std::span<std::byte> into) override;
  std::optional<std::string> Lend(const Digest& set) override;
  void Return(const Digest& set) override;
  void Stop() override { client_.Close(); }

 private:
  RpcClient client_;
};

}  // namespace plumb::actor

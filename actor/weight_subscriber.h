// Which weights the actor samples with, and how new ones arrive.
//
// Purpose: Policy is what the rollout sees. SharedPolicy reads the learner's weights in place (one process, sync);
// FetchedPolicy keeps two buffers and takes new versions from a WeightSource, verifying the digest before the first
// token is drawn; RemoteWeightSource is the client side of that port over any request-reply call.
// Thread safety: none, the rollout's thread owns them; RemoteWeightSource as the call it is given.
// Ownership: FetchedPolicy owns its weights; SharedPolicy and the sources are the caller's.
// Errors: kDeadline and kUnavailable of the source mean "not yet"; the rest pass through.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "common/payload.h"
#include "common/ports.h"
#include "common/weight_wire.h"
#include "policy_model/weights.h"

namespace plumb::actor {

struct PolicyCounters {
  uint64_t fetched = 0;         // versions taken over
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
  // Brings current() to at least `wanted` (-1: the newest at hand; waits only for the first), as the learner has it now: what a
  // life of it before had published under these numbers is fetched again. Blocks until then or the deadline; false: not yet.
  // May overshoot `wanted` when the source is already beyond it.
  virtual bool Update(int64_t wanted, Deadline deadline) = 0;
  virtual PolicyCounters counters() const { return {}; }
};

// The learner's own Weights object, read in place. Under sync nobody writes it while leases of its version are out.
class SharedPolicy : public Policy {
 public:
  // `policy` says what stands in `weights` now, `version` its number alone, without a lock; called from the rollout's thread.
  SharedPolicy(const policy_model::Weights* weights, std::function<PolicyVersion()> policy, std::function<int64_t()> version);
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
  FetchedPolicy(const policy_model::ModelShape& shape, Device device, DType dtype, WeightSource* source);
  PolicyVersion current() const override { return current_; }
  int64_t version() const override { return current_.version; }
  const policy_model::Weights& weights() const override { return buffers_[active_]; }
  // A version whose digest does not match is refused, counted and logged; the old weights stay and it is fetched again.
  bool Update(int64_t wanted, Deadline deadline) override;
  PolicyCounters counters() const override { return counters_; }

 private:
  bool FetchOne(Deadline deadline);
  bool FetchIfReplaced(bool newer_too);

  WeightSource* source_;
  policy_model::Weights buffers_[2];
  std::vector<std::byte> host_;  // staging, used on a device only
  int active_ = 0;
  PolicyVersion current_;
  PolicyCounters counters_;
};

// WeightSource over a request-reply call (common/weight_wire.h says the bytes).
class RemoteWeightSource : public WeightSource {
 public:
  // Sends `payload` under `verb`, returns the reply; throws kDeadline or kUnavailable. The weights come in parts of part_bytes
  // each, weight_wire::kPartBytes at most.
  using Call = std::function<Payload(const std::string& verb, std::string payload, Deadline deadline)>;
  explicit RemoteWeightSource(Call call, uint64_t part_bytes = weight_wire::kPartBytes);
  PolicyVersion Newest() override;
  std::optional<PolicyVersion> Fetch(const PolicyVersion& held, std::span<std::byte> flat, Deadline deadline) override;

 private:
  bool FetchParts(const PolicyVersion& version, std::span<std::byte> flat);
  const uint64_t part_bytes_;
  Call call_;
};

}  // namespace plumb::actor

// The arrows of the ring as pure interfaces: where the records of common/record/trajectory.h flow.
//
// Purpose: roles never include one another, they meet here. In one process a port is a direct call,
// between processes it is a proxy over common/net/stream/transport; run/roles decides which.
// Thread safety: every implementation is safe for concurrent calls unless it says otherwise.
// Errors: everything throws plumb::Error; kDeadline and kUnavailable may be tried again, the rest
// not.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/device.h"
#include "common/record/trajectory.h"

namespace plumb {

using Deadline = std::chrono::steady_clock::time_point;
inline Deadline After(std::chrono::milliseconds d) { return std::chrono::steady_clock::now() + d; }

// (1) replay -> actor.
class PromptSource {
 public:
  virtual ~PromptSource() = default;
  // Up to `max_groups` leases; blocks until there is at least one or the deadline. Empty: none
  // before the deadline, or nothing is left (see Finished).
  virtual std::vector<PromptLease> Lease(int max_groups, Deadline deadline) = 0;
  // Gives leases that will not be answered back at once (an actor that stops).
  virtual void Release(std::span<const PromptLease> leases) = 0;
  // Says that the caller still works on everything it holds: the time of its leases begins anew.
  // Cheap; asked for far more often than a lease lasts. kConflict: a newer life of the caller has
  // taken over.
  virtual void Renew() {}
  // True once the run has ended: no lease will ever come again.
  virtual bool Finished() = 0;
};

// (3,4,5) a finished group -> scored group. Fills rewards, reward, scored or unscored_reason of
// each trajectory.
class Scorer {
 public:
  virtual ~Scorer() = default;
  // May block up to the deadline of the slowest reward. Never throws for what a reward function
  // did: that becomes unscored_reason and a counter.
  virtual void Score(TrajectoryGroup& group) = 0;
};

enum class InsertResult : uint8_t {
  kInserted = 0,
  kDuplicate = 1,  // the key was there already: acknowledged again, counted, not stored
  kRefused = 2,    // stale beyond the bound or of another run: counted with a reason, not stored
};

// (6) scored group -> store.
class TrajectorySink {
 public:
  virtual ~TrajectorySink() = default;
  // Returns only once the group is durable: whoever called may then forget it.
  virtual InsertResult Insert(const TrajectoryGroup& group) = 0;
};

// (7) store -> learner.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  // Prompts come as they travel: without their texts where PromptLease::prompt_sum names the
  // store's row. The groups of train step `step` (0-based), ordered by lease id: step *
  // prompts_per_step .. + prompts_per_step; behind them what the store chose of earlier steps to be
  // trained on again. Asking for step k is what allows leases of step k (+ max_staleness) to be
  // handed out. Blocks until complete; throws kDeadline at the deadline, naming what is missing.
  // Asking again gives the same groups.
  virtual std::vector<TrajectoryGroup> Next(int64_t step, Deadline deadline) = 0;
  // Asks for one answer group on each of the held-out prompts by exactly `version`, and waits for
  // them. Ordered by lease id. Asking again for the same (version, num_samples) gives the stored
  // groups.
  virtual std::vector<TrajectoryGroup> Evaluate(int64_t version, int num_samples,
                                                Deadline deadline) = 0;
  // No step >= `steps` will be asked for: actors are told to finish once everything is answered.
  virtual void Finish() = 0;
};

// (9) learner -> actors. A policy is sets of parameters: a base, and what is trained on top of it.
struct WeightSet {
  std::string name;
  Digest digest;
  // The flat buffer in the actor's dtype, laid out by the set's table; valid during the call only.
  // Empty: it is what it was in the version before.
  std::span<const std::byte> bytes;
  Device device = Device::kCpu;  // in whose memory they lie
};

class WeightSink {
 public:
  virtual ~WeightSink() = default;
  // Whether Publish reads bytes: one that does not spares copies from the device, and is handed
  // none.
  virtual bool WantsBytes() const { return true; }
  // Whether it takes them from a GPU's memory; else they are copied to the host's for it.
  virtual bool TakesFromDevice() const { return false; }
  // All sets of the policy. Versions increase; publishing one that is out already with the same
  // digest is a no-op.
  virtual void Publish(const PolicyVersion& version, std::span<const WeightSet> sets) = 0;
};

// What there is of a version.
struct OfferedSet {
  std::string name;
  Digest digest;
  uint64_t bytes = 0;
  bool operator==(const OfferedSet&) const = default;
  template <class Self, class Visit>
  static void Fields(Self& s, Visit visit) {
    visit(s.name, s.digest, s.bytes);
  }
};

struct WeightOffer {
  PolicyVersion version;  // its digest: CombineSets (common/base/hash/digest.h) of the sets
  std::vector<OfferedSet> sets;
  bool operator==(const WeightOffer&) const = default;
  template <class Self, class Visit>
  static void Fields(Self& o, Visit visit) {
    visit(o.version.version, o.version.digest, o.sets);
  }
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // Blocks until something else than `held` is published (or the deadline: nullopt) and says which
  // it is: a newer version, or, where the learner went back to a checkpoint, an older number or the
  // same number with other bytes.
  virtual std::optional<WeightOffer> Await(const PolicyVersion& held, Deadline deadline) = 0;
  // Copies one of its sets to its place, exactly as large. False: no longer at hand, await again.
  // The caller asks for what it does not hold, verifies the digest and refuses what does not match.
  virtual bool Read(const Digest& set, std::span<std::byte> into) = 0;
  // Instead of Read, where both ends are on one machine: a handle of memory to copy it from
  // (kernels/device/lent_memory.h), which is given back at once. nullopt: it has to be read.
  virtual std::optional<std::string> Lend(const Digest& /*set*/) { return std::nullopt; }
  virtual void Return(const Digest& /*set*/) {}
  // From any thread: who waits above, and who asks later, is answered soon, with kUnavailable. For
  // an end that must not wait for a learner that has gone; a source whose answers never take long
  // needs none.
  virtual void Stop() {}
};

// Reference log-probs computed once, keyed by (model digest, sequence digest).
class LogprobCache {
 public:
  virtual ~LogprobCache() = default;
  virtual std::optional<std::vector<float>> Get(const Digest& model, const Digest& sequence) = 0;
  virtual void Put(const Digest& model, const Digest& sequence,
                   std::span<const float> logprobs) = 0;
};

}  // namespace plumb

// Where an actor of a cluster run has its weights from, where run.relay or run.weight_deltas is on,
// and to whom it hands them on.
//
// Purpose: opens the actor's door, says with its beats where it is, and has its source ask whom the
// head names. Where nobody can listen, it asks like the others and hands nothing on, which is said.
// Thread safety: construction and source() one thread; the rest all. Ownership: owns door and
// source. Errors: those of addresses that a person named.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>

#include "actor/relay/block_source.h"
#include "actor/relay/weight_relay.h"
#include "common/base/mutex.h"
#include "common/net/curve_keys.h"
#include "configs/config.h"
#include "run/roles/cluster/welcome.h"

namespace plumb::run {

struct MemberWeightsOptions {
  std::string name, learner, head;  // its own; endpoints
  std::string listen;  // tcp://address:port; empty: by the way to the head; "none": nowhere
  CurveClient keys;
  std::string folder;  // of this user alone
};

class MemberWeights {
 public:
  static constexpr char kNowhere[] = "none";

  MemberWeights(const configs::Config& config, MemberWeightsOptions options);

  WeightSource& source() { return *source_; }
  // Whether beats are to speak of it.
  bool relays() const { return relays_; }
  RelaySaying Saying();
  void Hear(const RelayWord& word);
  // Whether the head has said whether it can be reached.
  bool Tried() const;
  std::map<std::string, int64_t> counters() const;

 private:
  void Listen(const configs::Config& config);

  const MemberWeightsOptions options_;
  const bool relays_;
  std::unique_ptr<actor::WeightRelay> relay_;  // nullptr: it does not listen
  std::unique_ptr<actor::BlockSource> source_;
  mutable Mutex mu_;
  uint64_t heard_ PLUMB_GUARDED_BY(mu_) = 0;
  RelayState state_ PLUMB_GUARDED_BY(mu_) = RelayState::kTrying;
};

}  // namespace plumb::run

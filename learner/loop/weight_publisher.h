// Serves the newest weights to actors in other processes: verbs of common/net/weight_wire.h.
//
// Purpose: the learner's end of (9). One copy of each set of the newest version is kept and shared
// by all replies and by versions in which it is the same, an older one as long as somebody is still
// fetching it; who awaits something else than it holds is told as soon as that is published.
// Lending: where learner and actors are processes on GPUs of one machine, the copies stay on the
// learner's GPU and actors take them from there (policy_model/memory/weight_shelf.h); who cannot is
// answered with bytes.
// Thread safety: all methods. Ownership: owns its server and the copies.
// Errors: kConflict for an address in use; publishing an older version than the newest is
// kConflict, the same version with another digest too: two different policies must not share a
// number.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/mutex.h"
#include "common/net/rpc/rpc.h"
#include "common/record/ports.h"
#include "policy_model/memory/weight_shelf.h"

namespace plumb::learner {

class WeightPublisher : public WeightSink {
 public:
  explicit WeightPublisher(const std::string& endpoint, RpcServerOptions options = {},
                           bool lends = false);

  bool TakesFromDevice() const override { return shelf_ != nullptr; }
  void Publish(const PolicyVersion& version, std::span<const WeightSet> sets) override;
  const std::string& endpoint() const { return server_->endpoint(); }

 private:
  struct Waiting {
    PolicyVersion held;
    Deadline deadline;  // then the caller has given up
    RpcResponder responder;
  };
  void Handle(const RpcRequest& request, const RpcResponder& responder);
  void Offer() PLUMB_REQUIRES(mu_);
  // Of a set of the newest version.
  Payload BytesOf(const Digest& set) PLUMB_REQUIRES(mu_);

  const std::unique_ptr<policy_model::WeightShelf> shelf_;  // nullptr: nothing is lent
  Mutex mu_;
  WeightOffer newest_ PLUMB_GUARDED_BY(mu_);
  // Of the newest version; of those that are lent, once somebody asked for bytes.
  std::map<Digest, Payload> sets_ PLUMB_GUARDED_BY(mu_);
  std::vector<Waiting> waiting_ PLUMB_GUARDED_BY(mu_);
  std::unique_ptr<RpcServer> server_;  // last: its threads use what stands above
};

}  // namespace plumb::learner

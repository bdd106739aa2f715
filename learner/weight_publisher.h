// Serves the newest weights to actors in other processes: verbs of common/weight_wire.h.
//
// Purpose: the learner's end of (9). One copy of the newest version is kept and shared by all replies, an older one as long
// as somebody is still fetching it; who awaits something else than it holds is told as soon as that
// is published.
// Thread safety: all methods. Ownership: owns its server and the copy.
// Errors: kConflict for an address in use; publishing an older version than the newest is kConflict, the same version with
// another digest too: two different policies must not share a number.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/ports.h"
#include "common/rpc.h"

namespace plumb::learner {

class WeightPublisher : public WeightSink {
 public:
  explicit WeightPublisher(const std::string& endpoint, RpcServerOptions options = {});

  void Publish(const PolicyVersion& version, std::span<const std::byte> flat) override;
  const std::string& endpoint() const { return server_->endpoint(); }

 private:
  struct Waiting {
    PolicyVersion held;
    Deadline deadline;  // then the caller has given up
    RpcResponder responder;
  };
  void Handle(const RpcRequest& request, const RpcResponder& responder);
  void Offer();  // REQUIRES: mu_

  std::mutex mu_;
  PolicyVersion newest_;  // guarded by mu_, as all below
  Payload flat_;
  std::vector<Waiting> waiting_;
  std::unique_ptr<RpcServer> server_;  // last: its threads use what stands above
};

}  // namespace plumb::learner

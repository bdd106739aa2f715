// Serves the newest weights to actors in other processes, in parts of a bounded size: verbs of common/weight_wire.h.
//
// Purpose: the learner's end of (9). One copy of the newest version is kept and shared by all replies, an older one as long
// as somebody is fetching its parts; a fetch waits, within its own bound, for something else than what the caller holds.
// Thread safety: all methods. Ownership: owns its server and the copy.
// Errors: kConflict for an address in use; publishing an older version than the newest is kConflict, the same version with
// another digest too: two different policies must not share a number.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <thread>

#include "common/mutex.h"
#include "common/ports.h"
#include "common/rpc.h"

namespace plumb::learner {

class WeightPublisher : public WeightSink {
 public:
  explicit WeightPublisher(const std::string& endpoint);
  ~WeightPublisher() override;

  void Publish(const PolicyVersion& version, std::span<const std::byte> flat) override;
  const std::string& endpoint() const { return server_->endpoint(); }

 private:
  struct Waiting {
    PolicyVersion held;
    Deadline deadline;
    RpcResponder responder;
  };
  void Handle(RpcRequest request, RpcResponder responder);
  Payload Part(const RpcRequest& request);
  void Expire();  // answers waits that have run out, and lets go of older weights that nobody asks for

  struct Held {
    PolicyVersion version;
    std::shared_ptr<const std::string> flat;
    Deadline keep{};  // at least until then once it is not the newest
  };
  bool Wanted(const PolicyVersion& held) const PLUMB_REQUIRES(mu_);
  std::string NewestOffer() const PLUMB_REQUIRES(mu_);

  Mutex mu_;
  CondVar changed_;
  Held newest_ PLUMB_GUARDED_BY(mu_);
  std::list<Held> older_ PLUMB_GUARDED_BY(mu_);
  std::list<Waiting> waiting_ PLUMB_GUARDED_BY(mu_);
  bool ended_ PLUMB_GUARDED_BY(mu_) = false;
  std::thread expirer_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace plumb::learner

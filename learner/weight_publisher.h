// Serves the newest weights to actors in other processes: verbs weights.newest and weights.fetch (common/weight_wire.h).
//
// Purpose: the learner's end of (9). One encoded copy of the newest version is kept and shared by all replies; a fetch
// waits, within its own bound, for a version newer than the caller's.
// Thread safety: all methods. Ownership: owns its server and the copy.
// Errors: kConflict for an address in use; publishing an older version than the newest is kConflict, the same version with
// another digest too: two different policies must not share a number.
#pragma once

#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

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
    int64_t than = -1;
    Deadline deadline;
    RpcResponder responder;
  };
  void Handle(RpcRequest request, RpcResponder responder);
  void Expire();  // answers waits that have run out

  std::mutex mu_;
  std::condition_variable changed_;
  PolicyVersion version_;        // guarded by mu_
  Payload newest_;               // encoded reply of version_; guarded by mu_
  std::list<Waiting> waiting_;   // guarded by mu_
  bool ended_ = false;           // guarded by mu_
  std::thread expirer_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace plumb::learner

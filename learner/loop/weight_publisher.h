// Serves the newest weights to actors in other processes: verbs of common/net/weight_wire.h.
//
// Purpose: the learner's end of (9). One copy of each set of the newest version is kept and shared
// by all replies and by versions in which it is the same, an older one as long as somebody is still
// fetching it; who awaits something else than it holds is told as soon as that is published.
// Lending: where learner and actors are processes on GPUs of one machine, the copies stay on the
// learner's GPU and actors take them from there (policy_model/memory/weight_shelf.h); who cannot is
// answered with bytes.
// In blocks (WeightBlocks): sets stand on a BlockShelf besides, without another copy, so that
// actors hand them on and take over what has changed alone; of each set one older version may stay
// until those who are in the middle of it have it. Thread safety: all methods. Ownership: owns its
// server and the copies. Errors: kConflict for an address in use; publishing an older version than
// the newest is kConflict, the same version with another digest too: two different policies must
// not share a number.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/net/rpc/rpc.h"
#include "common/net/weights/block_shelf.h"
#include "common/record/ports.h"
#include "policy_model/memory/weight_shelf.h"

namespace plumb::learner {

struct WeightBlocks {
  bool on = false;
  bool changes = false;  // for who has the version before, only what has changed in a block
};

class WeightPublisher : public WeightSink {
 public:
  // What is lent does not come in blocks.
  explicit WeightPublisher(const std::string& endpoint, RpcServerOptions options = {},
                           bool lends = false, WeightBlocks blocks = {});

  bool TakesFromDevice() const override { return shelf_ != nullptr; }
  void Publish(const PolicyVersion& version, std::span<const WeightSet> sets) override;
  const std::string& endpoint() const { return server_->endpoint(); }
  // weight_bytes: that were sent; weight_bytes_saved: of these versions, since blocks were sent as
  // what has changed.
  std::map<std::string, int64_t> counters() const;

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
  Error Missing() const PLUMB_REQUIRES(mu_);
  // Puts newest_ on the block shelf; `before`: of its sets' names what the version before had.
  void PutBlocks(const std::map<std::string, Digest>& before) PLUMB_REQUIRES(mu_);

  const std::unique_ptr<policy_model::WeightShelf> shelf_;  // nullptr: nothing is lent
  const WeightBlocks blocks_;
  BlockShelf block_shelf_;
  mutable Mutex mu_;
  WeightOffer newest_ PLUMB_GUARDED_BY(mu_);
  // Of the newest version; of those that are lent, once somebody asked for bytes.
  std::map<Digest, Payload> sets_ PLUMB_GUARDED_BY(mu_);
  std::map<Digest, std::vector<BlockHash>> leaves_ PLUMB_GUARDED_BY(mu_);  // of sets in blocks
  std::vector<Waiting> waiting_ PLUMB_GUARDED_BY(mu_);
  int64_t sent_ PLUMB_GUARDED_BY(mu_) = 0;  // bytes of whole sets, and leaves
  std::unique_ptr<RpcServer> server_;       // last: its threads use what stands above
};

}  // namespace plumb::learner

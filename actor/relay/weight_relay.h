// The door at which other actors get weights from this one (run.relay).
//
// Purpose: answers weights.blocks of its shelf, which a BlockSource fills, and weights.here. Who is
// let in: the holders of the keys that were named (LetIn), and the head that this actor joined; in
// the beginning nobody else. Without keys whoever reaches it, as at the head.
// Thread safety: all methods. Ownership: owns its server, its shelf and its list of keys, a file in
// a folder of the caller's. Errors: those of the address and of the keys.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/net/curve_keys.h"
#include "common/net/rpc/rpc.h"
#include "common/net/weights/block_shelf.h"

namespace plumb::actor {

struct WeightRelayOptions {
  std::string endpoint;  // tcp://address:port; the port may be *
  CurveClient keys;      // as this actor has for its head
  std::string folder;    // of this user alone
  int64_t children = 1;  // that ask at a time, about
};

class WeightRelay {
 public:
  explicit WeightRelay(const WeightRelayOptions& options);

  const std::string& endpoint() const { return server_->endpoint(); }  // as bound
  BlockShelf& shelf() { return shelf_; }
  // Who may ask from now on: those of these public keys, and the head.
  void LetIn(const std::vector<std::string>& keys);
  // actor/weight_bytes_handed_on, actor/relay_keys_refused.
  std::map<std::string, int64_t> counters() const;

 private:
  void Handle(const RpcRequest& request, RpcResponder responder);

  const std::string head_key_, allowed_;  // allowed_: the file; empty: there are no keys
  BlockShelf shelf_;
  std::unique_ptr<RpcServer> server_;  // last: its threads use what stands above
};

}  // namespace plumb::actor

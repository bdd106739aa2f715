// The parts of a recipe as a worker for others: the other end of kind = "zmq" (protocol:
// reward/doors/zmq_worker.h).
//
// Purpose: `plumb reward serve`. One reward model on one machine serves many runs; anything that
// speaks the protocol may ask, e.g. examples/rewards/zmq_client.py.
// Thread safety: functions are called from `workers` threads at once. Ownership: the server owns
// the functions.
// Errors: as FrameServer. What is wrong with a request is answered with an error and counted, it
// never ends the server.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/net/frame_socket.h"
#include "reward/part/reward.h"

namespace plumb::reward {

struct ServedPart {
  std::unique_ptr<RewardFunction> function;
  double weight = 1;
};

// What parts that score with a model need: tokens. A request's own are taken when they are of this
// vocabulary, its texts are encoded when it has none.
struct TokenReader {
  std::string vocabulary;  // reward/models/model_part.h
  // The whole sequence, prompt and completion. Called by several threads at once; what it throws
  // answers the request.
  std::function<std::vector<int32_t>(const Prompt& prompt, const std::string& completion)> encode;
};

class RewardServer {
 public:
  // The answer's "score" is the weighted sum, its "scores" the parts' values; "digest" covers all
  // parts.
  RewardServer(std::vector<ServedPart> parts, const std::string& endpoint,
               FrameServerOptions options = {}, TokenReader reader = {});

  const std::string& endpoint() const { return server_->endpoint(); }
  // Those of FrameServer.
  std::map<std::string, uint64_t> counters() const { return server_->counters(); }
  const std::string& digest() const { return digest_; }

  // One request, answered. Empty: its asker has given up already.
  std::string Answer(std::string_view request, std::chrono::milliseconds waited);

 private:
  std::vector<ServedPart> parts_;
  const TokenReader reader_;  // without encode: no part looks at tokens
  std::string digest_;
  std::unique_ptr<FrameServer> server_;  // last: its threads use what stands above
};

}  // namespace plumb::reward

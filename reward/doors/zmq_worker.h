// A reward behind ZeroMQ: a worker in any language that answers one JSON message with one JSON
// message.
//
// Purpose: kind = "zmq". A worker is a REP (or ROUTER) socket; one request is one group:
//   -> {"plumb":1,"id":"5b1f..-12","part":"code","deadline_ms":9500,
//       "prompt":"..."|[{"role","content"}],
//       "ground_truth":"4","extra":{...},"completions":["..",".."]}
//   <- {"id":"5b1f..-12","scores":[0.5,null],"digest":"sha256:.."}
// With args = ["tokens=1"] the request has "tokens":[[1,2,..],..] too, prompt and completion as the
// policy has them, and "vocabulary":"sha256:..", which is equal where the same ids are the same
// text: what a worker needs that runs a model. A score is a number, null (does not apply) or an
// object as in reward/part/reply.h; "digest" is optional and says which code made the scores.
// Instead of "scores": {"id",..,"error":"why","kind":"one of the names of reward::Failure"}.
// `deadline_ms` is how long the asker goes on waiting. Version 1; a worker that knows another
// answers with an error. A reply with another id (late, replayed, forged) changes nothing and is
// counted. A request whose worker went away is asked again on a new connection until the deadline:
// scoring has no side effects.
// Thread safety: as RewardFunction; one connection a pool worker. Errors: construction throws for
// an endpoint that nothing guards (common/net/endpoint.h) and for keys that are none.
#pragma once

#include <memory>
#include <string>

#include "common/net/frame_socket.h"
#include "configs/config.h"
#include "reward/doors/plugin.h"
#include "reward/doors/worker_pool.h"
#include "reward/part/reward.h"

namespace plumb::reward {

inline constexpr int kZmqRewardVersion = 1;

std::unique_ptr<RewardFunction> MakeZmq(const configs::RewardPartConfig& part,
                                        const HostOptions& options = {});

// The request of one group, and the reply read strictly. `stray`: it answers another request, `out`
// is untouched. `vocabulary`: sent with the tokens; empty: neither is.
std::string ZmqRequest(const TrajectoryGroup& group, const std::string& part, const std::string& id,
                       std::chrono::milliseconds left, const std::string& vocabulary = "");
std::vector<PartScore> ReadZmqReply(const std::string& text, const std::string& id, size_t count,
                                    bool* stray);

}  // namespace plumb::reward

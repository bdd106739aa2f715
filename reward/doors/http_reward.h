// A reward server over HTTP, as OpenRLHF and slime users have them.
//
// Purpose: kind = "http".
//   api = "openrlhf"   a group a request: POST {"query":[prompt +
//                      answer],"prompts":[..],"labels":[..]}
//                      -> {"rewards":[..],"scores":[..],"extra_logs":{"name":[..]}}; rewards is the
//                      value, the others become sub-scores; scores and extra_logs may be missing; a
//                      null in rewards says: does not apply. A chat's prompt is the text that the
//                      model read, chat template and all (where its tokenizer is at hand)
//   api = "slime"      an answer a request: POST {"prompt","response","label"} -> a number, or an
//                      object whose `reply_key` ("score" unless named) is the number; its other
//                      numbers become sub-scores
// A path that is not given is /get_reward for openrlhf and / for slime. `workers` is the number of
// connections. Thread safety, errors: as RewardFunction; construction throws for an address or api
// that is none.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "configs/config.h"
#include "reward/doors/plugin.h"
#include "reward/part/reward.h"

namespace plumb::reward {

std::unique_ptr<RewardFunction> MakeHttp(const configs::RewardPartConfig& part,
                                         const HostOptions& options = {});

// The bodies, for tests and other clients.
std::string OpenRlhfRequest(const TrajectoryGroup& group, const HostOptions& host = {});
std::vector<PartScore> ReadOpenRlhfReply(const std::string& body, size_t count);
std::string SlimeRequest(const TrajectoryGroup& group, size_t index);
PartScore ReadSlimeReply(const std::string& body, const std::string& key);

}  // namespace plumb::reward

// A reward from any program that reads and writes JSON lines.
//
// Purpose: kind = "program". One request a line on its stdin, one reply a line on its stdout, ids match, any order
// within a group; stderr goes to our log. docs/rewards.md has the protocol with examples.
//   -> {"id":7,"prompt":"..."|[{"role","content"}],"completion":"...","ground_truth":"...","extra":{...}}
//   <- {"id":7,"score":0.5}  or {"id":7,"scores":{"a":1,"b":0}}  or {"id":7,"skip":true}  or {"id":7,"error":"why"}
// With "scores" and no "score" the value is their sum; sub-scores are reported either way.
// Thread safety, errors: as RewardFunction. A line on stdout that is not such a reply fails the call and restarts
// the program: what it would answer next can no longer be trusted.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "configs/config.h"
#include "reward/plugin.h"
#include "reward/reward.h"

namespace plumb::reward {

// part.path is the program, part.args its arguments. HostOptions::host_command is not used.
std::unique_ptr<RewardFunction> MakeProgram(const configs::RewardPartConfig& part, bool allow_unsandboxed,
                                            HostOptions options = {});

// The request line of one answer (without '\n'), and the reply read strictly: the id it answers and its score.
std::string ProgramRequest(const TrajectoryGroup& group, size_t index, uint64_t id);
struct ProgramReply {
  uint64_t id = 0;
  PartScore score;
};
// Throws Error(kCorruption) for anything else than the forms above.
ProgramReply ParseProgramReply(std::string_view line);

}  // namespace plumb::reward

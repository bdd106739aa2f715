// A reward from any program that reads and writes JSON lines.
//
// Purpose: kind = "program". One request per line on its stdin, one reply per line on its stdout,
// ids match, any order within a group; stderr goes to our log. docs/rewards.md has the protocol
// with examples.
//   -> {"id":7,"prompt":"..."|[{"role","content"}],"completion":"...","ground_truth":"...",
//       "sample":0,"of":8,"extra":{...}}
//   <- {"id":7,"score":0.5}  or {"id":7,"scores":{"a":1,"b":0}}  or {"id":7,"skip":true}
//      or {"id":7,"error":"why"} with an optional "kind" from the names of reward::Failure
// The `of` answers of a group arrive together, in order: a program may wait for all of them and
// score them as a batch. With "scores" and no "score" the value is their sum; sub-scores are
// reported either way. Thread safety, errors: as RewardFunction. A line on stdout that is not such
// a reply fails the call and restarts the program: what it would answer next can no longer be
// trusted.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "configs/config.h"
#include "reward/doors/plugin.h"
#include "reward/part/reward.h"

namespace plumb::reward {

// part.path is the program, part.args its arguments. HostOptions::host_command is not used.
std::unique_ptr<RewardFunction> MakeProgram(const configs::RewardPartConfig& part,
                                            bool allow_unsandboxed, HostOptions options = {});

// What MakeProgram and the Python runner have in common.
struct ProgramSpec {
  std::string path;  // found already
  std::vector<std::string> args;
  std::string digest;
  // Its first line is {"ready":true}, with "truths":[names] and, among them, "required":[names] of
  // RewardFunction::truths, or {"error":"why"}: then a part that cannot start is an Error of
  // construction.
  bool greets = false;
  bool tokens = false;  // requests have what TokenFields writes, too
};
std::unique_ptr<RewardFunction> MakeProgramFrom(const ProgramSpec& spec,
                                                const configs::RewardPartConfig& part,
                                                bool allow_unsandboxed, HostOptions options);
// The request line of one answer (without '\n'), and the reply read strictly: the id it answers and
// its score.
std::string ProgramRequest(const TrajectoryGroup& group, size_t index, uint64_t id);
// What the frameworks' own functions see of an answer, as ',"name":value' fields: "text" (without
// special tokens), "step" (the policy's version, 0 before the first update), for a chat
// "prompt_text" (as the model read it) and, where the trajectory has tokens, "completion_ids".
std::string TokenFields(const TrajectoryGroup& group, size_t index, const HostOptions& options);
struct ProgramReply {
  uint64_t id = 0;
  PartScore score;
};
// Throws Error(kCorruption) for anything else than the forms above.
ProgramReply ParseProgramReply(std::string_view line);

}  // namespace plumb::reward

// A reward from a shared object (reward/doors/reward_abi.h), run in host processes of ours.
//
// Purpose: kind = "plugin". The service never loads the object: `plumb reward-host --so PATH` does,
// behind the walls of common/sandbox/sandbox.h. Frames on descriptors 3 and 4, layout in
// reward/doors/plugin_wire.h. Thread safety, errors: as RewardFunction. Construction starts one
// host so that a missing symbol, another ABI version or a refused open is an Error before the run
// begins.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/sandbox/child_process.h"
#include "common/sandbox/sandbox.h"
#include "configs/config.h"
#include "reward/doors/plugin_wire.h"
#include "reward/doors/worker_pool.h"
#include "reward/part/reward.h"

namespace plumb::reward {

struct HostOptions {
  std::vector<std::string> host_command;  // empty: this executable with the verb reward-host
  SandboxOptions sandbox;                 // memory_mb and allow_unsandboxed come from the recipe
  PoolOptions pool;                       // name, workers and timeout come from the recipe
  // Makes parts of kind reward_model (reward/models/reward_model.h); empty: such parts are refused.
  std::function<std::unique_ptr<RewardFunction>(const configs::RewardPartConfig&)> model_part;
  // Tokens of the policy as text, for functions that expect it as TRL, verl and OpenRLHF decode it;
  // empty: the completion is taken without the end tokens that we know, and a chat's prompt as
  // JSON.
  std::function<std::string(std::span<const int32_t> tokens, bool skip_special)> decode;
  // VocabularyDigest of the policy, for workers that are sent tokens; empty: there is none
  std::string vocabulary;
  // more time for the greeting, or for the first answer of a program
  std::chrono::milliseconds start_grace{60000};
};

// The whole command line of a host: namespaces, host, limits. `what` is {"--so" | "--exec", path}.
// Throws Error(kUnsupported | kNotFound).
std::vector<std::string> HostCommand(const HostOptions& options, const std::string& verb,
                                     const std::string& path,
                                     const std::vector<std::string>& arguments);
// The prompt as the model read it: Prompt::text, or a chat's tokens as text; without `decode` as
// PromptText.
std::string FullPromptText(const TrajectoryGroup& group, const HostOptions& options);
// `options` with what the recipe says about this part. Throws Error(kInvalidArgument) for limits
// that make no sense.
HostOptions WithPart(HostOptions options, const configs::RewardPartConfig& part,
                     bool allow_unsandboxed);

// A host's frame read as the scores of `count` answers to request `id`; false for anything else
// than such a reply.
bool ReadPluginReply(FrameType type, std::string_view body, uint64_t id, size_t count,
                     std::vector<PartScore>* out);

std::unique_ptr<RewardFunction> MakePlugin(const configs::RewardPartConfig& part,
                                           bool allow_unsandboxed, HostOptions options = {});

}  // namespace plumb::reward

// What answers the policy in a conversation of several turns: the port between the actor and an
// environment.
//
// Purpose: the actor pauses a sample at the end of a turn, says here what the policy wrote, and
// goes on with what comes back as tokens of the environment's own (common/record/trajectory.h,
// Segment). An episode is one sample's conversation; its number is the caller's and is not used
// again. Thread safety: every implementation is safe for concurrent calls unless it says otherwise.
// Begin and Act return at once; the work is done elsewhere and comes back through Poll, in any
// order. Errors: Begin and Act throw Error(kInvalidArgument) for an episode that they do not know
// (or know already) only; what goes wrong inside an environment is EnvironmentReply::error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/record/ports.h"
#include "common/record/trajectory.h"

namespace plumb {

// Exactly one reply to each Begin and each Act.
struct EnvironmentReply {
  uint64_t episode = 0;
  // What it says: through the chat template, or, of a model without one, the text as it is. The
  // reply to Begin may say nothing: the prompt stands by itself.
  std::vector<Message> messages;
  std::string text;
  bool done = false;             // the conversation is over; what is said above is still appended
  std::optional<double> reward;  // of the turn; finite
  bool failed_call = false;      // the policy's call was malformed, unknown or raised: counted
  // The episode cannot go on (the process died, a deadline passed): why, one sentence. Its answer
  // is given up with this reason, never scored as zero.
  std::string error;
};

class EnvironmentPort {
 public:
  virtual ~EnvironmentPort() = default;
  // JSON array of the tools' schemas, for the chat template; "": there are none.
  virtual std::string ToolsJson() const = 0;
  virtual void Begin(uint64_t episode, const Prompt& prompt, uint32_t sample) = 0;
  // `text`: what the policy wrote in this turn, special tokens kept, the end token not.
  virtual void Act(uint64_t episode, const std::string& text) = 0;
  // Replies that are there; waits for the first one until the deadline. Empty: none before it.
  virtual std::vector<EnvironmentReply> Poll(Deadline deadline) = 0;
  // The conversation is over or given up: no reply of it comes any more.
  virtual void End(uint64_t episode) = 0;
};

}  // namespace plumb

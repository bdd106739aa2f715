// One conversation between policy and environment: what of a turn the environment is asked, and
// what the policy hears.
//
// Purpose: reads the calls in a turn, checks them against the tools, answers by itself what cannot
// be read or does not fit, numbers the calls, counts turns, and puts results into messages of the
// role "tool" with the call's id and name. Where the model has no chat template everything is text.
// A turn without a call ends a conversation whose environment has tools and nothing else to say.
// Thread safety: one thread. Ownership: refers to the rules, which outlive it. Errors: none.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/record/environment.h"
#include "configs/choices.h"
#include "environment/calls/tool_table.h"
#include "environment/doors/protocol.h"

namespace plumb::environment {

// The same for all conversations of a run.
struct ConversationRules {
  configs::ToolForm form = configs::ToolForm::kHermes;
  bool chat = true;  // the model has a chat template
  int64_t max_turns = 8;
  ToolTable tools;
};

class Conversation {
 public:
  Conversation(uint64_t episode, const ConversationRules& rules)
      : episode_(episode), rules_(rules) {}

  EnvironmentReply Opening(PeerReply reply) const;

  struct Turn {
    PeerRequest request;          // to the environment, unless `answered`
    std::vector<ToolCall> calls;  // all of them
    std::vector<Problem> wrong;   // [calls]: why it is not passed on
    std::string malformed, like;  // of ParsedTurn
    bool answered = false;        // nothing of it is for the environment
  };
  // The next turn of the policy.
  Turn Take(const std::string& text);
  // `reply`: the environment's to turn.request; left empty where the turn was answered.
  EnvironmentReply Answer(const Turn& turn, PeerReply reply) const;

  uint64_t episode() const { return episode_; }
  int64_t turns() const { return turns_; }

 private:
  void Say(std::vector<Message> messages, const std::string& text, EnvironmentReply* out) const;

  const uint64_t episode_;
  const ConversationRules& rules_;
  int64_t turns_ = 0, calls_ = 0;
};

}  // namespace plumb::environment

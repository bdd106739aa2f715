// The environment of a recipe, by environment.kind (docs/agents.md).
//
// Thread safety: pure functions. Ownership: the caller's; the tokenizer is borrowed for the call.
// Errors: kInvalidArgument and kUnsupported name the option.
#pragma once

#include <memory>
#include <string>

#include "common/record/environment.h"
#include "common/text/template/chat_template.h"
#include "common/text/tokenizer/tokenizer.h"
#include "configs/config.h"

namespace plumb::environment {

// nullptr for the kinds "none" and "agent". `chat_template`: the model's, of which the form of
// calls is taken; nullptr: what is said is text. `allow_unsandboxed`: reward.allow_unsandboxed.
std::unique_ptr<EnvironmentPort> MakeEnvironments(const configs::EnvironmentConfig& config,
                                                  const Tokenizer& tokenizer,
                                                  const ChatTemplate* chat_template,
                                                  bool allow_unsandboxed);
// What its ToolsJson() says: prompts are rendered with these tools before there is an environment.
std::string ToolsJsonOf(const configs::EnvironmentConfig& config, const ChatTemplate* chat_template,
                        bool allow_unsandboxed);
// As which role it answers a model with a chat template.
std::string ReplyRole(configs::EnvironmentKind kind);
// Before a run: kInvalidArgument where the template does not keep the beginning of such a
// conversation, naming the template (`model`'s) and the turn. nullptr: text, nothing to check.
void CheckTemplate(const configs::EnvironmentConfig& config, const ChatTemplate* chat_template,
                   const std::string& tools_json, const std::string& model);

}  // namespace plumb::environment

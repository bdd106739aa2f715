#include "environment/environments.h"

#include "common/base/error.h"
#include "common/text/template/transcript.h"
#include "environment/calculator.h"
#include "environment/doors/open_environment.h"

namespace plumb::environment {
namespace {

using configs::EnvironmentKind;

OpenOptions Options(const ChatTemplate* chat_template, bool allow_unsandboxed) {
  return {.chat_template = chat_template ? chat_template->source() : "",
          .allow_unsandboxed = allow_unsandboxed};
}

bool Encodes(const Tokenizer& tokenizer, const std::string& text) {
  try {
    return !tokenizer.Encode(text).empty();
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

std::unique_ptr<EnvironmentPort> MakeEnvironments(const configs::EnvironmentConfig& config,
                                                  const Tokenizer& tokenizer,
                                                  const ChatTemplate* chat_template,
                                                  bool allow_unsandboxed) {
  // Agents ask themselves (common/record/agent.h).
  if (config.kind == EnvironmentKind::kNone || config.kind == EnvironmentKind::kAgent)
    return nullptr;
  if (config.kind == EnvironmentKind::kCalculator)
    return std::make_unique<Calculator>(/*says_why=*/Encodes(tokenizer, "error: no number"));
  return OpenEnvironment(config, Options(chat_template, allow_unsandboxed));
}

std::string ToolsJsonOf(const configs::EnvironmentConfig& config, const ChatTemplate* chat_template,
                        bool allow_unsandboxed) {
  if (config.kind == EnvironmentKind::kNone || config.kind == EnvironmentKind::kCalculator ||
      config.kind == EnvironmentKind::kAgent)
    return "";
  return OfferedTools(config, Options(chat_template, allow_unsandboxed));
}

std::string ReplyRole(EnvironmentKind kind) {
  switch (kind) {
    case EnvironmentKind::kTools:
    case EnvironmentKind::kPython: return "tool";
    case EnvironmentKind::kNone:
    case EnvironmentKind::kCalculator:
    case EnvironmentKind::kProgram:
    case EnvironmentKind::kPlugin:
    case EnvironmentKind::kHttp:
    case EnvironmentKind::kAgent: break;
  }
  return "user";
}

void CheckTemplate(const configs::EnvironmentConfig& config, const ChatTemplate* chat_template,
                   const std::string& tools_json, const std::string& model) {
  // What an agent says that the template writes otherwise is a conversation of its own.
  if (config.kind == EnvironmentKind::kNone || config.kind == EnvironmentKind::kAgent ||
      chat_template == nullptr)
    return;
  CheckKeepsBeginnings(*chat_template, ReplyRole(config.kind), WithTools("", tools_json), model);
}

}  // namespace plumb::environment

#include "environment/environments.h"

#include "common/base/error.h"
#include "common/text/template/transcript.h"
#include "environment/calculator.h"

namespace plumb::environment {
namespace {

using configs::EnvironmentKind;

// The kinds behind doors join here, in the three functions below that call this.
[[noreturn]] void NotThereYet(EnvironmentKind kind) {
  throw Error(ErrorCode::kUnsupported,
              "kind = \"" + NameOf(kind) +
                  "\" is not built into this program; there is "
                  "\"calculator\"",
              "environment.kind");
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
                                                  const Tokenizer& tokenizer) {
  switch (config.kind) {
    case EnvironmentKind::kNone: return nullptr;
    case EnvironmentKind::kCalculator:
      return std::make_unique<Calculator>(/*says_why=*/Encodes(tokenizer, "error: no number"));
    case EnvironmentKind::kTools:
    case EnvironmentKind::kProgram:
    case EnvironmentKind::kPlugin:
    case EnvironmentKind::kHttp:
    case EnvironmentKind::kPython: break;
  }
  NotThereYet(config.kind);
}

std::string ToolsJsonOf(const configs::EnvironmentConfig& config) {
  switch (config.kind) {
    case EnvironmentKind::kNone:
    case EnvironmentKind::kCalculator: return "";
    case EnvironmentKind::kTools:
    case EnvironmentKind::kProgram:
    case EnvironmentKind::kPlugin:
    case EnvironmentKind::kHttp:
    case EnvironmentKind::kPython: break;
  }
  NotThereYet(config.kind);
}

std::string ReplyRole(EnvironmentKind kind) {
  switch (kind) {
    case EnvironmentKind::kTools:
    case EnvironmentKind::kPython: return "tool";
    case EnvironmentKind::kNone:
    case EnvironmentKind::kCalculator:
    case EnvironmentKind::kProgram:
    case EnvironmentKind::kPlugin:
    case EnvironmentKind::kHttp: break;
  }
  return "user";
}

void CheckTemplate(const configs::EnvironmentConfig& config, const ChatTemplate* chat_template,
                   const std::string& model) {
  if (config.kind == EnvironmentKind::kNone || chat_template == nullptr) return;
  CheckKeepsBeginnings(*chat_template, ReplyRole(config.kind), WithTools("", ToolsJsonOf(config)),
                       model);
}

}  // namespace plumb::environment

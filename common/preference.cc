#include "common/preference.h"

#include <cmath>

#include "common/error.h"

namespace plumb {
namespace {

[[noreturn]] void Broken(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "a preference record " + what);
}

void CheckAnswer(const std::vector<Message>& messages, const std::vector<int32_t>& tokens, const std::string& name) {
  if (messages.empty() && tokens.empty()) Broken("has no " + name + " answer");
  if (!messages.empty() && messages.back().role != "assistant") {
    Broken("has a " + name + " answer that ends with the role '" + messages.back().role + "', not with the assistant's");
  }
}

}  // namespace

void CheckInvariants(const PreferenceRecord& r) {
  if (!r.prompt_text.empty() && !r.prompt.empty()) Broken("has its prompt as text and as messages");
  if (r.prompt_text.empty() && r.prompt.empty() && r.prompt_tokens.empty()) Broken("has no prompt");
  CheckAnswer(r.chosen, r.chosen_tokens, "chosen");
  if (r.kind == PreferenceKind::kPair) {
    CheckAnswer(r.rejected, r.rejected_tokens, "rejected");
    if (r.chosen_tokens.empty() != r.rejected_tokens.empty()) Broken("has tokens for one of its answers only");
  } else if (!r.rejected.empty() || !r.rejected_tokens.empty()) {
    Broken("is a judged completion, but has a rejected answer");
  }
  if (r.prompt_tokens.empty() != r.chosen_tokens.empty()) Broken("has tokens for its prompt or for its answer only");
  for (const auto* list : {&r.prompt_tokens, &r.chosen_tokens, &r.rejected_tokens}) {
    for (const int32_t token : *list) {
      if (token < 0) Broken("has a negative token");
    }
  }
  if (!std::isfinite(r.margin) || !std::isfinite(r.weight)) Broken("has a margin or weight that is not finite");
}

}  // namespace plumb

#include "replay/datasets/rows/row_detection.h"

#include <array>
#include <utility>

#include "replay/datasets/rows/share_gpt.h"

namespace plumb::replay {
namespace {

// Of a row with a column for the prompt.
RowForm DetectPrompt(const Columns& row, std::string_view prompt) {
  if (row.Find("", {"reward_spec"}) || row.Find("", {"env_class"})) return RowForm::kSkyRl;
  if (row.Find("", {"reward_model"}) || row.Find("", {"data_source"})) return RowForm::kVerl;
  auto answer = row.Find("answer", {"answer"});
  if (answer && !row.Mapped("answer") && row.Mapped("ground_truth") &&
      row.MappedTo("ground_truth") != answer->name)
    answer.reset();  // the truth is said to be another column
  if (answer) {
    const bool worked = answer->value.is_string() &&
                        std::string_view(answer->value).find("####") != std::string_view::npos;
    return worked ? RowForm::kGsm8k : RowForm::kPromptAnswer;
  }
  if (row.Has("label")) return prompt == "input" ? RowForm::kOpenRlhf : RowForm::kSlime;
  if (row.Has("ground_truth")) return RowForm::kPromptAnswer;
  return prompt == "input" ? RowForm::kOpenRlhf : RowForm::kTrl;
}

bool IsAlpaca(const Columns& row) {
  return row.Has("instruction") && row.Find("output", {"output", "response"});
}
std::optional<Column> Dialogue(const Columns& row) {
  return row.Find("messages", {"messages", "conversations", "conversation"});
}

std::optional<RowForm> DetectDemonstration(const Columns& row) {
  if (row.Has("completion")) return RowForm::kPromptCompletion;
  if (IsAlpaca(row)) return RowForm::kAlpaca;
  if (Dialogue(row)) return RowForm::kMessages;
  if (row.Has("text")) return RowForm::kText;
  return std::nullopt;
}

RowForm DetectPair(const Columns& row, bool prompt) {
  if (row.Find("", {"score_chosen"}) && row.Find("", {"score_rejected"}))
    return RowForm::kUltraFeedback;
  if (prompt) return RowForm::kPreference;
  const auto side = row.Find("chosen", {"chosen", "rejected"});
  const bool human =
      side && side->value.is_string() && std::string_view(side->value).starts_with("\n\nHuman:");
  return human ? RowForm::kHhRlhf : RowForm::kImplicit;
}

}  // namespace

std::optional<Column> FindPrompt(const Columns& row) {
  auto found = row.Find("prompt", {"prompt", "question"});
  if (found || row.Mapped("prompt")) return found;
  found = row.Find("instruction", {"instruction"});
  if (found) return found;
  if (row.Has("chosen") || row.Has("completion")) {
    found = row.Find("messages", {"conversations", "conversation"});
    if (found) return found;
    const auto chosen = row.Find("chosen", {"chosen"});
    if (chosen && !chosen->value.is_array()) found = row.Find("messages", {"messages"});
    if (found && found->value.is_array()) return found;
  }
  found = Dialogue(row);
  if (found && OnlyAsks(found->value)) return found;
  return row.Find("prompt", {"input"});
}

bool IsInstruction(const Columns& row, const Column& prompt) {
  const auto instruction = row.Find("instruction", {"instruction"});
  return instruction && SameKey(instruction->name, prompt.name);
}

std::optional<Sides> FindSides(const Columns& row) {
  constexpr std::array<std::pair<const char*, const char*>, 6> kNames = {
      {{"response_a", "response_b"},
       {"answer_a", "answer_b"},
       {"completion_a", "completion_b"},
       {"conversation_a", "conversation_b"},
       {"response_0", "response_1"},
       {"response_1", "response_2"}}};
  for (const auto& [first, second] : kNames) {
    const auto a = row.Find("response_a", {first}), b = row.Find("response_b", {second});
    if (a && b) return Sides{*a, *b};
  }
  return std::nullopt;
}

std::optional<Column> FindWinner(const Columns& row) {
  return row.Find("winner", {"winner", "better_response_id", "preferred"});
}

std::optional<RowForm> DetectForm(const Columns& row, std::optional<RowKind> as,
                                  std::optional<RowForm> file) {
  const auto prompt = FindPrompt(row);
  if (as == RowKind::kPrompts && (prompt || row.Mapped("prompt")))
    return DetectPrompt(row, prompt ? prompt->name : "");
  if (as == RowKind::kDemonstrations) return DetectDemonstration(row);
  if (row.Has("chosen") || row.Has("rejected")) return DetectPair(row, prompt.has_value());
  if (row.Has("completions") && row.Has("context")) return RowForm::kNemo;
  // Nobody's verdict in this row does not make it one of prompts.
  if ((FindWinner(row) || row.HasNull({"winner", "better_response_id", "preferred"})) &&
      FindSides(row))
    return RowForm::kWinner;
  if (as == RowKind::kPrompts)
    return Dialogue(row) ? std::optional(RowForm::kMessages) : std::nullopt;
  if (row.Has("completion"))
    return row.Find("label", {"label", "kto_tag"}) ? RowForm::kKto : RowForm::kPromptCompletion;
  if (IsAlpaca(row) || Dialogue(row)) {
    // `label` alone may be anything there.
    if (row.Find("label", {"kto_tag"})) return RowForm::kKto;
  }
  if (IsAlpaca(row)) return RowForm::kAlpaca;
  const auto demonstration = DetectDemonstration(row);
  // Among demonstrations a dialogue without an answer is one that lacks it.
  const auto dialogue = Dialogue(row);
  if (file && KindOf(*file) == RowKind::kDemonstrations && prompt && dialogue &&
      SameKey(prompt->name, dialogue->name))
    return demonstration;
  // An instruction may be that of a demonstration; a column named `prompt` is one, whatever stands
  // beside it.
  if (prompt && !(demonstration && IsInstruction(row, *prompt)))
    return DetectPrompt(row, prompt->name);
  return demonstration;
}

}  // namespace plumb::replay

#include "replay/datasets/rows/row_form.h"

#include <array>

namespace plumb::replay {
namespace {

struct FormEntry {
  const char* name;
  RowKind kind;
};
// By RowForm.
constexpr std::array<FormEntry, kRowForms> kForms = {{
    {"gsm8k", RowKind::kPrompts},
    {"verl", RowKind::kPrompts},
    {"skyrl", RowKind::kPrompts},
    {"openrlhf", RowKind::kPrompts},
    {"slime", RowKind::kPrompts},
    {"prompt-answer", RowKind::kPrompts},
    {"trl", RowKind::kPrompts},
    {"preference", RowKind::kPairs},
    {"implicit", RowKind::kPairs},
    {"hh-rlhf", RowKind::kPairs},
    {"ultrafeedback", RowKind::kPairs},
    {"nemo", RowKind::kPairs},
    {"kto", RowKind::kLabelled},
    {"prompt-completion", RowKind::kDemonstrations},
    {"messages", RowKind::kDemonstrations},
    {"text", RowKind::kDemonstrations},
    {"alpaca", RowKind::kDemonstrations},
    {"winner", RowKind::kPairs},
}};

}  // namespace

const char* FormName(RowForm form) { return kForms[static_cast<size_t>(form)].name; }
RowKind KindOf(RowForm form) { return kForms[static_cast<size_t>(form)].kind; }

std::optional<RowForm> FormOfName(std::string_view name) {
  for (size_t i = 0; i < kForms.size(); ++i) {
    if (name == kForms[i].name) return static_cast<RowForm>(i);
  }
  return std::nullopt;
}

std::string FormNames() {
  std::string names;
  for (const FormEntry& entry : kForms)
    names += (names.empty() ? "" : ", ") + std::string(entry.name);
  return names;
}

const char* KindName(RowKind kind) {
  switch (kind) {
    case RowKind::kPrompts: return "prompts";
    case RowKind::kPairs: return "preference pairs";
    case RowKind::kLabelled: return "labelled completions";
    case RowKind::kDemonstrations: return "demonstrations";
  }
  return "unknown";
}

}  // namespace plumb::replay

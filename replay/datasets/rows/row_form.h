// The forms of dataset rows (replay/datasets/rows/row_parser.h says what each looks like) and the
// kinds of records that they make.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace plumb::replay {

enum class RowKind : uint8_t { kPrompts, kPairs, kLabelled, kDemonstrations };

enum class RowForm : uint8_t {
  kGsm8k,
  kVerl,
  kSkyRl,
  kOpenRlhf,
  kSlime,
  kPromptAnswer,
  kTrl,
  kPreference,
  kImplicit,
  kHhRlhf,
  kUltraFeedback,
  kNemo,
  kKto,
  kPromptCompletion,
  kMessages,
  kText,
  kAlpaca,
  kWinner,
};
inline constexpr int kRowForms = 18;
const char* FormName(RowForm form);
std::optional<RowForm> FormOfName(std::string_view name);
std::string FormNames();  // all, for messages
RowKind KindOf(RowForm form);
const char* KindName(RowKind kind);

}  // namespace plumb::replay

// Preference data: which of two answers is better, or whether one is good. As it is stored, and as
// it is trained on.
//
// Purpose: importers and miners fill PreferenceRecords (messages and text, kept in the store as
// they came); run/session/preference_data turns them into tokens through the model's chat template
// when a run loads them. A record that comes from a rollout carries its tokens and is never
// tokenized again.
// Thread safety: plain values. Ownership: each value owns its arrays.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/record/trajectory.h"

namespace plumb {

// Do not change the values of existing entries: they are stored.
enum class PreferenceKind : uint8_t {
  kPair = 0,      // chosen is better than rejected
  kLabelled = 1,  // one completion (in `chosen`), desirable or not; `rejected` is empty
  // one completion (in `chosen`) to imitate; `rejected` is empty, and so may be the prompt
  kDemonstration = 2,
};

// One row of a preference dataset. Invariants (CheckInvariants): at most one of prompt_text and
// prompt is non-empty, and one of them is, unless prompt_tokens is or it is a demonstration;
// `chosen` (a pair: `rejected` too) has at least one message and ends with an assistant's, or its
// token list is non-empty; the three token lists are given together or not at all; margin is
// finite.
struct PreferenceRecord {
  PreferenceKind kind = PreferenceKind::kPair;
  std::string dataset;          // set by the store
  uint64_t row = 0;             // set by the store: 0..n-1
  std::string prompt_text;      // a prompt that is no dialogue
  std::vector<Message> prompt;  // the turns that both answers share
  std::vector<Message> chosen;  // what follows the prompt; usually one assistant message
  std::vector<Message> rejected;
  bool desirable = false;  // kLabelled
  // how much better, in units of reward; meaningful when has_margin
  double margin = 0;
  bool has_margin = false;
  double weight = 1.0;
  std::string extra_json;  // every other column of the row as one JSON object; may be empty
  // of rollouts; completions without the prompt
  std::vector<int32_t> prompt_tokens, chosen_tokens, rejected_tokens;
  bool operator==(const PreferenceRecord&) const = default;
};

// Ready for the learner: whole sequences (prompt + completion) that begin with the same prompt
// tokens.
struct PreferencePair {
  std::string dataset;
  uint64_t row = 0;
  Demonstration chosen, rejected;
  double margin = 0;
  bool has_margin = false;
  bool operator==(const PreferencePair&) const = default;
};

// The same for one judged completion.
struct LabelledCompletion {
  std::string dataset;
  uint64_t row = 0;
  Demonstration completion;
  bool desirable = false;
  bool operator==(const LabelledCompletion&) const = default;
};

// The sequence's name in a LogprobCache: SHA-256 over the number of tokens, the tokens (int32 LE)
// and the mask (0 or 1).
// REQUIRES: equal lengths.
Digest SequenceDigest(std::span<const int32_t> tokens, std::span<const uint8_t> loss_mask);

// Throws Error(kInvalidArgument) naming the first invariant that does not hold.
void CheckInvariants(const PreferenceRecord& record);

}  // namespace plumb

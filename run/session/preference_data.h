// Preference data of a run as token sequences: a file of any known form, imported into the run's
// store, or a dataset of another store (data.train is its folder), copied into it. Rows of rollouts
// keep the tokens that were sampled.
//
// Thread safety: a function of its arguments and the store. Errors: those of the import;
// kInvalidArgument for a file without pairs, for dialogues with a model that has no chat template.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/record/preference.h"
#include "replay/store/store.h"
#include "run/session/session.h"

namespace plumb::run {

struct PreferenceData {
  std::vector<PreferencePair> train, heldout;  // heldout: the last preference.heldout rows
  // Instead of pairs where the loss is KTO: judged completions, and both answers of each pair.
  std::vector<LabelledCompletion> completions, completions_heldout;
  // of the rows in the store: Store::PreferenceIdentity
  std::string identity;
  std::vector<std::string> notes;       // what was read, rejected and dropped
  std::map<std::string, int64_t> rows;  // the same as run/session/row_counts.h counts it
  std::string first_left_out;  // where and why, of rows that were rejected or not tokenized
};

// The answer as the chat template writes it behind the prompt (which a text is where
// data.chat_template does not say otherwise), end token included; learned from its first token on.
// `answer` is the record's chosen or rejected. Empty: the template does not write what the answer
// asks of tools.
std::optional<Demonstration> AnswerSequence(const Session& session, const PreferenceRecord& record,
                                            const std::vector<Message>& answer);

// `skip_untokenizable`: what the vocabulary or the chat template refuses costs its row; else it is
// thrown.
PreferenceData LoadPreferences(const Session& session, replay::Store& store,
                               bool skip_untokenizable = false);

}  // namespace plumb::run

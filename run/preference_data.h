// Preference pairs of a run: a file of any known form, imported into the run's store, as token sequences.
//
// Thread safety: a function of its arguments and the store. Errors: those of the import; kInvalidArgument for a file without
// pairs, for dialogues with a model that has no chat template.
#pragma once

#include <string>
#include <vector>

#include "common/preference.h"
#include "replay/store.h"
#include "run/session.h"

namespace plumb::run {

struct PreferenceData {
  std::vector<PreferencePair> train, heldout;  // heldout: the last preference.heldout pairs
  std::vector<std::string> notes;              // what was read, rejected and dropped
};

PreferenceData LoadPreferences(const Session& session, replay::Store& store);

}  // namespace plumb::run

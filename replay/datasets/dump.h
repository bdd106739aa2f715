// What `plumb store inspect STORE` prints: how much of what is in a store, and one record to look
// at.
//
// Opens for reading only, without the lock: works while a run holds the store and then shows what
// was written up to the moment of opening. Thread safety: pure function of the folder. Errors:
// those of Store::Open and Store::Read.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "common/record/trajectory.h"

namespace plumb::replay {

struct DumpOptions {
  bool json = false;                  // one JSON object instead of lines for people
  Purpose purpose = Purpose::kTrain;  // of `lease`
  std::optional<uint64_t> lease;      // record to show; none: the first there is
  bool verify = false;                // read everything back (minutes for a large store)
  // characters of a text that are shown to people; JSON has all of it
  size_t max_text = 600;
};

// One JSON object a line for each group with an answer, by lease id, training before evaluation;
// `write` gets whole lines. Returns how many. `tokens`: with tokens, log-probs and versions of each
// answer as well.
uint64_t ExportTrajectories(const std::string& path, bool tokens,
                            const std::function<void(const std::string&)>& write);

// What the column families, keys and values are, how the folder is set up and how much is in each
// part.
std::string ExplainStore(const std::string& path);

std::string DumpStore(const std::string& path, const DumpOptions& options = {});

}  // namespace plumb::replay

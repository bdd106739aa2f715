// What `plumb store inspect STORE` prints: how much of what is in a store, and one record to look at.
//
// Opens for reading only, without the lock: works while a run holds the store and then shows what was written up to the
// moment of opening. Thread safety: pure function of the folder. Errors: those of Store::Open and Store::Read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/trajectory.h"

namespace plumb::replay {

struct DumpOptions {
  bool json = false;                  // one JSON object instead of lines for people
  Purpose purpose = Purpose::kTrain;  // of `lease`
  std::optional<uint64_t> lease;      // record to show; none: the first there is
  bool verify = false;                // read everything back (minutes for a large store)
  size_t max_text = 600;              // characters of a text that are shown to people; JSON has all of it
};

std::string DumpStore(const std::string& path, const DumpOptions& options = {});

}  // namespace plumb::replay

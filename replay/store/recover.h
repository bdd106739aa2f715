// What can be saved of a store whose log is damaged, and what would be missing then.
//
// Purpose: a store does not open over a damaged log, for what stands behind the damage was
// acknowledged and cannot be trusted as it stands (replay/store/log_check.h). Recover makes a copy
// that ends in front of the first damage, and reads the records behind it, each by its own
// checksum, to name the groups that were acknowledged and are not in the copy. The store itself is
// never changed. Table files are hard-linked where the file system allows.
// Thread safety: none; one call a store. Errors: kConflict where a run holds the store;
// kCorruption, or what Store::Open throws, where something else than a log is damaged: that needs a
// copy of earlier (`store snapshot`); kInvalidArgument for a target that is there; kIo, kNoSpace.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/record/trajectory.h"

namespace plumb::replay {

struct Recovery {
  std::string damaged;  // the log; empty: none is, and nothing was made
  uint64_t byte = 0;    // where its damage begins
  std::string what;
  std::vector<std::string> left_out;  // logs behind it, as whole as they may be
  uint64_t kept_inserts = 0;          // number of the newest insert in the copy, or store
  uint64_t kept_groups = 0;           // in the copy
  // Acknowledged leases that are not in the copy, ascending.
  std::vector<std::pair<Purpose, uint64_t>> missing;
  // Inserts of which only the number is known: what they answered stood in the damaged bytes.
  uint64_t nameless = 0;
  uint64_t known_inserts = 0;                  // number of the newest insert that any log tells of
  std::map<std::string, uint64_t> other_rows;  // column family -> other records behind the damage
  std::vector<std::string> problems;           // of the copy (Store::Verify)
};

// `to`: the folder of the copy, not there yet; nullopt: none is left behind, which needs the room
// for one beside the store all the same.
Recovery Recover(const std::string& store, const std::optional<std::string>& to);

}  // namespace plumb::replay

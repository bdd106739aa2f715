// The store in a run's folder: where it lies, and how many inserts the run's checkpoints know of.
//
// Purpose: verbs on stores take a run's folder as well; and a log that ends exactly behind an
// earlier record is whole in itself, so that only the checkpoint, which was written later, knows of
// more. Thread safety: pure functions of the file system. Errors: those of reading it; a checkpoint
// that cannot be read is passed over for the one before it, `plumb train --resume` says why.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace plumb::run {

// `path` itself, or path/store where `path` is the folder of a run.
std::string StoreFolderOf(const std::string& path);

struct KnownInserts {
  std::string checkpoint;  // its folder
  uint64_t inserts = 0;    // acknowledged before it was written
};
// Of the newest checkpoint of the run in whose folder `store` lies; nullopt: it lies in none, or no
// checkpoint names a number. Of a store that a run holds, ask before the store is opened: both
// grow.
std::optional<KnownInserts> KnownInsertsOf(const std::string& store);
// What is missing of a store that has `have` of them; empty: nothing.
std::string MissingInserts(const std::optional<KnownInserts>& known, uint64_t have);

}  // namespace plumb::run

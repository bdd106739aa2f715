// One dataset into the store in pieces, with a mark from which a killed import goes on.
//
// Purpose: memory does not grow with the file. Rows count only once Seal has returned; until then each Commit writes its
// rows and then the mark, so a mark never promises rows that are not there. Under a name that is sealed the same
// rows again are a no-op and others are kConflict, found at the first row that differs.
// Thread safety: none; one writer a dataset. Ownership: borrows the store. Errors: those of Store; after kNoSpace what
// was committed is there and the import can go on.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include <rocksdb/write_batch.h>

#include "common/preference.h"
#include "common/trajectory.h"
#include "replay/store.h"

namespace plumb::replay {

class ImportWriter {
 public:
  enum class Table : uint8_t { kPrompts, kPreferences };
  ImportWriter(Store* store, std::string dataset, Table table);

  bool sealed() const { return !sealed_.empty(); }
  uint64_t rows() const { return rows_; }          // added so far, those of an earlier life included
  std::optional<std::string> Mark() const;         // of an unfinished import
  // Either of the two comes first. Begin forgets what an unfinished import left behind; Continue takes it up and shows
  // the fingerprint of each of its rows.
  void Begin();
  void Continue(uint64_t rows, uint64_t hash, const std::function<void(uint64_t)>& seen);

  void Add(Prompt prompt);
  void Add(PreferenceRecord record);
  size_t pending_bytes() const { return batch_.GetDataSize(); }
  uint64_t hash() const { return hash_; }
  // What was added, then `mark`; what is small goes through the log, unsynced (Seal syncs all of it), the rest is a table
  // file of its own.
  void Commit(const std::string& mark);
  // Durable and visible on return. False: the very same rows were there already.
  bool Seal();

 private:
  void AddRow(const std::string& encoded);
  void IngestLarge();
  [[noreturn]] void OtherRows() const;
  std::string MarkKey() const;
  std::string SealedKey() const;

  Store* const store_;
  const std::string dataset_;
  const Table table_;
  std::string sealed_;  // "rows hash", or empty
  uint64_t rows_ = 0;
  uint64_t hash_;
  rocksdb::WriteBatch batch_;
};

}  // namespace plumb::replay

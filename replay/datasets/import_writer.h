// One dataset into the store in pieces, with a mark from which a killed import goes on.
//
// Purpose: memory does not grow with the file. Rows count only once Seal has returned; until then
// each Commit writes its rows and then the mark, so a mark never promises rows that are not there.
// Under a name that is sealed the same rows again are a no-op and others are kConflict, found at
// the first row that differs.
// Thread safety: none; one writer a dataset. Ownership: borrows the store. Errors: those of Store;
// after kNoSpace what was committed is there and the import can go on.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <rocksdb/write_batch.h>

#include "common/record/codec.h"
#include "common/record/preference.h"
#include "common/record/trajectory.h"
#include "replay/store/rocks.h"
#include "replay/store/store.h"

namespace plumb::replay {

class ImportWriter {
 public:
  enum class Table : uint8_t { kPrompts, kPreferences };
  ImportWriter(Store* store, std::string dataset, Table table);

  bool sealed() const { return !sealed_.empty(); }
  // added so far, those of an earlier life included
  uint64_t rows() const { return rows_; }
  std::optional<std::string> Mark() const;  // of an unfinished import
  // Either of the two comes first. Begin forgets what an unfinished import left behind; Continue
  // takes it up and shows the hash of each of its rows, as Stage returned it.
  void Begin();
  void Continue(uint64_t rows, uint64_t hash, const std::function<void(uint64_t)>& seen);

  // Stage makes a row's bytes and returns a hash of them that is equal for rows that say the same;
  // Add makes the row the next one and stores it. Up to kSlots rows may be staged before they are
  // added: one step after the other for all of them costs less than row after row, whose steps push
  // each other out of the processor's caches.
  static constexpr size_t kSlots = 8;
  uint64_t Stage(size_t slot, Prompt& prompt);  // sets dataset and row of it
  uint64_t Stage(size_t slot, PreferenceRecord& record);
  void Add(size_t slot);  // REQUIRES: staged since it was added last
  size_t pending_bytes() const {
    return batch_.GetDataSize() + (table_file_ ? table_file_->bytes() : 0);
  }
  uint64_t hash() const { return hash_; }
  // What was added, then `mark`; what is small goes through the log, unsynced (Seal syncs all of
  // it), the rest is by then in a table file of its own, which is made durable here.
  void Commit(const std::string& mark);
  // Durable and visible on return. False: the very same rows were there already.
  bool Seal();

 private:
  void TakeInTable();
  [[noreturn]] void OtherRows() const;
  std::string MarkKey() const;
  std::string SealedKey() const;

  Store* const store_;
  const std::string dataset_;
  const Table table_;
  std::string sealed_;  // "rows hash", or empty
  uint64_t rows_ = 0;
  uint64_t hash_;
  struct Staged {
    RowEncoder encoder;
    uint64_t hash = 0;
  };
  std::array<Staged, kSlots> slots_;
  rocksdb::WriteBatch batch_;              // rows added since the last mark, while they are few
  std::unique_ptr<TableFile> table_file_;  // rows added since the last mark, when they are many
};

}  // namespace plumb::replay

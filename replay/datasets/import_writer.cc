#include "replay/datasets/import_writer.h"

#include <charconv>
#include <memory>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/error.h"
#include "common/base/hash/digest.h"
#include "replay/store/record.h"

namespace plumb::replay {
namespace {

Family FamilyOf(ImportWriter::Table table) {
  return table == ImportWriter::Table::kPrompts ? Family::kPrompts : Family::kPreferences;
}
// below, a file of its own costs more than it saves
constexpr size_t kTableBytes = size_t{2} << 20;
constexpr int kMeta = static_cast<int>(Family::kMeta);

}  // namespace

ImportWriter::ImportWriter(Store* store, std::string dataset, Table table)
    : store_(store), dataset_(std::move(dataset)), table_(table), hash_(kNoRowsHash) {
  if (dataset_.empty() || dataset_.find('\0') != std::string::npos ||
      dataset_.find('/') != std::string::npos) {
    throw Error(ErrorCode::kInvalidArgument,
                "a dataset needs a name without slashes and zero bytes");
  }
  sealed_ = store_->GetRaw(kMeta, SealedKey()).value_or("");
}

std::string ImportWriter::MarkKey() const {
  return std::string("import/") + (table_ == Table::kPrompts ? "prompts/" : "preferences/") +
         dataset_;
}
std::string ImportWriter::SealedKey() const {
  return std::string(table_ == Table::kPrompts ? "dataset/" : "preferences/") + dataset_;
}

void ImportWriter::OtherRows() const {
  throw Error(ErrorCode::kConflict,
              "dataset '" + dataset_ + "' is stored already with other rows (" +
                  sealed_.substr(0, sealed_.find(' ')) + "; row " + std::to_string(rows_) +
                  " is the first that differs): stored data never changes; import under "
                  "another name (--dataset), or into another store",
              store_->path());
}

std::optional<std::string> ImportWriter::Mark() const { return store_->GetRaw(kMeta, MarkKey()); }

void ImportWriter::Begin() {
  rows_ = 0;
  hash_ = kNoRowsHash;
  batch_.Clear();
  table_file_.reset();
  if (sealed()) return;
  rocksdb::WriteBatch batch;
  const std::string first = PromptKey(dataset_, 0);
  std::string end = first.substr(0, first.size() - 8);
  end.back() = '\1';  // behind every key of this dataset
  // A range that was deleted stands in the way of table files that are taken in over it: only where
  // there is something.
  const bool rows = [&] {
    const auto it = store_->rocks().Iterate(FamilyOf(table_));
    it->Seek(first);
    if (!it->status().ok())
      ThrowStatus(it->status(), store_->path(), "look for an unfinished import");
    return it->Valid() && it->key().compare(end) < 0;
  }();
  if (!rows && !Mark()) return;
  if (rows) batch.DeleteRange(store_->rocks().handle(FamilyOf(table_)), first, end);
  batch.Delete(store_->rocks().meta(), MarkKey());
  store_->rocks().Write(batch, /*sync=*/false);
}

void ImportWriter::Continue(uint64_t rows, uint64_t hash,
                            const std::function<void(uint64_t)>& seen) {
  const auto it = store_->rocks().Iterate(FamilyOf(table_));
  it->Seek(PromptKey(dataset_, 0));
  for (uint64_t row = 0; row < rows; ++row, it->Next()) {
    const std::string key = PromptKey(dataset_, row);
    if (!it->Valid() || it->key() != rocksdb::Slice(key)) {
      if (!it->status().ok()) ThrowStatus(it->status(), store_->path(), "take up an import");
      throw Error(ErrorCode::kCorruption,
                  "an unfinished import lacks its row " + std::to_string(row), store_->path());
    }
    const std::string value = it->value().ToString();
    const std::string_view payload = Unseal(FamilyName(FamilyOf(table_)), key, value);
    if (table_ == Table::kPrompts) {
      Prompt prompt = DecodePromptRow(key, payload);
      seen(Stage(0, prompt));
    } else {
      PreferenceRecord record = DecodePreferenceRow(key, payload);
      seen(Stage(0, record));
    }
  }
  rows_ = rows;
  hash_ = hash;
}

uint64_t ImportWriter::Stage(size_t slot, Prompt& prompt) {
  PLUMB_CHECK(table_ == Table::kPrompts, "a prompt for a table of preferences");
  prompt.dataset = dataset_;
  prompt.row = 0;
  return slots_[slot].hash = HashBytes(slots_[slot].encoder.Encode(prompt));
}

uint64_t ImportWriter::Stage(size_t slot, PreferenceRecord& record) {
  PLUMB_CHECK(table_ == Table::kPreferences, "a preference for a table of prompts");
  CheckInvariants(record);
  record.dataset = dataset_;
  record.row = 0;
  return slots_[slot].hash = HashBytes(slots_[slot].encoder.Encode(record));
}

void ImportWriter::Add(size_t slot) {
  Staged& staged = slots_[slot];
  const std::string key = PromptKey(dataset_, rows_);
  const std::string_view encoded = staged.encoder.WithRow(rows_);
  hash_ = ChainRow(hash_, staged.hash);
  if (sealed()) {
    if (store_->GetRaw(static_cast<int>(FamilyOf(table_)), key) != encoded) OtherRows();
    ++rows_;
    return;
  }
  const std::string_view value = staged.encoder.Behind(ValueSum(key, encoded));
  if (!table_file_ && batch_.GetDataSize() >= kTableBytes) {
    table_file_ = std::make_unique<TableFile>(&store_->rocks(), FamilyOf(table_));
    table_file_->PutAll(batch_);
    batch_.Clear();
  }
  if (table_file_) {
    table_file_->Put(key, value);
  } else {
    batch_.Put(store_->rocks().handle(FamilyOf(table_)), key,
               rocksdb::Slice(value.data(), value.size()));
  }
  ++rows_;
}

void ImportWriter::TakeInTable() {
  if (!table_file_) return;
  CRASH_POINT("import_before_table");
  table_file_->TakeIn();
  table_file_.reset();
  CRASH_POINT("import_after_table");
}

void ImportWriter::Commit(const std::string& mark) {
  if (sealed()) return;
  TakeInTable();
  const std::string key = MarkKey();
  batch_.Put(store_->rocks().meta(), key, plumb::replay::Seal(key, mark));
  store_->rocks().Write(batch_, /*sync=*/false);
  batch_.Clear();
}

bool ImportWriter::Seal() {
  const std::string done = std::to_string(rows_) + " " + std::to_string(hash_);
  if (sealed()) {
    // Each row was compared already; a store of an earlier version has another hash of the same
    // rows.
    if (sealed_.substr(0, sealed_.find(' ')) != std::to_string(rows_)) OtherRows();
    return false;
  }
  TakeInTable();
  const std::string key = SealedKey();
  // The log is one: syncing this line makes the unsynced rows before it durable as well.
  batch_.Delete(store_->rocks().meta(), MarkKey());
  batch_.Put(store_->rocks().meta(), key, plumb::replay::Seal(key, done));
  store_->rocks().Write(batch_, /*sync=*/true);
  batch_.Clear();
  sealed_ = done;
  if (table_ == Table::kPrompts) store_->NoteDataset(dataset_, rows_);
  return true;
}

}  // namespace plumb::replay

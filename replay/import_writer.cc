#include "replay/import_writer.h"

#include <charconv>
#include <memory>
#include <utility>

#include "common/error.h"
#include "replay/record.h"
#include "replay/rocks.h"
#include "replay/row_parser.h"

namespace plumb::replay {
namespace {

Family FamilyOf(ImportWriter::Table table) {
  return table == ImportWriter::Table::kPrompts ? Family::kPrompts : Family::kPreferences;
}
constexpr size_t kIngestBytes = size_t{2} << 20;  // below, a file of its own costs more than it saves
constexpr int kMeta = static_cast<int>(Family::kMeta);

uint64_t Fnv1a(uint64_t hash, std::string_view bytes) {
  for (const char c : bytes) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return hash;
}

}  // namespace

ImportWriter::ImportWriter(Store* store, std::string dataset, Table table)
    : store_(store), dataset_(std::move(dataset)), table_(table), hash_(kPreferenceHash) {
  if (dataset_.empty() || dataset_.find('\0') != std::string::npos || dataset_.find('/') != std::string::npos) {
    throw Error(ErrorCode::kInvalidArgument, "a dataset needs a name without slashes and zero bytes");
  }
  sealed_ = store_->GetRaw(kMeta, SealedKey()).value_or("");
}

std::string ImportWriter::MarkKey() const {
  return std::string("import/") + (table_ == Table::kPrompts ? "prompts/" : "preferences/") + dataset_;
}
std::string ImportWriter::SealedKey() const {
  return std::string(table_ == Table::kPrompts ? "dataset/" : "preferences/") + dataset_;
}

void ImportWriter::OtherRows() const {
  throw Error(ErrorCode::kConflict,
              "dataset '" + dataset_ + "' is stored already with other rows (" + sealed_.substr(0, sealed_.find(' ')) +
                  "; row " + std::to_string(rows_) + " is the first that differs): stored data never changes; import under "
                  "another name (--dataset), or into another store",
              store_->path());
}

std::optional<std::string> ImportWriter::Mark() const { return store_->GetRaw(kMeta, MarkKey()); }

void ImportWriter::Begin() {
  rows_ = 0;
  hash_ = kPreferenceHash;
  batch_.Clear();
  if (sealed()) return;
  rocksdb::WriteBatch batch;
  const std::string first = PromptKey(dataset_, 0);
  std::string end = first.substr(0, first.size() - 8);
  end.back() = '\1';  // behind every key of this dataset
  // A range that was deleted stands in the way of table files that are taken in over it: only where there is something.
  std::unique_ptr<rocksdb::Iterator> it(
      store_->rocks().db().NewIterator(rocksdb::ReadOptions(), store_->rocks().handle(FamilyOf(table_))));
  it->Seek(first);
  if (!it->status().ok()) ThrowStatus(it->status(), store_->path(), "look for an unfinished import");
  const bool rows = it->Valid() && it->key().compare(end) < 0;
  if (!rows && !Mark()) return;
  if (rows) batch.DeleteRange(store_->rocks().handle(FamilyOf(table_)), first, end);
  batch.Delete(store_->rocks().meta(), MarkKey());
  store_->rocks().Write(batch, /*sync=*/false);
}

void ImportWriter::Continue(uint64_t rows, uint64_t hash, const std::function<void(uint64_t)>& seen) {
  std::unique_ptr<rocksdb::Iterator> it(
      store_->rocks().db().NewIterator(rocksdb::ReadOptions(), store_->rocks().handle(FamilyOf(table_))));
  it->Seek(PromptKey(dataset_, 0));
  for (uint64_t row = 0; row < rows; ++row, it->Next()) {
    const std::string key = PromptKey(dataset_, row);
    if (!it->Valid() || it->key() != rocksdb::Slice(key)) {
      if (!it->status().ok()) ThrowStatus(it->status(), store_->path(), "take up an import");
      throw Error(ErrorCode::kCorruption, "an unfinished import lacks its row " + std::to_string(row), store_->path());
    }
    const std::string value = it->value().ToString();
    const std::string_view payload = Unseal(FamilyName(FamilyOf(table_)), key, value);
    seen(table_ == Table::kPrompts ? Fingerprint(DecodePromptRow(key, payload)) : Fingerprint(DecodePreferenceRow(key, payload)));
  }
  rows_ = rows;
  hash_ = hash;
}

void ImportWriter::AddRow(const std::string& encoded) {
  const std::string key = PromptKey(dataset_, rows_);
  hash_ = Fnv1a(hash_, encoded);
  if (sealed()) {
    if (store_->GetRaw(static_cast<int>(FamilyOf(table_)), key) != encoded) OtherRows();
  } else {
    batch_.Put(store_->rocks().handle(FamilyOf(table_)), key, plumb::replay::Seal(key, encoded));
  }
  ++rows_;
}

void ImportWriter::Add(Prompt prompt) {
  PLUMB_CHECK(table_ == Table::kPrompts, "a prompt for a table of preferences");
  prompt.dataset = dataset_;
  prompt.row = rows_;
  AddRow(EncodePromptRow(prompt));
}

void ImportWriter::Add(PreferenceRecord record) {
  PLUMB_CHECK(table_ == Table::kPreferences, "a preference for a table of prompts");
  CheckInvariants(record);
  record.dataset = dataset_;
  record.row = rows_;
  AddRow(EncodePreferenceRow(record));
}

void ImportWriter::IngestLarge() {
  if (batch_.GetDataSize() < kIngestBytes) return;
  store_->rocks().Ingest(FamilyOf(table_), batch_);
  batch_.Clear();
}

void ImportWriter::Commit(const std::string& mark) {
  if (sealed()) return;
  IngestLarge();
  const std::string key = MarkKey();
  batch_.Put(store_->rocks().meta(), key, plumb::replay::Seal(key, mark));
  store_->rocks().Write(batch_, /*sync=*/false);
  batch_.Clear();
}

bool ImportWriter::Seal() {
  const std::string done = std::to_string(rows_) + " " + std::to_string(hash_);
  if (sealed()) {
    if (sealed_ != done) OtherRows();
    return false;
  }
  IngestLarge();
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

// The parts of the store that hold preference datasets and cached log-probs; declared in
// replay/store/store.h.
#include <memory>

#include "common/base/error.h"
#include "common/base/hash/digest.h"
#include "common/base/numbers/number_text.h"
#include "common/record/codec.h"
#include "replay/store/record.h"
#include "replay/store/rocks.h"
#include "replay/store/store.h"

namespace plumb::replay {
namespace {

constexpr std::string_view kSealed = "preferences/";
constexpr size_t kMaxBatchBytes = size_t{4} << 20;
constexpr int kMeta = static_cast<int>(Family::kMeta);
constexpr int kPreferences = static_cast<int>(Family::kPreferences);
constexpr int kLogprobs = static_cast<int>(Family::kLogprobs);

void CheckName(const std::string& dataset) {
  if (dataset.empty() || dataset.find('\0') != std::string::npos) {
    throw Error(ErrorCode::kInvalidArgument, "a dataset needs a name without zero bytes");
  }
}

std::string SealedKey(const std::string& dataset) { return std::string(kSealed) + dataset; }

uint64_t RowsOf(std::string_view sealed, const std::string& where) {
  if (const auto rows = ParseNumber<uint64_t>(sealed.substr(0, sealed.find(' ')))) return *rows;
  throw Error(ErrorCode::kCorruption, "'" + std::string(sealed) + "' is not a number of rows",
              where);
}

[[noreturn]] void OtherRows(const std::string& dataset, uint64_t then, const std::string& path) {
  throw Error(ErrorCode::kConflict,
              "preference dataset '" + dataset + "' is stored already, with other rows (" +
                  std::to_string(then) +
                  "): stored data never changes; import under another name, or into another store",
              path);
}

}  // namespace

// "rows hash" of a sealed dataset against that of the rows at hand. Stores were once sealed with
// another hash: where the numbers of rows agree, the stored rows are read and hashed anew before
// two datasets are called different.
bool Store::SameRows(int family, const std::string& dataset, const std::string& stored,
                     const std::string& now) const {
  if (stored == now) return true;
  const uint64_t rows = RowsOf(stored, path());
  if (rows != RowsOf(now, path())) return false;
  uint64_t hash = kNoRowsHash;
  RowEncoder encoder;
  for (uint64_t row = 0; row < rows; ++row) {
    const std::string key = PromptKey(dataset, row);
    const auto encoded = GetRaw(family, key);
    if (!encoded) return false;
    const auto hash_of = [&](auto record) {
      record.row = 0;
      return HashBytes(encoder.Encode(record));
    };
    hash = ChainRow(hash, family == kPreferences ? hash_of(DecodePreferenceRow(key, *encoded))
                                                 : hash_of(DecodePromptRow(key, *encoded)));
  }
  return std::to_string(rows) + " " + std::to_string(hash) == now;
}

void Store::AppendPreferences(const std::string& dataset, uint64_t first_row,
                              std::span<const PreferenceRecord> records, uint64_t& hash) {
  CheckName(dataset);
  const auto sealed = GetRaw(kMeta, SealedKey(dataset));
  rocksdb::WriteBatch batch;
  RowEncoder encoder;
  for (size_t i = 0; i < records.size(); ++i) {
    CheckInvariants(records[i]);
    PreferenceRecord record = records[i];
    record.dataset = dataset;
    record.row = 0;
    const std::string key = PromptKey(dataset, first_row + i);
    hash = ChainRow(hash, HashBytes(encoder.Encode(record)));
    const std::string_view row = encoder.WithRow(first_row + i);
    if (sealed) {
      if (GetRaw(kPreferences, key) != row) OtherRows(dataset, RowsOf(*sealed, path()), path());
      continue;
    }
    batch.Put(rocks().handle(Family::kPreferences), key, Seal(key, row));
    if (batch.GetDataSize() > kMaxBatchBytes) {
      rocks().Write(batch, /*sync=*/false);
      batch.Clear();
    }
  }
  if (batch.Count() > 0) rocks().Write(batch, /*sync=*/false);
}

void Store::SealPreferences(const std::string& dataset, uint64_t rows, uint64_t hash) {
  CheckName(dataset);
  if (rows == 0)
    throw Error(ErrorCode::kInvalidArgument, "preference dataset '" + dataset + "' has no rows");
  const std::string key = SealedKey(dataset);
  const std::string done = std::to_string(rows) + " " + std::to_string(hash);
  if (const auto stored = GetRaw(kMeta, key)) {
    if (SameRows(kPreferences, dataset, *stored, done)) return;
    OtherRows(dataset, RowsOf(*stored, path()), path());
  }
  // The log is one: syncing this line makes the unsynced rows before it durable as well.
  rocksdb::WriteBatch batch;
  batch.Put(rocks().meta(), key, Seal(key, done));
  rocks().Write(batch, /*sync=*/true);
}

uint64_t Store::PreferenceCount(const std::string& dataset) const {
  const auto sealed = GetRaw(kMeta, SealedKey(dataset));
  return sealed ? RowsOf(*sealed, path()) : 0;
}

std::string Store::PreferenceIdentity(const std::string& dataset) const {
  return GetRaw(kMeta, SealedKey(dataset)).value_or("");
}

std::map<std::string, uint64_t> Store::PreferenceDatasets() const {
  std::map<std::string, uint64_t> out;
  const auto it = rocks().Iterate(Family::kMeta);
  for (it->Seek(rocksdb::Slice(kSealed.data(), kSealed.size())); it->Valid(); it->Next()) {
    const std::string key = it->key().ToString();
    if (!key.starts_with(kSealed)) break;
    out[key.substr(kSealed.size())] = RowsOf(Unseal("meta", key, it->value().ToString()), path());
  }
  if (!it->status().ok()) ThrowStatus(it->status(), path(), "list the preference datasets");
  return out;
}

std::vector<PreferenceRecord> Store::ReadPreferences(const std::string& dataset, uint64_t first,
                                                     uint64_t n) const {
  const uint64_t rows = PreferenceCount(dataset);
  std::vector<PreferenceRecord> out;
  if (first >= rows) return out;
  const uint64_t end = first + std::min(n, rows - first);
  const auto it = rocks().Iterate(Family::kPreferences);
  it->Seek(PromptKey(dataset, first));
  for (uint64_t row = first; row < end; ++row, it->Next()) {
    const std::string key = PromptKey(dataset, row);
    if (!it->status().ok())
      ThrowStatus(it->status(), path(), "read " + ReadableKey("preferences", key));
    if (!it->Valid() || it->key() != rocksdb::Slice(key)) {
      throw Error(ErrorCode::kCorruption,
                  ReadableKey("preferences", key) + " is not there, though the dataset has " +
                      std::to_string(rows) + " rows",
                  path());
    }
    const std::string value = it->value().ToString();
    out.push_back(DecodePreferenceRow(key, Unseal("preferences", key, value)));
  }
  return out;
}

std::optional<std::vector<float>> Store::GetLogprobs(const Digest& model,
                                                     const Digest& sequence) const {
  const std::string key = LogprobKey(model, sequence);
  const auto payload = GetRaw(kLogprobs, key);
  if (!payload) return std::nullopt;
  return DecodeLogprobs(key, *payload);
}

void Store::PutLogprobs(const Digest& model, const Digest& sequence,
                        std::span<const float> logprobs, bool sync) {
  const std::string key = LogprobKey(model, sequence);
  rocksdb::WriteBatch batch;
  batch.Put(rocks().handle(Family::kLogprobs), key, Seal(key, EncodeLogprobs(logprobs)));
  rocks().Write(batch, sync);
}

}  // namespace plumb::replay

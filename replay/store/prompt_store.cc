// The part of the store that holds prompts; declared in replay/store/store.h.
#include <memory>
#include <utility>

#include <rocksdb/write_batch.h>

#include "common/base/error.h"
#include "common/base/hash/digest.h"
#include "common/base/mutex.h"
#include "common/record/codec.h"
#include "replay/store/record.h"
#include "replay/store/store.h"
#include "replay/store/store_impl.h"

namespace plumb::replay {
namespace {

constexpr size_t kMaxBatchBytes = size_t{4} << 20;

}  // namespace

void Store::PutPrompts(const std::string& dataset, std::span<const Prompt> prompts) {
  if (dataset.empty() || dataset.find('\0') != std::string::npos) {
    throw Error(ErrorCode::kInvalidArgument, "a dataset needs a name without zero bytes");
  }
  if (prompts.empty())
    throw Error(ErrorCode::kInvalidArgument, "dataset '" + dataset + "' has no rows");
  uint64_t hash = kNoRowsHash;
  std::vector<std::string> rows;
  rows.reserve(prompts.size());
  RowEncoder encoder;
  for (uint64_t row = 0; row < prompts.size(); ++row) {
    Prompt prompt = prompts[row];
    prompt.dataset = dataset;
    prompt.row = 0;
    hash = ChainRow(hash, HashBytes(encoder.Encode(prompt)));
    rows.emplace_back(encoder.WithRow(row));
  }
  const std::string done_key = std::string(kPromptBatchDone) + dataset;
  const std::string done = std::to_string(prompts.size()) + " " + std::to_string(hash);
  if (const auto stored = impl_->Get(Family::kMeta, done_key)) {
    if (SameRows(static_cast<int>(Family::kPrompts), dataset, *stored, done)) return;
    throw Error(ErrorCode::kConflict,
                "dataset '" + dataset + "' is stored with other rows (" +
                    stored->substr(0, stored->find(' ')) + " then, " +
                    std::to_string(prompts.size()) +
                    " now, or their text differs): a run's data never changes; "
                    "start a new run, or bring the old file back",
                impl_->path);
  }
  // Whatever a killed import left behind is overwritten: the rows count only once the last line
  // below is durable.
  rocksdb::WriteBatch batch;
  for (uint64_t row = 0; row < rows.size(); ++row) {
    const std::string key = PromptKey(dataset, row);
    batch.Put(impl_->rocks.handle(Family::kPrompts), key, Seal(key, rows[row]));
    if (batch.GetDataSize() > kMaxBatchBytes) {
      impl_->rocks.Write(batch, /*sync=*/false);
      batch.Clear();
    }
  }
  impl_->PutMeta(batch, done_key, done);
  impl_->rocks.Write(batch, /*sync=*/true);
  MutexLock lock(impl_->mu);
  impl_->datasets[dataset] = prompts.size();
}

void Store::NoteDataset(const std::string& dataset, uint64_t rows) {
  MutexLock lock(impl_->mu);
  impl_->datasets[dataset] = rows;
}

uint64_t Store::PromptCount(const std::string& dataset) const {
  MutexLock lock(impl_->mu);
  const auto found = impl_->datasets.find(dataset);
  return found == impl_->datasets.end() ? 0 : found->second;
}

std::map<std::string, uint64_t> Store::Datasets() const {
  MutexLock lock(impl_->mu);
  return impl_->datasets;
}

Prompt Store::ReadPrompt(const std::string& dataset, uint64_t row, uint32_t* sum) const {
  const std::string key = PromptKey(dataset, row);
  std::optional<Prompt> prompt;
  impl_->Visit(Family::kPrompts, key, [&](std::string_view value) {
    prompt = DecodePromptRow(key, Unseal("prompts", key, value));
    if (sum != nullptr) *sum = SumOf(value);
  });
  if (!prompt) throw Error(ErrorCode::kNotFound, "no " + ReadableKey("prompts", key), impl_->path);
  return std::move(*prompt);
}

std::string Store::PromptValue(const PromptRef& ref) const {
  const std::string key = PromptKey(ref.dataset, ref.row);
  std::string found;
  impl_->Visit(Family::kPrompts, key, [&](std::string_view value) {
    Unseal("prompts", key, value);
    found = value;
  });
  if (found.empty())
    throw Error(ErrorCode::kNotFound, "no " + ReadableKey("prompts", key), impl_->path);
  CheckPromptSum(ref, found, impl_->path);
  return found;
}

Prompt Store::FindPrompt(const PromptRef& ref) const {
  const std::string key = PromptKey(ref.dataset, ref.row), value = PromptValue(ref);
  return DecodePromptRow(key, std::string_view(value).substr(sizeof(uint32_t)));
}

}  // namespace plumb::replay

// The parts of the store that its tools need; declared in replay/store.h.
#include <filesystem>
#include <memory>

#include <rocksdb/utilities/checkpoint.h>

#include "common/error.h"
#include "replay/rocks.h"
#include "replay/store.h"

namespace plumb::replay {

void Store::Snapshot(const std::string& folder) const {
  std::error_code failed;
  if (std::filesystem::exists(folder, failed)) {
    throw Error(ErrorCode::kInvalidArgument, "is there already: a snapshot goes into a folder of its own", folder);
  }
  const auto parent = std::filesystem::absolute(folder).parent_path();
  std::filesystem::create_directories(parent, failed);
  if (failed) throw Error(ErrorCode::kIo, "could not make the folder: " + failed.message(), parent.string());
  rocksdb::Checkpoint* made = nullptr;
  rocksdb::Status status = rocksdb::Checkpoint::Create(&rocks().db(), &made);
  const std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
  // 0: what is in memory goes to table files first, so that the copy needs no log.
  if (status.ok()) status = checkpoint->CreateCheckpoint(folder, /*log_size_for_flush=*/0);
  if (!status.ok()) ThrowStatus(status, path(), "make a snapshot in " + folder);
}

std::vector<Store::FamilyUsage> Store::Usage() const {
  std::vector<FamilyUsage> all;
  for (int i = 0; i < kFamilies; ++i) {
    auto* handle = rocks().handle(static_cast<Family>(i));
    if (handle == nullptr) continue;
    FamilyUsage usage{.name = std::string(FamilyName(static_cast<Family>(i)))};
    rocks().db().GetIntProperty(handle, rocksdb::DB::Properties::kEstimateNumKeys, &usage.records);
    rocks().db().GetIntProperty(handle, rocksdb::DB::Properties::kTotalSstFilesSize, &usage.table_bytes);
    rocks().db().GetIntProperty(handle, rocksdb::DB::Properties::kCurSizeActiveMemTable, &usage.memory_bytes);
    all.push_back(usage);
  }
  return all;
}

}  // namespace plumb::replay

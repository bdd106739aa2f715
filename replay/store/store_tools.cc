// The parts of the store that its tools need; declared in replay/store/store.h.
#include <filesystem>
#include <memory>

#include <rocksdb/utilities/checkpoint.h>

#include "common/base/error.h"
#include "replay/store/rocks.h"
#include "replay/store/store.h"

namespace plumb::replay {

void Store::Snapshot(const std::string& folder) const {
  std::error_code failed;
  if (std::filesystem::exists(folder, failed)) {
    throw Error(ErrorCode::kInvalidArgument,
                "is there already: a snapshot goes into a folder of its own", folder);
  }
  const auto parent = std::filesystem::absolute(folder).parent_path();
  std::filesystem::create_directories(parent, failed);
  if (failed)
    throw Error(ErrorCode::kIo, "could not make the folder: " + failed.message(), parent.string());
  const rocksdb::Status status =
      rocks().With(Family::kMeta, [&](rocksdb::DB& db, rocksdb::ColumnFamilyHandle*) {
        rocksdb::Checkpoint* made = nullptr;
        rocksdb::Status done = rocksdb::Checkpoint::Create(&db, &made);
        const std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
        // 0: what is in memory goes to table files first, so that the copy needs no log.
        if (done.ok()) done = checkpoint->CreateCheckpoint(folder, /*log_size_for_flush=*/0);
        return done;
      });
  if (!status.ok()) ThrowStatus(status, path(), "make a snapshot in " + folder);
}

std::vector<Store::FamilyUsage> Store::Usage() const {
  std::vector<FamilyUsage> all;
  for (int i = 0; i < kFamilies; ++i) {
    const auto family = static_cast<Family>(i);
    if (rocks().handle(family) == nullptr) continue;
    FamilyUsage usage{.name = std::string(FamilyName(family))};
    rocks().With(family, [&](rocksdb::DB& db, rocksdb::ColumnFamilyHandle* handle) {
      db.GetIntProperty(handle, rocksdb::DB::Properties::kEstimateNumKeys, &usage.records);
      db.GetIntProperty(handle, rocksdb::DB::Properties::kTotalSstFilesSize, &usage.table_bytes);
      db.GetIntProperty(handle, rocksdb::DB::Properties::kCurSizeActiveMemTable,
                        &usage.memory_bytes);
    });
    all.push_back(usage);
  }
  return all;
}

}  // namespace plumb::replay

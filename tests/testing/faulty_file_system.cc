#include "tests/testing/faulty_file_system.h"

#include <cerrno>
#include <filesystem>
#include <utility>

#include "common/base/error.h"

namespace plumb::testing {

class FaultyAppendFile final : public AppendFile {
 public:
  FaultyAppendFile(FaultyFileSystem& owner, std::string path, std::unique_ptr<AppendFile> file)
      : owner_(owner), path_(std::move(path)), file_(std::move(file)) {}

  void Append(std::string_view bytes) override {
    const auto fault = owner_.Next();
    if (fault == FaultyFileSystem::Fault::kNone) return file_->Append(bytes);
    if (fault != FaultyFileSystem::Fault::kIo) file_->Append(bytes.substr(0, bytes.size() / 2));
    FaultyFileSystem::Throw(fault, path_);
  }
  void Sync() override {
    try {
      owner_.Operate(path_);
    } catch (const Error&) {
      std::lock_guard lock(owner_.mu_);
      owner_.files_[path_].lost = true;
      throw;
    }
    file_->Sync();
    std::lock_guard lock(owner_.mu_);
    auto& file = owner_.files_[path_];
    if (!file.lost) file.synced = RealFileSystem().FileSize(path_);
  }

 private:
  FaultyFileSystem& owner_;
  const std::string path_;
  const std::unique_ptr<AppendFile> file_;
};

void FaultyFileSystem::CutPower() {
  std::lock_guard lock(mu_);
  fail_at_ = -1;
  fired_ = false;
  for (const auto& [path, file] : files_) {
    std::error_code gone;
    const uint64_t size = std::filesystem::file_size(path, gone);
    if (!gone && size > file.synced) std::filesystem::resize_file(path, file.synced);
  }
  files_.clear();
}

void FaultyFileSystem::FailAt(int64_t nth, Fault fault) {
  fail_at_ = operations_ + nth;
  fault_ = fault;
  fired_ = false;
}

FaultyFileSystem::Fault FaultyFileSystem::Next() {
  const int64_t now = ++operations_;
  const bool hit = now == fail_at_ || (fired_ && fault_ == Fault::kTorn);
  if (!hit) return Fault::kNone;
  fired_ = true;
  return fault_;
}
void FaultyFileSystem::Operate(const std::string& path) {
  if (const Fault fault = Next(); fault != Fault::kNone) Throw(fault, path);
}
void FaultyFileSystem::Throw(Fault fault, const std::string& path) {
  ThrowFileError(fault == Fault::kNoSpace ? ENOSPC : EIO, "cannot write (a fault of the test)",
                 path);
}

std::string FaultyFileSystem::ReadFile(const std::string& path, size_t max_bytes) {
  return RealFileSystem().ReadFile(path, max_bytes);
}
std::unique_ptr<AppendFile> FaultyFileSystem::OpenAppend(const std::string& path, bool truncate) {
  Operate(path);
  auto file = RealFileSystem().OpenAppend(path, truncate);
  {
    std::lock_guard lock(mu_);
    const auto [known, first] = files_.try_emplace(path);
    if (truncate) known->second = {};
    if (first && !truncate) known->second.synced = RealFileSystem().FileSize(path);
  }
  return std::make_unique<FaultyAppendFile>(*this, path, std::move(file));
}
void FaultyFileSystem::Rename(const std::string& from, const std::string& to) {
  Operate(from);
  RealFileSystem().Rename(from, to);
  std::lock_guard lock(mu_);
  files_.erase(to);
  if (auto file = files_.extract(from); !file.empty()) {
    file.key() = to;
    files_.insert(std::move(file));
  }
}
void FaultyFileSystem::SyncDirectory(const std::string& folder) {
  Operate(folder);
  RealFileSystem().SyncDirectory(folder);
}
void FaultyFileSystem::Remove(const std::string& path) {
  Operate(path);
  RealFileSystem().Remove(path);
}
void FaultyFileSystem::RemoveAll(const std::string& path) {
  Operate(path);
  RealFileSystem().RemoveAll(path);
}
bool FaultyFileSystem::Exists(const std::string& path) { return RealFileSystem().Exists(path); }
uint64_t FaultyFileSystem::FileSize(const std::string& path) {
  return RealFileSystem().FileSize(path);
}
std::vector<std::string> FaultyFileSystem::List(const std::string& folder) {
  return RealFileSystem().List(folder);
}
void FaultyFileSystem::CreateDirectories(const std::string& folder) {
  RealFileSystem().CreateDirectories(folder);
}

}  // namespace plumb::testing

#include "tests/testing/faulty_file_system.h"

#include <cerrno>

#include "common/error.h"

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
    owner_.Operate(path_);
    file_->Sync();
  }

 private:
  FaultyFileSystem& owner_;
  const std::string path_;
  const std::unique_ptr<AppendFile> file_;
};

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
  ThrowFileError(fault == Fault::kNoSpace ? ENOSPC : EIO, "cannot write (a fault of the test)", path);
}

std::string FaultyFileSystem::ReadFile(const std::string& path, size_t max_bytes) {
  return RealFileSystem().ReadFile(path, max_bytes);
}
std::unique_ptr<AppendFile> FaultyFileSystem::OpenAppend(const std::string& path, bool truncate) {
  Operate(path);
  return std::make_unique<FaultyAppendFile>(*this, path, RealFileSystem().OpenAppend(path, truncate));
}
void FaultyFileSystem::Rename(const std::string& from, const std::string& to) {
  Operate(from);
  RealFileSystem().Rename(from, to);
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
uint64_t FaultyFileSystem::FileSize(const std::string& path) { return RealFileSystem().FileSize(path); }
std::vector<std::string> FaultyFileSystem::List(const std::string& folder) { return RealFileSystem().List(folder); }
void FaultyFileSystem::CreateDirectories(const std::string& folder) { RealFileSystem().CreateDirectories(folder); }

}  // namespace plumb::testing

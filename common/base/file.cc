#include "common/base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "common/base/error.h"
#include "common/base/output_path.h"

namespace plumb {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

int OpenOrThrow(const std::string& path, int flags, const char* action) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
  if (fd < 0) ThrowFileError(errno, action, path);
  return fd;
}

std::string ParentOf(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

class RealAppendFile final : public AppendFile {
 public:
  RealAppendFile(std::string path, bool truncate)
      : path_(std::move(path)),
        file_(OpenOrThrow(path_, O_WRONLY | O_CREAT | O_APPEND | (truncate ? O_TRUNC : 0),
                          "cannot open for writing")) {}

  void Append(std::string_view bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = ::write(file_.get(), bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) ThrowFileError(errno, "cannot write", path_);
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }
  void Sync() override {
    if (::fdatasync(file_.get()) != 0) ThrowFileError(errno, "cannot sync", path_);
  }

 private:
  const std::string path_;
  Descriptor file_;
};

class RealFiles final : public FileSystem {
 public:
  std::string ReadFile(const std::string& path, size_t max_bytes) override {
    Descriptor file(OpenOrThrow(path, O_RDONLY, "cannot open"));
    struct stat info {};
    if (::fstat(file.get(), &info) != 0) ThrowFileError(errno, "cannot read", path);
    std::string out;
    // The size is a hint only: the file may grow, and pipes and /proc have none.
    const size_t hint = S_ISREG(info.st_mode) ? static_cast<size_t>(info.st_size) : 0;
    size_t used = 0;
    out.resize(std::min(std::max<size_t>(hint + 1, 4096), max_bytes + 1));
    for (;;) {
      const ssize_t n = ::read(file.get(), out.data() + used, out.size() - used);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) ThrowFileError(errno, "cannot read", path);
      if (n == 0) break;
      used += static_cast<size_t>(n);
      if (used > max_bytes) {
        throw Error(ErrorCode::kInvalidArgument,
                    "the file is larger than " + std::to_string(max_bytes) + " bytes", path);
      }
      if (used == out.size()) out.resize(std::min(2 * out.size(), max_bytes + 1));
    }
    out.resize(used);
    return out;
  }

  std::unique_ptr<AppendFile> OpenAppend(const std::string& path, bool truncate) override {
    return std::make_unique<RealAppendFile>(path, truncate);
  }
  void Rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0)
      ThrowFileError(errno, "cannot rename to " + to, from);
  }
  void SyncDirectory(const std::string& folder) override {
    Descriptor file(OpenOrThrow(folder, O_RDONLY | O_DIRECTORY, "cannot open the folder"));
    if (::fsync(file.get()) != 0) ThrowFileError(errno, "cannot sync the folder", folder);
  }
  void Remove(const std::string& path) override {
    if (::remove(path.c_str()) != 0) ThrowFileError(errno, "cannot remove", path);
  }
  void RemoveAll(const std::string& path) override {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (error) ThrowFileError(error.value(), "cannot remove", path);
  }
  bool Exists(const std::string& path) override {
    struct stat info {};
    if (::stat(path.c_str(), &info) == 0) return true;
    if (errno != ENOENT && errno != ENOTDIR) ThrowFileError(errno, "cannot look at", path);
    return false;
  }
  uint64_t FileSize(const std::string& path) override {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) ThrowFileError(errno, "cannot look at", path);
    return static_cast<uint64_t>(info.st_size);
  }
  std::vector<std::string> List(const std::string& folder) override {
    std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(folder.c_str()), &::closedir);
    if (!dir) ThrowFileError(errno, "cannot list", folder);
    std::vector<std::string> names;
    for (;;) {
      errno = 0;
      const dirent* entry = ::readdir(dir.get());
      if (!entry) break;
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
    }
    if (errno != 0) ThrowFileError(errno, "cannot list", folder);
    std::sort(names.begin(), names.end());
    return names;
  }
  void CreateDirectories(const std::string& folder) override {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) ThrowFileError(error.value(), "cannot create the folder", folder);
  }
};

}  // namespace

void ThrowFileError(int code, const std::string& action, const std::string& path) {
  ErrorCode kind = ErrorCode::kIo;
  if (code == ENOENT || code == ENOTDIR) kind = ErrorCode::kNotFound;
  if (code == ENOSPC || code == EDQUOT) kind = ErrorCode::kNoSpace;
  throw Error(kind, action + ": " + std::strerror(code), path);
}

FileSystem& RealFileSystem() {
  static RealFiles files;
  return files;
}

void FileSystem::WriteFileAtomic(const std::string& name, std::string_view bytes) {
  const std::optional<std::string> replaceable = ReplaceablePath(name);
  if (!replaceable) return OpenAppend(name, /*truncate=*/false)->Append(bytes);
  const std::string& path = *replaceable;
  // Unique in this process and between processes, so that two writers never share a temp file.
  static std::atomic<uint64_t> counter{0};
  const std::string temp =
      path + ".tmp." + std::to_string(::getpid()) + "." + std::to_string(counter++);
  try {
    std::unique_ptr<AppendFile> file;
    try {
      file = OpenAppend(temp, /*truncate=*/true);
    } catch (const Error& e) {  // nobody knows the other name
      throw Error(e.code(), e.message(), e.where() == temp ? path : e.where());
    }
    file->Append(bytes);
    file->Sync();
    file.reset();
    Rename(temp, path);
  } catch (...) {
    try {
      if (Exists(temp)) Remove(temp);
    } catch (const Error&) {
      // The first error is the one to report; a left-over temp file does no harm.
    }
    throw;
  }
  SyncDirectory(ParentOf(path));
}

std::unique_ptr<MappedFile> MappedFile::Open(const std::string& path) {
  Descriptor file(OpenOrThrow(path, O_RDONLY, "cannot open"));
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) ThrowFileError(errno, "cannot read", path);
  if (!S_ISREG(info.st_mode)) throw Error(ErrorCode::kInvalidArgument, "not a regular file", path);
  const size_t size = static_cast<size_t>(info.st_size);
  void* address = nullptr;
  if (size > 0) {
    address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
    if (address == MAP_FAILED) ThrowFileError(errno, "cannot map", path);
  }
  return std::unique_ptr<MappedFile>(new MappedFile(path, address, size));
}

MappedFile::~MappedFile() {
  if (address_) ::munmap(const_cast<void*>(address_), size_);
}

}  // namespace plumb

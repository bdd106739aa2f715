#include "common/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "common/error.h"

namespace plumb {
namespace {

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags, mode_t mode = 0644) : fd_(open(path.c_str(), flags | O_CLOEXEC, mode)) {
    if (fd_ < 0) ThrowErrno(errno, "open", path);
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

void WriteAll(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) ThrowErrno(errno, "write", path);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

void SyncFd(int fd, const std::string& path) {
  if (fsync(fd) != 0) ThrowErrno(errno, "sync", path);
}

class RealAppendFile : public AppendFile {
 public:
  explicit RealAppendFile(const std::string& path) : path_(path), fd_(path, O_WRONLY | O_CREAT | O_APPEND) {}
  void Append(std::string_view bytes) override { WriteAll(fd_.get(), bytes, path_); }
  void Sync() override { SyncFd(fd_.get(), path_); }

 private:
  std::string path_;
  Descriptor fd_;
};

class RealFiles : public FileSystem {
 public:
  std::string ReadFile(const std::string& path, size_t max_bytes) override {
    const Descriptor file(path, O_RDONLY);
    struct stat status {};
    if (fstat(file.get(), &status) != 0) ThrowErrno(errno, "stat", path);
    if (S_ISDIR(status.st_mode)) throw Error(ErrorCode::kIo, "is a folder, a file was expected", path);
    std::string out;
    char buffer[1 << 16];
    for (;;) {
      const ssize_t n = read(file.get(), buffer, sizeof buffer);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) ThrowErrno(errno, "read", path);
      if (n == 0) return out;
      if (out.size() + static_cast<size_t>(n) > max_bytes) {
        throw Error(ErrorCode::kCorruption, "is larger than the " + std::to_string(max_bytes) + " bytes allowed here", path);
      }
      out.append(buffer, static_cast<size_t>(n));
    }
  }

  void WriteFileAtomic(const std::string& path, std::string_view bytes) override {
    static std::atomic<uint64_t> counter{0};
    const std::string temporary = path + ".tmp-" + std::to_string(getpid()) + "-" + std::to_string(counter++);
    try {
      {
        const Descriptor file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
        WriteAll(file.get(), bytes, temporary);
        SyncFd(file.get(), temporary);
      }
      Rename(temporary, path);
    } catch (...) {
      unlink(temporary.c_str());
      throw;
    }
    const std::string parent = std::filesystem::path(path).parent_path().string();
    SyncDirectory(parent.empty() ? "." : parent);
  }

  std::unique_ptr<AppendFile> OpenAppend(const std::string& path) override {
    return std::make_unique<RealAppendFile>(path);
  }
  void Rename(const std::string& from, const std::string& to) override {
    if (rename(from.c_str(), to.c_str()) != 0) ThrowErrno(errno, "rename to", to);
  }
  void SyncDirectory(const std::string& path) override {
    const Descriptor folder(path, O_RDONLY | O_DIRECTORY);
    SyncFd(folder.get(), path);
  }
  void CreateDirectories(const std::string& path) override {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error) ThrowErrno(error.value(), "create folder", path);
  }
  void Remove(const std::string& path) override {
    if (unlink(path.c_str()) != 0 && errno != ENOENT) ThrowErrno(errno, "remove", path);
  }
  bool Exists(const std::string& path) override { return access(path.c_str(), F_OK) == 0; }
  std::vector<std::string> List(const std::string& path) override {
    std::error_code error;
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path, error)) names.push_back(entry.path().filename());
    if (error) ThrowErrno(error.value(), "list", path);
    std::sort(names.begin(), names.end());
    return names;
  }
};

class SystemClock : public Clock {
 public:
  int64_t MonotonicMs() override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  int64_t WallMs() override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  }
};

}  // namespace

void ThrowErrno(int error, const std::string& doing, const std::string& path) {
  ErrorCode code = ErrorCode::kIo;
  if (error == ENOENT) code = ErrorCode::kNotFound;
  if (error == ENOSPC || error == EDQUOT) code = ErrorCode::kNoSpace;
  std::string message = "cannot " + doing + ": " + std::strerror(error);
  if (code == ErrorCode::kNoSpace) message += "; free some space and try again, nothing that was acknowledged is lost";
  throw Error(code, message, path);
}

FileSystem& RealFileSystem() {
  static RealFiles files;
  return files;
}

Clock& RealClock() {
  static SystemClock clock;
  return clock;
}

std::unique_ptr<MappedFile> MappedFile::Open(const std::string& path) {
  const Descriptor file(path, O_RDONLY);
  struct stat status {};
  if (fstat(file.get(), &status) != 0) ThrowErrno(errno, "stat", path);
  if (!S_ISREG(status.st_mode)) throw Error(ErrorCode::kIo, "is not a regular file", path);
  const auto size = static_cast<size_t>(status.st_size);
  if (size == 0) return std::unique_ptr<MappedFile>(new MappedFile(path, {}));
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) ThrowErrno(errno, "map", path);
  return std::unique_ptr<MappedFile>(new MappedFile(path, {static_cast<const std::byte*>(data), size}));
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace plumb

// Files and the clock behind small interfaces, so that tests can make them fail.
//
// Purpose: atomic writes (temporary file, fsync, rename, fsync of the folder), bounded reads, appends, mappings.
// Thread safety: RealFileSystem() may be used from any thread; an AppendFile belongs to one.
// Errors: kNotFound, kNoSpace, kIo, each with the path and the operating system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace plumb {

// Grows at the end only.
class AppendFile {
 public:
  virtual ~AppendFile() = default;
  virtual void Append(std::string_view bytes) = 0;  // all or an error; a failed append may leave a torn tail
  virtual void Sync() = 0;                          // returns once everything appended is on the disk
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // The whole file; kCorruption when it is larger than `max_bytes`.
  virtual std::string ReadFile(const std::string& path, size_t max_bytes) = 0;
  // The file has either its old or its new content, whatever happens.
  virtual void WriteFileAtomic(const std::string& path, std::string_view bytes) = 0;
  virtual std::unique_ptr<AppendFile> OpenAppend(const std::string& path) = 0;
  virtual void Rename(const std::string& from, const std::string& to) = 0;
  virtual void SyncDirectory(const std::string& path) = 0;
  virtual void CreateDirectories(const std::string& path) = 0;
  virtual void Remove(const std::string& path) = 0;             // a missing file is fine
  virtual bool Exists(const std::string& path) = 0;
  virtual std::vector<std::string> List(const std::string& path) = 0;  // names in the folder, sorted
};

FileSystem& RealFileSystem();

// A read-only mapping of a whole file.
class MappedFile {
 public:
  static std::unique_ptr<MappedFile> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, std::span<const std::byte> bytes) : path_(std::move(path)), bytes_(bytes) {}
  std::string path_;
  std::span<const std::byte> bytes_;
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t MonotonicMs() = 0;
  virtual int64_t WallMs() = 0;  // since 1970
};

Clock& RealClock();

// Error for `errno` after an operation on `path`.
[[noreturn]] void ThrowErrno(int error, const std::string& doing, const std::string& path);

}  // namespace plumb

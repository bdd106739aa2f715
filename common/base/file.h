// Files behind an interface: whole reads with a cap, atomic writes, appends, mappings.
//
// Purpose: everything that has to survive a crash is written through here, so that a test can fail
// the n-th operation (tests/testing/faulty_file_system.h). Thread safety: FileSystem: all methods;
// AppendFile: one thread at a time.
// Errors: kNotFound for what is not there, kNoSpace for a full disk or quota, kIo for the rest;
// `where` is the path. A failed fsync is never tried again: the kernel may have dropped the pages,
// so the caller has to stop and recover.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"

namespace plumb {

class AppendFile {
 public:
  virtual ~AppendFile() = default;
  // all of it or an Error; a part may have been written then
  virtual void Append(std::string_view bytes) = 0;
  virtual void Sync() = 0;  // fdatasync
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  // The whole file. kInvalidArgument when it is larger than `max_bytes`; works on pipes and /proc
  // too.
  virtual std::string ReadFile(const std::string& path, size_t max_bytes) = 0;
  // Creates the file if needed; `truncate` empties it first.
  virtual std::unique_ptr<AppendFile> OpenAppend(const std::string& path,
                                                 bool truncate = false) = 0;
  virtual void Rename(const std::string& from, const std::string& to) = 0;
  virtual void SyncDirectory(const std::string& folder) = 0;
  // a file or an empty folder; kNotFound when not there
  virtual void Remove(const std::string& path) = 0;
  // with everything below; fine when not there
  virtual void RemoveAll(const std::string& path) = 0;
  virtual bool Exists(const std::string& path) = 0;
  virtual uint64_t FileSize(const std::string& path) = 0;                // bytes
  virtual std::vector<std::string> List(const std::string& folder) = 0;  // names, sorted
  virtual void CreateDirectories(const std::string& folder) = 0;

  // Replaces `path` as a whole: temp file beside it, fsync, rename, fsync of the folder. After an
  // Error the old content is still there (or the new one, if only the folder's fsync failed) and
  // the temp file is gone.
  void WriteFileAtomic(const std::string& path, std::string_view bytes);
};

FileSystem& RealFileSystem();

// A file mapped read-only. Thread safety: const. A file that shrinks while it is mapped kills
// readers (SIGBUS): map only files that nobody rewrites in place.
class MappedFile {
 public:
  static std::unique_ptr<MappedFile> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(address_), size_};
  }
  std::string_view text() const { return {static_cast<const char*>(address_), size_}; }
  const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, const void* address, size_t size)
      : path_(std::move(path)), address_(address), size_(size) {}
  const std::string path_;
  const void* const address_;  // nullptr for an empty file
  const size_t size_;
};

// The Error for errno `code` after `action` ("cannot write") on `path`.
[[noreturn]] void ThrowFileError(int code, const std::string& action, const std::string& path);

}  // namespace plumb

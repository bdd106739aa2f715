#include "replay/aligned_disk.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <rocksdb/file_system.h>

#include "common/crc32c.h"

namespace plumb::replay {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

constexpr size_t kPieceBytes = size_t{1} << 20;
constexpr size_t kReservedBytes = size_t{16} << 20;  // at a time; what is left over goes back when the file is closed
constexpr size_t kReadBytes = size_t{256} << 10;     // stays in the processor's cache until it is summed

struct Written {
  uint64_t bytes = 0;
  uint32_t sum = 0;  // of all of them
};

}  // namespace

class AlignedDisk::File : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  File(std::unique_ptr<rocksdb::FSWritableFile> file, Written* written)
      : FSWritableFileOwnerWrapper(std::move(file)), written_(written) {
    target()->SetPreallocationBlockSize(kReservedBytes);
  }

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    written_->bytes += data.size();
    written_->sum = Crc32c(data.data(), data.size(), written_->sum);
    for (size_t at = 0; at < data.size();) {
      const size_t n = std::min(data.size() - at, kPieceBytes - used_);
      std::memcpy(piece_.get() + used_, data.data() + at, n);
      at += n;
      used_ += n;
      if (used_ < kPieceBytes) break;
      if (IOStatus s = WritePiece(options, debug); !s.ok()) return s;
    }
    return IOStatus::OK();
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const rocksdb::DataVerificationInfo&, IODebugContext* debug) override {
    return Append(data, options, debug);
  }
  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    IOStatus s = WritePiece(options, debug);
    return s.ok() ? target()->Sync(options, debug) : s;
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    IOStatus s = WritePiece(options, debug);
    return s.ok() ? target()->Fsync(options, debug) : s;
  }
  IOStatus Close(const IOOptions& options, IODebugContext* debug) override {
    IOStatus s = WritePiece(options, debug);
    IOStatus closed = target()->Close(options, debug);
    return s.ok() ? closed : s;
  }
  uint64_t GetFileSize(const IOOptions&, IODebugContext*) override { return begin_ + used_; }
  void PrepareWrite(size_t, size_t, const IOOptions&, IODebugContext*) override {}  // WritePiece knows when

 private:
  IOStatus WritePiece(const IOOptions& options, IODebugContext* debug) {
    if (used_ == 0) return IOStatus::OK();
    target()->PrepareWrite(begin_, used_, options, debug);
    IOStatus s = target()->Append(Slice(piece_.get(), used_), options, debug);
    begin_ += used_;
    used_ = 0;
    return s;
  }

  Written* const written_;
  const std::unique_ptr<char[]> piece_ = std::make_unique_for_overwrite<char[]>(kPieceBytes);
  uint64_t begin_ = 0;  // of the piece in the file
  size_t used_ = 0;     // of the piece
};

class AlignedDisk::Files : public rocksdb::FileSystemWrapper {
 public:
  using FileSystemWrapper::FileSystemWrapper;
  const char* Name() const override { return "AlignedFiles"; }
  IOStatus NewWritableFile(const std::string& path, const FileOptions& options, std::unique_ptr<rocksdb::FSWritableFile>* out,
                           IODebugContext* debug) override {
    std::unique_ptr<rocksdb::FSWritableFile> file;
    IOStatus s = target()->NewWritableFile(path, options, &file, debug);
    if (!s.ok()) return s;
    newest_ = {};
    *out = std::make_unique<File>(std::move(file), &newest_);
    return s;
  }
  const Written& newest() const { return newest_; }

 private:
  Written newest_;
};

AlignedDisk::AlignedDisk(rocksdb::Env* below)
    : files_(std::make_shared<Files>(below->GetFileSystem())), env_(rocksdb::NewCompositeEnv(files_)) {}
AlignedDisk::~AlignedDisk() = default;

rocksdb::Status AlignedDisk::ReadBack(const std::string& path) const {
  std::unique_ptr<rocksdb::FSRandomAccessFile> file;
  if (IOStatus s = files_->NewRandomAccessFile(path, FileOptions(), &file, nullptr); !s.ok()) return s;
  const auto buffer = std::make_unique_for_overwrite<char[]>(kReadBytes);
  Written read;
  for (;;) {
    Slice part;
    if (IOStatus s = file->Read(read.bytes, kReadBytes, IOOptions(), &part, buffer.get(), nullptr); !s.ok()) return s;
    if (part.empty()) break;
    read.bytes += part.size();
    read.sum = Crc32c(part.data(), part.size(), read.sum);
  }
  const Written& given = files_->newest();
  if (read.bytes == given.bytes && read.sum == given.sum) return rocksdb::Status::OK();
  return rocksdb::Status::Corruption("the table file, read back, holds other bytes than were written", path);
}

}  // namespace plumb::replay

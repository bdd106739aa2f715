#include "replay/store/aligned_disk.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include <rocksdb/file_system.h>

#include "common/base/hash/crc32c.h"

namespace plumb::replay {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

constexpr size_t kPieceBytes = size_t{1} << 20;
// at a time; what is left over goes back when the file is closed
constexpr size_t kReservedBytes = size_t{16} << 20;
// stays in the processor's cache until it is summed
constexpr size_t kReadBytes = size_t{256} << 10;

class AlignedFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  AlignedFile(std::unique_ptr<rocksdb::FSWritableFile> file, rocksdb::FileSystem* disk,
              std::string path)
      : FSWritableFileOwnerWrapper(std::move(file)), disk_(disk), path_(std::move(path)) {
    target()->SetPreallocationBlockSize(kReservedBytes);
  }

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    for (size_t at = 0; at < data.size();) {
      const size_t n = std::min(data.size() - at, kPieceBytes - used_);
      sum_ = Crc32cCopy(data.data() + at, n, piece_.get() + used_, sum_);
      at += n;
      used_ += n;
      if (used_ < kPieceBytes) break;
      if (IOStatus s = WritePiece(options, debug); !s.ok()) return s;
    }
    return IOStatus::OK();
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const rocksdb::DataVerificationInfo&,
                  IODebugContext* debug) override {
    return Append(data, options, debug);
  }
  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    IOStatus s = ReadBack(options, debug);
    return s.ok() ? target()->Sync(options, debug) : s;
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    IOStatus s = ReadBack(options, debug);
    return s.ok() ? target()->Fsync(options, debug) : s;
  }
  IOStatus Close(const IOOptions& options, IODebugContext* debug) override {
    IOStatus s = WritePiece(options, debug);
    IOStatus closed = target()->Close(options, debug);
    return s.ok() ? closed : s;
  }
  uint64_t GetFileSize(const IOOptions&, IODebugContext*) override { return begin_ + used_; }
  // WritePiece knows when
  void PrepareWrite(size_t, size_t, const IOOptions&, IODebugContext*) override {}

 private:
  IOStatus WritePiece(const IOOptions& options, IODebugContext* debug) {
    if (used_ == 0) return IOStatus::OK();
    target()->PrepareWrite(begin_, used_, options, debug);
    IOStatus s = target()->Append(Slice(piece_.get(), used_), options, debug);
    begin_ += used_;
    used_ = 0;
    // while the processor's cache still holds what the kernel took
    return s.ok() ? ReadOn(options, debug) : s;
  }

  // What was written since the last call, as the file holds it.
  IOStatus ReadOn(const IOOptions& options, IODebugContext* debug) {
    if (!reader_) {
      IOStatus s = disk_->NewRandomAccessFile(path_, FileOptions(), &reader_, debug);
      if (!s.ok()) return s;
    }
    for (Slice part; read_ < begin_; read_ += part.size()) {
      IOStatus s = reader_->Read(read_, std::min<uint64_t>(kReadBytes, begin_ - read_), options,
                                 &part, buffer_.get(), debug);
      if (!s.ok()) return s;
      if (part.empty()) break;  // the sums will differ
      read_sum_ = Crc32c(part.data(), part.size(), read_sum_);
    }
    return IOStatus::OK();
  }

  IOStatus ReadBack(const IOOptions& options, IODebugContext* debug) {
    IOStatus s = WritePiece(options, debug);
    if (!s.ok()) return s;
    if (read_ == begin_ && read_sum_ == sum_) return IOStatus::OK();
    return IOStatus::Corruption("the table file, read back, holds other bytes than were written",
                                path_);
  }

  rocksdb::FileSystem* const disk_;
  const std::string path_;
  const std::unique_ptr<char[]> piece_ = std::make_unique_for_overwrite<char[]>(kPieceBytes);
  uint64_t begin_ = 0;  // of the piece in the file
  size_t used_ = 0;     // of the piece
  uint32_t sum_ = 0;    // of the file and the piece
  std::unique_ptr<rocksdb::FSRandomAccessFile> reader_;
  const std::unique_ptr<char[]> buffer_ = std::make_unique_for_overwrite<char[]>(kReadBytes);
  uint64_t read_ = 0;      // bytes read back
  uint32_t read_sum_ = 0;  // of them
};

class AlignedDisk : public rocksdb::FileSystemWrapper {
 public:
  using FileSystemWrapper::FileSystemWrapper;
  const char* Name() const override { return "AlignedDisk"; }
  IOStatus NewWritableFile(const std::string& path, const FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* out,
                           IODebugContext* debug) override {
    std::unique_ptr<rocksdb::FSWritableFile> file;
    IOStatus s = target()->NewWritableFile(path, options, &file, debug);
    if (s.ok()) *out = std::make_unique<AlignedFile>(std::move(file), target(), path);
    return s;
  }
};

}  // namespace

std::unique_ptr<rocksdb::Env> MakeAlignedDisk(rocksdb::Env* below) {
  return rocksdb::NewCompositeEnv(std::make_shared<AlignedDisk>(below->GetFileSystem()));
}

}  // namespace plumb::replay

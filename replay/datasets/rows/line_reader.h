// Lines of a text file, plain or gzip, with bounds.
//
// Thread safety: none, one reader a thread. Errors: kNotFound, kIo; kCorruption for a damaged or
// cut gzip stream, naming the line, and for one that unpacks to more than kMaxUnpack times its
// size. A line longer than `max_line_bytes` is not an error of the file: it is skipped and said so.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

struct gzFile_s;

namespace plumb::replay {

// Past kUnpackFree bytes a gzip file may unpack to so many times the packed bytes read: rows of
// text pack 3 to 50 fold; a megabyte that unpacks to a gigabyte is a trap.
inline constexpr uint64_t kMaxUnpack = 100, kUnpackFree = uint64_t{8} << 20;

// The bytes of a file, unpacked where it is gzip. Errors as of LineReader, without a line.
class ByteSource {
 public:
  static constexpr size_t kPadding = 64;
  explicit ByteSource(const std::string& path);
  ~ByteSource();
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;
  // -1: the end
  int Peek() { return begin_ == end_ && !Fill() ? -1 : static_cast<uint8_t>(buffer_[begin_]); }
  int Get() { return begin_ == end_ && !Fill() ? -1 : static_cast<uint8_t>(buffer_[begin_++]); }
  // What lies in the buffer, never empty before the end, with kPadding readable bytes behind it;
  // Skip takes it away.
  std::string_view Chunk() {
    return begin_ == end_ && !Fill() ? std::string_view()
                                     : std::string_view(buffer_.data() + begin_, end_ - begin_);
  }
  void Skip(size_t n) { begin_ += n; }
  double Progress() const;  // part of the file, 0 .. 1

 private:
  bool Fill();
  const std::string path_;
  gzFile_s* file_ = nullptr;
  uint64_t size_ = 0;
  uint64_t unpacked_ = 0;  // bytes given so far
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
};

class LineReader {
 public:
  static constexpr size_t kDefaultMaxLine = size_t{16} << 20;
  static constexpr size_t kPadding = ByteSource::kPadding;
  explicit LineReader(const std::string& path, size_t max_line_bytes = kDefaultMaxLine);

  // False at the end. `line` has neither its line end (LF or CRLF) nor, on the first line, a byte
  // order mark; it is empty and too_long() true where it exceeds the bound.
  bool Next(std::string& line);
  // The same where it lies, without a copy: until the next call, with kPadding readable bytes
  // behind it.
  bool Next(std::string_view& line);
  bool too_long() const { return too_long_; }
  int64_t line_number() const { return line_number_; }  // of the last line, from 1
  std::string Where() const;                            // "file:line"
  double Progress() const { return bytes_.Progress(); }

 private:
  const std::string path_;
  const size_t max_line_bytes_;
  ByteSource bytes_;
  std::string torn_;  // a line that does not lie in the buffer in one piece
  int64_t line_number_ = 0;
  bool too_long_ = false;
};

}  // namespace plumb::replay

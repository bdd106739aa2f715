// Lines of a text file, plain or gzip, with bounds.
//
// Thread safety: none, one reader a thread. Errors: kNotFound, kIo; kCorruption for a damaged or cut gzip stream, naming
// the line. A line longer than `max_line_bytes` is not an error of the file: it is skipped and said so.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

struct gzFile_s;

namespace plumb::replay {

class LineReader {
 public:
  static constexpr size_t kDefaultMaxLine = size_t{16} << 20;
  explicit LineReader(const std::string& path, size_t max_line_bytes = kDefaultMaxLine);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // False at the end. `line` has neither its line end (LF or CRLF) nor, on the first line, a byte order mark; it is
  // empty and too_long() true where it exceeds the bound.
  bool Next(std::string& line);
  bool too_long() const { return too_long_; }
  int64_t line_number() const { return line_number_; }  // of the last line, from 1
  std::string Where() const;                            // "file:line"

 private:
  bool Fill();

  const std::string path_;
  const size_t max_line_bytes_;
  gzFile_s* file_ = nullptr;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
  int64_t line_number_ = 0;
  bool too_long_ = false;
};

// RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
bool IsUtf8(std::string_view bytes);

}  // namespace plumb::replay

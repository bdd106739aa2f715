// The lines of a file that another process writes, as they come.
//
// Purpose: each line is read once, however large the file has become; a last line that is not whole
// yet waits for its end. A file that was replaced, cut or rewritten (what a resume does to those of
// a run) is noticed and read anew: by its inode, its size, and the bytes before the place read to.
// Thread safety: one thread. Ownership: the file is open only during a Read. Errors: none: a file
// that is not there, or is no regular file, has no lines; a line longer than kMaxLineBytes is
// passed over and counted.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace plumb::run {

class LineTail {
 public:
  static constexpr size_t kMaxLineBytes = size_t{64} << 20;
  // Behind the lines that are handed out so many bytes may be read (not used): simdjson does.
  static constexpr size_t kPadding = 64;

  explicit LineTail(std::string path) : path_(std::move(path)) {}

  // Whole lines, each with its end, and where in the file they begin.
  using Lines = std::function<void(std::string_view lines, uint64_t at)>;
  // Calls `anew` when what was read before is no longer what the file begins with, then `lines` for
  // what is new. True when either was called.
  // `size`, if given, is told how large the file is, before its lines.
  bool Read(const std::function<void()>& anew, const Lines& lines,
            const std::function<void(uint64_t bytes)>& size = nullptr);

  uint64_t offset() const { return offset_; }       // bytes read so far
  uint64_t passed_over() const { return passed_; }  // lines that were too long

 private:
  bool StillTheSame(int file, uint64_t size) const;
  void Begin();

  const std::string path_;
  uint64_t offset_ = 0;
  std::string before_;  // the bytes just before offset_
  bool in_long_line_ = false;
  uint64_t passed_ = 0;
  // What stat said at the end of the last Read: nothing to do while it says so again.
  dev_t device_ = 0;
  ino_t inode_ = 0;
  uint64_t size_ = 0;
  int64_t changed_ns_ = -1;
};

}  // namespace plumb::run

#include "run/board/line_tail.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

namespace plumb::run {
namespace {

constexpr size_t kChunkBytes = size_t{4} << 20;
constexpr size_t kBefore = 64;  // bytes that are compared; a line has its step and time within them

int64_t ChangedNs(const struct stat& s) {
  return int64_t{s.st_mtim.tv_sec} * 1'000'000'000 + s.st_mtim.tv_nsec;
}

// Bytes read; fewer only at the end of the file or when it cannot be read.
size_t ReadAt(int file, char* to, size_t bytes, uint64_t at) {
  size_t done = 0;
  while (done < bytes) {
    const ssize_t n = pread(file, to + done, bytes - done, static_cast<off_t>(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

struct Closer {
  int file;
  ~Closer() { close(file); }
};

}  // namespace

void LineTail::Begin() {
  offset_ = passed_ = 0;
  before_.clear();
  in_long_line_ = false;
}

bool LineTail::StillTheSame(int file, uint64_t size) const {
  if (size < offset_) return false;
  char now[kBefore];
  const size_t n = ReadAt(file, now, before_.size(), offset_ - before_.size());
  return std::string_view(now, n) == before_;
}

bool LineTail::Read(const std::function<void()>& anew, const Lines& lines,
                    const std::function<void(uint64_t)>& size_is) {
  struct stat s {};
  // not to hang on a pipe, or to open it at all
  const int file = stat(path_.c_str(), &s) == 0 && S_ISREG(s.st_mode)
                       ? open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)
                       : -1;
  if (file < 0 || fstat(file, &s) != 0 || !S_ISREG(s.st_mode)) {
    if (file >= 0) close(file);
    changed_ns_ = -1;
    if (offset_ == 0) return false;
    Begin();  // it was removed
    anew();
    return true;
  }
  const Closer closer{file};
  const auto size = static_cast<uint64_t>(s.st_size);
  const bool same_file = s.st_dev == device_ && s.st_ino == inode_;
  if (same_file && size == size_ && ChangedNs(s) == changed_ns_) return false;
  bool told = false;
  if (offset_ > 0 && (!same_file || !StillTheSame(file, size))) {
    Begin();
    anew();
    told = true;
  }
  device_ = s.st_dev;
  inode_ = s.st_ino;
  size_ = size;
  changed_ns_ = ChangedNs(s);
  if (size_is) size_is(size);

  std::vector<char> buffer;
  size_t want = std::min<uint64_t>(kChunkBytes, size - offset_ + 1);
  while (offset_ < size) {
    if (buffer.size() < want + kPadding) buffer.resize(want + kPadding);
    const size_t n = ReadAt(file, buffer.data(), want, offset_);
    if (n == 0) break;
    const std::string_view got(buffer.data(), n);
    const size_t end = got.rfind('\n');
    if (end == std::string_view::npos) {
      if (n < want) break;  // the last line is not whole yet
      if (in_long_line_ || want >= kMaxLineBytes) {
        in_long_line_ = true;
        offset_ += n;
        before_.assign(got.substr(n - std::min(n, kBefore)));
        continue;
      }
      want = std::min(want * 2, kMaxLineBytes);
      continue;
    }
    std::string_view whole = got.substr(0, end + 1);
    uint64_t at = offset_;
    if (in_long_line_) {
      const size_t rest = whole.find('\n') + 1;
      whole.remove_prefix(rest);
      at += rest;
      ++passed_;
      in_long_line_ = false;
    }
    offset_ += end + 1;
    const std::string_view read = got.substr(0, end + 1);
    before_.assign(read.substr(read.size() - std::min(read.size(), kBefore)));
    if (!whole.empty()) {
      lines(whole, at);
      told = true;
    }
  }
  return told;
}

}  // namespace plumb::run

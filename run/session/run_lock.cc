#include "run/session/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "common/base/error.h"
#include "common/base/file.h"

namespace plumb::run {
namespace {

// The process that wrote its number into the file; empty: none is there.
std::string HolderOf(int file) {
  char text[32] = {};
  const ssize_t n = pread(file, text, sizeof text - 1, 0);
  std::string number(text, n > 0 ? static_cast<size_t>(n) : 0);
  number.erase(number.find_last_not_of('\n') + 1);
  return number;
}

// Somebody who only asks (IsHeld) has it for an instant: that is waited out.
constexpr int kTries = 20;
constexpr std::chrono::milliseconds kBetween{10};

bool Lock(int file) {
  for (int tries = 1; flock(file, LOCK_EX | LOCK_NB) != 0; ++tries) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK || tries == kTries) return false;
    std::this_thread::sleep_for(kBetween);
  }
  return true;
}

// The open file is the one of that name.
bool Same(int file, const std::string& path) {
  struct stat mine {
  }, there{};
  return fstat(file, &mine) == 0 && stat(path.c_str(), &there) == 0 &&
         mine.st_ino == there.st_ino && mine.st_dev == there.st_dev;
}

}  // namespace

bool RunLock::IsHeld(const std::string& folder) {
  const std::string path = folder + "/" + kFile;
  struct stat s {};
  if (stat(path.c_str(), &s) != 0 || !S_ISREG(s.st_mode)) return false;
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return false;
  const bool held = flock(file, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  close(file);
  return held;
}

bool RunLock::IsOf(const std::string& folder) const {
  return file_ >= 0 && Same(file_, folder + "/" + kFile);
}

RunLock::RunLock(const std::string& folder) {
  const std::string path = folder + "/" + kFile;
  for (;;) {
    const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0) ThrowFileError(errno, "cannot open the lock of the run folder", path);
    if (!Lock(file)) {
      const int code = errno;
      const std::string holder = HolderOf(file);
      close(file);
      if (code != EWOULDBLOCK) ThrowFileError(code, "cannot lock the run folder", path);
      throw Error(ErrorCode::kConflict,
                  "a run is going on in this folder" +
                      (holder.empty() ? "" : " (process " + holder + ")") +
                      ": wait for its end, stop it, or choose another --out",
                  folder);
    }
    if (Same(file, path)) {
      // For messages only: a full disk is for the run itself to find.
      const std::string number = std::to_string(getpid()) + "\n";
      if (ftruncate(file, 0) == 0) {
        [[maybe_unused]] const ssize_t written = pwrite(file, number.data(), number.size(), 0);
      }
      file_ = file;
      return;
    }
    close(file);  // the folder was replaced between the two calls
  }
}

RunLock::~RunLock() {
  if (file_ >= 0) close(file_);
}

RunLock::RunLock(RunLock&& other) noexcept : file_(std::exchange(other.file_, -1)) {}

RunLock& RunLock::operator=(RunLock&& other) noexcept {
  std::swap(file_, other.file_);
  return *this;
}

}  // namespace plumb::run

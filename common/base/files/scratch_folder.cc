#include "common/base/files/scratch_folder.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <system_error>

#include "common/base/error.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

// Between making a folder and locking it nobody holds it.
constexpr int64_t kYoungSeconds = 60;

// The lock of a folder, which ends with the process that has it; -1: another has it.
int Hold(const std::string& folder) {
  const int held = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (held < 0 || ::flock(held, LOCK_EX | LOCK_NB) == 0) return held;
  ::close(held);
  return -1;
}

void RemoveAbandoned(const fs::path& beginning) {
  const std::string name = beginning.filename().string() + "-";
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(beginning.parent_path(), failed)) {
    const std::string other = entry.path().filename().string();
    struct stat status {};
    if (other.size() != name.size() + 6 || !other.starts_with(name) ||
        ::lstat(entry.path().c_str(), &status) != 0 || !S_ISDIR(status.st_mode) ||
        status.st_uid != ::geteuid() || std::time(nullptr) - status.st_mtime < kYoungSeconds)
      continue;
    const int held = Hold(entry.path());
    if (held < 0) continue;
    std::error_code ignored;
    fs::remove_all(entry.path(), ignored);
    ::close(held);
  }
}

}  // namespace

fs::path TemporaryFolder() {
  std::error_code failed;
  fs::path folder = fs::temp_directory_path(failed);
  if (!failed) return folder;
  const char* named = std::getenv("TMPDIR");
  throw Error(ErrorCode::kIo, "there is no folder for temporary files: set TMPDIR to one",
              named ? std::string("TMPDIR = ") + named : "/tmp");
}

ScratchFolder::ScratchFolder(const fs::path& beginning) : path_(beginning.string() + "-XXXXXX") {
  RemoveAbandoned(beginning);
  if (::mkdtemp(path_.data()) == nullptr)
    throw Error(ErrorCode::kIo,
                std::string("cannot make a temporary folder: ") + std::strerror(errno), path_);
  held_ = Hold(path_);
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  if (held_ >= 0) ::close(held_);
}

}  // namespace plumb

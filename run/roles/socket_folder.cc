#include "run/roles/socket_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;

constexpr char kPrefix[] = "plumb-";
constexpr size_t kRandom = 6;        // characters that mkdtemp chooses
constexpr size_t kLongestBase = 60;  // bytes

std::string Base() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  const std::string base = runtime && fs::is_directory(runtime) ? runtime : "/tmp";
  return base.size() > kLongestBase ? "/tmp" : base;
}

// The owner's lock of that folder; -1: somebody holds it, or there is none.
int LockOf(const std::string& folder) {
  const int file =
      open((folder + "/" + SocketFolder::kOwner).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (file < 0) return -1;
  if (flock(file, LOCK_EX | LOCK_NB) == 0) return file;
  close(file);
  return -1;
}

}  // namespace

int RemoveAbandonedSocketFolders(const std::string& base) {
  int removed = 0;
  std::error_code ignored;
  for (const auto& entry :
       fs::directory_iterator(base, fs::directory_options::skip_permission_denied, ignored)) {
    const std::string name = entry.path().filename().string(), path = entry.path().string();
    struct stat info {};
    if (!name.starts_with(kPrefix) || name.size() != sizeof kPrefix - 1 + kRandom) continue;
    if (lstat(path.c_str(), &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != geteuid())
      continue;
    const int lock = LockOf(path);
    if (lock < 0) continue;
    fs::remove_all(path, ignored);
    close(lock);
    ++removed;
  }
  return removed;
}

SocketFolder::SocketFolder() : SocketFolder(Base()) {}

SocketFolder::SocketFolder(const std::string& base) {
  RemoveAbandonedSocketFolders(base);
  std::string name = base + "/" + kPrefix + std::string(kRandom, 'X');
  if (!mkdtemp(name.data()))
    throw Error(ErrorCode::kIo, "cannot make a private folder for sockets", base);
  path_ = name;
  // Under its name only once it is locked: nobody takes it for one whose owner has ended.
  const std::string making = path_ + "/making";
  owner_ = open(making.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (owner_ < 0 || flock(owner_, LOCK_EX | LOCK_NB) != 0 ||
      rename(making.c_str(), (path_ + "/" + kOwner).c_str()) != 0) {
    const int code = errno;
    if (owner_ >= 0) close(owner_);
    std::error_code ignored;
    fs::remove_all(path_, ignored);
    ThrowFileError(code, "cannot lock the folder for sockets", path_);
  }
}

SocketFolder::~SocketFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  close(owner_);
}

}  // namespace plumb::run

#include "common/base/free_memory.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <optional>

namespace plumb {
namespace {

// The number behind `key` on a line of its own; an empty key: the file's first word.
std::optional<int64_t> NumberIn(const std::string& path, const std::string& key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const size_t at = line.find_first_of("0123456789", key.size());
    if (at == std::string::npos) return std::nullopt;  // "max"
    return std::strtoll(line.c_str() + at, nullptr, 10);
  }
  return std::nullopt;
}

// The control group of this process below /sys/fs/cgroup: "/", "/a/b".
std::string OwnGroup(const std::string& root) {
  std::ifstream in(root + "/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("0::")) return line.substr(3);
  }
  return "/";
}

}  // namespace

int64_t FreeHostBytes(const std::string& root) {
  int64_t free = INT64_MAX;
  if (const auto kilobytes = NumberIn(root + "/proc/meminfo", "MemAvailable:"))
    free = *kilobytes * 1024;
  const std::string mount = root + "/sys/fs/cgroup";
  // Each group's limit holds for those below it, too. In a container its own is the root.
  std::string group = OwnGroup(root);
  while (true) {
    const std::string folder = mount + (group == "/" ? "" : group);
    if (const auto limit = NumberIn(folder + "/memory.max", "")) {
      const int64_t used = NumberIn(folder + "/memory.current", "").value_or(0) -
                           NumberIn(folder + "/memory.stat", "inactive_file ").value_or(0);
      free = std::min(free, std::max<int64_t>(0, *limit - std::max<int64_t>(0, used)));
    }
    const size_t slash = group.rfind('/');
    if (group.size() <= 1 || slash == std::string::npos) break;
    group.resize(std::max<size_t>(1, slash));
  }
  return free;
}

int64_t ResidentBytes() {
  std::ifstream in("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  in >> pages >> resident;
  return in ? resident * sysconf(_SC_PAGESIZE) : 0;
}

}  // namespace plumb

#include "common/sandbox/process_watch.h"

#include <dirent.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace plumb {
namespace {

constexpr auto kEvery = std::chrono::milliseconds(50);
constexpr int64_t kClearlyMore = 16;
// looks after which a count is made, whatever the number of tasks: others may have ended meanwhile
constexpr int kAnyway = 10;

// All tasks of the machine: the number behind the slash in /proc/loadavg. 0: not known.
int64_t Tasks() {
  int64_t tasks = 0;
  if (FILE* file = std::fopen("/proc/loadavg", "re")) {
    if (std::fscanf(file, "%*s %*s %*s %*d/%ld", &tasks) != 1) tasks = 0;
    std::fclose(file);
  }
  return tasks;
}

std::string Namespace(const std::string& pid) {
  char link[64];
  const ssize_t n = readlink(("/proc/" + pid + "/ns/pid").c_str(), link, sizeof link);
  return n > 0 ? std::string(link, static_cast<size_t>(n)) : "";
}

std::string FirstChild(pid_t leader) {
  const std::string number = std::to_string(leader);
  char child[32] = "";
  if (FILE* file =
          std::fopen(("/proc/" + number + "/task/" + number + "/children").c_str(), "re")) {
    if (std::fscanf(file, "%31s", child) != 1) child[0] = '\0';
    std::fclose(file);
  }
  return child;
}

// Namespace -> processes in it.
std::map<std::string, int64_t> Census() {
  std::map<std::string, int64_t> out;
  if (DIR* directory = opendir("/proc")) {
    while (const dirent* entry = readdir(directory)) {
      if (entry->d_name[0] < '0' || entry->d_name[0] > '9') continue;
      if (const std::string where = Namespace(entry->d_name); !where.empty()) ++out[where];
    }
    closedir(directory);
  }
  return out;
}

}  // namespace

ProcessWatch& ProcessWatch::Get() {
  static ProcessWatch watch;
  return watch;
}

ProcessWatch::~ProcessWatch() {
  {
    MutexLock lock(mu_);
    closing_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void ProcessWatch::Add(pid_t leader, int64_t most) {
  MutexLock lock(mu_);
  watched_[leader] = {.most = most};
  if (!thread_.joinable()) thread_ = std::thread([this] { Loop(); });
  wake_.notify_all();
}

bool ProcessWatch::Remove(pid_t leader) {
  MutexLock lock(mu_);
  const auto it = watched_.find(leader);
  if (it == watched_.end()) return false;
  const bool killed = it->second.killed;
  watched_.erase(it);
  return killed;
}

void ProcessWatch::Loop() {
  MutexLock lock(mu_);
  while (!closing_) {
    if (watched_.empty()) {
      fewest_ = -1;
      wake_.wait(lock, [this]() PLUMB_REQUIRES(mu_) { return closing_ || !watched_.empty(); });
    } else {
      wake_.wait_until(lock, std::chrono::steady_clock::now() + kEvery,
                       [this]() PLUMB_REQUIRES(mu_) { return closing_; });
      Look();
    }
  }
}

void ProcessWatch::Look() {
  const int64_t tasks = Tasks();
  if (fewest_ < 0 || tasks < fewest_) fewest_ = tasks;
  int64_t least = INT64_MAX;
  for (const auto& [leader, watched] : watched_) least = std::min(least, watched.most);
  const bool few = tasks > 0 && fewest_ > 0 && tasks - fewest_ < std::min(least, kClearlyMore);
  if (few && ++looks_ < kAnyway) return;
  looks_ = 0;
  const auto census = Census();
  const std::string own = Namespace("self");
  for (auto& [leader, watched] : watched_) {
    const std::string where = Namespace(FirstChild(leader));
    const auto it = census.find(where);
    if (where.empty() || where == own || it == census.end() || it->second <= watched.most) continue;
    watched.killed = true;
    kill(-leader, SIGKILL);
    kill(leader, SIGKILL);
  }
}

}  // namespace plumb

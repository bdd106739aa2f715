#include "run/roles/supervisor.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "learner/ranks/rank_mesh.h"

namespace plumb::run {

using SteadyClock = std::chrono::steady_clock;

constexpr int kStoppedCode = 7;  // run/commands/cli.h

Supervisor::Supervisor(std::string program, std::vector<RoleProcess> roles, std::string pid_file)
    : program_(std::move(program)), pid_file_(std::move(pid_file)) {
  for (RoleProcess& role : roles)
    children_.push_back({.role = std::move(role), .pid = -1, .deaths = {}});
}

Supervisor::~Supervisor() {
  for (Child& child : children_) {
    if (child.pid > 0) {
      kill(child.pid, SIGKILL);
      waitpid(child.pid, nullptr, 0);
    }
  }
}

int Supervisor::RankOf(const Child& child) const {
  int rank = 0;
  for (const Child& each : children_) {
    if (&each == &child) break;
    if (each.role.group == child.role.group) ++rank;
  }
  return rank;
}

void Supervisor::Start(Child& child, bool again) {
  // Everything that allocates happens before fork: another thread may hold the allocator's lock.
  const std::vector<std::string>& arguments = again ? child.role.again : child.role.arguments;
  std::vector<char*> argv;
  argv.push_back(const_cast<char*>(program_.c_str()));
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  // Until its exec the child is this program with its handlers: a signal to it waits until they are
  // gone, and then ends it, instead of being taken by them and lost.
  sigset_t asks, before;
  sigemptyset(&asks);
  for (const int signal : {SIGINT, SIGTERM, SIGALRM}) sigaddset(&asks, signal);
  pthread_sigmask(SIG_BLOCK, &asks, &before);
  const pid_t pid = fork();
  if (pid != 0) pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) {
    throw Error(ErrorCode::kUnavailable,
                std::string("cannot start a process: ") + std::strerror(errno), child.role.name);
  }
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);  // the supervisor died in between
    setpgid(0, 0);  // Ctrl-C reaches the supervisor alone, which ends the roles in order
    for (const int number : {SIGINT, SIGTERM, SIGALRM}) signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    execv(program_.c_str(), argv.data());
    _exit(127);
  }
  child.pid = pid;
  WritePids();
}

void Supervisor::WritePids() const {
  nlohmann::json pids = nlohmann::json::object();
  for (const Child& child : children_) pids[child.role.name] = child.pid;
  RealFileSystem().WriteFileAtomic(pid_file_, pids.dump() + "\n");
}

void Supervisor::PassOn(const std::atomic<bool>& stop, const std::atomic<bool>* at_once) {
  if (stop.load() && !asked_) asked_ = true;
  else if (asked_ && !asked_again_ && at_once && at_once->load()) asked_again_ = true;
  else return;
  for (Child& child : children_) {
    if (child.role.decides && child.pid > 0) kill(child.pid, SIGTERM);
  }
}

void Supervisor::StopOthers(const std::atomic<bool>* at_once) {
  for (Child& child : children_) {
    if (child.pid > 0) kill(child.pid, SIGTERM);
  }
  const auto begin = SteadyClock::now();
  // A person who stopped the run does not wait for roles that keep nothing.
  const auto patience = [&] {
    return at_once && at_once->load() ? kAtOnce : asked_ ? kAsked : kInOrder;
  };
  for (;;) {
    bool any = false;
    for (Child& child : children_) {
      if (child.pid <= 0) continue;
      if (waitpid(child.pid, nullptr, WNOHANG) == child.pid) child.pid = -1;
      else any = true;
    }
    if (!any) return;
    if (SteadyClock::now() > begin + patience()) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  for (Child& child : children_) {
    if (child.pid <= 0) continue;
    const std::string line = "role " + child.role.name + " did not end within " +
                             std::to_string(patience().count()) + " s of SIGTERM: killed";
    asked_ ? LogInfo(line) : LogWarning(line);
    kill(child.pid, SIGKILL);
    waitpid(child.pid, nullptr, 0);
    child.pid = -1;
  }
}

std::optional<int> Supervisor::EndGroup(const std::string& group, const std::atomic<bool>& stop,
                                        const std::atomic<bool>* at_once) {
  std::optional<int> failed;
  if (group.empty()) return failed;
  const auto begin = SteadyClock::now();
  std::optional<SteadyClock::time_point> told;  // those that do not decide, to end
  const auto deadline = [&](const Child& child) {
    if (!told) return begin + kGroup;
    if (at_once && at_once->load()) return *told + kAtOnce;
    return child.role.decides ? begin + kGroup : *told + kAsked;
  };
  for (bool any = true; any;) {
    any = false;
    PassOn(stop, at_once);
    if (asked_ && !told) {
      // A rank may still wait for the one that is gone.
      told = SteadyClock::now();
      for (Child& child : children_) {
        if (child.role.group == group && child.pid > 0 && !child.role.decides)
          kill(child.pid, SIGTERM);
      }
    }
    for (Child& child : children_) {
      if (child.role.group != group || child.pid <= 0) continue;
      int status = 0;
      pid_t ended = waitpid(child.pid, &status, WNOHANG);
      if (ended != child.pid && SteadyClock::now() > deadline(child)) {
        LogWarning("role " + child.role.name + " did not end in time after " +
                   (asked_ ? "a stop" : "the loss of another rank") + ": killed");
        kill(child.pid, SIGKILL);
        ended = waitpid(child.pid, &status, 0);
      }
      if (ended != child.pid) {
        any = true;
        continue;
      }
      child.pid = -1;
      const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
      const bool stopped = asked_ && code == kStoppedCode && !child.role.decides;
      if (code != 0 && code != child.role.lost_code && !stopped) failed = code;
    }
    if (any) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return failed;
}

int Supervisor::Run(const std::atomic<bool>& stop, const std::atomic<bool>* at_once) {
  for (Child& child : children_) Start(child, false);
  for (;;) {
    PassOn(stop, at_once);
    for (Child& child : children_) {
      if (child.pid <= 0) continue;
      int status = 0;
      if (waitpid(child.pid, &status, WNOHANG) != child.pid) continue;
      child.pid = -1;
      const bool killed = !WIFEXITED(status), grouped = !child.role.group.empty();
      const int code = killed ? 0 : WEXITSTATUS(status);
      const bool lost = !killed && grouped && code == child.role.lost_code;
      // An actor that found the run finished, or a rank that has done its part.
      if (!killed && code == 0 && !child.role.decides) continue;
      std::optional<int> failed;  // of its group
      if (killed || lost || !child.role.decides) failed = EndGroup(child.role.group, stop, at_once);
      if (failed || !(killed || lost)) {
        const int with = failed && lost ? *failed : code;
        if (with != 0 && !child.role.decides)
          LogWarning("role " + child.role.name + " ended with exit code " + std::to_string(with));
        StopOthers(at_once);
        return killed ? *failed : with;
      }
      const int signal = killed ? WTERMSIG(status) : 0;
      const std::string how =
          killed ? "was killed by signal " + std::to_string(signal) + " (" + strsignal(signal) + ")"
                 : "lost another rank";
      const auto now = SteadyClock::now();
      child.deaths.push_back(now);
      std::erase_if(child.deaths, [&](auto t) { return now - t > kRestartWindow; });
      if (asked_ || child.deaths.size() > kMaxRestarts) {
        StopOthers(at_once);
        if (asked_) {
          if (!killed) return code;
          if (signal != SIGTERM) return 128 + signal;
          stopped_before_it_began_ =
              child.role.decides;  // our own signal, before it had a handler for it
          return kStoppedCode;
        }
        const std::string message = (killed ? "killed " : "ended ") +
                                    std::to_string(child.deaths.size()) +
                                    " times within 60 s, at last because it " + how +
                                    "; see its log in the run's logs folder";
        if (grouped) throw learner::RankLost(RankOf(child), child.role.name + ": " + message);
        throw Error(ErrorCode::kUnavailable, message, child.role.name);
      }
      ++restarts_;
      LogWarning("role " + child.role.name + " " + how + ": starting " +
                 (grouped ? "all of " + child.role.group : "it") + " again");
      for (Child& each : children_) {
        if (&each == &child || (grouped && each.role.group == child.role.group)) Start(each, true);
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace plumb::run

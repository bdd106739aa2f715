#include "run/roles/follow/metrics_follower.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"

namespace plumb::run {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr int kNice = 10;  // a tracker gives way to the run
constexpr size_t kLogTail = 400;

std::string HowItEnded(int status) {
  if (WIFSIGNALED(status)) return "signal " + std::to_string(WTERMSIG(status));
  return "exit code " + std::to_string(WEXITSTATUS(status));
}

}  // namespace

MetricsFollower::MetricsFollower(configs::Follow to, const RunFolder& folder,
                                 const std::string& python)
    : to_(configs::NameOf(to)), run_(folder.path), log_(folder.logs() + "/follow.log") {
  PLUMB_CHECK(to != configs::Follow::kNone);
  try {
    Start(python);
    WaitUntilReady(python);
  } catch (...) {
    Kill();
    throw;
  }
}

MetricsFollower::~MetricsFollower() { Kill(); }

void MetricsFollower::Start(const std::string& python) {
  RealFileSystem().CreateDirectories(log_.substr(0, log_.rfind('/')));
  RealFileSystem().OpenAppend(log_, /*truncate=*/true);
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0)
    throw Error(ErrorCode::kUnavailable, std::string("no pipe: ") + std::strerror(errno));
  input_ = in[1];
  if (pipe2(out, O_CLOEXEC) != 0) {
    close(in[0]);
    throw Error(ErrorCode::kUnavailable, std::string("no pipe: ") + std::strerror(errno));
  }
  ready_ = out[0];

  const std::string script(FollowMetricsScript());
  const std::vector<std::string> words = {python, "-c", script, run_, "--to", to_, "--with-run"};
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  posix_spawn_file_actions_addopen(&actions, 2, log_.c_str(), O_WRONLY | O_APPEND, 0);
  // Not the run's lock, nor its sockets.
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  // A session of its own: Ctrl-C is for the run, which ends it in order.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  const int error =
      posix_spawnp(&pid_, python.c_str(), &actions, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  close(in[0]);
  close(out[1]);
  if (error != 0) {
    pid_ = -1;
    throw Error(ErrorCode::kUnavailable,
                "metrics.follow = \"" + to_ + "\" needs " + python + ": " + std::strerror(error) +
                    ". Put a Python into the PATH, or set metrics.follow = \"none\"",
                python);
  }
  setpriority(PRIO_PROCESS, static_cast<id_t>(pid_), kNice);
}

void MetricsFollower::WaitUntilReady(const std::string& python) {
  constexpr std::string_view kWord = "ready\n";
  std::string got;
  const auto deadline = SteadyClock::now() + kReady;
  while (got.find(kWord) == std::string::npos) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - SteadyClock::now());
    pollfd look{.fd = ready_, .events = POLLIN, .revents = 0};
    const int found = poll(&look, 1, static_cast<int>(std::max<int64_t>(0, left.count())));
    if (found < 0 && errno == EINTR) continue;
    char bytes[256];
    const ssize_t n = found > 0 ? read(ready_, bytes, sizeof bytes) : 0;
    if (n > 0) {
      got.append(bytes, static_cast<size_t>(n));
      continue;
    }
    Kill();
    const std::string words = LastWords();
    throw Error(ErrorCode::kUnavailable,
                "metrics.follow = \"" + to_ + "\": " +
                    (found == 0 ? python + " did not load its package within " +
                                      std::to_string(kReady.count()) + " s"
                     : words.empty() ? python + " ended by " + HowItEnded(status_)
                                     : words) +
                    ". Start the run where `python3` has the package, or set metrics.follow = "
                    "\"none\"",
                log_);
  }
  close(ready_);
  ready_ = -1;
}

void MetricsFollower::Begin() {
  if (Ended()) return;
  // The pipe is empty and takes a byte without waiting; SIGPIPE would be the run's end.
  sigset_t pipe, before;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, &before);
  const bool told = write(input_, "\n", 1) == 1;
  if (!told) {
    const timespec at_once{};
    sigtimedwait(&pipe, nullptr, &at_once);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

bool MetricsFollower::Ended() {
  if (pid_ <= 0) return true;
  if (waitpid(pid_, &status_, WNOHANG) != pid_) return false;
  pid_ = -1;
  return true;
}

std::string MetricsFollower::Rest() const {
  return "; the run goes by metrics.jsonl alone. See " + log_ +
         "; `python3 tools/follow_metrics.py " + run_ + " --to " + to_ + "` tells the rest";
}

std::string MetricsFollower::Look() {
  if (said_ || !Ended()) return "";
  said_ = true;
  const std::string words = LastWords();
  return to_ + " is told no more (" + HowItEnded(status_) + (words.empty() ? "" : ": " + words) +
         ")" + Rest();
}

std::string MetricsFollower::Finish(std::chrono::milliseconds patience) {
  if (said_) return "";
  if (Ended()) return Look();
  close(input_);
  input_ = -1;
  const auto deadline = SteadyClock::now() + patience;
  while (!Ended() && SteadyClock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  said_ = true;
  if (pid_ > 0) {
    Kill();
    return to_ + " did not take the last metrics within " +
           std::to_string(std::chrono::duration_cast<std::chrono::seconds>(patience).count()) +
           " s and was left" + Rest();
  }
  if (status_ == 0) return "";
  const std::string words = LastWords();
  return to_ + " was not told all (" + HowItEnded(status_) + (words.empty() ? "" : ": " + words) +
         ")" + Rest();
}

std::string MetricsFollower::LastWords() const {
  std::string text;
  try {
    text = RealFileSystem().ReadFile(log_, 64 << 20);
  } catch (const Error&) {
    return "";
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  text = text.substr(text.rfind('\n') + 1);  // npos + 1 is 0
  return text.substr(0, kLogTail);
}

void MetricsFollower::Kill() {
  for (int* fd : {&input_, &ready_}) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
  }
  if (pid_ <= 0) return;
  kill(-pid_, SIGKILL);  // with what a tracker started
  waitpid(pid_, &status_, 0);
  pid_ = -1;
}

}  // namespace plumb::run

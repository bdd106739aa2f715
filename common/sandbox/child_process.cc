#include "common/sandbox/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>

#include "common/base/error.h"
#include "common/sandbox/process_watch.h"

extern char** environ;

namespace plumb {
namespace {

std::string FindProgram(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  std::string found = FindInPath(name);
  if (found.empty()) throw Error(ErrorCode::kNotFound, "no such program in PATH", name);
  return found;
}

std::vector<std::string> Environment() {
  // Tokens and keys of the user's shell are nobody's business in there.
  static constexpr std::string_view kKeep[] = {
      "PATH=",  "LANG=",           "LC_", "TZ=", "LD_LIBRARY_PATH=", "PYTHON", "VIRTUAL_ENV=",
      "PYENV_", "OMP_NUM_THREADS="};
  std::vector<std::string> kept = {"HOME=/tmp"};
  for (char** entry = environ; *entry != nullptr; ++entry) {
    for (std::string_view prefix : kKeep) {
      if (std::string_view(*entry).starts_with(prefix)) {
        kept.emplace_back(*entry);
        break;
      }
    }
  }
  return kept;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& s : strings) pointers.push_back(s.data());
  pointers.push_back(nullptr);
  return pointers;
}

[[noreturn]] void ThrowErrno(const char* what) {
  throw Error(ErrorCode::kIo, std::string(what) + ": " + std::strerror(errno));
}

void CloseFd(int* fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

}  // namespace

std::string FindInPath(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::string_view rest = path == nullptr ? "/usr/bin:/bin" : path;
  while (!rest.empty()) {
    const std::string_view folder = rest.substr(0, rest.find(':'));
    const std::string candidate = std::string(folder) + "/" + name;
    if (!folder.empty() && access(candidate.c_str(), X_OK) == 0) return candidate;
    rest.remove_prefix(std::min(rest.size(), folder.size() + 1));
  }
  return "";
}

ChildProcess::ChildProcess(ChildOptions options) : options_(std::move(options)) {}

ChildProcess::~ChildProcess() { Kill(); }

void ChildProcess::Start() {
  Kill();
  sigset_t pipe_signal;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe_signal, nullptr);

  const std::string program = FindProgram(options_.command.at(0));
  std::vector<std::string> arguments = options_.command, variables = Environment();
  variables.insert(variables.end(), options_.variables.begin(), options_.variables.end());
  const std::vector<char*> argv = Pointers(arguments), envp = Pointers(variables);
  int fds[4][2];  // requests, replies, stderr, exec error
  for (int i = 0; i < 4; ++i) {
    if (pipe2(fds[i], O_CLOEXEC) != 0) {
      const int error = errno;
      for (int j = 0; j < i; ++j) close(fds[j][0]), close(fds[j][1]);
      errno = error;
      ThrowErrno("no pipe for a child process");
    }
  }
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    // Only async-signal-safe calls from here to exec: other threads of the service hold locks.
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    // The pipes may themselves be 0, 1 or 2 if the service was started without them: move all above
    // first.
    const int in = fcntl(fds[0][0], F_DUPFD, 10), out = fcntl(fds[1][1], F_DUPFD, 10);
    const int err = fcntl(fds[2][1], F_DUPFD, 10), report = fcntl(fds[3][1], F_DUPFD, 10);
    dup2(in, 0);
    dup2(out, 1);
    dup2(err, 2);
    dup2(report, 3);
    fcntl(3, F_SETFD, FD_CLOEXEC);
    syscall(SYS_close_range, 4u, ~0u, 0u);
    for (int signal = 1; signal < 32; ++signal) ::signal(signal, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    execve(program.c_str(), argv.data(), envp.data());
    const int error = errno;
    [[maybe_unused]] const ssize_t n = write(3, &error, sizeof error);
    _exit(127);
  }
  const int fork_error = errno;
  close(fds[0][0]);
  close(fds[1][1]);
  close(fds[2][1]);
  close(fds[3][1]);
  to_child_ = fds[0][1];
  from_child_ = fds[1][0];
  stderr_ = fds[2][0];
  in_.clear();
  in_at_ = 0;
  eof_ = false;
  if (pid < 0) {
    close(fds[3][0]);
    Close();
    errno = fork_error;
    ThrowErrno("a child process could not be forked");
  }
  pid_ = pid;
  crowded_ = false;
  if (options_.max_processes > 0) ProcessWatch::Get().Add(pid_, options_.max_processes);
  int error = 0;
  ssize_t n;
  do {
    n = read(fds[3][0], &error, sizeof error);  // ends at exec or with the child
  } while (n < 0 && errno == EINTR);
  close(fds[3][0]);
  if (n == static_cast<ssize_t>(sizeof error)) {
    Kill();
    throw Error(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
                std::string("cannot be executed: ") + std::strerror(error), program);
  }
  for (int fd : {to_child_, from_child_, stderr_})
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

Failure ChildProcess::Pump(const std::string* bytes, size_t* written, Deadline deadline) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  if (left.count() <= 0) return Failure::kTimeout;
  pollfd polls[3] = {{from_child_, POLLIN, 0},
                     {stderr_, POLLIN, 0},
                     {bytes != nullptr ? to_child_ : -1, POLLOUT, 0}};
  const int ready = poll(polls, 3, static_cast<int>(std::min<int64_t>(left.count(), 60000)));
  if (ready < 0 && errno != EINTR) return Failure::kCrash;
  if (ready <= 0) return Failure::kNone;
  char buffer[65536];
  if (polls[1].revents != 0) {
    const ssize_t n = read(stderr_, buffer, sizeof buffer);
    if (n > 0) {
      stderr_bytes_ += static_cast<uint64_t>(n);
      stderr_tail_.append(buffer, static_cast<size_t>(n));
      const size_t cap = static_cast<size_t>(options_.stderr_cap_bytes);
      if (stderr_tail_.size() > cap) stderr_tail_.erase(0, stderr_tail_.size() - cap);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
      CloseFd(&stderr_);
    }
  }
  if (polls[0].revents != 0) {
    const ssize_t n = read(from_child_, buffer, sizeof buffer);
    if (n > 0) {
      in_.append(buffer, static_cast<size_t>(n));
      if (static_cast<int64_t>(unread()) > options_.input_cap_bytes) return Failure::kOutputCap;
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
      eof_ = true;
      CloseFd(&from_child_);
    }
  }
  if (polls[2].revents != 0) {
    const ssize_t n = write(to_child_, bytes->data() + *written, bytes->size() - *written);
    if (n >= 0) {
      *written += static_cast<size_t>(n);
    } else if (errno != EAGAIN && errno != EINTR) {
      return Failure::kCrash;  // EPIPE: nobody reads
    }
  }
  return Failure::kNone;
}

Failure ChildProcess::Write(const std::string& bytes, Deadline deadline) {
  for (size_t written = 0; written < bytes.size();) {
    if (eof_) return Failure::kCrash;
    if (const Failure failure = Pump(&bytes, &written, deadline); failure != Failure::kNone)
      return failure;
  }
  return Failure::kNone;
}

void ChildProcess::CloseInput() { CloseFd(&to_child_); }

Failure ChildProcess::Read(size_t size, std::string* out, Deadline deadline) {
  while (unread() < size) {
    if (eof_) return Failure::kCrash;
    if (const Failure failure = Pump(nullptr, nullptr, deadline); failure != Failure::kNone)
      return failure;
  }
  out->append(in_, in_at_, size);
  in_at_ += size;
  if (in_at_ == in_.size()) in_.clear(), in_at_ = 0;
  return Failure::kNone;
}

Failure ChildProcess::ReadLine(size_t cap, std::string* line, Deadline deadline) {
  for (size_t looked = in_at_;;) {
    const size_t end = in_.find('\n', looked);
    if (end != std::string::npos) {
      line->assign(in_, in_at_, end - in_at_);
      in_at_ = end + 1;
      if (in_at_ == in_.size()) in_.clear(), in_at_ = 0;
      return line->size() > cap ? Failure::kOutputCap : Failure::kNone;
    }
    looked = in_.size();
    if (unread() > cap) return Failure::kOutputCap;
    if (eof_) return Failure::kCrash;
    if (const Failure failure = Pump(nullptr, nullptr, deadline); failure != Failure::kNone)
      return failure;
  }
}

void ChildProcess::Close() {
  CloseFd(&to_child_);
  CloseFd(&from_child_);
  CloseFd(&stderr_);
}

void ChildProcess::Unwatch() {
  if (options_.max_processes > 0 && pid_ > 0 && ProcessWatch::Get().Remove(pid_)) crowded_ = true;
}

void ChildProcess::Kill() {
  if (pid_ > 0) {
    Unwatch();
    kill(-pid_, SIGKILL);
    kill(pid_, SIGKILL);
    while (waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
  }
  Close();
}

std::string ChildProcess::EndReason(Failure* failure) {
  if (pid_ > 0) {
    Unwatch();
    // Its end of the pipe is closed; give it a moment to become a zombie so that we read its own
    // status.
    for (int i = 0; i < 100; ++i) {
      const pid_t got = waitpid(pid_, &status_, WNOHANG);
      if (got == pid_) {
        kill(-pid_, SIGKILL);
        pid_ = -1;
        break;
      }
      size_t ignored = 0;
      Pump(nullptr, &ignored, After(std::chrono::milliseconds(2)));
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    for (int i = 0; i < 16 && stderr_ >= 0; ++i)
      Pump(nullptr, nullptr, After(std::chrono::milliseconds(1)));
    if (pid_ > 0) {
      Kill();
      *failure = Failure::kExit;
      return "closed its output but kept running; killed";
    }
    Close();
  }
  if (crowded_) {
    *failure = Failure::kProcesses;
    return "had started more than " + std::to_string(options_.max_processes) +
           " processes; all of them were killed";
  }
  // bubblewrap reports its child's signal as exit code 128 + signal.
  int signal = WIFSIGNALED(status_) ? WTERMSIG(status_) : 0;
  if (signal == 0 && WIFEXITED(status_) && WEXITSTATUS(status_) > 128 &&
      WEXITSTATUS(status_) < 160) {
    signal = WEXITSTATUS(status_) - 128;
  }
  if (signal != 0) {
    *failure = Failure::kCrash;
    return "ended by signal " + std::to_string(signal) + " (" + strsignal(signal) + ")";
  }
  *failure = Failure::kExit;
  return "ended itself with exit code " + std::to_string(WEXITSTATUS(status_));
}

std::string ChildProcess::TakeStderr() {
  std::string out;
  for (char c : stderr_tail_) {
    const bool control = static_cast<unsigned char>(c) < 32 || c == 127;
    if (!control) {
      out.push_back(c);
    } else if (!out.empty() && out.back() != ' ') {
      out.push_back(' ');
    }
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  stderr_tail_.clear();
  return out;
}

}  // namespace plumb

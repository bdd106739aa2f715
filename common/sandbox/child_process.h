// A child process with two pipes, a captured stderr and an end that always comes.
//
// Purpose: what plug-in hosts and programs have in common. The child gets requests on its stdin and
// answers on its stdout; it leads a session of its own and sees only the environment variables that
// programs need to run (PATH, LANG, LC_*, TZ, LD_LIBRARY_PATH, PYTHON*, VIRTUAL_ENV, PYENV_*,
// OMP_NUM_THREADS; HOME is /tmp). Each read has a deadline and a cap; Kill() ends the whole process
// group (and with it the pid namespace).
// Thread safety: one owner thread, and the same one from Start() to the end of its life: the
// parent-death signal is bound to the thread that forked. That thread gets SIGPIPE blocked.
// Ownership: the object owns process and descriptors; the destructor kills and reaps.
// Errors: Start() throws Error; Read and Write return a Failure kind.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/record/failure.h"
#include "common/record/ports.h"

namespace plumb {

// The first program of this name in PATH that may be executed; "" where there is none.
std::string FindInPath(const std::string& name);

struct ChildOptions {
  std::vector<std::string> command;         // [0] is looked up in PATH
  int64_t stderr_cap_bytes = 4096;          // the tail that is kept for messages
  int64_t input_cap_bytes = 64 << 20;       // received and not yet asked for; more is kOutputCap
  int64_t max_processes = 0;                // in its pid namespace, by ProcessWatch; 0: not counted
  std::vector<std::string> variables = {};  // NAME=value, besides those that programs need
};

class ChildProcess {
 public:
  explicit ChildProcess(ChildOptions options);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  void Start();
  bool running() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }

  // Writes all of `bytes` while also collecting what the child answers meanwhile (no deadlock on
  // full pipes).
  Failure Write(const std::string& bytes, Deadline deadline);
  // Nothing more is written: it reads the end of its stdin.
  void CloseInput();
  // Exactly `size` bytes appended to `out`.
  Failure Read(size_t size, std::string* out, Deadline deadline);
  // One line without '\n'; kOutputCap if it is longer than `cap`.
  Failure ReadLine(size_t cap, std::string* line, Deadline deadline);
  // Bytes that arrived and nobody asked for.
  size_t unread() const { return in_.size() - in_at_; }

  // SIGKILL to the group, reap. Idempotent.
  void Kill();
  // After kCrash/kExit/...: how it ended, e.g. "signal 11 (Segmentation fault)" or "exit code 0".
  // Reaps. `failure` becomes kCrash, kExit or kProcesses accordingly.
  std::string EndReason(Failure* failure);
  // The last bytes of stderr, as one line of printable text; cleared by the call.
  std::string TakeStderr();
  uint64_t stderr_bytes() const { return stderr_bytes_; }

 private:
  // Waits until something arrived, `bytes` can be written (when non-null) or the deadline.
  Failure Pump(const std::string* bytes, size_t* written, Deadline deadline);
  void Close();
  void Unwatch();  // before it is reaped

  const ChildOptions options_;
  pid_t pid_ = -1;
  int to_child_ = -1;
  int from_child_ = -1;
  int stderr_ = -1;
  bool eof_ = false;
  bool crowded_ = false;  // killed for max_processes
  int status_ = 0;
  std::string in_;  // received, read from in_at_ on
  size_t in_at_ = 0;
  std::string stderr_tail_;
  uint64_t stderr_bytes_ = 0;
};

}  // namespace plumb

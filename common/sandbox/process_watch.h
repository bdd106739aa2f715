// Ends a reward program that starts too many processes, where the kernel sets no bound.
//
// Purpose: RLIMIT_NPROC does not hold for the real root user, and containers run as root. The pid
// namespaces of such programs are looked at every 50 ms and killed when they are too full: a fork
// bomb gets some hundred processes, between calls too, and not the machine.
// Thread safety: any thread; one watching thread, started by the first Add(). Ownership: nothing is
// owned; a leader has to be taken out before it is reaped, because its number is free from then on.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <thread>

#include "common/base/mutex.h"

namespace plumb {

class ProcessWatch {
 public:
  static ProcessWatch& Get();
  // `leader`: a process whose first child is the init of a pid namespace (bubblewrap). More than
  // `most` processes in there: SIGKILL to the leader's group, with which the namespace ends.
  void Add(pid_t leader, int64_t most);
  // True when it was killed for that.
  bool Remove(pid_t leader);

 private:
  struct Watched {
    int64_t most = 0;
    bool killed = false;
  };
  ProcessWatch() = default;
  ~ProcessWatch();
  void Loop();
  void Look() PLUMB_REQUIRES(mu_);

  Mutex mu_;
  CondVar wake_;
  std::map<pid_t, Watched> watched_ PLUMB_GUARDED_BY(mu_);
  int64_t fewest_ PLUMB_GUARDED_BY(mu_) =
      -1;  // tasks of the machine; the dear count is made only when there are clearly more
  int looks_ PLUMB_GUARDED_BY(mu_) = 0;  // since the last count
  bool closing_ PLUMB_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace plumb

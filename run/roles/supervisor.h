// Starts the roles of a run as processes and keeps them alive.
//
// Purpose: a role that is killed (signal) is started again and the run goes on; a role that ends
// with an error of its own ends the run with that error, because the same input would fail again.
// Children die with the supervisor (PDEATHSIG), so kill -9 of it ends the whole run, which --resume
// then continues.
// Thread safety: one thread. Errors: kUnavailable when a role was killed more than kMaxRestarts
// times in kRestartWindow; RankLost where it was one of a group that cannot go on without it.
#pragma once

#include <sys/types.h>
#include <atomic>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace plumb::run {

inline constexpr int kMaxRestarts = 10;
inline constexpr std::chrono::seconds kRestartWindow{60};

// One process to keep alive. `arguments` follow the program's path; `again` replaces them after a
// restart.
struct RoleProcess {
  std::string name;  // "actor-0"
  std::vector<std::string> arguments;
  std::vector<std::string> again;
  bool decides = false;  // the run ends when this one ends with exit code 0
  // Processes of one group (the ranks of a learner) cannot go on without each other: when one is
  // killed, or ends with `lost_code`, the others are ended and all are started again.
  std::string group = {};
  int lost_code = -1;
};

class Supervisor {
 public:
  // `program` is executed for every role; `pid_file` receives {"actor-0": pid, ...} at every start.
  Supervisor(std::string program, std::vector<RoleProcess> roles, std::string pid_file);
  ~Supervisor();  // kills what is left

  // Returns the run's exit code: 0 once the deciding role ended well; else that of the role that
  // failed. `stop` set: asks the deciding role to end (SIGTERM) and waits for it; `at_once` set:
  // asks it again.
  int Run(const std::atomic<bool>& stop, const std::atomic<bool>* at_once = nullptr);

  // What the other roles have to end after SIGTERM: at the run's own end, after a stop, and after
  // `at_once`.
  static constexpr std::chrono::seconds kInOrder{10}, kAsked{2}, kAtOnce{1};
  // What the ranks that are left have to notice that one is gone, and to save what they can; after
  // a stop only the deciding one has something to save, the others have kAsked.
  static constexpr std::chrono::seconds kGroup{30};

  int64_t restarts() const { return restarts_; }
  // The deciding role was stopped before it could catch the signal: it has done nothing, and said
  // nothing.
  bool stopped_before_it_began() const { return stopped_before_it_began_; }

 private:
  struct Child {
    RoleProcess role;
    pid_t pid = -1;
    std::vector<std::chrono::steady_clock::time_point> deaths;
  };
  void Start(Child& child, bool again);
  void WritePids() const;
  int RankOf(const Child& child) const;  // in its group, in the order given
  // Passes on the wishes to stop that have come since.
  void PassOn(const std::atomic<bool>& stop, const std::atomic<bool>* at_once);
  // One of the group was killed, or ended because it lost another: waits for the rest. The exit
  // code of one that failed by itself, which ends the run; nullopt: start them again.
  std::optional<int> EndGroup(const std::string& group, const std::atomic<bool>& stop,
                              const std::atomic<bool>* at_once);
  void StopOthers(const std::atomic<bool>* at_once);

  const std::string program_;
  const std::string pid_file_;
  std::vector<Child> children_;
  int64_t restarts_ = 0;
  bool asked_ = false, asked_again_ = false;  // the deciding role, to stop
  bool stopped_before_it_began_ = false;
};

}  // namespace plumb::run

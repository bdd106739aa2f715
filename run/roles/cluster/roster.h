// Who has joined a cluster run, as its head knows it.
//
// Purpose: a role joins under a name with an epoch, which is larger in each of its lives, and says
// from time to time that it is there. An older life of a name is fenced: whatever it says is
// refused. One that is silent for too long counts as lost; it may join again, as a new life.
// Thread safety: all methods. Ownership: owns its entries. Errors: kConflict for an older life.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/base/mutex.h"
#include "run/roles/cluster/member_kind.h"

namespace plumb::run {

struct Member {
  std::string name;
  MemberKind kind = MemberKind::kActor;
  uint64_t epoch = 0;
  std::string machine;  // as it calls itself, for logs
};

class Roster {
 public:
  using Clock = std::chrono::steady_clock;
  // `now`: empty: the steady clock.
  explicit Roster(std::chrono::milliseconds lost_after,
                  std::function<Clock::time_point()> now = {});

  // True: an older life of that name was there, whose work is to be freed.
  bool Join(const Member& member);
  // False: nobody of that name and life has joined, or it was lost: it has to join.
  bool Beat(const std::string& name, uint64_t epoch);
  // False: it was not there.
  bool Leave(const std::string& name, uint64_t epoch);
  // Those that were silent for too long; they are gone.
  std::vector<Member> Sweep();

  std::vector<Member> members() const;
  int64_t Count(MemberKind kind) const;
  // joined, left, lost, fenced: since the beginning.
  std::map<std::string, int64_t> counters() const;

  static constexpr size_t kMaxMembers = 4096;

 private:
  struct Entry {
    Member member;
    Clock::time_point heard;
  };
  void CheckLife(const std::string& name, uint64_t epoch) PLUMB_REQUIRES(mu_);

  const std::chrono::milliseconds lost_after_;
  const std::function<Clock::time_point()> now_;
  mutable Mutex mu_;
  std::map<std::string, Entry> there_ PLUMB_GUARDED_BY(mu_);
  // Of each name's newest life, also when it is gone.
  std::map<std::string, uint64_t> epochs_ PLUMB_GUARDED_BY(mu_);
  std::map<std::string, int64_t> counters_ PLUMB_GUARDED_BY(mu_);
};

}  // namespace plumb::run

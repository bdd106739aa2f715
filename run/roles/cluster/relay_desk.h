// The head's end of run.relay: who hands weights on to whom, and who is let in where.
//
// Purpose: an actor says with its beats where it listens and whom it had to leave; it hears whom to
// ask and whose keys to let in (welcome.h). Before others are sent to an actor the head has reached
// it there, with its key, which has to be one that may join as an actor; one that cannot be reached
// is told so, and asks like the others. One that was silent or wrong to those below it hands
// nothing on for `forgive`.
// Thread safety: all methods. Ownership: owns a thread that tries whether actors can be reached.
// Errors: none; what is wrong with an actor's door is logged and counted.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "common/net/curve_keys.h"
#include "run/roles/cluster/relay_tree.h"
#include "run/roles/cluster/roster.h"
#include "run/roles/cluster/welcome.h"

namespace plumb::run {

struct RelayDeskOptions {
  int64_t fanout = 1;
  CurveServer doors;  // the head's pair, and the list of keys that may join as actors
  std::chrono::milliseconds forgive{60'000};
  // Whether an actor can be reached there; empty: by a connection.
  std::function<bool(const weight_wire::Place&)> reach;
};

class RelayDesk {
 public:
  explicit RelayDesk(RelayDeskOptions options);
  ~RelayDesk();

  // nullopt: nothing that it has not heard.
  std::optional<RelayWord> Hear(const std::string& name, const RelaySaying& saying);
  // It has left, was lost, or begins anew.
  void Gone(const std::string& name);
  // relays_reached, relays_unreachable, relays_left: since the beginning.
  std::map<std::string, int64_t> counters() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Actor {
    weight_wire::Place place;
    RelayState state = RelayState::kTrying;
    Clock::time_point until{};  // hands nothing on until then
  };
  bool KeyMayJoin(const std::string& key);
  void Settle(const std::string& name, const Actor& actor) PLUMB_REQUIRES(mu_);
  RelayWord WordFor(const std::string& name) PLUMB_REQUIRES(mu_);
  void Try();
  bool Reach(const weight_wire::Place& place) const;

  const RelayDeskOptions options_;
  std::optional<AllowedKeys> allowed_;
  mutable Mutex mu_;
  CondVar changed_;
  RelayTree tree_ PLUMB_GUARDED_BY(mu_);
  std::map<std::string, Actor> actors_ PLUMB_GUARDED_BY(mu_);
  std::deque<weight_wire::Place> to_try_ PLUMB_GUARDED_BY(mu_);
  std::vector<std::string> keys_ PLUMB_GUARDED_BY(mu_);  // of all actors that are there
  Clock::time_point keys_until_ PLUMB_GUARDED_BY(mu_){};
  std::map<std::string, int64_t> counters_ PLUMB_GUARDED_BY(mu_);
  bool stopping_ PLUMB_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace plumb::run

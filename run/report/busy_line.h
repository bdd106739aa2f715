// A sign of life of work that cannot give one itself: "the update of step 1, 0:10 so far".
//
// Purpose: in the middle of an update or an evaluation nothing asks the run anything, and on a
// small machine each takes minutes: nobody is to take that for a run that hangs. Work is named when
// it begins; if it still goes on after a while, that is said, and then again and again.
// Thread safety: Begin and End may be called by all; words are said on a thread of its own, never
// after End has returned. Ownership: of that thread. Units: seconds. Errors: none of its own; the
// words' receiver must not throw, and must not call back.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "common/base/mutex.h"

namespace plumb::run {

class BusyLine {
 public:
  using Say = std::function<void(const std::string&)>;
  // The first word after `first`, more of them as often as `next`, which is above 0.
  BusyLine(Say say, std::chrono::milliseconds first, std::chrono::milliseconds next);
  ~BusyLine();

  // `work` goes on from now; `expected`: how long, where that is known. Ends what went on before.
  void Begin(const std::string& work, double expected = 0);
  void End();

 private:
  void Run();

  const Say say_;
  const std::chrono::milliseconds first_, next_;
  Mutex mu_;
  CondVar changed_;
  std::string work_ PLUMB_GUARDED_BY(mu_);  // empty: none
  double expected_ PLUMB_GUARDED_BY(mu_) = 0;
  std::chrono::steady_clock::time_point begun_ PLUMB_GUARDED_BY(mu_), due_ PLUMB_GUARDED_BY(mu_);
  bool ended_ PLUMB_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace plumb::run

// Work that says nothing itself: how it is told from a run that hangs.
#include "run/report/busy_line.h"

#include <gtest/gtest.h>

#include <vector>

#include "common/record/ports.h"

namespace plumb::run {
namespace {

using std::chrono::milliseconds;

// What was said, and waiting for it.
class Heard {
 public:
  BusyLine::Say Say() {
    return [this](const std::string& text) {
      {
        MutexLock lock(mu_);
        said_.push_back(text);
      }
      changed_.notify_all();
    };
  }
  std::vector<std::string> AtLeast(size_t count) {
    MutexLock lock(mu_);
    changed_.wait_until(lock, After(milliseconds(20'000)),
                        [&]() PLUMB_REQUIRES(mu_) { return said_.size() >= count; });
    return said_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<std::string> said_ PLUMB_GUARDED_BY(mu_);
};

TEST(BusyLine, SaysAgainAndAgainWhatGoesOnAndHowLong) {
  Heard heard;
  BusyLine busy(heard.Say(), milliseconds(5), milliseconds(1));
  busy.Begin("step 1: the update is computed");
  for (const std::string& line : heard.AtLeast(3))
    EXPECT_EQ(line, "step 1: the update is computed, 0:00 so far");
  busy.Begin("evaluating version 0", 90);
  const size_t before = heard.AtLeast(3).size();
  EXPECT_EQ(heard.AtLeast(before + 2).back(), "evaluating version 0, 0:00 so far of about 1:30");
}

TEST(BusyLine, IsSilentWhereWorkIsSoonDoneAndOnceItHasEnded) {
  Heard heard;
  BusyLine busy(heard.Say(), milliseconds(60'000), milliseconds(1));
  busy.Begin("a short update");
  busy.End();
  EXPECT_TRUE(heard.AtLeast(0).empty());
  BusyLine quick(heard.Say(), milliseconds(0), milliseconds(1));
  quick.Begin("an update");
  heard.AtLeast(1);
  quick.End();
  const size_t said = heard.AtLeast(1).size();
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(heard.AtLeast(1).size(), said);
}

}  // namespace
}  // namespace plumb::run

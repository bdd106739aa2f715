#include "run/session/run_lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

// What the refusal says; empty: the lock was free.
std::string Refusal(const std::string& folder) {
  try {
    RunLock lock(folder);
    return "";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kConflict);
    EXPECT_EQ(e.where(), folder);
    return e.message();
  }
}

TEST(RunLockTest, OneAtATimeAndFreeAfterwards) {
  const TempFolder temp;
  {
    RunLock lock(temp.path());
    EXPECT_NE(Refusal(temp.path()).find("process " + std::to_string(getpid())), std::string::npos);
    RunLock moved = std::move(lock);
    EXPECT_NE(Refusal(temp.path()), "") << "it is held by the object it was moved to";
  }
  EXPECT_EQ(Refusal(temp.path()), "");
}

TEST(RunLockTest, WhoAsksHoldsNobodyUp) {
  const TempFolder temp;
  EXPECT_FALSE(RunLock::IsHeld(temp.path())) << "there is no lock yet";
  {
    const RunLock lock(temp.path());
    EXPECT_TRUE(RunLock::IsHeld(temp.path()));
    EXPECT_TRUE(RunLock::IsHeld(temp.path())) << "asking takes nothing away";
  }
  EXPECT_FALSE(RunLock::IsHeld(temp.path()));
  // A question of an instant, as IsHeld asks it, just when a run begins.
  const int asked = open((temp / RunLock::kFile).c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(flock(asked, LOCK_SH), 0);
  std::thread done([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    close(asked);
  });
  EXPECT_EQ(Refusal(temp.path()), "") << "the run waits it out";
  done.join();
}

TEST(RunLockTest, GoesWithARenamedFolder) {
  const TempFolder temp;
  RealFileSystem().CreateDirectories(temp / "a");
  const RunLock lock(temp / "a");
  std::filesystem::rename(temp / "a", temp / "b");
  EXPECT_NE(Refusal(temp / "b"), "");
  EXPECT_TRUE(lock.IsOf(temp / "b"));
  EXPECT_FALSE(lock.IsOf(temp / "a"));
  RealFileSystem().CreateDirectories(temp / "a");
  EXPECT_EQ(Refusal(temp / "a"), "") << "a new folder of the old name is another one";
  EXPECT_FALSE(lock.IsOf(temp / "a"));
}

TEST(RunLockTest, AKilledProcessHoldsNothingAndItsChildrenNeither) {
  const TempFolder temp;
  int ready[2], never[2];
  ASSERT_EQ(pipe(ready), 0);
  ASSERT_EQ(pipe2(never, O_CLOEXEC), 0);  // the grandchild must not hold the end that it waits for
  const pid_t holder = fork();
  ASSERT_GE(holder, 0);
  if (holder == 0) {
    const RunLock lock(temp.path());
    int executed[2];
    if (pipe2(executed, O_CLOEXEC) != 0) _exit(1);
    if (fork() == 0) {  // as a reward's program that outlives the run
      dup2(never[0], STDIN_FILENO);
      execlp("cat", "cat", nullptr);
      _exit(127);
    }
    close(executed[1]);
    char none = 0;
    if (read(executed[0], &none, 1) != 0) _exit(1);  // ends once the child is its own program
    if (write(ready[1], "x", 1) != 1) _exit(1);
    pause();
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_NE(Refusal(temp.path()).find("process " + std::to_string(holder)), std::string::npos);
  ::kill(holder, SIGKILL);
  int status = 0;
  ASSERT_EQ(waitpid(holder, &status, 0), holder);
  EXPECT_EQ(Refusal(temp.path()), "");
  for (const int end : {ready[0], ready[1], never[0], never[1]}) close(end);  // ends the grandchild
}

}  // namespace
}  // namespace plumb::run

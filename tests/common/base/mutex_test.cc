#include "common/base/mutex.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

namespace plumb {
namespace {

TEST(Mutex, CountsOfSeveralThreadsAddUp) {
  Mutex mu;
  int64_t count = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 10'000; ++n) {
        MutexLock lock(mu);
        ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, 40'000);
}

TEST(Mutex, ALockThatWasGivenBackIsFreeForOthersAndIsNotGivenBackTwice) {
  Mutex mu;
  bool entered = false;
  {
    MutexLock lock(mu);
    lock.unlock();
    std::thread([&] {
      MutexLock other(mu);
      entered = true;
    }).join();
    lock.lock();
    lock.unlock();
  }
  EXPECT_TRUE(entered);
  MutexLock again(mu);
}

TEST(CondVar, AWaitGivesTheMutexBackAndEndsWithItsPredicate) {
  Mutex mu;
  CondVar changed;
  bool said = false;
  MutexLock lock(mu);
  std::thread other([&] {
    MutexLock theirs(mu);  // gets in only because the wait below gives the mutex back
    said = true;
    changed.notify_all();
  });
  changed.wait(lock, [&] { return said; });
  EXPECT_TRUE(said);
  lock.unlock();
  other.join();
}

TEST(CondVar, AWaitUntilADeadlineSaysWhetherThePredicateHeldThen) {
  Mutex mu;
  CondVar changed;
  MutexLock lock(mu);
  const auto now = std::chrono::steady_clock::now();
  EXPECT_FALSE(changed.wait_until(lock, now, [] { return false; }));
  EXPECT_TRUE(changed.wait_until(lock, now, [] { return true; }));
  EXPECT_EQ(changed.wait_until(lock, now), std::cv_status::timeout);
}

}  // namespace
}  // namespace plumb

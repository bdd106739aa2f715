// common/bounded_queue.h
#include "common/bounded_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace plumb {
namespace {

auto In(int ms) { return std::chrono::steady_clock::now() + std::chrono::milliseconds(ms); }

TEST(BoundedQueue, KeepsOrderAndBound) {
  BoundedQueue<std::unique_ptr<int>> queue(2);
  EXPECT_TRUE(queue.Push(std::make_unique<int>(1), In(0)));
  EXPECT_TRUE(queue.Push(std::make_unique<int>(2), In(0)));
  EXPECT_FALSE(queue.Push(std::make_unique<int>(3), In(10)));
  EXPECT_EQ(queue.size(), 2u);
  EXPECT_EQ(**queue.Pop(In(0)), 1);
  EXPECT_EQ(**queue.Pop(In(0)), 2);
  EXPECT_FALSE(queue.Pop(In(10)).has_value());
}

TEST(BoundedQueue, CloseWakesEverybodyAndKeepsWhatIsInside) {
  BoundedQueue<int> queue(1);
  ASSERT_TRUE(queue.Push(1, In(0)));
  std::atomic<int> refused{0};
  std::thread pusher([&] { refused += !queue.Push(2, In(60000)); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  queue.Close();
  pusher.join();
  EXPECT_EQ(refused, 1);
  EXPECT_FALSE(queue.Push(3, In(0)));
  EXPECT_EQ(queue.Pop(In(0)), 1);
  EXPECT_FALSE(queue.Pop(In(60000)).has_value());  // at once
  EXPECT_TRUE(queue.closed());
}

TEST(BoundedQueue, ManyThreadsLoseNothing) {
  BoundedQueue<int> queue(3);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> pushers, poppers;
  for (int t = 0; t < 3; ++t) {
    pushers.emplace_back([&] {
      for (int i = 1; i <= 2000; ++i) ASSERT_TRUE(queue.Push(i, In(20000)));
    });
    poppers.emplace_back([&] {
      while (const auto value = queue.Pop(In(20000))) sum += *value;
    });
  }
  for (auto& thread : pushers) thread.join();
  queue.Close();
  for (auto& thread : poppers) thread.join();
  EXPECT_EQ(sum, 3 * 2000 * 2001 / 2);
}

}  // namespace
}  // namespace plumb

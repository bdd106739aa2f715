#include "learner/ranks/courier.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>

namespace plumb::learner {
namespace {

TEST(CourierTest, JobsRunInOrderBesideThePoster) {
  Courier courier;
  std::string order;
  std::atomic<bool> let_go = false;
  const auto first = courier.Post([&] {
    while (!let_go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    order += "a";
  });
  courier.Post([&] { order += "b"; });
  let_go = true;  // posting has not waited for the job
  courier.Wait(first);
  EXPECT_EQ(order.front(), 'a');
  courier.WaitAll();
  EXPECT_EQ(order, "ab");
  EXPECT_GT(courier.times().busy, 0);
}

TEST(CourierTest, WaitingIsWhatWasNotOverlapped) {
  using std::chrono::milliseconds;
  Courier courier;
  courier.Post([] { std::this_thread::sleep_for(milliseconds(60)); });
  std::this_thread::sleep_for(milliseconds(120));
  courier.WaitAll();
  EXPECT_GE(courier.times().busy, 0.06);
  EXPECT_LT(courier.times().waited, 0.03);
}

TEST(CourierTest, WhatAJobThrowsComesOutOfTheWaitAndNothingRunsBehindIt) {
  Courier courier;
  bool ran = false;
  courier.Post([] { throw std::runtime_error("out of luck"); });
  courier.Post([&] { ran = true; });
  EXPECT_THROW(courier.WaitAll(), std::runtime_error);
  EXPECT_THROW(courier.WaitAll(), std::runtime_error);
  EXPECT_FALSE(ran);
}

}  // namespace
}  // namespace plumb::learner

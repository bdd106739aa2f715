// A connection that is given up while the process has no descriptor left for another one.
#include "common/net/wire_socket.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

using std::chrono::milliseconds;

// Sends until the router has the message; gives up after ten seconds.
bool Arrives(WireSocket& dealer, WireSocket& router, const std::string& text) {
  const Deadline until = After(std::chrono::seconds(10));
  bool sent = false;
  while (std::chrono::steady_clock::now() < until) {
    dealer.Poll(After(milliseconds(20)), !sent);
    if (!sent) sent = dealer.Send("", text, {}) == WireSocket::Sent::kYes;
    router.Poll(After(milliseconds(20)), false);
    for (WireSocket::Incoming in; router.Receive(in);) {
      if (!in.problem && in.header.str() == text) return true;
    }
  }
  return false;
}

TEST(WireSocket, AReconnectWithoutDescriptorsIsTriedAgain) {
  const testing::TempFolder folder;
  WireSocket router(WireSocket::Kind::kRouter, folder.Ipc("s"), {.max_message_bytes = 1 << 20});
  WireSocket dealer(WireSocket::Kind::kDealer, folder.Ipc("s"), {.max_message_bytes = 1 << 20});
  ASSERT_TRUE(Arrives(dealer, router, "before"));
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  rlimit none = limit;
  none.rlim_cur = 3;  // what is open stays; nothing new is
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  dealer.Reconnect();
  dealer.Reconnect();
  const auto ready = dealer.Poll(After(milliseconds(1)), true);
  const auto sent = dealer.Send("", "meanwhile", {});
  WireSocket::Incoming in;
  const bool received = dealer.Receive(in);
  const std::string state = dealer.state();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_FALSE(ready.readable || ready.writable || received);
  EXPECT_EQ(sent, WireSocket::Sent::kLater);
  EXPECT_NE(state.find("Too many open files"), std::string::npos) << state;
  EXPECT_TRUE(Arrives(dealer, router, "after"));
}

}  // namespace
}  // namespace plumb

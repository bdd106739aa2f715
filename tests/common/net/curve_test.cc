// The same keys over streams, calls and frames: who has none, or a wrong one, gets nothing through
// and is told why.
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "common/base/error.h"
#include "common/net/curve_keys.h"
#include "common/net/frame_socket.h"
#include "common/net/rpc/rpc.h"
#include "common/net/stream/transport.h"
#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr char kWrongKey[] = "it does not accept our key";
constexpr char kNoKey[] = "not with the key or protocol expected";

class Curve : public ::testing::Test {
 protected:
  void SetUp() override { std::ofstream(folder_ / "allowed") << client_.public_key << "\n"; }
  CurveServer Server() { return {server_, folder_ / "allowed"}; }
  CurveClient Right() { return {server_.public_key, client_}; }
  CurveClient Unknown() { return {server_.public_key, GenerateCurveKeys()}; }
  // Without keys a client may not even connect beyond the loopback; on it, it gets nothing through.
  struct Case {
    CurveClient keys;
    const char* why;
  };
  std::vector<Case> Wrong() { return {{Unknown(), kWrongKey}, {{}, kNoKey}}; }

  testing::TempFolder folder_;
  const CurveKeys server_ = GenerateCurveKeys(), client_ = GenerateCurveKeys();
};

template <class Call>
std::string ErrorOf(Call call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST_F(Curve, AStreamOverTcp) {
  std::atomic<int> got{0};
  Receiver receiver({.endpoint = "tcp://127.0.0.1:*", .run = "run", .curve = Server()},
                    [&](TransportMessage message, Ack ack) {
                      got += message.payload.view() == "hello";
                      ack.Complete();
                    });
  const auto from = [&](const CurveClient& keys, std::string name) {
    return SenderOptions{.endpoint = receiver.endpoint(),
                         .run = "run",
                         .producer = std::move(name),
                         .epoch = 1,
                         .curve = keys};
  };
  Sender right(from(Right(), "right"));
  right.Send("hello", After(seconds(10)));
  right.Flush(After(seconds(10)));
  EXPECT_EQ(got, 1);
  for (const Case& wrong : Wrong()) {
    Sender sender(from(wrong.keys, "wrong"));
    const std::string text = ErrorOf([&] { sender.Send("hello", After(seconds(1))); });
    EXPECT_NE(text.find(wrong.why), std::string::npos) << text;
  }
  EXPECT_EQ(got, 1);
  EXPECT_EQ(receiver.counters()["delivered"], 1u);
  EXPECT_GE(receiver.counters()["keys_accepted"], 1u);
  EXPECT_GE(receiver.counters()["keys_refused"], 1u);
}

TEST_F(Curve, ACallOverTcpInPieces) {
  std::atomic<int> got{0};
  RpcServer server("tcp://127.0.0.1:*",
                   [&](RpcRequest request, RpcResponder responder) {
                     ++got;
                     responder.Reply(request.payload);
                   },
                   {.piece_bytes = 1000, .curve = Server()});
  RpcClient right(server.endpoint(), {.piece_bytes = 1000, .curve = Right()});
  const std::string payload(20'000, 'p');
  EXPECT_EQ(right.Call("back", payload, After(seconds(10))), payload);
  for (const Case& wrong : Wrong()) {
    RpcClient client(server.endpoint(), {.curve = wrong.keys});
    const std::string text = ErrorOf([&] { client.Call("back", payload, After(seconds(1))); });
    EXPECT_NE(text.find(wrong.why), std::string::npos) << text;
  }
  EXPECT_EQ(got, 1);
  EXPECT_GE(server.counters()["keys_refused"], 1u);
  // A key that is taken off the list is out at once, over the open connection too.
  std::ofstream(folder_ / "allowed") << "# nobody\n";
  EXPECT_NE(ErrorOf([&] { right.Call("back", payload, After(milliseconds(300))); }), "no error");
  EXPECT_EQ(got, 1);
}

TEST_F(Curve, AFrameOverTcp) {
  std::atomic<int> got{0};
  FrameServer server("tcp://127.0.0.1:*",
                     [&](std::string_view request, milliseconds) {
                       ++got;
                       return std::string(request);
                     },
                     {.curve = Server()});
  FrameClient right(server.endpoint(), {.curve = Right()});
  std::string reply;
  ASSERT_TRUE(right.Send("hello", After(seconds(10))));
  ASSERT_EQ(right.Receive(&reply, After(seconds(10))), FrameClient::Got::kMessage);
  for (const Case& wrong : Wrong()) {
    FrameClient client(server.endpoint(), {.curve = wrong.keys});
    EXPECT_FALSE(client.Send("hello", After(seconds(1))));
    EXPECT_NE(client.State().find(wrong.why), std::string::npos) << client.State();
  }
  EXPECT_EQ(got, 1);
  EXPECT_GE(server.counters()["keys_refused"], 1u);
}

TEST_F(Curve, BeyondTheLoopbackOnlyWithKeys) {
  const auto code_of = [](auto call) {
    try {
      call();
    } catch (const Error& e) {
      return e.code();
    }
    return ErrorCode{};
  };
  const std::string all = "tcp://0.0.0.0:*", far = "tcp://192.0.2.1:5555";
  const auto handle = [](TransportMessage, Ack) {};
  const auto answer = [](RpcRequest, RpcResponder) {};
  EXPECT_EQ(code_of([&] { Receiver({.endpoint = all, .run = "r"}, handle); }),
            ErrorCode::kUnsupported);
  EXPECT_EQ(code_of([&] { Sender({.endpoint = far, .run = "r", .producer = "p"}); }),
            ErrorCode::kUnsupported);
  EXPECT_EQ(code_of([&] { RpcServer(all, answer); }), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of([&] { RpcClient client(far); }), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of([&] { Receiver({.endpoint = all, .run = "r", .curve = Server()}, handle); }),
            ErrorCode{});
  EXPECT_EQ(
      code_of([&] { Sender({.endpoint = far, .run = "r", .producer = "p", .curve = Right()}); }),
      ErrorCode{});
  EXPECT_EQ(code_of([&] { RpcServer(all, answer, {.curve = Server()}); }), ErrorCode{});
  EXPECT_EQ(code_of([&] { RpcClient client(far, {.curve = Right()}); }), ErrorCode{});
}

}  // namespace
}  // namespace plumb

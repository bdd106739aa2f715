// Calls over sockets: answers, errors, late answers, large payloads, lost servers. common/rpc.h
#include "common/rpc.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "tests/testing/tcp_fault_proxy.h"
#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

using std::chrono::milliseconds;

SocketTimes FastTimes() { return {.beat = milliseconds(50), .heartbeat_interval = milliseconds(200), .heartbeat_timeout = milliseconds(2000), .reconnect = milliseconds(5)}; }

SocketTimes BadNetworkTimes() {
  return {.beat = milliseconds(30), .heartbeat_interval = milliseconds(60), .heartbeat_timeout = milliseconds(200),
          .heartbeat_ttl = milliseconds(300), .handshake = milliseconds(200), .reconnect = milliseconds(2)};
}

void Echo(RpcRequest request, RpcResponder responder) { responder.Reply(request.verb + ":" + request.payload.str()); }

TEST(Rpc, AnswersManyThreadsOverIpcAndTcp) {
  testing::TempFolder folder;
  for (const std::string& endpoint : {folder.Ipc("echo"), std::string("tcp://127.0.0.1:*")}) {
    RpcServer server(endpoint, Echo);
    RpcClient client(server.endpoint());
    std::vector<std::thread> threads;
    std::atomic<int> right{0};
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 200; ++i) {
          const std::string payload = std::to_string(t) + "/" + std::to_string(i) + std::string(i, 'x');
          right += client.Call("echo", payload, After(milliseconds(10000))) == "echo:" + payload;
        }
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(right, 800);
    EXPECT_EQ(server.counters()["requests"], 800u);
    EXPECT_EQ(client.Call("empty", "", After(milliseconds(5000))), "empty:");
  }
}

TEST(Rpc, ErrorsOfTheHandlerArriveAsTheyWere) {
  testing::TempFolder folder;
  RpcServer server(folder.Ipc("e"), [](RpcRequest request, RpcResponder responder) {
    if (request.verb == "error") throw Error(ErrorCode::kNoSpace, "the disk is full", "/data");
    if (request.verb == "other") throw std::runtime_error("surprise");
    if (request.verb == "drop") return;
    responder.Fail(Error(ErrorCode::kConflict, "taken"));
  });
  RpcClient client(server.endpoint());
  const auto code_of = [&](const char* verb, const char* text) {
    try {
      client.Call(verb, "", After(milliseconds(5000)));
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
      return e.code();
    }
    return ErrorCode{};
  };
  EXPECT_EQ(code_of("error", "/data: the disk is full"), ErrorCode::kNoSpace);
  EXPECT_EQ(code_of("other", "surprise"), ErrorCode::kUnavailable);
  EXPECT_EQ(code_of("drop", "without an answer"), ErrorCode::kUnavailable);
  EXPECT_EQ(code_of("fail", "taken"), ErrorCode::kConflict);
}

TEST(Rpc, LateAnswersFromAnotherThreadDoNotHoldWorkersUp) {
  testing::TempFolder folder;
  std::mutex mu;
  std::vector<RpcResponder> waiting;
  RpcServerOptions options;
  options.workers = 1;
  RpcServer server(folder.Ipc("late"),
                   [&](RpcRequest request, RpcResponder responder) {
                     if (request.verb == "now") return responder.Reply("now");
                     std::lock_guard lock(mu);
                     waiting.push_back(std::move(responder));
                   },
                   options);
  RpcClient client(server.endpoint(), {.times = FastTimes()});
  std::vector<std::thread> callers;
  std::atomic<int> answered{0};
  for (int i = 0; i < 8; ++i) {
    callers.emplace_back([&] { answered += client.Call("poll", "", After(milliseconds(10000))) == "later"; });
  }
  for (;;) {
    {
      std::lock_guard lock(mu);
      if (waiting.size() == 8) break;
    }
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_EQ(client.Call("now", "", After(milliseconds(5000))), "now");
  std::this_thread::sleep_for(milliseconds(150));  // some beats: nothing may be sent twice
  EXPECT_EQ(answered, 0);
  for (auto& responder : waiting) responder.Reply("later");
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(answered, 8);
  EXPECT_EQ(server.counters()["requests"], 9u);
  EXPECT_EQ(server.counters()["repeated_requests"], 0u);
}

TEST(Rpc, DeadlineNamesTheServerAndTheVerb) {
  testing::TempFolder folder;
  RpcClient client(folder.Ipc("nobody"));
  try {
    client.Call("lease", "", After(milliseconds(60)));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kDeadline);
    EXPECT_NE(std::string(e.what()).find("nobody"), std::string::npos);
    EXPECT_NE(std::string(e.what()).find("'lease'"), std::string::npos);
    EXPECT_NE(std::string(e.what()).find("never heard"), std::string::npos);
  }
}

TEST(Rpc, ServerThatStartsLateOrAgainIsFoundAndGetsTheRequestAgain) {
  testing::TempFolder folder;
  RpcClient client(folder.Ipc("again"), {.times = FastTimes()});
  std::atomic<int> answered{0};
  std::thread caller([&] { answered += client.Call("hold", "x", After(milliseconds(15000))) == "done"; });
  std::this_thread::sleep_for(milliseconds(50));
  {
    std::atomic<int> got{0};
    std::vector<RpcResponder> kept;
    std::mutex mu;
    auto server = std::make_unique<RpcServer>(folder.Ipc("again"), [&](RpcRequest, RpcResponder responder) {
      std::lock_guard lock(mu);
      kept.push_back(std::move(responder));
      ++got;
    });
    while (got == 0) std::this_thread::sleep_for(milliseconds(5));
    server.reset();  // goes away with the request in its hands
  }
  RpcServer server(folder.Ipc("again"), [](RpcRequest request, RpcResponder responder) {
    responder.Reply(request.payload.view() == "x" ? "done" : "?");
  });
  caller.join();
  EXPECT_EQ(answered, 1);
  EXPECT_GE(client.counters()["resent"], 1u);
}

TEST(Rpc, LargePayloadsTravelBothWays) {
  testing::TempFolder folder;
  const Payload weights(std::string(size_t{96} << 20, 'w'));
  RpcServer server(folder.Ipc("big"), [&](RpcRequest request, RpcResponder responder) {
    PLUMB_CHECK(request.payload.size() == weights.size());
    responder.Reply(weights);
  });
  RpcClient client(server.endpoint(), {.times = FastTimes()});
  const auto begin = std::chrono::steady_clock::now();
  const Payload back = client.CallPayload("fetch", weights, After(milliseconds(30000)));
  const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_EQ(back.view() == weights.view(), true);
  RecordProperty("mb_per_s", static_cast<int>(2 * 96 / s));
  std::printf("96 MiB there and back in %.3f s: %.0f MiB/s\n", s, 2 * 96 / s);
  EXPECT_EQ(server.counters()["repeated_replies"], 0u);
}

TEST(Rpc, EveryCallIsAnsweredOnceThroughABadNetwork) {
  std::atomic<int> runs{0};
  RpcServer server("tcp://127.0.0.1:*",
                   [&](RpcRequest request, RpcResponder responder) {
                     ++runs;
                     responder.Reply(request.payload.str());
                   },
                   {.times = BadNetworkTimes()});
  const std::string bound = server.endpoint();
  testing::TcpFaultProxy proxy(std::stoi(bound.substr(bound.rfind(':') + 1)),
                               {.cut = 0.01, .delay = 0.05, .twice = 0.002, .vanish = 0.002, .swap = 0.002, .change = 0.002}, 3);
  RpcClient client("tcp://127.0.0.1:" + std::to_string(proxy.port()), {.times = BadNetworkTimes()});
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 150; ++i) {
        const std::string payload = std::to_string(t * 1000 + i) + std::string(static_cast<size_t>(i) * 3, 'p');
        right += client.Call("echo", payload, After(milliseconds(20000))) == payload;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 600);
  EXPECT_EQ(runs, 600);  // one life of the server: each ran once
  EXPECT_GT(proxy.faults(), 10u);
}

TEST(Rpc, TooLargeIsSaidBeforeItIsSent) {
  testing::TempFolder folder;
  RpcClient client(folder.Ipc("small"), {.max_message_bytes = 100});
  EXPECT_THROW(client.Call("x", std::string(101, 'x'), After(milliseconds(10))), Error);
}

TEST(Rpc, AddressInUseIsAConflict) {
  RpcServer server("tcp://127.0.0.1:*", Echo);
  try {
    RpcServer second(server.endpoint(), Echo);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kConflict);
  }
}

}  // namespace
}  // namespace plumb

// Calls over sockets: answers, errors, late answers, large payloads, lost servers.
// common/net/rpc/rpc.h
#include "common/net/rpc/rpc.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <zmq.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <thread>

#include "common/net/rpc/call_frame.h"
#include "tests/testing/reliability.h"
#include "tests/testing/tcp_fault_proxy.h"
#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

using std::chrono::milliseconds;

SocketTimes FastTimes() {
  return {.beat = milliseconds(50),
          .heartbeat_interval = milliseconds(200),
          .heartbeat_timeout = milliseconds(2000),
          .reconnect = milliseconds(5)};
}

SocketTimes BadNetworkTimes() {
  return {.beat = milliseconds(30),
          .heartbeat_interval = milliseconds(60),
          .heartbeat_timeout = milliseconds(200),
          .heartbeat_ttl = milliseconds(300),
          .handshake = milliseconds(200),
          .reconnect = milliseconds(2)};
}

int PortOf(const RpcServer& server) {
  return std::stoi(server.endpoint().substr(server.endpoint().rfind(':') + 1));
}

void Echo(RpcRequest request, RpcResponder responder) {
  responder.Reply(request.verb + ":" + request.payload.str());
}

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
          const std::string payload =
              std::to_string(t) + "/" + std::to_string(i) + std::string(i, 'x');
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
  RpcServer server(
      folder.Ipc("late"),
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
    callers.emplace_back(
        [&] { answered += client.Call("poll", "", After(milliseconds(10000))) == "later"; });
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

TEST(Rpc, AClosedClientKeepsNobodyWaiting) {
  testing::TempFolder folder;
  RpcClient client(folder.Ipc("nobody"));
  const auto call = [&] {
    try {
      client.Call("lease", "", After(milliseconds(60'000)));
      ADD_FAILURE() << "nobody is there";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUnavailable) << e.what();
    }
  };
  std::thread waits(call);
  while (client.counters()["calls"] == 0) std::this_thread::sleep_for(milliseconds(1));
  client.Close();
  waits.join();
  call();
}

TEST(Rpc, ServerThatStartsLateOrAgainIsFoundAndGetsTheRequestAgain) {
  testing::TempFolder folder;
  RpcClient client(folder.Ipc("again"), {.times = FastTimes()});
  std::atomic<int> answered{0};
  std::thread caller(
      [&] { answered += client.Call("hold", "x", After(milliseconds(15000))) == "done"; });
  std::this_thread::sleep_for(milliseconds(50));
  {
    std::atomic<int> got{0};
    std::vector<RpcResponder> kept;
    std::mutex mu;
    auto server =
        std::make_unique<RpcServer>(folder.Ipc("again"), [&](RpcRequest, RpcResponder responder) {
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
  testing::TcpFaultProxy proxy(
      PortOf(server),
      {.cut = 0.01, .delay = 0.05, .twice = 0.002, .vanish = 0.002, .swap = 0.002, .change = 0.002},
      3);
  RpcClient client("tcp://127.0.0.1:" + std::to_string(proxy.port()), {.times = BadNetworkTimes()});
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 150; ++i) {
        const std::string payload =
            std::to_string(t * 1000 + i) + std::string(static_cast<size_t>(i) * 3, 'p');
        right += client.Call("echo", payload, After(milliseconds(20000))) == payload;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 600);
  EXPECT_EQ(runs, 600);  // one life of the server: each ran once
  EXPECT_GT(proxy.faults(), 10u);
}

std::string Numbers(size_t bytes) {
  std::string out(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<char>(i * 131 + i / 251);
  return out;
}

void Back(RpcRequest request, RpcResponder responder) { responder.Reply(request.payload); }

TEST(Rpc, PayloadsMuchLargerThanAPieceTravelInPiecesBothWays) {
  testing::TempFolder folder;
  RpcServer server(folder.Ipc("s"), Back, {.piece_bytes = 1000});
  RpcClient client(folder.Ipc("s"), {.piece_bytes = 700});
  for (const size_t bytes :
       {size_t{0}, size_t{699}, size_t{700}, size_t{1000}, size_t{1001}, size_t{300'001}}) {
    const std::string payload = Numbers(bytes);
    EXPECT_EQ(client.Call("back", payload, After(milliseconds(10000))), payload) << bytes;
  }
  EXPECT_GE(client.counters()["pieces"], 428u);
  EXPECT_EQ(server.counters()["requests"], 6u);
  EXPECT_EQ(server.counters()["repeated_replies"], 0u);
}

TEST(Rpc, AReplyGoesStraightToItsPlaceAndHasToFitIt) {
  testing::TempFolder folder;
  RpcServer server(folder.Ipc("s"), Back, {.piece_bytes = 1000});
  RpcClient client(folder.Ipc("s"));
  const std::string payload = Numbers(50'000);
  std::vector<std::byte> place(payload.size());
  client.CallInto("back", Payload(payload), place, After(milliseconds(10000)));
  EXPECT_EQ(std::memcmp(place.data(), payload.data(), place.size()), 0);
  place.resize(49'999);
  try {
    client.CallInto("back", Payload(payload), place, After(milliseconds(10000)));
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCorruption);
    EXPECT_NE(std::string(e.what()).find("has 50000 bytes, there is room for exactly 49999"),
              std::string::npos)
        << e.what();
  }
}

TEST(Rpc, LargePayloadsSurviveABadNetworkPieceByPiece) {
  std::atomic<int> runs{0};
  RpcServer server("tcp://127.0.0.1:*",
                   [&](RpcRequest request, RpcResponder responder) {
                     ++runs;
                     responder.Reply(request.payload);
                   },
                   {.piece_bytes = 3000, .times = BadNetworkTimes()});
  testing::TcpFaultProxy proxy(PortOf(server),
                               {.cut = 0.002,
                                .delay = 0.002,
                                .twice = 0.0005,
                                .vanish = 0.0005,
                                .swap = 0.0005,
                                .change = 0.0005},
                               3);
  RpcClient client("tcp://127.0.0.1:" + std::to_string(proxy.port()),
                   {.piece_bytes = 3000, .times = BadNetworkTimes()});
  const size_t bytes = 300'000;
  for (int i = 0; i < 5; ++i) {
    const std::string payload = Numbers(bytes + static_cast<size_t>(i));
    ASSERT_EQ(client.Call("back", payload, After(milliseconds(60000))) == payload, true) << i;
  }
  EXPECT_EQ(runs, 5);
  EXPECT_GT(proxy.faults(), 10u);
  // What had arrived before a fault was not sent again: a few pieces a connection.
  EXPECT_LE(server.counters()["pieces"],
            5 * (bytes / 3000 + 1) + 16 * (proxy.connections() + proxy.faults()));
}

// Memory that costs nothing until it is written: above what any one message could hold before.
struct Region {
  explicit Region(size_t n)
      : bytes(n),
        data(static_cast<char*>(::mmap(nullptr, n, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    PLUMB_CHECK(data != MAP_FAILED);
  }
  ~Region() { ::munmap(data, bytes); }
  const size_t bytes;
  char* const data;
};

TEST(Rpc, AReplyAboveTwoGibibytesArrives) {
  if (testing::Count(0, 1) == 0) GTEST_SKIP() << "PLUMB_RELIABILITY=ci";
  testing::TempFolder folder;
  const auto from = std::make_shared<Region>((size_t{2} << 30) + 12345);
  std::vector<size_t> marks;
  for (size_t at = 77; at < from->bytes; at += size_t{123} << 20) marks.push_back(at);
  marks.push_back(from->bytes - 1);
  for (const size_t at : marks) from->data[at] = static_cast<char>(at % 251 + 1);
  RpcServer server(folder.Ipc("s"), [&](RpcRequest, RpcResponder responder) {
    responder.Reply(Payload(from, {from->data, from->bytes}));
  });
  RpcClient client(folder.Ipc("s"));
  const Region to(from->bytes);
  client.CallInto("weights", {}, std::as_writable_bytes(std::span(to.data, to.bytes)),
                  After(milliseconds(10000)));
  for (const size_t at : marks) EXPECT_EQ(to.data[at], from->data[at]) << at;
}

TEST(Rpc, ARequestThatNoMemoryHoldsIsAnError) {
  for (const uint64_t bytes : {uint64_t{1} << 62, UINT64_MAX}) {
    Pieces pieces;
    EXPECT_THROW(pieces.Begin(bytes, Payload(std::string("begin"))), Error) << bytes;
    EXPECT_FALSE(pieces.Ask("hostile", 1, 1000, 0));
  }
}

TEST(Rpc, NoMoreThanAFewPiecesAreOnTheirWay) {
  Pieces pieces;
  pieces.Begin(100'000, Payload(std::string(1000, 'a')));
  uint64_t asked = 1000;
  for (int i = 0; i < 8; ++i) {
    const auto pull = pieces.Ask("c", 1, 1000, 7);
    ASSERT_TRUE(pull);
    EXPECT_EQ(pull->offset, asked);
    asked += pull->bytes;
  }
  EXPECT_FALSE(pieces.Ask("c", 1, 1000, 7));
  EXPECT_FALSE(pieces.Take(2000, std::string(1000, 'c'))) << "not the next one";
  EXPECT_TRUE(pieces.Take(1000, std::string(1000, 'b')));
  EXPECT_TRUE(pieces.Ask("c", 1, 1000, 8));
  EXPECT_FALSE(pieces.Ask("c", 1, 1000, 8));
  EXPECT_FALSE(pieces.LostBy(8));
  EXPECT_TRUE(pieces.LostBy(9));
  pieces.AskAgain();
  EXPECT_EQ(pieces.Ask("c", 1, 1000, 9)->offset, 2000u);
}

// A server that takes messages and answers with what it is told to.
class RawRouter {
 public:
  RawRouter(const std::string& endpoint, std::string answer) : answer_(std::move(answer)) {
    PLUMB_CHECK(zmq_bind(socket_, endpoint.c_str()) == 0);
    const int wait_ms = 20;
    zmq_setsockopt(socket_, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
    thread_ = std::thread([this] {
      while (!stop_) {
        char route[256];
        const int n = zmq_recv(socket_, route, sizeof route, 0);
        if (n < 0) continue;
        char rest[4096];
        for (int more = 1; more != 0;) {
          zmq_recv(socket_, rest, sizeof rest, 0);
          size_t size = sizeof more;
          zmq_getsockopt(socket_, ZMQ_RCVMORE, &more, &size);
        }
        ++got;
        if (answer_.empty()) continue;
        zmq_send(socket_, route, static_cast<size_t>(n), ZMQ_SNDMORE);
        zmq_send(socket_, answer_.data(), answer_.size(), 0);
      }
    });
  }
  ~RawRouter() {
    stop_ = true;
    thread_.join();
    zmq_close(socket_);
    zmq_ctx_term(context_);
  }
  std::atomic<int> got{0};

 private:
  const std::string answer_;
  void* const context_ = zmq_ctx_new();
  void* const socket_ = zmq_socket(context_, ZMQ_ROUTER);
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

std::string DeadlineText(RpcClient& client, milliseconds patience) {
  try {
    client.Call("x", "", After(patience));
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kDeadline);
    return e.what();
  }
  return "answered";
}

TEST(Rpc, AnotherVersionOfTheMessagesIsSaid) {
  testing::TempFolder folder;
  RawRouter old(folder.Ipc("s"), "PLB1" + std::string(60, 'x'));
  RpcClient client(folder.Ipc("s"), {.times = FastTimes()});
  const std::string text = DeadlineText(client, milliseconds(500));
  EXPECT_NE(text.find("speaks version 1 of Plumb's messages, this build version 2"),
            std::string::npos)
      << text;
}

// A flipped bit in the name is damage, not another build: people are not told to look for one.
TEST(Rpc, ADamagedNameOfTheMessagesIsNotCalledAVersion) {
  testing::TempFolder folder;
  RawRouter damaged(folder.Ipc("s"), "PLB\xb2" + std::string(60, 'x'));
  RpcClient client(folder.Ipc("s"), {.times = FastTimes()});
  const std::string text = DeadlineText(client, milliseconds(500));
  EXPECT_EQ(text.find("speaks version"), std::string::npos) << text;
}

TEST(Rpc, AReconnectThatTheSystemRefusesIsSaidAndGoesOn) {
  testing::TempFolder folder;
  auto silent = std::make_unique<RawRouter>(folder.Ipc("s"), "");
  RpcClient client(folder.Ipc("s"), {.times = BadNetworkTimes()});
  std::string text;
  std::thread caller([&] { text = DeadlineText(client, milliseconds(1500)); });
  while (silent->got == 0) std::this_thread::sleep_for(milliseconds(5));
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  rlimit none = limit;
  none.rlim_cur = 3;  // what is open stays; nothing new is
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  caller.join();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_NE(text.find("Too many open files"), std::string::npos) << text;
  silent.reset();
  RpcServer server(folder.Ipc("s"), Echo);
  EXPECT_EQ(client.Call("after", "", After(milliseconds(10000))), "after:");
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

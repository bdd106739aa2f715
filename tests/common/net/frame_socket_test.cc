// Frames with programs of others, and the keys that guard them (common/net/frame_socket.h,
// common/net/curve_keys.h).
#include "common/net/frame_socket.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <fstream>
#include <random>
#include <thread>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

using std::chrono::milliseconds;

std::string Echo(std::string_view request, milliseconds) {
  return "<" + std::string(request) + ">";
}

// One question and its answer; "" when there was none in time.
std::string Ask(const std::string& endpoint, FrameClientOptions options = {},
                milliseconds patience = milliseconds(3000)) {
  FrameClient client(endpoint, std::move(options));
  std::string reply;
  if (!client.Send("hello", After(patience))) return "";
  return client.Receive(&reply, After(patience)) == FrameClient::Got::kMessage ? reply : "";
}

ErrorCode CodeOf(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.code();
  }
  return ErrorCode{};
}

void WriteLines(const std::string& path, const std::vector<std::string>& lines) {
  std::ofstream file(path + ".new");
  for (const std::string& line : lines) file << line << "\n";
  file.close();
  ASSERT_EQ(::rename((path + ".new").c_str(), path.c_str()), 0);
}

TEST(FrameSocket, AnswersManyClientsAtOnce) {
  testing::TempFolder folder;
  FrameServer server(folder.Ipc("s"), Echo, {.workers = 2});
  std::vector<std::jthread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      FrameClient client(server.endpoint());
      for (int i = 0; i < 100; ++i) {
        const std::string text = std::to_string(t) + "/" + std::to_string(i);
        std::string reply;
        ASSERT_TRUE(client.Send(text, After(std::chrono::seconds(10))));
        ASSERT_EQ(client.Receive(&reply, After(std::chrono::seconds(10))),
                  FrameClient::Got::kMessage);
        right += reply == "<" + text + ">";
      }
    });
  }
  threads.clear();
  EXPECT_EQ(right, 400);
  EXPECT_EQ(server.counters().at("requests"), 400u);
}

TEST(FrameSocket, NobodyThereIsSaid) {
  FrameClient client("tcp://127.0.0.1:9");
  EXPECT_FALSE(client.Send("x", After(milliseconds(400))));
  EXPECT_EQ(client.State(), "nobody listens there");
}

TEST(FrameSocket, AFullServerPushesBackAndLosesNothing) {
  testing::TempFolder folder;
  FrameServer server(folder.Ipc("s"),
                     [](std::string_view request, milliseconds) {
                       std::this_thread::sleep_for(milliseconds(2));
                       return std::string(request);
                     },
                     {.max_waiting = 2});
  FrameClient client(server.endpoint());
  for (int i = 0; i < 300; ++i)
    ASSERT_TRUE(client.Send(std::to_string(i), After(std::chrono::seconds(10))));
  for (int i = 0; i < 300; ++i) {
    std::string reply;
    ASSERT_EQ(client.Receive(&reply, After(std::chrono::seconds(10))), FrameClient::Got::kMessage);
    EXPECT_EQ(reply, std::to_string(i));
  }
}

TEST(FrameSocket, GarbageIsCountedAndChangesNothing) {
  testing::TempFolder folder;
  const std::string endpoint = folder.Ipc("s");
  FrameServer server(endpoint, Echo, {.max_message_bytes = 1000});
  void* context = zmq_ctx_new();
  std::mt19937 random(1);
  uint64_t malformed = 0;
  for (int i = 0; i < 200; ++i) {
    void* socket = zmq_socket(context, ZMQ_DEALER);
    // ms; what is over the cap never arrives, the rest has to
    const int linger = i % 20 == 19 ? 200 : 20000;
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    ASSERT_EQ(zmq_connect(socket, endpoint.c_str()), 0);
    // two parts of which the first is empty would be a request: never made here
    const int parts = i % 5 + 1;
    for (int p = 0; p < parts; ++p) {
      std::string part(p == 0 ? 1 + random() % 50 : random() % 50, static_cast<char>(random()));
      if (i % 20 == 19) part.resize(5000);  // over the cap: the connection is closed
      zmq_send(socket, part.data(), part.size(), p + 1 < parts ? ZMQ_SNDMORE : 0);
    }
    malformed += i % 20 != 19;
    zmq_close(socket);
  }
  zmq_ctx_term(context);
  for (int i = 0; i < 1000 && server.counters()["malformed"] < malformed; ++i) usleep(20000);
  EXPECT_EQ(server.counters()["malformed"], malformed);
  EXPECT_EQ(server.counters()["requests"], 0u);
  EXPECT_EQ(Ask(endpoint), "<hello>");
}

TEST(FrameSocket, BeyondTheLoopbackOnlyWithKeys) {
  testing::TempFolder folder;
  EXPECT_EQ(CodeOf([] { FrameServer server("tcp://0.0.0.0:*", Echo); }), ErrorCode::kUnsupported);
  EXPECT_EQ(CodeOf([] { FrameClient client("tcp://192.0.2.1:5555"); }), ErrorCode::kUnsupported);
  WriteLines(folder / "allowed", {});
  FrameServer server("tcp://0.0.0.0:*", Echo, {.curve = {GenerateCurveKeys(), folder / "allowed"}});
  EXPECT_EQ(server.endpoint().rfind("tcp://0.0.0.0:", 0), 0u);
}

class CurveIdentity : public ::testing::Test {
 protected:
  void SetUp() override {
    server_keys_ = GenerateCurveKeys();
    client_keys_ = GenerateCurveKeys();
    WriteLines(folder_ / "allowed", {"# the clients", client_keys_.public_key + " of the lab"});
  }
  FrameServerOptions Server() { return {.curve = {server_keys_, folder_ / "allowed"}}; }
  FrameClientOptions Client(const CurveKeys& own, const std::string& server) {
    return {.curve = {server, own}};
  }
  FrameClientOptions Client() { return Client(client_keys_, server_keys_.public_key); }

  testing::TempFolder folder_;
  CurveKeys server_keys_, client_keys_;
  // a refusal is proven by the server's counters, not by waiting long
  static constexpr milliseconds kRefused{60};
  static constexpr milliseconds kReaches{200};  // long enough to come as far as the check
};

// RELIABILITY row 17: each way not to be who one should be, twenty times.
TEST_F(CurveIdentity, OnlyTheListedKeyIsAnswered) {
  std::atomic<int> handled{0};
  FrameServer server(
      "tcp://127.0.0.1:*",
      [&](std::string_view request, milliseconds waited) {
        ++handled;
        return Echo(request, waited);
      },
      Server());
  EXPECT_EQ(Ask(server.endpoint(), Client()), "<hello>");
  const uint64_t accepted = server.counters().at("keys_accepted");
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(Ask(server.endpoint(), {}, kRefused), "") << "no key";
    EXPECT_EQ(
        Ask(server.endpoint(), Client(GenerateCurveKeys(), server_keys_.public_key), kReaches), "")
        << "unknown key";
    EXPECT_EQ(
        Ask(server.endpoint(), Client(client_keys_, GenerateCurveKeys().public_key), kRefused), "")
        << "another server's key";
    CurveKeys stolen = client_keys_;  // somebody who has seen the public key only
    stolen.secret_key = GenerateCurveKeys().secret_key;
    EXPECT_EQ(Ask(server.endpoint(), Client(stolen, server_keys_.public_key), kRefused), "")
        << "public key without its secret";
  }
  EXPECT_EQ(handled, 1);
  EXPECT_EQ(server.counters().at("keys_accepted"), accepted);
  for (int i = 0; i < 1000 && server.counters().at("keys_refused") < 20; ++i) usleep(20000);
  EXPECT_GE(server.counters().at("keys_refused"), 20u) << "the unknown keys reached the check";
  EXPECT_EQ(Ask(server.endpoint(), Client()), "<hello>") << "and the right one still does";
}

TEST_F(CurveIdentity, TheRefusedSideIsToldWhy) {
  FrameServer server("tcp://127.0.0.1:*", Echo, Server());
  FrameClient unknown(server.endpoint(), Client(GenerateCurveKeys(), server_keys_.public_key));
  EXPECT_FALSE(unknown.Send("x", After(milliseconds(500))));
  EXPECT_EQ(unknown.State(), "it does not accept our key");
}

TEST_F(CurveIdentity, ARevokedKeyIsOutAtOnce) {
  FrameServer server("tcp://127.0.0.1:*", Echo, Server());
  for (int i = 0; i < 20; ++i) {
    FrameClient client(server.endpoint(), Client());
    std::string reply;
    ASSERT_TRUE(client.Send("a", After(std::chrono::seconds(3))));
    ASSERT_EQ(client.Receive(&reply, After(std::chrono::seconds(3))), FrameClient::Got::kMessage);
    WriteLines(folder_ / "allowed", {"# nobody"});
    client.Send("b", After(milliseconds(200)));
    EXPECT_EQ(client.Receive(&reply, After(kRefused)), FrameClient::Got::kDeadline)
        << "over the open connection";
    EXPECT_EQ(Ask(server.endpoint(), Client(), kRefused), "") << "over a new one";
    ::unlink((folder_ / "allowed").c_str());
    EXPECT_EQ(Ask(server.endpoint(), Client(), kRefused), "")
        << "a list that is gone lets nobody in";
    WriteLines(folder_ / "allowed", {client_keys_.public_key});
  }
  EXPECT_EQ(Ask(server.endpoint(), Client()), "<hello>");
}

// A client that proves its key to a socket whose server was made without ZAP: the list must not be
// skipped.
TEST_F(CurveIdentity, TheListIsAskedForEveryMessage) {
  AllowedKeys allowed(folder_ / "allowed");
  EXPECT_TRUE(allowed.Allows(client_keys_.public_key));
  EXPECT_FALSE(allowed.Allows("")) << "what ZAP never saw has no name";
  EXPECT_FALSE(allowed.Allows(GenerateCurveKeys().public_key));
}

TEST(CurveKeyFiles, RoundTripAndRefusals) {
  testing::TempFolder folder;
  const CurveKeys keys = GenerateCurveKeys();
  WriteCurveKeys(folder / "lab", keys);
  struct stat info {};
  ASSERT_EQ(::stat((folder / "lab.key").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(ReadCurveKeys(folder / "lab.key").secret_key, keys.secret_key);
  EXPECT_EQ(ReadPublicKey(folder / "lab.pub"), keys.public_key);
  EXPECT_EQ(ReadPublicKey(keys.public_key), keys.public_key);
  EXPECT_EQ(CodeOf([&] { WriteCurveKeys(folder / "lab", GenerateCurveKeys()); }),
            ErrorCode::kConflict);
  EXPECT_EQ(ReadCurveKeys(folder / "lab.key").secret_key, keys.secret_key) << "not overwritten";
  ASSERT_EQ(::chmod((folder / "lab.key").c_str(), 0640), 0);
  EXPECT_EQ(CodeOf([&] { ReadCurveKeys(folder / "lab.key"); }), ErrorCode::kUnsupported);
  EXPECT_EQ(CodeOf([&] { ReadCurveKeys(folder / "absent.key"); }), ErrorCode::kNotFound);
  WriteLines(folder / "mixed.key",
             {"public " + GenerateCurveKeys().public_key, "secret " + keys.secret_key});
  ASSERT_EQ(::chmod((folder / "mixed.key").c_str(), 0600), 0);
  EXPECT_EQ(CodeOf([&] { ReadCurveKeys(folder / "mixed.key"); }), ErrorCode::kInvalidArgument);
  WriteLines(folder / "list", {"", "# comment", keys.public_key + " laptop"});
  EXPECT_EQ(ReadAllowedKeys(folder / "list"), std::vector<std::string>{keys.public_key});
  WriteLines(folder / "bad", {keys.public_key.substr(1)});
  try {
    ReadAllowedKeys(folder / "bad");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("line 1"), std::string::npos);
    EXPECT_EQ(std::string(error.what()).find(keys.public_key.substr(1)), std::string::npos)
        << "what stands there is not repeated";
  }
}

}  // namespace
}  // namespace plumb

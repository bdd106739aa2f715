// learner/ranks/rendezvous.h: what the environment says of ranks, and ranks that meet by it.
#include "learner/ranks/rendezvous.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <functional>
#include <map>
#include <thread>

#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using Variables = std::map<std::string, std::string>;

std::optional<RankEnvironment> Read(const Variables& variables) {
  return ReadRankEnvironment([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

const Variables kOfTorchrun = {
    {"MASTER_ADDR", "node-7"}, {"MASTER_PORT", "29511"}, {"RANK", "5"},
    {"WORLD_SIZE", "8"},       {"LOCAL_RANK", "1"},      {"LOCAL_WORLD_SIZE", "4"}};

TEST(RankEnvironment, SaysWhoIsWhere) {
  EXPECT_FALSE(Read({}));
  EXPECT_FALSE(Read({{"WORLD_SIZE", "1"}, {"RANK", "0"}})) << "one rank needs no others";
  auto found = Read(kOfTorchrun);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->rank, 5);
  EXPECT_EQ(found->size, 8);
  EXPECT_EQ(found->local_rank, 1);
  EXPECT_EQ(found->local_size, 4);
  EXPECT_EQ(found->master, "node-7");
  EXPECT_EQ(found->port, 29511);
  EXPECT_FALSE(found->store_is_there);
  Variables elastic = kOfTorchrun;
  elastic["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  elastic["TORCHELASTIC_RESTART_COUNT"] = "2";
  found = Read(elastic);
  EXPECT_TRUE(found->store_is_there);
  EXPECT_EQ(found->restarts, 2);
}

TEST(RankEnvironment, RefusesHalfOfIt) {
  const auto refused = [](const std::string& name, const char* value) {
    Variables variables = kOfTorchrun;
    if (value) variables[name] = value;
    else variables.erase(name);
    try {
      Read(variables);
    } catch (const Error& e) {
      return e.code() == ErrorCode::kInvalidArgument ? e.where() : "another error";
    }
    return std::string("nothing");
  };
  EXPECT_EQ(refused("RANK", nullptr), "RANK");
  EXPECT_EQ(refused("RANK", "8"), "RANK");
  EXPECT_EQ(refused("RANK", "-1"), "RANK");
  EXPECT_EQ(refused("RANK", "1x"), "RANK");
  EXPECT_EQ(refused("MASTER_ADDR", nullptr), "MASTER_ADDR");
  EXPECT_EQ(refused("MASTER_PORT", nullptr), "MASTER_PORT");
  EXPECT_EQ(refused("MASTER_PORT", "70000"), "MASTER_PORT");
  EXPECT_EQ(refused("MASTER_PORT", "0"), "MASTER_PORT");
  EXPECT_EQ(refused("WORLD_SIZE", "two"), "WORLD_SIZE");
  EXPECT_EQ(refused("WORLD_SIZE", nullptr), "WORLD_SIZE");
  EXPECT_EQ(refused("WORLD_SIZE", "0"), "WORLD_SIZE");
  EXPECT_EQ(refused("WORLD_SIZE", "1025"), "WORLD_SIZE");
  EXPECT_EQ(refused("WORLD_SIZE", "999999999"), "WORLD_SIZE");
  EXPECT_EQ(refused("LOCAL_RANK", "4"), "LOCAL_RANK");
}

int FreePort() {
  const Socket probe(socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  PLUMB_CHECK(bind(probe.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
  PLUMB_CHECK(getsockname(probe.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  return ntohs(address.sin_port);
}

TEST(JoinByEnvironment, RanksMeetOverTcp) {
  const int port = FreePort();
  constexpr int kSize = 3;
  std::vector<double> sums(kSize);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kSize; ++rank) {
    threads.emplace_back([&, rank] {
      RankEnvironment environment;
      environment.rank = rank;
      environment.size = kSize;
      environment.master = "127.0.0.1";
      environment.port = port;
      const auto ranks = JoinByEnvironment(environment, std::chrono::seconds(30));
      sums[static_cast<size_t>(rank)] = ranks->Sum(rank + 1.0);
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(sums, std::vector<double>(kSize, 6.0));
}

TEST(JoinByEnvironment, ARankWithoutTheFirstOneSaysWhereItLooked) {
  RankEnvironment environment;
  environment.rank = 1;
  environment.size = 2;
  environment.master = "127.0.0.1";
  environment.port = FreePort();
  try {
    JoinByEnvironment(environment, std::chrono::milliseconds(1500));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnavailable);
    EXPECT_NE(std::string(e.what()).find("127.0.0.1:" + std::to_string(environment.port)),
              std::string::npos)
        << e.what();
  }
}

// A listener that takes connections, in the kernel's queue, and never says anything.
Socket Mute(int port) {
  Socket out(socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  PLUMB_CHECK(bind(out.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
              listen(out.get(), 16) == 0);
  return out;
}

RankEnvironment Second(int port) {
  RankEnvironment out;
  out.rank = 1;
  out.size = 2;
  out.master = "127.0.0.1";
  out.port = port;
  return out;
}

TEST(JoinByEnvironment, AServiceThatDoesNotAnswerIsNamedInTime) {
  const int port = FreePort();
  const Socket mute = Mute(port);
  const auto begin = RankMesh::Clock::now();
  try {
    JoinByEnvironment(Second(port), std::chrono::milliseconds(1000));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnavailable);
    const std::string what = e.what();
    EXPECT_NE(what.find("127.0.0.1:" + std::to_string(port)), std::string::npos) << what;
    EXPECT_NE(what.find("another service"), std::string::npos) << what;
  }
  EXPECT_LT(RankMesh::Clock::now() - begin, std::chrono::seconds(8));
}

// Wherever it waits: for rank 0 to listen, for a service to answer, for a rank above or below it.
TEST(Join, AStopEndsTheWaitAtOnce) {
  const plumb::testing::TempFolder folder;
  const int nobody = FreePort(), mute_port = FreePort();
  const Socket mute = Mute(mute_port);
  const Listener silent = ListenOnPath(folder / "rank-0.sock");
  RankEnvironment first = Second(FreePort());
  first.rank = 0;
  const std::chrono::seconds patience(20);
  using Stop = std::function<bool()>;
  const std::vector<std::function<void(const Stop&)>> waits = {
      [&](const Stop& stop) { JoinByEnvironment(Second(nobody), patience, stop); },
      [&](const Stop& stop) { JoinByEnvironment(Second(mute_port), patience, stop); },
      [&](const Stop& stop) { JoinByEnvironment(first, patience, stop); },
      [&](const Stop& stop) { JoinInFolder(folder.path(), 1, 2, patience, stop); },
      [&](const Stop& stop) { JoinInFolder(folder.path(), 2, 4, patience, stop); },
      [&](const Stop& stop) { JoinInFolder(folder.path(), 0, 2, patience, stop); },
  };
  for (size_t i = 0; i < waits.size(); ++i) {
    const auto begin = RankMesh::Clock::now();
    const auto stop = [&] {
      return RankMesh::Clock::now() - begin > std::chrono::milliseconds(200);
    };
    EXPECT_THROW(waits[i](stop), JoinStopped) << i;
    EXPECT_LT(RankMesh::Clock::now() - begin, std::chrono::seconds(3)) << i;
  }
}

}  // namespace
}  // namespace plumb::learner

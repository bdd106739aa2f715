#include "learner/ranks/rendezvous.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <charconv>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

namespace plumb::learner {
namespace {

std::optional<int> Number(const char* text) {
  int value = 0;
  const char* end = text + std::strlen(text);
  const auto [at, error] = std::from_chars(text, end, value);
  return error == std::errc() && at == end && value >= 0 ? std::optional(value) : std::nullopt;
}

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

Addresses Resolve(const std::string& host, int port, int type) {
  addrinfo hints{};
  hints.ai_socktype = type;
  addrinfo* found = nullptr;
  if (const int code = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
      code != 0) {
    throw Error(ErrorCode::kUnavailable,
                "names no machine that can be found: " + std::string(gai_strerror(code)),
                "MASTER_ADDR=" + host);
  }
  return Addresses(found);
}

// The address of this machine by which it reaches `host`: that of the socket that would go there.
std::string OwnAddressTowards(const std::string& host, int port) {
  const Addresses found = Resolve(host, port, SOCK_DGRAM);
  for (const addrinfo* each = found.get(); each != nullptr; each = each->ai_next) {
    const Socket probe(socket(each->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    char text[NI_MAXHOST] = {};
    if (probe.get() >= 0 && connect(probe.get(), each->ai_addr, each->ai_addrlen) == 0 &&
        getsockname(probe.get(), reinterpret_cast<sockaddr*>(&own), &size) == 0 &&
        getnameinfo(reinterpret_cast<sockaddr*>(&own), size, text, sizeof text, nullptr, 0,
                    NI_NUMERICHOST) == 0)
      return text;
  }
  throw Error(ErrorCode::kUnavailable, "there is no way from this machine to it",
              "MASTER_ADDR=" + host);
}

// LibTorch's store says at length, with stacks, that nobody listens yet.
void AwaitListener(const std::string& host, int port, RankMesh::Clock::time_point deadline) {
  const Addresses found = Resolve(host, port, SOCK_STREAM);
  for (;;) {
    for (const addrinfo* each = found.get(); each != nullptr; each = each->ai_next) {
      const Socket probe(socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const timeval patience{.tv_sec = 2, .tv_usec = 0};  // of a connection that nobody refuses
      setsockopt(probe.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
      if (probe.get() >= 0 && connect(probe.get(), each->ai_addr, each->ai_addrlen) == 0) return;
    }
    if (RankMesh::Clock::now() > deadline) {
      throw Error(ErrorCode::kUnavailable,
                  "nobody listens where the ranks are to meet: rank 0 was not started, or not on "
                  "that machine",
                  "MASTER_ADDR:MASTER_PORT=" + host + ":" + std::to_string(port));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

std::string NewSecret() {
  std::random_device random;
  std::string out;
  constexpr char kDigits[] = "0123456789abcdef";
  for (int i = 0; i < 32; ++i) out += kDigits[random() % 16];
  return out;
}

std::vector<uint8_t> Bytes(const std::string& text) { return {text.begin(), text.end()}; }

}  // namespace

std::optional<RankEnvironment> ReadRankEnvironment(
    const std::function<const char*(const char*)>& get) {
  const char* world = get("WORLD_SIZE");
  if (world == nullptr) return std::nullopt;
  const auto number = [&](const char* name, std::optional<int> otherwise) {
    const char* text = get(name);
    if (text == nullptr && otherwise) return *otherwise;
    if (text == nullptr)
      throw Error(ErrorCode::kInvalidArgument,
                  std::string("is not set, but WORLD_SIZE is ") + world +
                      ": set MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE for each process, or "
                      "none of them",
                  name);
    const std::optional<int> value = Number(text);
    if (!value)
      throw Error(ErrorCode::kInvalidArgument, std::string("is no number: \"") + text + "\"", name);
    return *value;
  };
  RankEnvironment out;
  out.size = number("WORLD_SIZE", std::nullopt);
  if (out.size <= 1) return std::nullopt;
  out.rank = number("RANK", std::nullopt);
  out.port = number("MASTER_PORT", std::nullopt);
  if (get("MASTER_ADDR") == nullptr) number("MASTER_ADDR", std::nullopt);
  out.master = get("MASTER_ADDR");
  out.local_rank = number("LOCAL_RANK", 0);
  out.local_size =
      number("LOCAL_WORLD_SIZE", get("LOCAL_RANK") == nullptr ? 1 : out.local_rank + 1);
  const char* agent = get("TORCHELASTIC_USE_AGENT_STORE");
  out.store_is_there = agent != nullptr && std::string(agent) == "True";
  out.restarts = number("TORCHELASTIC_RESTART_COUNT", 0);
  if (out.rank >= out.size) {
    throw Error(ErrorCode::kInvalidArgument,
                "is " + std::to_string(out.rank) +
                    ", but ranks go from 0 to WORLD_SIZE - 1 = " + std::to_string(out.size - 1),
                "RANK");
  }
  if (out.port > 65535) throw Error(ErrorCode::kInvalidArgument, "is no port", "MASTER_PORT");
  return out;
}

std::unique_ptr<Ranks> JoinByEnvironment(const RankEnvironment& environment,
                                         std::chrono::milliseconds patience) {
  const auto deadline = RankMesh::Clock::now() + patience;
  const std::string where = environment.master + ":" + std::to_string(environment.port);
  const auto left = [&] {
    return std::max(
        std::chrono::milliseconds(1),
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - RankMesh::Clock::now()));
  };
  const auto name = [](int rank) { return "address/" + std::to_string(rank); };
  try {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(environment.port);
    options.isServer = environment.rank == 0 && !environment.store_is_there;
    options.waitWorkers = false;
    options.timeout = patience;
    if (!options.isServer) AwaitListener(environment.master, environment.port, deadline);
    const auto served = c10::make_intrusive<c10d::TCPStore>(environment.master, options);
    const auto store = c10::make_intrusive<c10d::PrefixStore>(
        "plumb/" + std::to_string(environment.restarts), served);
    Listener listener = ListenOnAddress(OwnAddressTowards(environment.master, environment.port));
    if (environment.rank == 0) store->set("secret", Bytes(NewSecret()));
    store->set(name(environment.rank), Bytes(listener.address));
    const auto get = [&](const std::string& key) {
      store->wait({key}, left());
      const std::vector<uint8_t> bytes = store->get(key);
      return std::string(bytes.begin(), bytes.end());
    };
    const std::string secret = get("secret");
    const auto address_of = [&](int rank) {
      try {
        return get(name(rank));
      } catch (const c10::Error&) {
        throw RankLost(rank, "rank " + std::to_string(rank) + " of " +
                                 std::to_string(environment.size) + " did not come to " + where +
                                 " in time: start all ranks");
      }
    };
    RankMesh mesh(environment.rank, environment.size, std::move(listener), address_of, secret,
                  deadline);
    auto ranks = std::make_unique<Ranks>(std::move(mesh), patience);
    ranks->Barrier();  // rank 0 serves the addresses until all have them
    return ranks;
  } catch (const c10::Error& e) {
    throw Error(ErrorCode::kUnavailable,
                std::string("the ranks' meeting point cannot be reached or opened: ") +
                    e.what_without_backtrace(),
                "MASTER_ADDR:MASTER_PORT=" + where);
  }
}

std::unique_ptr<Ranks> JoinInFolder(const std::string& folder, int rank, int size,
                                    std::chrono::milliseconds patience) {
  const auto path = [&](int of) { return folder + "/rank-" + std::to_string(of) + ".sock"; };
  RankMesh mesh(
      rank, size, ListenOnPath(path(rank)), [&](int of) { return "unix:" + path(of); }, "",
      RankMesh::Clock::now() + patience);
  return std::make_unique<Ranks>(std::move(mesh), patience);
}

}  // namespace plumb::learner

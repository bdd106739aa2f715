#include "learner/ranks/rendezvous.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstring>
#include <future>
#include <random>
#include <thread>
#include <vector>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

namespace plumb::learner {
namespace {

using Clock = RankMesh::Clock;

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

// LibTorch's store says at length, with stacks, that nobody listens yet. False: given up.
bool AwaitListener(const std::string& host, int port, RankMesh::Clock::time_point deadline,
                   const std::atomic<bool>& given_up) {
  const Addresses found = Resolve(host, port, SOCK_STREAM);
  while (!given_up.load()) {
    for (const addrinfo* each = found.get(); each != nullptr; each = each->ai_next) {
      const Socket probe(socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const timeval patience{.tv_sec = 2, .tv_usec = 0};  // of a connection that nobody refuses
      setsockopt(probe.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
      if (probe.get() >= 0 && connect(probe.get(), each->ai_addr, each->ai_addrlen) == 0)
        return true;
    }
    if (RankMesh::Clock::now() > deadline) {
      throw Error(ErrorCode::kUnavailable,
                  "nobody listens where the ranks are to meet: rank 0 was not started, or not on "
                  "that machine",
                  "MASTER_ADDR:MASTER_PORT=" + host + ":" + std::to_string(port));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return false;
}

std::string NewSecret() {
  std::random_device random;
  std::string out;
  constexpr char kDigits[] = "0123456789abcdef";
  for (int i = 0; i < 32; ++i) out += kDigits[random() % 16];
  return out;
}

std::vector<uint8_t> Bytes(const std::string& text) { return {text.begin(), text.end()}; }

// What a rank learns at the meeting point, and what keeps that open.
struct Meeting {
  c10::intrusive_ptr<c10d::TCPStore> served;
  std::string secret;
  std::vector<std::string> addresses;  // of the ranks below this one
};

// Says where this rank listens (`own`) and learns where those below it do.
Meeting Meet(const RankEnvironment& environment, const std::string& own,
             RankMesh::Clock::time_point deadline, const std::atomic<bool>& given_up) {
  const std::string where = environment.master + ":" + std::to_string(environment.port);
  const auto name = [](int rank) { return "address/" + std::to_string(rank); };
  Meeting out;
  try {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(environment.port);
    options.isServer = environment.rank == 0 && !environment.store_is_there;
    options.waitWorkers = false;
    options.timeout =
        std::max(std::chrono::milliseconds(1),
                 std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()));
    if (!options.isServer &&
        !AwaitListener(environment.master, environment.port, deadline, given_up))
      return out;
    out.served = c10::make_intrusive<c10d::TCPStore>(environment.master, options);
    const auto store = c10::make_intrusive<c10d::PrefixStore>(
        "plumb/" + std::to_string(environment.restarts), out.served);
    if (environment.rank == 0) store->set("secret", Bytes(NewSecret()));
    store->set(name(environment.rank), Bytes(own));
    const auto get = [&](const std::string& key, int of) {
      while (!store->check({key})) {
        if (given_up.load()) return std::string();
        if (Clock::now() > deadline) {
          throw RankLost(of, "rank " + std::to_string(of) + " of " +
                                 std::to_string(environment.size) + " did not come to " + where +
                                 " in time: start all ranks");
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
      const std::vector<uint8_t> bytes = store->get(key);
      return std::string(bytes.begin(), bytes.end());
    };
    out.secret = get("secret", 0);
    for (int rank = 0; rank < environment.rank; ++rank)
      out.addresses.push_back(get(name(rank), rank));
    return out;
  } catch (const c10::Error& e) {
    throw Error(ErrorCode::kUnavailable,
                std::string("the ranks' meeting point cannot be reached or opened: ") +
                    e.what_without_backtrace(),
                "MASTER_ADDR:MASTER_PORT=" + where);
  }
}

// LibTorch's store waits without end for a service that takes connections and says nothing, and so
// may the resolver: a thread asks, this one waits until the deadline or a stop.
Meeting MeetInTime(const RankEnvironment& environment, const std::string& own,
                   RankMesh::Clock::time_point deadline, const std::function<bool()>& stop) {
  struct Talk {
    std::atomic<bool> given_up{false};
    std::promise<Meeting> meeting;
  };
  const auto talk = std::make_shared<Talk>();
  std::future<Meeting> meeting = talk->meeting.get_future();
  std::thread asks([talk, environment, own, deadline] {
    try {
      talk->meeting.set_value(Meet(environment, own, deadline, talk->given_up));
    } catch (...) {
      talk->meeting.set_exception(std::current_exception());
    }
  });
  const auto late = deadline + std::chrono::seconds(1);  // what it has to say is said better there
  const auto has_ended = [&](std::chrono::milliseconds wait) {
    return meeting.wait_for(wait) == std::future_status::ready;
  };
  bool stopped = false, ended = false;
  while (!ended && !stopped && Clock::now() < late) {
    ended = has_ended(std::chrono::milliseconds(20));
    stopped = !ended && stop && stop();
  }
  talk->given_up.store(true);
  if (!ended && !has_ended(std::chrono::milliseconds(100))) asks.detach();
  else asks.join();
  if (stopped) throw JoinStopped();
  if (ended) return meeting.get();
  throw Error(
      ErrorCode::kUnavailable,
      "something takes connections there and does not answer as the ranks' meeting point: "
      "another service has the port, or rank 0 hangs (run.stall_seconds says how long a "
      "rank waits)",
      "MASTER_ADDR:MASTER_PORT=" + environment.master + ":" + std::to_string(environment.port));
}

}  // namespace

std::optional<RankEnvironment> ReadRankEnvironment(
    const std::function<const char*(const char*)>& get) {
  const char* world = get("WORLD_SIZE");
  if (world == nullptr && get("RANK") == nullptr) return std::nullopt;
  if (world == nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("is not set, but RANK is ") + get("RANK") +
                    ": set MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE for each process, or "
                    "none of them",
                "WORLD_SIZE");
  }
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
  if (out.size == 1) return std::nullopt;
  if (out.size < 1 || out.size > kMostRanks) {
    throw Error(ErrorCode::kInvalidArgument,
                "is " + std::to_string(out.size) + ": it is the number of ranks, of 1 to " +
                    std::to_string(kMostRanks) + "; for one process leave it out",
                "WORLD_SIZE");
  }
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
  if (out.local_rank >= out.local_size) {
    throw Error(ErrorCode::kInvalidArgument,
                "is " + std::to_string(out.local_rank) +
                    ", but the ranks of a machine go from 0 to LOCAL_WORLD_SIZE - 1 = " +
                    std::to_string(out.local_size - 1),
                "LOCAL_RANK");
  }
  if (out.port < 1 || out.port > 65535) {
    throw Error(ErrorCode::kInvalidArgument,
                "is " + std::to_string(out.port) +
                    ", which is no port: the same of 1 to 65535 for all ranks",
                "MASTER_PORT");
  }
  return out;
}

std::unique_ptr<Ranks> JoinByEnvironment(const RankEnvironment& environment,
                                         std::chrono::milliseconds patience,
                                         const std::function<bool()>& stop) {
  const auto deadline = Clock::now() + patience;
  Listener listener = ListenOnAddress(OwnAddressTowards(environment.master, environment.port));
  const Meeting meeting = MeetInTime(environment, listener.address, deadline, stop);
  RankMesh mesh(
      environment.rank, environment.size, std::move(listener),
      [&](int rank) { return meeting.addresses.at(static_cast<size_t>(rank)); }, meeting.secret,
      deadline, stop);
  auto ranks = std::make_unique<Ranks>(std::move(mesh), patience);
  ranks->Barrier();  // rank 0 serves the addresses until all have them
  return ranks;
}

std::unique_ptr<Ranks> JoinInFolder(const std::string& folder, int rank, int size,
                                    std::chrono::milliseconds patience,
                                    const std::function<bool()>& stop) {
  const auto path = [&](int of) { return folder + "/rank-" + std::to_string(of) + ".sock"; };
  RankMesh mesh(
      rank, size, ListenOnPath(path(rank)), [&](int of) { return "unix:" + path(of); }, "",
      Clock::now() + patience, stop);
  return std::make_unique<Ranks>(std::move(mesh), patience);
}

}  // namespace plumb::learner

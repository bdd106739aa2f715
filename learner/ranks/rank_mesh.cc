#include "learner/ranks/rank_mesh.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "common/base/checked_math.h"
#include "common/base/hash/digest.h"

namespace plumb::learner {
namespace {

using Clock = RankMesh::Clock;

constexpr uint32_t kMagic = 0x504c4d52, kVersion = 1;
constexpr size_t kSecretBytes = 32, kMaxReason = 4096;
constexpr uint32_t kData = 0, kEnded = 1;
constexpr auto kForAReason = std::chrono::milliseconds(300);

// In front of every message; all machines of a group are little-endian and of one build.
struct Header {
  uint32_t magic = kMagic, kind = kData;
  uint64_t call = 0;   // of kEnded: unused
  uint64_t what = 0;   // hash of the call's name
  uint64_t bytes = 0;  // that follow
};

struct Hello {
  uint32_t magic = kMagic, version = kVersion;
  int32_t rank = 0, size = 0;
  char secret[kSecretBytes] = {};
};

[[noreturn]] void Refused(const std::string& what, const std::string& where) {
  throw Error(ErrorCode::kIo, what + ": " + std::strerror(errno), where);
}

int MillisecondsTo(Clock::time_point deadline) {
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left + 1, 0, 60'000));
}

// How long a wait may be that looks at `stop` in between.
int WaitMs(Clock::time_point deadline, const std::function<bool()>& stop) {
  return stop ? std::min(MillisecondsTo(deadline), 20) : MillisecondsTo(deadline);
}

bool Over(Clock::time_point deadline, const std::function<bool()>& stop) {
  return Clock::now() >= deadline || (stop && stop());
}

void ThrowIfStopped(const std::function<bool()>& stop) {
  if (stop && stop()) throw JoinStopped();
}

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

Address PathAddress(const std::string& path) {
  Address out;
  auto* unix_address = reinterpret_cast<sockaddr_un*>(&out.storage);
  unix_address->sun_family = AF_UNIX;
  if (path.size() >= sizeof unix_address->sun_path)
    throw Error(ErrorCode::kInvalidArgument, "is too long for a socket", path);
  std::memcpy(unix_address->sun_path, path.c_str(), path.size() + 1);
  out.size = sizeof(sockaddr_un);
  return out;
}

Address TcpAddress(const std::string& host, uint16_t port) {
  Address out;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&out.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    out.size = sizeof *v4;
  } else if (inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    out.size = sizeof *v6;
  } else {
    throw Error(ErrorCode::kInvalidArgument, "is no address of a network interface", host);
  }
  return out;
}

Address Parse(const std::string& address) {
  if (address.starts_with("unix:")) return PathAddress(address.substr(5));
  const size_t colon = address.rfind(':');
  if (!address.starts_with("tcp:") || colon <= 4)
    throw Error(ErrorCode::kCorruption, "is no address of a rank", address);
  return TcpAddress(address.substr(4, colon - 4),
                    static_cast<uint16_t>(std::atoi(address.c_str() + colon + 1)));
}

void MakeQuick(int descriptor) {
  const int flags = fcntl(descriptor, F_GETFL);
  fcntl(descriptor, F_SETFL, flags | O_NONBLOCK);
  const int on = 1, room = 4 << 20;  // the system gives as much of it as it allows
  setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
}

Hello HelloOf(int rank, int size, const std::string& secret) {
  Hello hello{.rank = rank, .size = size};
  std::memcpy(hello.secret, secret.data(), std::min(secret.size(), kSecretBytes));
  return hello;
}

// Whole or not at all by the deadline or a stop; false: the other end is no rank of this group, or
// is gone.
bool ReadWhole(int descriptor, void* into, size_t bytes, Clock::time_point deadline,
               const std::function<bool()>& stop = {}) {
  auto* at = static_cast<char*>(into);
  while (bytes > 0) {
    pollfd poller{.fd = descriptor, .events = POLLIN, .revents = 0};
    if (poll(&poller, 1, WaitMs(deadline, stop)) == 0) {
      if (Over(deadline, stop)) return false;
      continue;
    }
    const ssize_t got = recv(descriptor, at, bytes, MSG_DONTWAIT);
    if (got == 0) return false;
    if (got < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (got < 0) continue;
    at += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

bool SendWhole(int descriptor, const void* from, size_t bytes, Clock::time_point deadline) {
  const auto* at = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t sent = send(descriptor, at, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (sent > 0) {
      at += sent;
      bytes -= static_cast<size_t>(sent);
      continue;
    }
    pollfd poller{.fd = descriptor, .events = POLLOUT, .revents = 0};
    if (poll(&poller, 1, MillisecondsTo(deadline)) == 0) return false;
  }
  return true;
}

// What a rank says behind the header of its end.
[[noreturn]] void Ended(int rank, int descriptor, uint64_t bytes) {
  std::string why(std::min<uint64_t>(bytes, kMaxReason), ' ');
  ReadWhole(descriptor, why.data(), why.size(), Clock::now() + std::chrono::seconds(1));
  throw RankLost(rank, "rank " + std::to_string(rank) + " ended: " + why);
}

std::string Seconds(Clock::duration d) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
  return std::to_string(ms / 1000) + "." + std::to_string(ms % 1000 / 100) + " s";
}

}  // namespace

Socket::~Socket() {
  if (descriptor_ >= 0) close(descriptor_);
}

Socket::Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

Listener ListenOnPath(const std::string& path) {
  Listener out{Socket(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)), "unix:" + path};
  Address address = PathAddress(path);
  unlink(path.c_str());  // of an earlier life of this rank
  if (out.socket.get() < 0 || bind(out.socket.get(), address.get(), address.size) != 0 ||
      listen(out.socket.get(), 128) != 0)
    Refused("cannot listen", path);
  return out;
}

Listener ListenOnAddress(const std::string& host) {
  Address address = TcpAddress(host, 0);
  Listener out{Socket(socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)), {}};
  if (out.socket.get() < 0 || bind(out.socket.get(), address.get(), address.size) != 0 ||
      listen(out.socket.get(), 128) != 0 ||
      getsockname(out.socket.get(), address.get(), &address.size) != 0)
    Refused("cannot listen", host);
  const uint16_t port = address.storage.ss_family == AF_INET
                            ? reinterpret_cast<sockaddr_in*>(&address.storage)->sin_port
                            : reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_port;
  out.address = "tcp:" + host + ":" + std::to_string(ntohs(port));
  return out;
}

RankMesh::RankMesh(int rank, int size, Listener listener,
                   const std::function<std::string(int rank)>& address_of,
                   const std::string& secret, Clock::time_point deadline, Stop stop)
    : rank_(rank), peers_(static_cast<size_t>(size)) {
  PLUMB_CHECK(rank >= 0 && rank < size, "ranks are numbered from 0");
  for (int peer = 0; peer < rank; ++peer) Connect(peer, address_of(peer), secret, deadline, stop);
  for (int peer = rank + 1; peer < size; ++peer) Accept(listener, secret, deadline, stop);
  if (listener.address.starts_with("unix:")) unlink(listener.address.c_str() + 5);
}

void RankMesh::Connect(int peer, const std::string& address, const std::string& secret,
                       Clock::time_point deadline, const Stop& stop) {
  Address to = Parse(address);
  for (;;) {
    ThrowIfStopped(stop);
    Socket made(socket(to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (made.get() < 0) Refused("cannot make a socket", address);
    // Blocking, and answered at once by whoever listens; nobody does until that rank has come up.
    if (connect(made.get(), to.get(), to.size) == 0) {
      const Hello hello = HelloOf(rank_, size(), secret);
      Hello answer;
      MakeQuick(made.get());
      if (SendWhole(made.get(), &hello, sizeof hello, deadline) &&
          ReadWhole(made.get(), &answer, sizeof answer, deadline, stop) && answer.magic == kMagic &&
          answer.version == kVersion && answer.rank == peer && answer.size == size()) {
        peers_[static_cast<size_t>(peer)].socket = std::move(made);
        return;
      }
    }
    if (Clock::now() > deadline) {
      throw RankLost(peer, "rank " + std::to_string(peer) + " of " + std::to_string(size()) +
                               " did not answer at " + address +
                               " in time: start all ranks, with the same number of ranks");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

void RankMesh::Accept(const Listener& listener, const std::string& secret,
                      Clock::time_point deadline, const Stop& stop) {
  for (;;) {
    ThrowIfStopped(stop);
    pollfd poller{.fd = listener.socket.get(), .events = POLLIN, .revents = 0};
    const int ready = poll(&poller, 1, WaitMs(deadline, stop));
    if (ready <= 0 && Clock::now() <= deadline) continue;
    if (ready == 0) {
      std::string missing;
      int first = size();
      for (int peer = size() - 1; peer > rank_; --peer) {
        if (peers_[static_cast<size_t>(peer)].socket.get() >= 0) continue;
        first = peer;
        missing = std::to_string(peer) + (missing.empty() ? "" : ", ") + missing;
      }
      throw RankLost(
          first, "of " + std::to_string(size()) + " ranks these did not come in time: " + missing);
    }
    Socket came(accept4(listener.socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (came.get() < 0) continue;
    MakeQuick(came.get());
    Hello hello;
    // Whoever says nothing is not waited for long: it may be somebody else's connection.
    const auto soon = std::min(deadline, Clock::now() + std::chrono::seconds(5));
    const Hello expected = HelloOf(hello.rank, size(), secret);
    if (!ReadWhole(came.get(), &hello, sizeof hello, soon, stop)) continue;
    const bool ours = hello.magic == kMagic && hello.version == kVersion && hello.size == size() &&
                      hello.rank > rank_ && hello.rank < size() &&
                      std::memcmp(hello.secret, expected.secret, kSecretBytes) == 0;
    if (!ours || peers_[static_cast<size_t>(hello.rank)].socket.get() >= 0) continue;
    const Hello answer = HelloOf(rank_, size(), secret);
    if (!SendWhole(came.get(), &answer, sizeof answer, soon)) continue;
    peers_[static_cast<size_t>(hello.rank)].socket = std::move(came);
    return;
  }
}

// One peer's part of an Exchange.
struct RankMesh::Lane {
  int peer = 0;
  Header out, in;
  std::span<const std::byte> send;
  std::span<std::byte> receive;
  size_t sent = 0, received = 0;  // header included

  size_t to_send() const { return send.empty() ? 0 : sizeof(Header) + send.size() - sent; }
  size_t to_receive() const {
    return receive.empty() ? 0 : sizeof(Header) + receive.size() - received;
  }
  bool done() const { return to_send() == 0 && to_receive() == 0; }
};

void RankMesh::Gone(int peer) const {
  // Mostly it went because another rank has ended, which tells everybody why, but in the middle of
  // a message to this one it could not pass that on.
  const auto until = Clock::now() + kForAReason;
  while (size() > 2 && Clock::now() < until) {
    for (int other = 0; other < size(); ++other) {
      const int descriptor = peers_[static_cast<size_t>(other)].socket.get();
      Header next;
      if (other == peer || descriptor < 0 ||
          recv(descriptor, &next, sizeof next, MSG_DONTWAIT | MSG_PEEK) != sizeof next)
        continue;
      if (next.magic != kMagic || next.kind != kEnded) continue;
      ReadWhole(descriptor, &next, sizeof next, Clock::now());
      Ended(other, descriptor, next.bytes);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  throw RankLost(peer, "rank " + std::to_string(peer) + " of " + std::to_string(size()) +
                           " is gone: its process has ended (its log says more)");
}

// What `events` allow of one lane, without waiting.
void RankMesh::Advance(Lane& lane, short events, uint64_t call, std::string_view what) {
  Peer& peer = peers_[static_cast<size_t>(lane.peer)];
  const int descriptor = peer.socket.get();
  if ((events & (POLLIN | POLLHUP | POLLERR)) != 0) {
    while (lane.to_receive() > 0 || lane.receive.empty()) {
      const bool header = lane.received < sizeof(Header);
      if (lane.receive.empty() && !header) break;
      std::byte* into = header ? reinterpret_cast<std::byte*>(&lane.in) + lane.received
                               : lane.receive.data() + (lane.received - sizeof(Header));
      // Of a peer that nothing is expected from, only its end is of interest; what it sends for a
      // later call stays where it is.
      const size_t want = header ? sizeof(Header) - lane.received : lane.to_receive();
      const int flags = MSG_DONTWAIT | (lane.receive.empty() ? MSG_PEEK : 0);
      const ssize_t got = recv(descriptor, into, want, flags);
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) break;
      if (got <= 0) Gone(lane.peer);
      if (lane.receive.empty()) {
        if (static_cast<size_t>(got) < sizeof(Header) || lane.in.kind != kEnded) break;
        Header again;
        ReadWhole(descriptor, &again, sizeof again, Clock::now());
        lane.received = sizeof(Header);
      } else {
        lane.received += static_cast<size_t>(got);
      }
      if (!header || lane.received < sizeof(Header)) continue;
      if (lane.in.magic != kMagic)
        throw RankLost(lane.peer, "rank " + std::to_string(lane.peer) + " sent what is no message");
      if (lane.in.kind == kEnded) Ended(lane.peer, descriptor, lane.in.bytes);
      if (lane.in.call != call || lane.in.what != lane.out.what ||
          lane.in.bytes != lane.receive.size()) {
        throw RankLost(lane.peer,
                       "rank " + std::to_string(lane.peer) + " is elsewhere: its call " +
                           std::to_string(lane.in.call) + " of " + std::to_string(lane.in.bytes) +
                           " bytes is not this rank's call " + std::to_string(call) + " (" +
                           std::string(what) + ") of " + std::to_string(lane.receive.size()) +
                           " bytes: do all ranks have the same recipe and data?");
      }
    }
  }
  if ((events & (POLLOUT | POLLHUP | POLLERR)) != 0) {
    while (lane.to_send() > 0) {
      const bool header = lane.sent < sizeof(Header);
      const auto* from = header ? reinterpret_cast<const std::byte*>(&lane.out) + lane.sent
                                : lane.send.data() + (lane.sent - sizeof(Header));
      const size_t size = header ? sizeof(Header) - lane.sent : lane.to_send();
      const ssize_t sent = ::send(descriptor, from, size, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0 && (errno == EAGAIN || errno == EINTR)) break;
      if (sent < 0) {
        Advance(lane, POLLIN, call, what);  // perhaps it has said why before it went
        Gone(lane.peer);
      }
      lane.sent += static_cast<size_t>(sent);
      if (!header) std::atomic_ref(sent_bytes_).fetch_add(sent, std::memory_order_relaxed);
      peer.mid_message = lane.to_send() > 0;
    }
  }
}

void RankMesh::Exchange(uint64_t call, std::string_view what, std::span<const Part> parts,
                        Clock::time_point deadline) {
  const auto begin = Clock::now();
  std::vector<Lane> lanes;
  for (const Part& part : parts) {
    PLUMB_CHECK(part.peer != rank_ && peers_[static_cast<size_t>(part.peer)].socket.get() >= 0,
                "no connection");
    Lane lane{.peer = part.peer, .send = part.send, .receive = part.receive};
    lane.out = {.call = call, .what = HashBytes(what), .bytes = part.send.size()};
    lanes.push_back(std::move(lane));
  }
  std::vector<pollfd> pollers(lanes.size());
  for (;;) {
    bool waiting = false;
    for (size_t i = 0; i < lanes.size(); ++i) {
      short events = 0;
      if (lanes[i].to_send() > 0) events |= POLLOUT;
      if (lanes[i].to_receive() > 0) events |= POLLIN;
      waiting = waiting || events != 0;
      pollers[i] = {
          .fd = events != 0 ? peers_[static_cast<size_t>(lanes[i].peer)].socket.get() : -1,
          .events = events,
          .revents = 0};
    }
    if (!waiting) return;
    const int ready = poll(pollers.data(), pollers.size(), MillisecondsTo(deadline));
    if (ready < 0 && errno != EINTR) Refused("cannot wait for the other ranks", std::string(what));
    if (ready == 0 && Clock::now() >= deadline) {
      std::string late;
      int first = -1;
      for (const Lane& lane : lanes) {
        if (lane.done()) continue;
        if (first < 0) first = lane.peer;
        late += (late.empty() ? "" : ", ") + std::to_string(lane.peer);
      }
      throw RankLost(first, "waited " + Seconds(Clock::now() - begin) + " for rank " + late +
                                " of " + std::to_string(size()) + " in " + std::string(what) +
                                ": it hangs, is stopped or has far more to do; run.stall_seconds "
                                "says how long a rank waits");
    }
    for (size_t i = 0; i < lanes.size(); ++i) {
      if (pollers[i].revents != 0) Advance(lanes[i], pollers[i].revents, call, what);
    }
  }
}

int64_t RankMesh::sent_bytes() const {
  return std::atomic_ref(const_cast<int64_t&>(sent_bytes_)).load(std::memory_order_relaxed);
}

void RankMesh::SayEnded(const std::string& why) noexcept {
  try {
    const std::string text = why.substr(0, kMaxReason);
    const Header header{.kind = kEnded, .bytes = text.size()};
    std::string message(reinterpret_cast<const char*>(&header), sizeof header);
    message += text;
    for (const Peer& peer : peers_) {
      if (peer.socket.get() < 0 || peer.mid_message) continue;
      SendWhole(peer.socket.get(), message.data(), message.size(),
                Clock::now() + std::chrono::milliseconds(200));
    }
  } catch (...) {  // no memory: the others see the connection end
  }
}

}  // namespace plumb::learner

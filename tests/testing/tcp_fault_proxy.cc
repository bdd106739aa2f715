#include "tests/testing/tcp_fault_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <deque>
#include <string>
#include <vector>

#include "common/base/error.h"

namespace plumb::testing {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr size_t kChunkBytes = 512;
// chunks a direction; then reading stops, and TCP holds the writer
constexpr size_t kMaxQueued = 64;

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

struct Chunk {
  SteadyClock::time_point due;
  std::string bytes;
};

}  // namespace

struct TcpFaultProxy::Link {
  int ends[2] = {-1, -1};       // 0: who connected, 1: the target
  std::deque<Chunk> queues[2];  // what was read from end i, for the other one
  bool cut_after[2] = {false, false};
  ~Link() {
    for (const int fd : ends) {
      if (fd >= 0) ::close(fd);
    }
  }
};

TcpFaultProxy::TcpFaultProxy(int target_port, ProxyFaults faults, uint64_t seed)
    : target_port_(target_port), faults_(faults), random_(seed) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in address = Loopback(0);
  socklen_t length = sizeof address;
  PLUMB_CHECK(listener_ >= 0 &&
              ::bind(listener_, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
              ::listen(listener_, 64) == 0 &&
              ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Run(); });
}

TcpFaultProxy::~TcpFaultProxy() {
  stop_ = true;
  thread_.join();
  ::close(listener_);
}

void TcpFaultProxy::Run() {
  while (!stop_) {
    std::vector<pollfd> fds = {{listener_, POLLIN, 0}};
    for (const auto& link : links_) {
      for (int i = 0; i < 2; ++i) {
        const bool read = !partitioned_ && link->queues[i].size() < kMaxQueued;
        fds.push_back({link->ends[i], static_cast<short>(read ? POLLIN : 0), 0});
      }
    }
    ::poll(fds.data(), fds.size(), links_.empty() ? 20 : 1);
    if (partitioned_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      continue;
    }
    if (fds[0].revents) {
      auto link = std::make_unique<Link>();
      link->ends[0] = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      link->ends[1] = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      const sockaddr_in target = Loopback(target_port_);
      if (link->ends[0] >= 0 && ::connect(link->ends[1], reinterpret_cast<const sockaddr*>(&target),
                                          sizeof target) == 0) {
        const int yes = 1;
        for (const int fd : link->ends)
          ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        ++connections_;
        links_.push_back(std::move(link));
      }
    }
    std::erase_if(links_, [&](const auto& link) { return !Pump(*link); });
  }
  links_.clear();
}

// False when the connection has to end.
bool TcpFaultProxy::Pump(Link& link) {
  const auto now = SteadyClock::now();
  const auto chance = [&](double p) {
    const bool hit = !healthy_ && p > 0 && std::uniform_real_distribution<>(0, 1)(random_) < p;
    faults_done_ += hit;
    return hit;
  };
  for (int i = 0; i < 2; ++i) {
    auto& queue = link.queues[i];
    char buffer[kChunkBytes];
    while (queue.size() < kMaxQueued && !link.cut_after[i]) {
      const ssize_t n = ::recv(link.ends[i], buffer, sizeof buffer, MSG_DONTWAIT);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) break;
      if (n <= 0) {
        link.cut_after[i] = true;
        break;
      }
      Chunk chunk{now, std::string(buffer, static_cast<size_t>(n))};
      if (chance(faults_.vanish)) continue;
      if (chance(faults_.change))
        chunk.bytes[random_() % chunk.bytes.size()] ^= static_cast<char>(1 + random_() % 255);
      if (chance(faults_.delay))
        chunk.due += std::chrono::milliseconds(1 + random_() % faults_.max_delay_ms);
      const bool twice = chance(faults_.twice);
      if (chance(faults_.cut)) {
        chunk.bytes.resize(chunk.bytes.size() / 2);
        link.cut_after[i] = true;
      }
      queue.push_back(chunk);
      if (twice) queue.push_back(chunk);
      if (queue.size() >= 2 && chance(faults_.swap))
        std::swap(queue[queue.size() - 1].bytes, queue[queue.size() - 2].bytes);
    }
    while (!queue.empty() && queue.front().due <= now) {
      Chunk& chunk = queue.front();
      const ssize_t n = ::send(link.ends[1 - i], chunk.bytes.data(), chunk.bytes.size(),
                               MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) break;
      if (n < 0) return false;
      chunk.bytes.erase(0, static_cast<size_t>(n));
      if (!chunk.bytes.empty()) break;
      queue.pop_front();
    }
    if (link.cut_after[i] && queue.empty()) return false;
  }
  return true;
}

}  // namespace plumb::testing

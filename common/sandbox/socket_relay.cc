#include "common/sandbox/socket_relay.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <list>
#include <vector>

#include "common/base/error.h"

namespace plumb {
namespace {

constexpr size_t kMostHeld = 1 << 18;  // bytes on their way in one direction
constexpr size_t kMostPairs = 1024;    // connections at once; one more waits

// A socket file's address; false: the path is too long for one.
bool AddressOf(const std::string& path, sockaddr_un* out) {
  *out = {};
  out->sun_family = AF_UNIX;
  if (path.size() >= sizeof out->sun_path) return false;
  std::memcpy(out->sun_path, path.c_str(), path.size() + 1);
  return true;
}

sockaddr_in LoopbackOf(int port) {
  sockaddr_in out = {};
  out.sin_family = AF_INET;
  out.sin_port = htons(static_cast<uint16_t>(port));
  out.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return out;
}

template <class Address>
int Connected(int family, const Address& address) {
  const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return fd;
  }
  close(fd);
  return -1;
}

template <class Address>
int Listening(int family, const Address& address) {
  const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  const int yes = 1;
  if (family == AF_INET) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
      listen(fd, 512) == 0)
    return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

// Two connections and what is on its way between them; 0 and 1 are their sides.
struct Pair {
  std::array<int, 2> fd{-1, -1};
  std::array<std::string, 2> held;  // read from a side, not yet written to the other
  std::array<bool, 2> ended{};      // nothing more comes from it
  std::array<bool, 2> told{};       // the other side knows
  bool broken = false;

  bool done() const { return broken || (told[0] && told[1]); }

  short Wants(size_t side) const {
    short events = 0;
    if (!ended[side] && held[side].size() < kMostHeld) events |= POLLIN;
    if (!held[1 - side].empty()) events |= POLLOUT;
    return events;
  }

  void Move(size_t side, short events) {
    if ((events & (POLLIN | POLLHUP | POLLERR)) != 0 && !ended[side] &&
        held[side].size() < kMostHeld) {
      char buffer[65536];
      const ssize_t n = read(fd[side], buffer, sizeof buffer);
      if (n > 0) held[side].append(buffer, static_cast<size_t>(n));
      else if (n == 0) ended[side] = true;
      else if (errno != EAGAIN && errno != EINTR) broken = true;
    }
    Write(side);
    Write(1 - side);
  }

  // What came from `side` to the other.
  void Write(size_t side) {
    if (!held[side].empty()) {
      const ssize_t n = send(fd[1 - side], held[side].data(), held[side].size(), MSG_NOSIGNAL);
      if (n > 0) held[side].erase(0, static_cast<size_t>(n));
      else if (n < 0 && errno != EAGAIN && errno != EINTR) broken = true;
    }
    if (ended[side] && held[side].empty() && !told[side]) {
      told[side] = true;
      shutdown(fd[1 - side], SHUT_WR);
    }
  }
};

// Until `stop` can be read. -1: for ever.
void Carry(int listener, int stop, const std::function<int()>& connect) {
  std::list<Pair> pairs;
  std::vector<pollfd> polls;
  for (;;) {
    polls.assign({{listener, static_cast<short>(pairs.size() < kMostPairs ? POLLIN : 0), 0},
                  {stop, POLLIN, 0}});
    for (const Pair& pair : pairs) {
      for (size_t side = 0; side < 2; ++side) {
        const short wants = pair.Wants(side);
        polls.push_back({wants == 0 ? -1 : pair.fd[side], wants, 0});
      }
    }
    if (poll(polls.data(), polls.size(), -1) < 0 && errno != EINTR) break;
    if (polls[1].revents != 0) break;
    size_t at = 2;
    for (auto pair = pairs.begin(); pair != pairs.end();) {
      for (size_t side = 0; side < 2; ++side, ++at) {
        if (polls[at].revents != 0) pair->Move(side, polls[at].revents);
      }
      if (!pair->done()) {
        ++pair;
        continue;
      }
      for (const int fd : pair->fd) close(fd);
      pair = pairs.erase(pair);
    }
    if (polls[0].revents == 0) continue;
    const int client = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client < 0) continue;
    const int service = connect();
    if (service < 0) close(client);
    else pairs.emplace_back().fd = {client, service};
  }
  for (const Pair& pair : pairs) {
    for (const int fd : pair.fd) close(fd);
  }
}

}  // namespace

SocketRelay::SocketRelay(const std::string& path, int port) : path_(path) {
  sockaddr_un address;
  if (!AddressOf(path, &address))
    throw Error(ErrorCode::kIo, "the path is too long for a socket file (107 bytes)", path);
  unlink(path.c_str());
  listener_ = Listening(AF_UNIX, address);
  if (listener_ < 0 || pipe2(stop_, O_CLOEXEC) != 0) {
    const int error = errno;
    if (listener_ >= 0) close(listener_);
    throw Error(ErrorCode::kIo, std::string("no socket file: ") + std::strerror(error), path);
  }
  chmod(path.c_str(), 0600);
  thread_ = std::thread([this, port] {
    Carry(listener_, stop_[0], [port] { return Connected(AF_INET, LoopbackOf(port)); });
  });
}

SocketRelay::~SocketRelay() {
  [[maybe_unused]] const ssize_t n = write(stop_[1], "", 1);
  thread_.join();
  for (const int fd : {listener_, stop_[0], stop_[1]}) close(fd);
  unlink(path_.c_str());
}

Problem StartLoopbackRelay(int port, const std::string& path) {
  sockaddr_un address;
  if (!AddressOf(path, &address)) return "the socket file's path is too long: " + path;
  const int listener = Listening(AF_INET, LoopbackOf(port));
  if (listener < 0) {
    return "cannot listen on port " + std::to_string(port) +
           " of the sandbox's loopback: " + std::strerror(errno);
  }
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return std::string("no process for the relay: ") + std::strerror(errno);
  if (pid > 0) {
    close(listener);
    return std::nullopt;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);
  // The program's pipes are not the relay's: their ends are seen.
  const int null = open("/dev/null", O_RDWR);
  for (const int fd : {0, 1, 2}) dup2(null, fd);
  close(null);
  Carry(listener, -1, [&address] { return Connected(AF_UNIX, address); });
  _exit(0);
}

}  // namespace plumb

// A small HTTP server for tests that may lie in any way: the handler returns the very bytes that go
// out.
// Thread safety: the handler runs on one thread a connection. Ownership: threads and sockets; the
// destructor ends them.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <thread>

namespace plumb::testing {

struct HttpRequest {
  std::string head;  // request line and headers
  std::string body;
};

// A reply with the right length.
inline std::string HttpOk(const std::string& body) {
  return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

class HttpServer {
 public:
  // What goes out; empty: the connection is closed without a word. `drip`: one byte each so many
  // milliseconds.
  using Handler = std::function<std::string(const HttpRequest&)>;
  explicit HttpServer(Handler handler, int port = 0, int drip_ms = 0)
      : handler_(std::move(handler)), drip_ms_(drip_ms) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int one = 1;
    ::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    socklen_t size = sizeof address;
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::listen(listener_, 64) != 0)
      std::abort();
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    accept_ = std::thread([this] { Accept(); });
  }
  ~HttpServer() {
    stop_ = true;
    accept_.join();
    for (std::thread& thread : threads_) thread.join();
    ::close(listener_);
  }
  HttpServer(const HttpServer&) = delete;

  int port() const { return port_; }
  std::string url(const std::string& path = "") const {
    return "http://127.0.0.1:" + std::to_string(port_) + path;
  }
  int connections() const { return connections_; }
  int requests() const { return requests_; }

 private:
  bool Readable(int fd) const {
    pollfd item = {fd, POLLIN, 0};
    return ::poll(&item, 1, 20) > 0;
  }

  void Accept() {
    while (!stop_) {
      if (!Readable(listener_)) continue;
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      const int one = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      ++connections_;
      threads_.emplace_back([this, fd] {
        Serve(fd);
        ::close(fd);
      });
    }
  }

  void Serve(int fd) {
    std::string in;
    while (!stop_) {
      const size_t end = in.find("\r\n\r\n");
      size_t length = 0;
      if (end != std::string::npos) {
        const size_t at = in.find("Content-Length: ");
        if (at < end) length = std::stoul(in.substr(at + 16));
      }
      if (end == std::string::npos || in.size() < end + 4 + length) {
        if (!Readable(fd)) continue;
        char buffer[65536];
        const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
        if (n <= 0) return;
        in.append(buffer, static_cast<size_t>(n));
        continue;
      }
      ++requests_;
      const std::string out = handler_({in.substr(0, end), in.substr(end + 4, length)});
      in.erase(0, end + 4 + length);
      if (out.empty()) return;
      for (size_t sent = 0; sent < out.size() && !stop_;) {
        const size_t piece = drip_ms_ > 0 ? 1 : out.size() - sent;
        const ssize_t n = ::send(fd, out.data() + sent, piece, MSG_NOSIGNAL);
        if (n <= 0) return;
        sent += static_cast<size_t>(n);
        if (drip_ms_ > 0) std::this_thread::sleep_for(std::chrono::milliseconds(drip_ms_));
      }
      if (out.find("Connection: close") != std::string::npos) return;
    }
  }

  const Handler handler_;
  const int drip_ms_;
  int listener_ = -1, port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<int> connections_{0}, requests_{0};
  std::list<std::thread> threads_;  // of the accepting thread until that ended
  std::thread accept_;
};

}  // namespace plumb::testing

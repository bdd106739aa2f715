// The Prometheus endpoint: a small HTTP/1.0 responder on the loopback, one request at a time.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/metrics/metrics.h"
#include "common/base/mutex.h"

namespace plumb {
namespace {

constexpr int kRequestTimeoutMs = 1000;  // of a client that connects and says nothing
constexpr size_t kMaxRequestBytes = 8192;

std::string Number(double v) {
  if (std::isnan(v)) return "NaN";
  if (std::isinf(v)) return v > 0 ? "+Inf" : "-Inf";
  char digits[32];
  return std::string(digits, std::to_chars(digits, digits + sizeof digits, v).ptr);
}

// What a label's value may hold.
std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

std::string Labels(const std::map<std::string, std::string>& labels) {
  std::string out;
  for (const auto& [name, value] : labels)
    out += (out.empty() ? "" : ",") + name + "=\"" + Escaped(value) + "\"";
  return out;
}

std::string Braced(const std::string& labels) { return labels.empty() ? "" : "{" + labels + "}"; }

// "reward/mean" as a metric may be called there.
std::string FamilyOf(std::string_view name, bool counter) {
  std::string out = "plumb_";
  for (const char c : name) {
    const bool fits = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    out += fits ? c : '_';
  }
  return counter ? out + "_total" : out;
}

class Responder final : public PrometheusSink {
 public:
  Responder(int port, const std::map<std::string, std::string>& labels,
            std::map<std::string, std::string> info)
      : labels_(Labels(labels)) {
    info.insert(labels.begin(), labels.end());
    head_ = "# HELP plumb_up 1 while the run goes on\n# TYPE plumb_up gauge\nplumb_up" +
            Braced(labels_) +
            " 1\n# HELP plumb_info What runs here, in its labels\n# TYPE plumb_info gauge\n"
            "plumb_info" +
            Braced(Labels(info)) + " 1\n";
    text_ = head_;

    const std::string where = "http://127.0.0.1:" + std::to_string(port) + "/metrics";
    if (port < 0 || port > 65535)
      throw Error(ErrorCode::kInvalidArgument, "not a port number", where);
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener_ < 0) ThrowFileError(errno, "cannot open a socket", where);
    const int yes = 1;
    ::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    socklen_t length = sizeof address;
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
        ::listen(listener_, 16) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
      const int code = errno;
      ::close(listener_);
      if (code == EADDRINUSE) {
        throw Error(ErrorCode::kConflict,
                    "the port of the metrics endpoint is in use: choose another one, or 0 for none",
                    where);
      }
      ThrowFileError(code, "cannot listen", where);
    }
    port_ = ntohs(address.sin_port);
    wake_ = ::eventfd(0, EFD_CLOEXEC);
    if (wake_ < 0) {
      ::close(listener_);
      ThrowFileError(errno, "cannot make an event", where);
    }
    thread_ = std::thread([this] { Serve(); });
  }
  ~Responder() override {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(wake_, &one, sizeof one);
    thread_.join();
    ::close(listener_);
    ::close(wake_);
  }

  int port() const override { return port_; }

  void Write(int64_t step, double wall_s, const std::map<std::string, double>& values) override {
    struct Family {
      bool counter = false;
      std::vector<std::pair<std::string_view, double>> members;
    };
    std::map<std::string, Family> families;
    families["plumb_step"].members = {{"step", static_cast<double>(step)}};
    families["plumb_wall_seconds"].members = {{"wall_s", wall_s}};
    for (const auto& [name, value] : values) {
      const bool counter = counters_.contains(name);
      Family& family = families[FamilyOf(name, counter)];
      family.counter = counter;
      family.members.emplace_back(name, value);
    }
    std::string text = head_;
    for (const auto& [name, family] : families) {
      text += "# HELP " + name + " " + Escaped(family.members.front().first) +
              " of docs/metrics.md\n# TYPE " + name + (family.counter ? " counter\n" : " gauge\n");
      for (const auto& [own, value] : family.members) {
        std::string labels = labels_;
        // Two names that differ in signs only are told apart by the name as it was.
        if (family.members.size() > 1)
          labels += (labels.empty() ? "" : ",") + Labels({{"name", std::string(own)}});
        text += name + Braced(labels) + " " + Number(value) + "\n";
      }
    }
    MutexLock lock(mu_);
    text_ = std::move(text);
  }

  void CountersAre(std::set<std::string> names) override { counters_ = std::move(names); }

 private:
  void Serve() {
    for (;;) {
      pollfd fds[2] = {{listener_, POLLIN, 0}, {wake_, POLLIN, 0}};
      if (::poll(fds, 2, -1) < 0 && errno != EINTR) return;
      if (fds[1].revents) return;
      if (!fds[0].revents) continue;
      const int peer = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (peer < 0) {
        // Out of descriptors or a peer that left: not a reason to spin.
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        continue;
      }
      Answer(peer);
      ::close(peer);
    }
  }

  void Answer(int peer) {
    const timeval timeout{kRequestTimeoutMs / 1000, kRequestTimeoutMs % 1000 * 1000};
    ::setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    ::setsockopt(peer, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    const auto end =
        std::chrono::steady_clock::now() + std::chrono::milliseconds(kRequestTimeoutMs);
    std::string request;
    char chunk[1024];
    while (request.size() < kMaxRequestBytes && request.find("\r\n\r\n") == std::string::npos) {
      const ssize_t n = ::recv(peer, chunk, sizeof chunk, 0);
      if (n <= 0 || std::chrono::steady_clock::now() > end) return;
      request.append(chunk, static_cast<size_t>(n));
    }
    // A scraper may add parameters; they choose nothing here.
    const bool known = request.starts_with("GET /metrics ") || request.starts_with("GET /metrics?");
    std::string body = "only /metrics is here\n";
    if (known) {
      MutexLock lock(mu_);
      body = text_;
    }
    const std::string reply =
        std::string(known ? "HTTP/1.0 200 OK" : "HTTP/1.0 404 Not Found") +
        "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: " +
        std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" + body;
    for (std::string_view rest = reply; !rest.empty();) {
      const ssize_t n = ::send(peer, rest.data(), rest.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      rest.remove_prefix(static_cast<size_t>(n));
    }
  }

  const std::string labels_;
  std::string head_;
  std::set<std::string> counters_;  // of the writing thread
  int listener_ = -1;
  int wake_ = -1;
  int port_ = 0;
  Mutex mu_;
  std::string text_ PLUMB_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace

std::unique_ptr<PrometheusSink> MakePrometheusSink(int port,
                                                   const std::map<std::string, std::string>& labels,
                                                   const std::map<std::string, std::string>& info) {
  return std::make_unique<Responder>(port, labels, info);
}

}  // namespace plumb

// A client of the server under test, over real sockets.
#pragma once

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/testing/http_get.h"

namespace plumb::run::testing {

struct HttpReply {
  int status = 0;
  std::string head, body;
  nlohmann::json json() const { return nlohmann::json::parse(body); }
  // The objects of a stream; [DONE] is not one.
  std::vector<nlohmann::json> events() const {
    std::vector<nlohmann::json> out;
    std::istringstream in(body);
    for (std::string line; std::getline(in, line);) {
      if (line.starts_with("data: {")) out.push_back(nlohmann::json::parse(line.substr(6)));
    }
    return out;
  }
};

inline std::string Joined(const std::string& chunks) {
  std::string out;
  for (size_t at = 0; at < chunks.size();) {
    const size_t end = chunks.find("\r\n", at);
    if (end == std::string::npos) break;
    const size_t n = std::stoul(chunks.substr(at, end - at), nullptr, 16);
    if (n == 0) return out;
    out += chunks.substr(end + 2, n);
    at = end + 2 + n + 2;
  }
  return out + "<broken off>";
}

inline std::string RequestText(const std::string& method, const std::string& path,
                               const std::string& body, const std::string& more = "") {
  std::string text = method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
  if (!body.empty()) {
    text +=
        "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  }
  return text + more + "\r\n" + body;
}

inline HttpReply SendRaw(int port, const std::string& text) {
  const std::string raw = plumb::testing::HttpGet(port, text);
  HttpReply reply;
  const size_t end = raw.find("\r\n\r\n");
  if (end == std::string::npos) return reply;
  reply.head = raw.substr(0, end);
  reply.status = std::stoi(raw.substr(9, 3));
  reply.body = raw.substr(end + 4);
  if (reply.head.find("chunked") != std::string::npos) reply.body = Joined(reply.body);
  return reply;
}

inline HttpReply Post(int port, const std::string& path, const nlohmann::json& body,
                      const std::string& more = "") {
  return SendRaw(port, RequestText("POST", path, body.dump(), more));
}
inline HttpReply Get(int port, const std::string& path, const std::string& more = "") {
  return SendRaw(port, RequestText("GET", path, "", more));
}

// A request whose client reads as far as it likes.
class Reader {
 public:
  Reader(int port, const std::string& text) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    there_ =
        ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
        ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
  }
  ~Reader() { Leave(); }
  Reader(const Reader&) = delete;
  void Leave() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  // Until `text` came, or the end.
  bool ReadUntil(const std::string& text) {
    char chunk[4096];
    while (there_ && got_.find(text) == std::string::npos) {
      const ssize_t n = ::recv(fd_, chunk, sizeof chunk, 0);
      if (n <= 0) return false;
      got_.append(chunk, static_cast<size_t>(n));
    }
    return there_;
  }
  const std::string& got() const { return got_; }

 private:
  int fd_;
  bool there_ = false;
  std::string got_;
};

}  // namespace plumb::run::testing

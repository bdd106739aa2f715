// The socket and the thread of an HTTP server: a port that is its own, bound before anybody is told
// of it.
//
// Purpose: the board, `plumb serve` and the endpoint of agents listen in the same way. Thread
// safety: one thread makes and ends it; what is answered runs on the library's threads. Ownership:
// its thread; borrows the server, which outlives it. Errors: kConflict for a port in use or an
// address that is not one of this machine. Only in builds with cpp-httplib.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <thread>

namespace httplib {
class Server;
}

namespace plumb::run {

// "http://127.0.0.1:8642": how somebody on this machine calls a server that listens there.
std::string UrlOf(const std::string& host, int port);

// What clients may take and hold up.
struct WebLimits {
  size_t threads = 8;      // that answer
  size_t max_body = 1024;  // bytes of a body that says its length
  std::chrono::seconds read{30}, write{30};
};

class WebListener {
 public:
  WebListener(httplib::Server& http, const WebLimits& limits);
  ~WebListener() { Stop(); }
  WebListener(const WebListener&) = delete;

  // Returns once questions are taken. `port` 0: one that is free; `waiting`: connections that may
  // wait for a thread; `advice` of the error where the port is taken.
  void Start(const std::string& host, int port, int waiting,
             const std::string& advice = "--port 0 takes a free port");
  void Stop();
  int port() const { return port_; }

 private:
  httplib::Server& http_;
  std::thread thread_;
  int port_ = 0, socket_ = -1;  // the library's
};

}  // namespace plumb::run

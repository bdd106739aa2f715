// The socket and the thread of an HTTP server: a port that is its own, bound before anybody is told
// of it.
//
// Purpose: the board and `plumb serve` listen in the same way. Thread safety: one thread makes and
// ends it; what is answered runs on the library's threads. Ownership: its thread; borrows the
// server, which outlives it. Errors: kConflict for a port in use or an address that is not one of
// this machine. Only in builds with cpp-httplib.
#pragma once

#include <string>
#include <thread>

namespace httplib {
class Server;
}

namespace plumb::run {

// "http://127.0.0.1:8642": how somebody on this machine calls a server that listens there.
std::string UrlOf(const std::string& host, int port);

class WebListener {
 public:
  explicit WebListener(httplib::Server& http);
  ~WebListener() { Stop(); }
  WebListener(const WebListener&) = delete;

  // Returns once questions are taken. `port` 0: one that is free; `waiting`: connections that may
  // wait for a thread.
  void Start(const std::string& host, int port, int waiting);
  void Stop();
  int port() const { return port_; }

 private:
  httplib::Server& http_;
  std::thread thread_;
  int port_ = 0, socket_ = -1;  // the library's
};

}  // namespace plumb::run

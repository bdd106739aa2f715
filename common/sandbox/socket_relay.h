// A way for one service into a sandbox that has no network.
//
// Purpose: a program in a network namespace of its own has a loopback that nobody else is on. There
// a relay listens on the service's port and carries what comes over a socket file, the only thing
// that leads out; on the other side of the file a thread carries it to the service. So the program
// sees http://127.0.0.1:PORT as if it were there, and nothing else of the machine or beyond.
// Thread safety: a SocketRelay is made and ended by one thread; StartLoopbackRelay is called before
// the process has threads. Ownership: a SocketRelay owns its thread, socket and file. Errors: the
// constructor throws Error(kIo); the function says what went wrong.
#pragma once

#include <string>
#include <thread>

#include "common/base/problem.h"

namespace plumb {

// From the socket file `path`, which is made, to `port` of this machine's loopback.
class SocketRelay {
 public:
  SocketRelay(const std::string& path, int port);
  ~SocketRelay();  // cuts what is open
  SocketRelay(const SocketRelay&) = delete;

 private:
  const std::string path_;
  int listener_ = -1;
  int stop_[2] = {-1, -1};
  std::thread thread_;
};

// From `port` of the loopback that this process sees to the socket file, in a process of its own
// that lives as long as the namespace.
Problem StartLoopbackRelay(int port, const std::string& path);

}  // namespace plumb

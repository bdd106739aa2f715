#include "run/board/web_listener.h"

#ifdef PLUMB_HTTPLIB
#include <httplib.h>
#include <sys/socket.h>

#include <chrono>

#include "common/base/error.h"
#endif

namespace plumb::run {

std::string UrlOf(const std::string& host, int port) {
  const bool all = host == "0.0.0.0" || host == "::";
  const bool brackets = host.find(':') != std::string::npos;
  return "http://" +
         (all        ? "localhost"
          : brackets ? "[" + host + "]"
                     : host) +
         ":" + std::to_string(port);
}

#ifdef PLUMB_HTTPLIB

WebListener::WebListener(httplib::Server& http, const WebLimits& limits) : http_(http) {
  http_.new_task_queue = [threads = limits.threads] { return new httplib::ThreadPool(threads); };
  http_.set_payload_max_length(limits.max_body);
  http_.set_read_timeout(limits.read);
  http_.set_write_timeout(limits.write);
  http_.set_keep_alive_timeout(1);  // an idle client holds a thread, and the end, for so long
  http_.set_keep_alive_max_count(100'000);
  http_.set_tcp_nodelay(true);
  // Not the library's own options: two servers would share one port, and each answer half of the
  // questions.
  http_.set_socket_options([this](socket_t socket) {
    socket_ = socket;
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
}

void WebListener::Start(const std::string& host, int port, int waiting, const std::string& advice) {
  if (port == 0) port_ = http_.bind_to_any_port(host);
  else if (http_.bind_to_port(host, port)) port_ = port;
  if (port_ <= 0)
    throw Error(ErrorCode::kConflict,
                "cannot listen there: the port is taken, or the address is not one of this "
                "machine; " +
                    advice,
                host + ":" + std::to_string(port));
  // The library lets five connections wait; many that come at once would each lose a second or
  // more before they try again.
  ::listen(socket_, waiting);
  thread_ = std::thread([this] { http_.listen_after_bind(); });
  while (!http_.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

void WebListener::Stop() {
  if (!thread_.joinable()) return;
  http_.stop();
  thread_.join();
}

#endif

}  // namespace plumb::run

#include "common/net/http_client.h"

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>

#ifdef PLUMB_HTTPLIB
#include <httplib.h>

#include "common/record/json_text.h"
#endif

#include "common/base/error.h"
#include "common/base/mutex.h"

namespace plumb {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

Url ParseUrl(const std::string& text) {
  const auto refuse = [&](const std::string& why) {
    const std::string shown = text.substr(0, text.find_first_of("?#@"));
    throw Error(ErrorCode::kInvalidArgument, why + ": an endpoint is http://host:port/path", shown);
  };
  const size_t scheme = text.find("://");
  const std::string name = text.substr(0, scheme == std::string::npos ? 0 : scheme);
  if (name != "http" && name != "https") refuse("neither http:// nor https://");
  for (const char c : text) {
    if (static_cast<unsigned char>(c) <= 32 || c == 127)
      refuse("a space or control character in the address");
  }
  const size_t begin = scheme + 3;
  const size_t slash = std::min(text.find_first_of("/?#", begin), text.size());
  const std::string host = text.substr(begin, slash - begin);
  if (host.find('@') != std::string::npos)
    refuse("no user or password in an address: use api_key_env");
  if (host.empty() || host[0] == ':') refuse("there is no host");
  const size_t colon = host.find(':', host[0] == '[' ? host.find(']') : 0);
  if (colon != std::string::npos) {
    const std::string port = host.substr(colon + 1);
    const bool digits = !port.empty() && port.size() <= 5 &&
                        port.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || std::stoi(port) < 1 || std::stoi(port) > 65535)
      refuse("no port number behind the host");
  }
  Url url;
  url.origin = name + "://" + host;
  const size_t fragment = text.find('#', slash);
  url.path = text.substr(slash, fragment == std::string::npos ? fragment : fragment - slash);
  if (url.path.empty() || url.path[0] != '/') url.path = "/" + url.path;
  url.shown = url.origin + url.path.substr(0, url.path.find('?'));
  return url;
}

std::string KeyFromEnvironment(const std::string& name) {
  if (name.empty()) return "";
  const char* value = std::getenv(name.c_str());
  if (value == nullptr || *value == '\0') {
    throw Error(ErrorCode::kInvalidArgument,
                "the environment variable " + name + " (api_key_env) is not set");
  }
  for (const char* c = value; *c != '\0'; ++c) {
    if (static_cast<unsigned char>(*c) <= 32 || *c == 127) {
      throw Error(ErrorCode::kInvalidArgument,
                  "the environment variable " + name + " holds a space or control character");
    }
  }
  return value;
}

#ifndef PLUMB_HTTPLIB

class HttpClient::Impl {};
HttpClient::HttpClient(const Url& url, HttpOptions) {
  throw Error(ErrorCode::kUnsupported,
              "this build has no HTTP: install libcpp-httplib-dev and libssl-dev and build again",
              url.shown);
}
HttpClient::~HttpClient() = default;
HttpReply HttpClient::Post(const std::string&, Deadline) { return {}; }

#else

class HttpClient::Impl {
 public:
  Impl(const Url& url, HttpOptions options)
      : url_(url), options_(std::move(options)), client_(url.origin) {
    if (!client_.is_valid())
      throw Error(ErrorCode::kInvalidArgument, "this address cannot be used", url.shown);
    client_.set_keep_alive(true);
    client_.set_follow_location(false);
    client_.set_decompress(false);
    client_.set_tcp_nodelay(true);
    watchdog_ = std::thread([this] { Watch(); });
  }

  ~Impl() {
    {
      MutexLock lock(mu_);
      closing_ = true;
    }
    changed_.notify_all();
    watchdog_.join();
  }

  HttpReply Post(const std::string& body, Deadline deadline) {
    HttpReply before;  // why it was asked again
    for (milliseconds pause(50);; pause = std::min(pause * 2, milliseconds(1000))) {
      bool again = false;
      HttpReply reply = Once(body, deadline, &again);
      // An attempt that the deadline cuts short says less than what the server did to the ones
      // before.
      if (reply.failure == Failure::kTimeout && before.failure != Failure::kNone) reply = before;
      if (again) before = reply;
      // what follows on this connection cannot be trusted
      if (reply.failure != Failure::kNone) client_.stop();
      if (!again || SteadyClock::now() + pause >= deadline) {
        for (size_t at; !options_.bearer.empty() &&
                        (at = reply.reason.find(options_.bearer)) != std::string::npos;) {
          reply.reason.replace(at, options_.bearer.size(), "***");
        }
        return reply;
      }
      std::this_thread::sleep_for(pause);
    }
  }

 private:
  HttpReply Once(const std::string& body, Deadline deadline, bool* again) {
    // Bytes nobody asked for would be taken for the answer to what we ask now.
    if (client_.is_socket_open() != 0) {
      pollfd waiting = {static_cast<int>(client_.socket()), POLLIN, 0};
      if (::poll(&waiting, 1, 0) != 0) client_.stop();
    }
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - SteadyClock::now());
    if (left.count() <= 0)
      return {Failure::kTimeout, "no answer from " + url_.shown + " within its deadline", ""};
    client_.set_connection_timeout(left);
    // The watchdog ends the call, not these: one that rang a moment early would look like a server
    // that hung up.
    client_.set_read_timeout(left + milliseconds(1000));
    client_.set_write_timeout(left + milliseconds(1000));

    httplib::Request request;
    request.method = "POST";
    request.path = url_.path;
    request.body = body;
    request.headers = {{"Content-Type", "application/json"},
                       {"Accept", "application/json"},
                       {"Accept-Encoding", "identity"}};
    if (!options_.bearer.empty())
      request.headers.emplace("Authorization", "Bearer " + options_.bearer);
    std::string got;
    bool too_large = false;
    request.content_receiver = [&](const char* data, size_t size, uint64_t, uint64_t total) {
      too_large = total > options_.max_reply_bytes || got.size() + size > options_.max_reply_bytes;
      if (too_large) return false;
      got.append(data, size);
      return true;
    };
    Arm(deadline);
    const httplib::Result result = client_.send(request);
    const bool cut = Disarm();

    if (too_large) {
      return {Failure::kOutputCap,
              url_.shown + " sent more than " + std::to_string(options_.max_reply_bytes) + " bytes",
              ""};
    }
    if (cut || (!result && SteadyClock::now() >= deadline)) {
      const bool connected = result.error() != httplib::Error::Connection &&
                             result.error() != httplib::Error::ConnectionTimeout;
      return {connected ? Failure::kTimeout : Failure::kUnavailable,
              "no answer from " + url_.shown + " within its deadline", ""};
    }
    if (!result) {
      switch (result.error()) {
        case httplib::Error::Connection:
        case httplib::Error::ConnectionTimeout:
        case httplib::Error::SSLConnection: *again = true; break;
        case httplib::Error::Read:
        case httplib::Error::Write: *again = !options_.once; break;
        default: break;
      }
      return {Failure::kUnavailable, url_.shown + ": " + What(result.error()), ""};
    }
    const int status = result->status;
    if (status == 200) {
      if (const std::string length = result->get_header_value("Content-Length");
          !length.empty() && length != std::to_string(got.size())) {
        return {Failure::kBadReply,
                url_.shown + " announced " + Shown(length, 30) + " bytes and sent " +
                    std::to_string(got.size()),
                ""};
      }
      return {Failure::kNone, "", std::move(got)};
    }
    const std::string said = url_.shown + " answered status " + std::to_string(status) +
                             (got.empty() ? "" : ": " + Shown(got, 300));
    const bool gateway = status == 502 || status == 504;
    *again = status == 429 || status == 503 || (gateway && !options_.once);
    if (*again || gateway) return {Failure::kUnavailable, said, ""};
    if (status >= 300 && status < 400)
      return {Failure::kBadReply, said + " (redirects are not followed: give the final address)",
              ""};
    return {Failure::kReported, said, ""};
  }

  static std::string What(httplib::Error error) {
    switch (error) {
      case httplib::Error::Connection: return "nobody listens there";
      case httplib::Error::ConnectionTimeout: return "no connection within the deadline";
      case httplib::Error::Read: return "it closed the connection or sent what is no HTTP";
      case httplib::Error::Write: return "it stopped taking our request";
      case httplib::Error::SSLConnection: return "no TLS connection";
      case httplib::Error::SSLLoadingCerts:
        return "no certificates of authorities on this machine (ca-certificates)";
      case httplib::Error::SSLServerVerification:
        return "its TLS certificate does not prove that name";
      default: return "HTTP error " + httplib::to_string(error);
    }
  }

  void Arm(Deadline deadline) {
    {
      MutexLock lock(mu_);
      armed_ = true;
      cut_ = false;
      until_ = deadline;
    }
    changed_.notify_all();
  }

  bool Disarm() {
    MutexLock lock(mu_);
    armed_ = false;
    return cut_;
  }

  // Timeouts of httplib are those of one read: a server that drips bytes would never meet them.
  void Watch() {
    MutexLock lock(mu_);
    while (!closing_) {
      if (!armed_) {
        changed_.wait(lock, [this]() PLUMB_REQUIRES(mu_) { return closing_ || armed_; });
      } else if (SteadyClock::now() < until_) {
        changed_.wait_until(lock, until_);
      } else {
        cut_ = true;
        client_.stop();  // shuts the socket down under the call, which then fails
        changed_.wait_until(lock, SteadyClock::now() + milliseconds(50));
      }
    }
  }

  const Url url_;
  const HttpOptions options_;
  httplib::Client client_;
  Mutex mu_;
  CondVar changed_;
  bool closing_ PLUMB_GUARDED_BY(mu_) = false;
  bool armed_ PLUMB_GUARDED_BY(mu_) = false;
  bool cut_ PLUMB_GUARDED_BY(mu_) = false;
  Deadline until_ PLUMB_GUARDED_BY(mu_);
  std::thread watchdog_;
};

HttpClient::HttpClient(const Url& url, HttpOptions options)
    : impl_(std::make_unique<Impl>(url, std::move(options))) {}
HttpClient::~HttpClient() = default;
HttpReply HttpClient::Post(const std::string& body, Deadline deadline) {
  return impl_->Post(body, deadline);
}

#endif

}  // namespace plumb

#include "run/board/board_server.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/base/text.h"
#ifdef PLUMB_HTTPLIB
#include <httplib.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "run/board/board_api.h"
#include "run/board/board_page.h"
#include "run/board/web_listener.h"
#endif

namespace plumb::run {
namespace {

bool IsAddress(const std::string& host) {
  in_addr four;
  in6_addr six;
  return inet_pton(AF_INET, host.c_str(), &four) == 1 ||
         inet_pton(AF_INET6, host.c_str(), &six) == 1;
}

// Without the port, and without the brackets of an IPv6 address; "" for what is malformed.
std::string HostOf(const std::string& header) {
  std::string host = header, port;
  if (host.starts_with('[')) {
    const size_t end = host.find(']');
    if (end == std::string::npos) return "";
    port = host.substr(end + 1);
    host = host.substr(1, end - 1);
    in6_addr six;
    if (inet_pton(AF_INET6, host.c_str(), &six) != 1) return "";
  } else if (const size_t colon = host.find(':'); colon != std::string::npos) {
    port = host.substr(colon);
    host.resize(colon);
  }
  const bool digits = std::all_of(port.begin() + (port.empty() ? 0 : 1), port.end(), IsDigit);
  if (!port.empty() && (port.front() != ':' || !digits)) return "";
  return LowerAscii(host);
}

}  // namespace

bool IsLoopback(const std::string& host) {
  in_addr four;
  if (inet_pton(AF_INET, host.c_str(), &four) == 1) return (ntohl(four.s_addr) >> 24) == 127;
  return host == "localhost" || host == "::1";
}

bool HostAllowed(const std::string& header, bool loopback, const std::vector<std::string>& names) {
  const std::string host = HostOf(header);
  if (host.empty()) return false;
  if (IsLoopback(host)) return true;
  if (!loopback && IsAddress(host)) return true;
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return LowerAscii(name) == host; });
}

#ifdef PLUMB_HTTPLIB

namespace {

constexpr char kPolicy[] =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
constexpr std::chrono::milliseconds kPoll{500}, kNap{50};
constexpr std::chrono::seconds kStillHere{15};  // a proxy between may end what is silent

httplib::Headers Safe() {
  return {{"Content-Security-Policy", kPolicy},
          {"X-Content-Type-Options", "nosniff"},
          {"Referrer-Policy", "no-referrer"},
          {"Cross-Origin-Resource-Policy", "same-origin"},
          {"Cache-Control", "no-store"}};
}

// The names this machine goes by, for a server that others reach.
std::vector<std::string> OwnNames(const BoardOptions& options, bool loopback) {
  std::vector<std::string> names = options.names;
  char own[256] = {};
  if (!loopback && gethostname(own, sizeof own - 1) == 0) names.emplace_back(own);
  if (!IsAddress(options.host)) names.push_back(options.host);
  return names;
}

}  // namespace

struct BoardServer::Impl {
  RunCatalog& runs;
  const BoardOptions options;
  const bool loopback;
  const std::vector<std::string> names;
  httplib::Server http;
  std::atomic<bool> stop{false};
  std::atomic<int> readers{0};
  WebListener listener;

  Impl(RunCatalog& catalog, BoardOptions o)
      : runs(catalog),
        options(std::move(o)),
        loopback(IsLoopback(options.host)),
        names(OwnNames(options, loopback)),
        // each reader of events keeps one thread busy; nothing is ever sent to it
        listener(http, {.threads = static_cast<size_t>(options.max_readers) + 8,
                        .max_body = 1024,
                        .read = std::chrono::seconds(5),
                        .write = std::chrono::seconds(10)}) {}

  static void Say(httplib::Response& reply, int status, const std::string& what) {
    reply.status = status;
    // A client that is refused keeps no thread: the library would wait for its next question. A
    // provider that says it failed, with all of it written, has the connection closed at once.
    reply.set_header("Connection", "close");
    const std::string body = "{\"error\":\"" + what + "\"}";
    reply.set_content_provider(body.size(), "application/json",
                               [body](size_t, size_t, httplib::DataSink& sink) {
                                 sink.write(body.data(), body.size());
                                 return false;
                               });
  }

  void Set() {
    http.set_default_headers(Safe());
    http.set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& reply) {
      if (!HostAllowed(request.get_header_value("Host"), loopback, names)) {
        Say(reply, 421,
            "this name is not one of the board's: use the address it printed, or start it with "
            "--name");
        return httplib::Server::HandlerResponse::Handled;
      }
      if (request.method != "GET" && request.method != "HEAD") {
        reply.set_header("Allow", "GET, HEAD");
        Say(reply, 405, "the board only shows");
        return httplib::Server::HandlerResponse::Handled;
      }
      return httplib::Server::HandlerResponse::Unhandled;
    });
    http.set_exception_handler(
        [](const httplib::Request&, httplib::Response& reply, std::exception_ptr) {
          Say(reply, 500, "the board could not answer this; its terminal may say more");
        });
    http.Get("/api/events", [this](const httplib::Request& request, httplib::Response& reply) {
      Events(request, reply);
    });
    http.Get("/api/.*", [this](const httplib::Request& request, httplib::Response& reply) {
      const BoardReply answer = AnswerBoard(runs, request.path, request.params);
      reply.status = answer.status;
      // Pages that ask now and then must not each keep a thread waiting for their next question.
      if (readers.load() >= options.max_readers) reply.set_header("Connection", "close");
      reply.set_content(answer.json, "application/json");
    });
    for (const PageFile& file : BoardPage()) {
      std::string pattern;
      for (const char c : file.path) pattern += c == '.' ? std::string("\\.") : std::string(1, c);
      http.Get(pattern, [&file](const httplib::Request&, httplib::Response& reply) {
        reply.set_content(file.text.data(), file.text.size(), std::string(file.type));
      });
    }
  }

  void Events(const httplib::Request& request, httplib::Response& reply) {
    std::vector<std::string> followed;
    const auto [first, last] = request.params.equal_range("run");
    for (auto at = first; at != last; ++at) followed.push_back(at->second);
    if (followed.size() > EventStream::kMaxFollowed)
      return Say(reply, 400, "too many runs are followed at once");
    if (request.method == "HEAD") return reply.set_content("", "text/event-stream");
    if (readers.fetch_add(1) >= options.max_readers) {
      --readers;
      reply.set_header("Retry-After", "30");
      return Say(reply, 503,
                 std::to_string(options.max_readers) +
                     " pages follow this board already: ask /api/runs now and then instead");
    }
    auto stream = std::make_shared<EventStream>(runs, std::move(followed));
    auto said = std::make_shared<std::chrono::steady_clock::time_point>();
    reply.set_chunked_content_provider(
        "text/event-stream",
        [this, stream, said](size_t, httplib::DataSink& sink) {
          std::string news = stream->Next();
          const auto now = std::chrono::steady_clock::now();
          if (news.empty() && now - *said > kStillHere) news = ": still here\n\n";
          if (!news.empty()) {
            *said = now;
            if (!sink.write(news.data(), news.size())) return false;
          }
          for (auto left = kPoll; left.count() > 0 && !stop; left -= kNap)
            std::this_thread::sleep_for(kNap);
          if (stop) sink.done();
          return !stop && (!sink.is_writable || sink.is_writable());
        },
        [this](bool) { --readers; });
  }
};

BoardServer::BoardServer(RunCatalog& runs, BoardOptions options)
    : impl_(std::make_unique<Impl>(runs, std::move(options))) {
  Impl& s = *impl_;
  s.Set();
  s.listener.Start(s.options.host, s.options.port, /*waiting=*/256);
}

BoardServer::~BoardServer() {
  impl_->stop = true;
  impl_->listener.Stop();
}

int BoardServer::port() const { return impl_->listener.port(); }

std::string BoardServer::url() const { return UrlOf(impl_->options.host, port()) + "/"; }

#else

struct BoardServer::Impl {};

BoardServer::BoardServer(RunCatalog&, BoardOptions) {
  throw Error(ErrorCode::kUnsupported,
              "this build has no web server: install libcpp-httplib-dev and build again, or use "
              "`plumb watch RUN`",
              "board");
}
BoardServer::~BoardServer() = default;
int BoardServer::port() const { return 0; }
std::string BoardServer::url() const { return ""; }

#endif

}  // namespace plumb::run

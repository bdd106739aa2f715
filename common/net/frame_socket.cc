#include "common/net/frame_socket.h"

#include <algorithm>
#include <utility>

#include "common/base/log.h"
#include "common/net/wire_loop.h"

namespace plumb {
namespace {

// Programs of others may pause for long.
WireOptions FrameOptions(size_t max_message_bytes) {
  using std::chrono::milliseconds;
  return {.max_message_bytes = max_message_bytes,
          .times = {.heartbeat_interval = milliseconds(2000),
                    .heartbeat_timeout = milliseconds(10000),
                    .heartbeat_ttl = milliseconds(0),
                    .handshake = milliseconds(5000),
                    .reconnect = milliseconds(50)},
          .sealed = false,
          .receive_high_water = 16};
}

}  // namespace

FrameClient::FrameClient(const std::string& endpoint, FrameClientOptions options) {
  WireOptions wire = FrameOptions(options.max_message_bytes);
  wire.client = std::move(options.curve);
  socket_ = std::make_unique<WireSocket>(WireSocket::Kind::kDealer, endpoint, std::move(wire));
}
FrameClient::~FrameClient() = default;

bool FrameClient::Send(std::string_view text, Deadline deadline) {
  const Payload payload{std::string(text)};
  while (socket_->Send("", "", payload) != WireSocket::Sent::kYes) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    socket_->Poll(deadline, /*want_write=*/true, /*want_read=*/false);
  }
  return true;
}

FrameClient::Got FrameClient::Receive(std::string* payload, Deadline deadline) {
  WireSocket::Incoming in;
  while (!socket_->Receive(in)) {
    if (std::chrono::steady_clock::now() >= deadline) return Got::kDeadline;
    socket_->Poll(deadline, /*want_write=*/false);
  }
  *payload = in.payload.str();
  return in.problem ? Got::kGarbage : Got::kMessage;
}

void FrameClient::Reset() { socket_->Reconnect(); }
std::string FrameClient::State() const { return socket_->state(); }

class FrameServer::Impl {
 public:
  Impl(const std::string& endpoint, Handler handler, FrameServerOptions options)
      : handler_(std::move(handler)),
        max_waiting_(options.max_waiting),
        loop_(WireSocket::Kind::kRouter, endpoint, Wire(options)),
        replies_(&loop_.socket),
        work_(std::max(1, options.workers), [this](Item item) { Work(std::move(item)); }) {
    loop_.Start([this] { return Turn(); }, [this](WireSocket::Incoming& in) { Take(in); },
                [this](const Error& e) { complaints_.Warning(e.what()); });
  }
  ~Impl() {
    work_.Close();
    loop_.Stop();
  }

  const std::string& endpoint() const { return loop_.socket.endpoint(); }
  std::map<std::string, uint64_t> counters() const {
    auto all = loop_.counters();
    for (const char* name : {"requests", "malformed"}) all.try_emplace(name, 0);
    return all;
  }

 private:
  struct Item {
    std::string route;
    Payload payload;
    std::chrono::steady_clock::time_point arrived = {};
  };

  static WireOptions Wire(const FrameServerOptions& options) {
    WireOptions wire = FrameOptions(options.max_message_bytes);
    wire.server = options.curve;
    return wire;
  }

  WireLoop::Turn Turn() {
    for (const Item& reply : replies_.Take()) {
      loop_.Count(loop_.socket.Send(reply.route, "", reply.payload) == WireSocket::Sent::kYes
                      ? "replies"
                      : "gone");
    }
    return {.until = After(std::chrono::seconds(1)),
            .take = max_waiting_ - std::min(max_waiting_, work_.size())};
  }

  void Take(WireSocket::Incoming& in) {
    if (in.problem) return loop_.Count("malformed");
    loop_.Count("requests");
    work_.Push({std::move(in.route), std::move(in.payload), std::chrono::steady_clock::now()});
  }

  void Work(Item item) {
    if (work_.size() + 1 == max_waiting_) loop_.socket.Wake();  // there is room again
    std::string reply;
    try {
      const auto waited = std::chrono::steady_clock::now() - item.arrived;
      reply = handler_(item.payload, std::chrono::duration_cast<std::chrono::milliseconds>(waited));
    } catch (const std::exception&) {
      loop_.Count("failed");
    }
    if (!reply.empty()) replies_.Post({std::move(item.route), Payload(std::move(reply))});
  }

  const Handler handler_;
  const size_t max_waiting_;
  LogEvery complaints_{std::chrono::seconds(5)};
  WireLoop loop_;
  Mailbox<Item> replies_;
  WorkQueue<Item> work_;
};

FrameServer::FrameServer(const std::string& endpoint, Handler handler, FrameServerOptions options)
    : impl_(std::make_unique<Impl>(endpoint, std::move(handler), std::move(options))) {}
FrameServer::~FrameServer() = default;
const std::string& FrameServer::endpoint() const { return impl_->endpoint(); }
std::map<std::string, uint64_t> FrameServer::counters() const { return impl_->counters(); }

}  // namespace plumb

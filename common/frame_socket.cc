#include "common/frame_socket.h"

#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "common/endpoint.h"
#include "common/error.h"
#include "common/mutex.h"

namespace plumb {
namespace {

constexpr int kHandshakeMs = 5000;
constexpr int kBeatMs = 2000, kBeatTimeoutMs = 10000;
constexpr size_t kMaxParts = 8;

void Set(void* socket, int option, int value) {
  PLUMB_CHECK(zmq_setsockopt(socket, option, &value, sizeof value) == 0, zmq_strerror(zmq_errno()));
}

void SetKey(void* socket, int option, const std::string& key, const std::string& where) {
  if (zmq_setsockopt(socket, option, key.c_str(), key.size() + 1) == 0) return;
  throw Error(ErrorCode::kInvalidArgument, "a CURVE key was not accepted: it has 40 characters of Z85, and this ZeroMQ needs libsodium", where);
}

void* NewSocket(void* context, int type, const std::string& endpoint, size_t max_message_bytes) {
  void* socket = zmq_socket(context, type);
  if (socket == nullptr) throw Error(ErrorCode::kIo, std::string("cannot make a socket: ") + zmq_strerror(zmq_errno()), endpoint);
  const auto cap = static_cast<int64_t>(max_message_bytes);
  zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &cap, sizeof cap);
  Set(socket, ZMQ_HANDSHAKE_IVL, kHandshakeMs);
  Set(socket, ZMQ_HEARTBEAT_IVL, kBeatMs);
  Set(socket, ZMQ_HEARTBEAT_TIMEOUT, kBeatTimeoutMs);
  if (endpoint.find('[') != std::string::npos) Set(socket, ZMQ_IPV6, 1);
  return socket;
}

// One whole message without its route and delimiter; nullopt: none is there now. `valid` false: not of our form.
struct Incoming {
  std::string route, payload, user;
  bool valid = false;
};
std::optional<Incoming> ReceiveNow(void* socket, bool routed) {
  Incoming in;
  std::vector<std::string> parts;
  for (bool more = true; more;) {
    zmq_msg_t message;
    zmq_msg_init(&message);
    if (zmq_msg_recv(&message, socket, ZMQ_DONTWAIT) < 0) {
      zmq_msg_close(&message);
      return std::nullopt;  // parts of one message arrive together: this is before the first
    }
    more = zmq_msg_more(&message) != 0;
    if (const char* user = zmq_msg_gets(&message, "User-Id")) in.user = user;
    if (parts.size() < kMaxParts) parts.emplace_back(static_cast<const char*>(zmq_msg_data(&message)), zmq_msg_size(&message));
    zmq_msg_close(&message);
  }
  size_t at = 0;
  if (routed) in.route = parts[at++];
  if (parts.size() == at + 2 && parts[at].empty()) {
    in.payload = std::move(parts[at + 1]);
    in.valid = true;
  }
  return in;
}

long Left(Deadline deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  return std::clamp<long>(left.count(), 0, 60000);
}

}  // namespace

class FrameClient::Impl {
 public:
  Impl(const std::string& endpoint, FrameClientOptions options) : endpoint_(endpoint), options_(std::move(options)) {
    CheckEndpoint(endpoint, /*bind=*/false, !options_.curve.empty());
    context_ = zmq_ctx_new();
    if (context_ == nullptr) throw Error(ErrorCode::kIo, "cannot make a ZeroMQ context", endpoint);
    try {
      Open();
    } catch (...) {
      Close();
      zmq_ctx_term(context_);
      throw;
    }
  }
  ~Impl() {
    Close();
    zmq_ctx_term(context_);
  }

  bool Send(std::string_view payload, Deadline deadline) {
    for (;;) {
      if (zmq_send(socket_, "", 0, ZMQ_DONTWAIT | ZMQ_SNDMORE) == 0) {
        return zmq_send(socket_, payload.data(), payload.size(), ZMQ_DONTWAIT) >= 0;
      }
      if (!Wait(ZMQ_POLLOUT, deadline)) return false;
    }
  }

  Got Receive(std::string* payload, Deadline deadline) {
    for (;;) {
      if (auto in = ReceiveNow(socket_, /*routed=*/false)) {
        *payload = std::move(in->payload);
        return in->valid ? Got::kMessage : Got::kGarbage;
      }
      if (!Wait(ZMQ_POLLIN, deadline)) return Got::kDeadline;
    }
  }

  void Reset() {
    Close();
    Open();
  }

  std::string State() {
    Listen();
    return state_;
  }

 private:
  void Open() {
    socket_ = NewSocket(context_, ZMQ_DEALER, endpoint_, options_.max_message_bytes);
    Set(socket_, ZMQ_LINGER, 0);
    Set(socket_, ZMQ_IMMEDIATE, 1);  // nothing is taken before somebody is there
    Set(socket_, ZMQ_RECONNECT_IVL, 50);
    Set(socket_, ZMQ_RECONNECT_IVL_MAX, 1000);
    if (!options_.curve.empty()) {
      SetKey(socket_, ZMQ_CURVE_SERVERKEY, options_.curve.server_key, endpoint_);
      SetKey(socket_, ZMQ_CURVE_PUBLICKEY, options_.curve.own.public_key, endpoint_);
      SetKey(socket_, ZMQ_CURVE_SECRETKEY, options_.curve.own.secret_key, endpoint_);
    }
    const std::string address = "inproc://frame-client-" + std::to_string(++monitors_);
    monitor_ = nullptr;
    if (zmq_socket_monitor(socket_, address.c_str(), ZMQ_EVENT_ALL) == 0) {
      monitor_ = zmq_socket(context_, ZMQ_PAIR);
      Set(monitor_, ZMQ_LINGER, 0);
      zmq_connect(monitor_, address.c_str());
    }
    if (zmq_connect(socket_, endpoint_.c_str()) != 0) {
      throw Error(ErrorCode::kIo, std::string("cannot connect: ") + zmq_strerror(zmq_errno()), endpoint_);
    }
  }

  void Close() {
    if (socket_ != nullptr) {
      zmq_socket_monitor(socket_, nullptr, 0);
      zmq_close(std::exchange(socket_, nullptr));
    }
    if (monitor_ != nullptr) zmq_close(std::exchange(monitor_, nullptr));
  }

  // What the monitor has told since the last look. A failed handshake outlives the disconnect that follows it.
  void Listen() {
    while (monitor_ != nullptr) {
      zmq_msg_t message;
      zmq_msg_init(&message);
      if (zmq_msg_recv(&message, monitor_, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&message);
        return;
      }
      uint16_t event = 0;
      int32_t value = 0;
      if (zmq_msg_size(&message) >= 6) {
        const char* data = static_cast<const char*>(zmq_msg_data(&message));
        std::memcpy(&event, data, 2);
        std::memcpy(&value, data + 2, 4);
      }
      zmq_msg_close(&message);
      zmq_msg_init(&message);
      zmq_msg_recv(&message, monitor_, 0);  // the address, always there
      zmq_msg_close(&message);
      switch (event) {
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED: state_ = "connected"; break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: state_ = "it does not accept our key"; break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
          if (state_ != "it does not accept our key") state_ = "somebody is there, but not with the key or protocol expected";
          break;
        case ZMQ_EVENT_CONNECT_RETRIED:
        case ZMQ_EVENT_CLOSED:
          if (state_ == "connected" || state_ == "connecting") state_ = "nobody listens there";
          break;
        case ZMQ_EVENT_DISCONNECTED:
          if (state_ == "connected") state_ = "it went away";
          break;
        default: break;
      }
    }
  }

  bool Wait(short what, Deadline deadline) {
    const long left = Left(deadline);
    if (left == 0) return false;
    zmq_pollitem_t item = {socket_, 0, what, 0};
    zmq_poll(&item, 1, std::min<long>(left, 1000));
    Listen();
    return true;
  }

  const std::string endpoint_;
  const FrameClientOptions options_;
  void* context_ = nullptr;
  void* socket_ = nullptr;
  void* monitor_ = nullptr;
  uint64_t monitors_ = 0;
  std::string state_ = "connecting";
};

FrameClient::FrameClient(const std::string& endpoint, FrameClientOptions options)
    : impl_(std::make_unique<Impl>(endpoint, std::move(options))) {}
FrameClient::~FrameClient() = default;
bool FrameClient::Send(std::string_view payload, Deadline deadline) { return impl_->Send(payload, deadline); }
FrameClient::Got FrameClient::Receive(std::string* payload, Deadline deadline) { return impl_->Receive(payload, deadline); }
void FrameClient::Reset() { impl_->Reset(); }
std::string FrameClient::State() { return impl_->State(); }

class FrameServer::Impl {
 public:
  Impl(const std::string& endpoint, Handler handler, FrameServerOptions options)
      : endpoint_(endpoint), handler_(std::move(handler)), options_(std::move(options)) {
    CheckEndpoint(endpoint, /*bind=*/true, !options_.curve.empty());
    if (!options_.curve.empty()) allowed_.emplace(options_.curve.allowed_file);
    bell_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    context_ = zmq_ctx_new();
    try {
      if (bell_ < 0 || context_ == nullptr) throw Error(ErrorCode::kIo, "cannot make a socket", endpoint);
      Open();
    } catch (...) {
      Close();
      throw;
    }
    loop_ = std::thread([this] { Loop(); });
    for (int i = 0; i < std::max(1, options_.workers); ++i) workers_.emplace_back([this] { Work(); });
  }

  ~Impl() {
    {
      MutexLock lock(mu_);
      closing_ = true;
      waiting_.clear();
    }
    arrived_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    stop_.store(true);
    Ring();
    loop_.join();
    Close();
  }

  const std::string& endpoint() const { return endpoint_; }

  std::map<std::string, uint64_t> counters() const {
    MutexLock lock(mu_);
    auto all = counters_;
    all["keys_accepted"] = zap_.accepted();
    all["keys_refused"] = zap_.refused() + revoked_;
    return all;
  }

 private:
  struct Item {
    std::string route, payload;
    std::chrono::steady_clock::time_point arrived = {};
  };

  void Open() {
    if (allowed_) zap_.Start(context_, &*allowed_);
    socket_ = NewSocket(context_, ZMQ_ROUTER, endpoint_, options_.max_message_bytes);
    Set(socket_, ZMQ_LINGER, 1000);
    Set(socket_, ZMQ_ROUTER_MANDATORY, 1);
    Set(socket_, ZMQ_RCVHWM, 16);
    if (allowed_) {
      Set(socket_, ZMQ_CURVE_SERVER, 1);
      SetKey(socket_, ZMQ_CURVE_SECRETKEY, options_.curve.own.secret_key, endpoint_);
      zmq_setsockopt(socket_, ZMQ_ZAP_DOMAIN, "plumb", 5);
    }
    if (zmq_bind(socket_, endpoint_.c_str()) != 0) {
      const int code = zmq_errno();
      if (code == EADDRINUSE) throw Error(ErrorCode::kConflict, "the address is in use", endpoint_);
      throw Error(ErrorCode::kIo, std::string("cannot bind: ") + zmq_strerror(code), endpoint_);
    }
    char bound[512];
    size_t size = sizeof bound;
    if (zmq_getsockopt(socket_, ZMQ_LAST_ENDPOINT, bound, &size) == 0 && size > 1) endpoint_.assign(bound, size - 1);
  }

  void Close() {
    if (socket_ != nullptr) zmq_close(socket_);
    zap_.Stop();
    if (context_ != nullptr) zmq_ctx_term(context_);
    if (bell_ >= 0) ::close(bell_);
  }

  void Ring() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(bell_, &one, sizeof one);
  }

  void Count(const char* what) {
    MutexLock lock(mu_);
    ++counters_[what];
  }

  void Loop() {
    while (true) {
      bool room;
      std::deque<Item> replies;
      {
        MutexLock lock(mu_);
        room = waiting_.size() < options_.max_waiting;
        replies.swap(replies_);
      }
      for (const Item& reply : replies) {
        const bool sent = zmq_send(socket_, reply.route.data(), reply.route.size(), ZMQ_DONTWAIT | ZMQ_SNDMORE) >= 0 &&
                          zmq_send(socket_, "", 0, ZMQ_DONTWAIT | ZMQ_SNDMORE) >= 0 &&
                          zmq_send(socket_, reply.payload.data(), reply.payload.size(), ZMQ_DONTWAIT) >= 0;
        Count(sent ? "replies" : "gone");
      }
      if (stop_.load()) return;
      zmq_pollitem_t items[2] = {{socket_, 0, static_cast<short>(room ? ZMQ_POLLIN : 0), 0}, {nullptr, bell_, ZMQ_POLLIN, 0}};
      zmq_poll(items, 2, 1000);
      if (items[1].revents != 0) {
        uint64_t rings;
        [[maybe_unused]] const ssize_t n = ::read(bell_, &rings, sizeof rings);
      }
      if (items[0].revents == 0) continue;
      std::optional<Incoming> in = ReceiveNow(socket_, /*routed=*/true);
      if (!in) continue;
      MutexLock lock(mu_);
      if (!in->valid) {
        ++counters_["malformed"];
      } else if (allowed_ && !allowed_->Allows(in->user)) {
        ++revoked_;  // taken off the list after it had connected, or never asked for by ZAP
      } else {
        ++counters_["requests"];
        waiting_.push_back({std::move(in->route), std::move(in->payload), std::chrono::steady_clock::now()});
        arrived_.notify_one();
      }
    }
  }

  void Work() {
    for (;;) {
      Item item;
      {
        MutexLock lock(mu_);
        arrived_.wait(lock, [this]() PLUMB_REQUIRES(mu_) { return closing_ || !waiting_.empty(); });
        if (waiting_.empty()) return;
        item = std::move(waiting_.front());
        waiting_.pop_front();
        if (waiting_.size() + 1 == options_.max_waiting) Ring();  // there is room again
      }
      std::string reply;
      try {
        const auto waited = std::chrono::steady_clock::now() - item.arrived;
        reply = handler_(item.payload, std::chrono::duration_cast<std::chrono::milliseconds>(waited));
      } catch (const std::exception&) {
        Count("failed");
      }
      if (reply.empty()) continue;
      {
        MutexLock lock(mu_);
        replies_.push_back({std::move(item.route), std::move(reply)});
      }
      Ring();
    }
  }

  std::string endpoint_;
  const Handler handler_;
  const FrameServerOptions options_;
  std::optional<AllowedKeys> allowed_;
  ZapAuthority zap_;
  void* context_ = nullptr;
  void* socket_ = nullptr;
  int bell_ = -1;
  std::atomic<bool> stop_{false};
  mutable Mutex mu_;
  CondVar arrived_;
  std::deque<Item> waiting_ PLUMB_GUARDED_BY(mu_);
  std::deque<Item> replies_ PLUMB_GUARDED_BY(mu_);
  std::map<std::string, uint64_t> counters_ PLUMB_GUARDED_BY(mu_);
  uint64_t revoked_ PLUMB_GUARDED_BY(mu_) = 0;
  bool closing_ PLUMB_GUARDED_BY(mu_) = false;
  std::thread loop_;
  std::vector<std::thread> workers_;
};

FrameServer::FrameServer(const std::string& endpoint, Handler handler, FrameServerOptions options)
    : impl_(std::make_unique<Impl>(endpoint, std::move(handler), std::move(options))) {}
FrameServer::~FrameServer() = default;
const std::string& FrameServer::endpoint() const { return impl_->endpoint(); }
std::map<std::string, uint64_t> FrameServer::counters() const { return impl_->counters(); }

}  // namespace plumb

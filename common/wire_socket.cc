#include "common/wire_socket.h"

#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/crc32c.h"
#include "common/endpoint.h"
#include "common/error.h"

namespace plumb {
namespace {

// In front of every header: what it is, and its sum. Eight bytes, so that the FlatBuffer stays aligned.
constexpr uint32_t kMagic = 0x31424C50;  // "PLB1"
constexpr size_t kPrefixBytes = 8;
constexpr int kMaxParts = 4;
constexpr int kReceiveHighWater = 1000;   // messages; beyond, the peer's writes block
constexpr long kReopenMs = 200;           // between two tries to get a socket
constexpr int kRouterLingerMs = 1000;     // for the last acknowledgements and replies

struct Part {
  zmq_msg_t msg;
  Part() { zmq_msg_init(&msg); }
  ~Part() { zmq_msg_close(&msg); }
  Part(const Part&) = delete;
  std::string_view view() { return {static_cast<const char*>(zmq_msg_data(&msg)), zmq_msg_size(&msg)}; }
};

Payload ToPayload(std::shared_ptr<Part> message, size_t skip = 0) {
  const std::string_view view = message->view().substr(skip);
  return Payload(std::move(message), view);
}

void Set(void* socket, int option, int value) {
  PLUMB_CHECK(zmq_setsockopt(socket, option, &value, sizeof value) == 0, zmq_strerror(zmq_errno()));
}

void ReleasePayload(void*, void* hint) { delete static_cast<Payload*>(hint); }

}  // namespace

WireSocket::WireSocket(Kind kind, const std::string& endpoint, size_t max_message_bytes, const SocketTimes& times)
    : kind_(kind), max_message_bytes_(max_message_bytes), times_(times), endpoint_(endpoint) {
  CheckEndpoint(endpoint, /*bind=*/kind == Kind::kRouter);
  bell_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  context_ = zmq_ctx_new();
  try {
    if (bell_ < 0 || !context_) throw Error(ErrorCode::kIo, std::string("cannot make a socket: ") + std::strerror(errno), endpoint);
    Open();
  } catch (...) {
    if (socket_) zmq_close(socket_);
    if (context_) zmq_ctx_term(context_);
    if (bell_ >= 0) ::close(bell_);
    throw;
  }
}

void WireSocket::Open() {
  const bool router = kind_ == Kind::kRouter;
  socket_ = zmq_socket(context_, router ? ZMQ_ROUTER : ZMQ_DEALER);
  if (!socket_) throw Error(ErrorCode::kIo, std::string("cannot make a socket: ") + zmq_strerror(zmq_errno()), endpoint_);
  const int64_t cap = static_cast<int64_t>(std::max(max_message_bytes_, kMaxHeaderBytes) + kPrefixBytes);
  zmq_setsockopt(socket_, ZMQ_MAXMSGSIZE, &cap, sizeof cap);
  Set(socket_, ZMQ_LINGER, router ? kRouterLingerMs : 0);
  Set(socket_, ZMQ_RCVHWM, kReceiveHighWater);
  Set(socket_, ZMQ_HANDSHAKE_IVL, static_cast<int>(times_.handshake.count()));
  Set(socket_, ZMQ_HEARTBEAT_IVL, static_cast<int>(times_.heartbeat_interval.count()));
  Set(socket_, ZMQ_HEARTBEAT_TIMEOUT, static_cast<int>(times_.heartbeat_timeout.count()));
  Set(socket_, ZMQ_HEARTBEAT_TTL, static_cast<int>(times_.heartbeat_ttl.count()));
  if (endpoint_.find('[') != std::string::npos) Set(socket_, ZMQ_IPV6, 1);
  if (router) {
    Set(socket_, ZMQ_ROUTER_MANDATORY, 1);
    Set(socket_, ZMQ_SNDHWM, 0);  // bounded by what was granted or asked for; never dropped
  } else {
    Set(socket_, ZMQ_IMMEDIATE, 1);
    Set(socket_, ZMQ_RECONNECT_IVL, static_cast<int>(times_.reconnect.count()));
    Set(socket_, ZMQ_RECONNECT_IVL_MAX, 1000);
  }
  if ((router ? zmq_bind(socket_, endpoint_.c_str()) : zmq_connect(socket_, endpoint_.c_str())) != 0) {
    const int code = zmq_errno();
    if (code == EADDRINUSE) throw Error(ErrorCode::kConflict, "the address is in use: another run may hold it", endpoint_);
    throw Error(ErrorCode::kIo, std::string(router ? "cannot bind: " : "cannot connect: ") + zmq_strerror(code), endpoint_);
  }
  if (router) {
    char bound[512];
    size_t size = sizeof bound;
    if (zmq_getsockopt(socket_, ZMQ_LAST_ENDPOINT, bound, &size) == 0 && size > 1) endpoint_.assign(bound, size - 1);
  }
}

WireSocket::~WireSocket() {
  if (socket_) zmq_close(socket_);
  zmq_ctx_term(context_);
  ::close(bell_);
}

void WireSocket::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(bell_, &one, sizeof one);  // full means it rings already
}

WireSocket::Ready WireSocket::Poll(std::chrono::steady_clock::time_point until, bool want_write) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
  if (!socket_) Reopen();
  const long timeout = std::clamp<long>(left.count(), 0, socket_ ? 60000 : kReopenMs);
  zmq_pollitem_t items[2] = {{nullptr, bell_, ZMQ_POLLIN, 0},
                             {socket_, 0, static_cast<short>(ZMQ_POLLIN | (want_write ? ZMQ_POLLOUT : 0)), 0}};
  if (zmq_poll(items, socket_ ? 2 : 1, timeout) < 0) {
    PLUMB_CHECK(zmq_errno() == EINTR, zmq_strerror(zmq_errno()));
    return {};
  }
  if (items[0].revents) {
    uint64_t rings;
    [[maybe_unused]] const ssize_t n = ::read(bell_, &rings, sizeof rings);
  }
  if (!socket_) return {};
  return {(items[1].revents & ZMQ_POLLIN) != 0, (items[1].revents & ZMQ_POLLOUT) != 0};
}

bool WireSocket::Receive(Incoming& message) {
  message = {};
  if (!socket_) return false;
  std::vector<std::shared_ptr<Part>> parts;
  int count = 0;
  for (bool more = true; more; ++count) {
    auto part = std::make_shared<Part>();
    if (zmq_msg_recv(&part->msg, socket_, ZMQ_DONTWAIT) < 0) {
      PLUMB_CHECK(zmq_errno() == EAGAIN || zmq_errno() == EINTR, zmq_strerror(zmq_errno()));
      return false;  // parts of one message arrive together: this is before the first
    }
    more = zmq_msg_more(&part->msg) != 0;
    if (count < kMaxParts) parts.push_back(std::move(part));
  }
  const size_t first = kind_ == Kind::kRouter ? 1 : 0;
  if (first == 1) message.route = std::string(parts[0]->view());
  const size_t rest = static_cast<size_t>(count) - first;
  if (rest < 1 || rest > 2) return true;
  const std::string_view header = parts[first]->view();
  if (header.size() < kPrefixBytes || header.size() > kMaxHeaderBytes) return true;
  uint32_t magic, sum;
  std::memcpy(&magic, header.data(), 4);
  std::memcpy(&sum, header.data() + 4, 4);
  if (magic != kMagic || sum != Crc32c(header.substr(kPrefixBytes))) return true;
  message.header = ToPayload(parts[first], kPrefixBytes);
  if (rest == 2) message.payload = ToPayload(parts[first + 1]);
  message.valid = true;
  return true;
}

WireSocket::Sent WireSocket::Send(const std::string& route, std::string_view header, const Payload& payload) {
  if (!socket_) return Sent::kLater;
  if (kind_ == Kind::kRouter && zmq_send(socket_, route.data(), route.size(), ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) {
    return Sent::kUnroutable;
  }
  Part head;
  zmq_msg_init_size(&head.msg, kPrefixBytes + header.size());
  char* out = static_cast<char*>(zmq_msg_data(&head.msg));
  const uint32_t sum = Crc32c(header);
  std::memcpy(out, &kMagic, 4);
  std::memcpy(out + 4, &sum, 4);
  std::memcpy(out + kPrefixBytes, header.data(), header.size());
  const bool two = payload.size() > 0;
  if (zmq_msg_send(&head.msg, socket_, ZMQ_DONTWAIT | (two ? ZMQ_SNDMORE : 0)) < 0) {
    return kind_ == Kind::kRouter ? Sent::kUnroutable : Sent::kLater;
  }
  if (!two) return Sent::kYes;
  Part body;
  // ZeroMQ wants a mutable pointer and leaves the bytes as they are.
  zmq_msg_init_data(&body.msg, const_cast<char*>(payload.view().data()), payload.size(), &ReleasePayload,
                    new Payload(payload));
  if (zmq_msg_send(&body.msg, socket_, ZMQ_DONTWAIT) < 0) {
    return kind_ == Kind::kRouter ? Sent::kUnroutable : Sent::kLater;
  }
  return Sent::kYes;
}

void WireSocket::Reconnect() noexcept {
  PLUMB_CHECK(kind_ == Kind::kDealer);
  // A new socket, not disconnect and connect: nothing of the old one's state can be left over.
  if (socket_) zmq_close(std::exchange(socket_, nullptr));
  Reopen();
}

void WireSocket::Reopen() noexcept {
  try {
    Open();
  } catch (const Error& e) {
    if (socket_) zmq_close(std::exchange(socket_, nullptr));
    refused_.Warning(std::string(e.what()) + "; trying again");
  }
}

}  // namespace plumb

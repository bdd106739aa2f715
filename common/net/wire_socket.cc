#include "common/net/wire_socket.h"

#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/hash/crc32c.h"
#include "common/net/endpoint.h"

namespace plumb {
namespace {

constexpr std::string_view kMagic = "PLB2";  // what this build speaks
constexpr size_t kMaxParts = 8;              // kept of a message; ours have three at most
constexpr long kReopenMs = 200;              // between two tries to get a socket
constexpr int kRouterLingerMs = 1000;        // for the last acknowledgements and replies
constexpr char kNoEntry[] = "it does not accept our key";

struct Part {
  zmq_msg_t msg;
  Part() { zmq_msg_init(&msg); }
  ~Part() { zmq_msg_close(&msg); }
  Part(const Part&) = delete;
  std::string_view view() {
    return {static_cast<const char*>(zmq_msg_data(&msg)), zmq_msg_size(&msg)};
  }
};
using Parts = std::vector<std::shared_ptr<Part>>;

// One whole message; false: none is there now.
bool ReceiveNow(void* socket, Parts& parts) {
  parts.clear();
  for (bool more = true; more;) {
    auto part = std::make_shared<Part>();
    if (zmq_msg_recv(&part->msg, socket, ZMQ_DONTWAIT) < 0) {
      PLUMB_CHECK(zmq_errno() == EAGAIN || zmq_errno() == EINTR, zmq_strerror(zmq_errno()));
      return false;  // parts of one message arrive together: this is before the first
    }
    more = zmq_msg_more(&part->msg) != 0;
    if (parts.size() < kMaxParts) parts.push_back(std::move(part));
  }
  return true;
}

Payload ToPayload(std::shared_ptr<Part> part, size_t skip = 0) {
  const std::string_view view = part->view().substr(skip);
  return Payload(std::move(part), view);
}

void Set(void* socket, int option, int value) {
  PLUMB_CHECK(zmq_setsockopt(socket, option, &value, sizeof value) == 0, zmq_strerror(zmq_errno()));
}

void SetKey(void* socket, int option, const std::string& key, const std::string& where) {
  if (zmq_setsockopt(socket, option, key.c_str(), key.size() + 1) == 0) return;
  throw Error(
      ErrorCode::kInvalidArgument,
      "a CURVE key was not accepted: it has 40 characters of Z85, and this ZeroMQ needs libsodium",
      where);
}

void ReleasePayload(void*, void* hint) { delete static_cast<Payload*>(hint); }

}  // namespace

WireSocket::WireSocket(Kind kind, const std::string& endpoint, WireOptions options)
    : kind_(kind), options_(std::move(options)), endpoint_(endpoint) {
  const bool router = kind == Kind::kRouter;
  CheckEndpoint(endpoint, /*bind=*/router,
                router ? !options_.server.empty() || options_.server.open
                       : !options_.client.empty() || options_.client.open);
  if (router && !options_.server.empty()) {
    allowed_ = std::make_unique<AllowedKeys>(options_.server.allowed_file);
    if (const std::string& also = options_.server.also_allowed_file; !also.empty())
      also_allowed_ = std::make_unique<AllowedKeys>(also);
  }
  bell_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  context_ = zmq_ctx_new();
  try {
    if (bell_ < 0 || !context_)
      throw Error(ErrorCode::kIo, std::string("cannot make a socket: ") + std::strerror(errno),
                  endpoint);
    Open();
  } catch (...) {
    Close();
    if (context_) zmq_ctx_term(context_);
    if (bell_ >= 0) ::close(bell_);
    throw;
  }
}

WireSocket::~WireSocket() {
  Close();
  zmq_ctx_term(context_);
  ::close(bell_);
}

void WireSocket::Open() {
  const bool router = kind_ == Kind::kRouter;
  const SocketTimes& times = options_.times;
  const auto make = [&](void*& socket, int type) {
    socket = zmq_socket(context_, type);
    if (!socket)
      throw Error(ErrorCode::kIo, std::string("cannot make a socket: ") + zmq_strerror(zmq_errno()),
                  endpoint_);
  };
  make(socket_, router ? ZMQ_ROUTER : ZMQ_DEALER);
  const auto cap = static_cast<int64_t>(
      std::max(options_.max_message_bytes, options_.sealed ? kMaxHeaderBytes + kPrefixBytes : 0));
  zmq_setsockopt(socket_, ZMQ_MAXMSGSIZE, &cap, sizeof cap);
  Set(socket_, ZMQ_LINGER, router ? kRouterLingerMs : 0);
  Set(socket_, ZMQ_RCVHWM, options_.receive_high_water);
  Set(socket_, ZMQ_HANDSHAKE_IVL, static_cast<int>(times.handshake.count()));
  Set(socket_, ZMQ_HEARTBEAT_IVL, static_cast<int>(times.heartbeat_interval.count()));
  Set(socket_, ZMQ_HEARTBEAT_TIMEOUT, static_cast<int>(times.heartbeat_timeout.count()));
  Set(socket_, ZMQ_HEARTBEAT_TTL, static_cast<int>(times.heartbeat_ttl.count()));
  if (endpoint_.find('[') != std::string::npos) Set(socket_, ZMQ_IPV6, 1);
  if (router) {
    Set(socket_, ZMQ_ROUTER_MANDATORY, 1);
    Set(socket_, ZMQ_SNDHWM, 0);  // bounded by what was granted or asked for; never dropped
  } else {
    Set(socket_, ZMQ_IMMEDIATE, 1);  // nothing is taken before somebody is there
    Set(socket_, ZMQ_RECONNECT_IVL, static_cast<int>(times.reconnect.count()));
    Set(socket_, ZMQ_RECONNECT_IVL_MAX, 1000);
    make(side_, ZMQ_PAIR);
    const std::string address = "inproc://monitor-" + std::to_string(++opened_);
    if (zmq_socket_monitor(socket_, address.c_str(), ZMQ_EVENT_ALL) != 0 ||
        zmq_connect(side_, address.c_str()) != 0) {
      throw Error(ErrorCode::kIo,
                  std::string("cannot watch a socket: ") + zmq_strerror(zmq_errno()), endpoint_);
    }
    if (const CurveClient& keys = options_.client; !keys.empty()) {
      SetKey(socket_, ZMQ_CURVE_SERVERKEY, keys.server_key, endpoint_);
      SetKey(socket_, ZMQ_CURVE_PUBLICKEY, keys.own.public_key, endpoint_);
      SetKey(socket_, ZMQ_CURVE_SECRETKEY, keys.own.secret_key, endpoint_);
    }
  }
  if (allowed_) {
    // Without this end ZeroMQ would let every key in.
    make(side_, ZMQ_REP);
    if (zmq_bind(side_, "inproc://zeromq.zap.01") != 0) {
      throw Error(ErrorCode::kIo, std::string("cannot check keys: ") + zmq_strerror(zmq_errno()),
                  endpoint_);
    }
    Set(socket_, ZMQ_CURVE_SERVER, 1);
    SetKey(socket_, ZMQ_CURVE_SECRETKEY, options_.server.own.secret_key, endpoint_);
    zmq_setsockopt(socket_, ZMQ_ZAP_DOMAIN, "plumb", 5);
  }
  if (side_) Set(side_, ZMQ_LINGER, 0);
  if ((router ? zmq_bind(socket_, endpoint_.c_str()) : zmq_connect(socket_, endpoint_.c_str())) !=
      0) {
    const int code = zmq_errno();
    if (code == EADDRINUSE)
      throw Error(ErrorCode::kConflict, "the address is in use: another run may hold it",
                  endpoint_);
    throw Error(ErrorCode::kIo,
                std::string(router ? "cannot bind: " : "cannot connect: ") + zmq_strerror(code),
                endpoint_);
  }
  char bound[512];
  size_t size = sizeof bound;
  if (router && zmq_getsockopt(socket_, ZMQ_LAST_ENDPOINT, bound, &size) == 0 && size > 1)
    endpoint_.assign(bound, size - 1);
}

void WireSocket::Close() noexcept {
  if (socket_ && kind_ == Kind::kDealer) zmq_socket_monitor(socket_, nullptr, 0);
  if (socket_) zmq_close(std::exchange(socket_, nullptr));
  if (side_) zmq_close(std::exchange(side_, nullptr));
}

void WireSocket::Wake() {
  const uint64_t one = 1;
  // full means it rings already
  [[maybe_unused]] const ssize_t n = ::write(bell_, &one, sizeof one);
}

void WireSocket::Say(std::string state) noexcept {
  std::lock_guard lock(mu_);
  state_ = std::move(state);
}

std::string WireSocket::state() const {
  std::lock_guard lock(mu_);
  return other_version_.empty() ? state_ : other_version_;
}

void WireSocket::AddCounters(std::map<std::string, uint64_t>& counters) const {
  if (!allowed_) return;
  counters["keys_accepted"] = accepted_;
  counters["keys_refused"] = refused_;
}

WireSocket::Ready WireSocket::Poll(std::chrono::steady_clock::time_point until, bool want_write,
                                   bool want_read) {
  if (!socket_) Reopen();
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
  const long timeout = std::clamp<long>(left.count(), 0, socket_ ? 60000 : kReopenMs);
  const auto events =
      static_cast<short>((want_read ? ZMQ_POLLIN : 0) | (want_write ? ZMQ_POLLOUT : 0));
  zmq_pollitem_t items[3] = {
      {nullptr, bell_, ZMQ_POLLIN, 0}, {socket_, 0, events, 0}, {side_, 0, ZMQ_POLLIN, 0}};
  if (zmq_poll(items, !socket_ ? 1 : side_ ? 3 : 2, timeout) < 0) {
    PLUMB_CHECK(zmq_errno() == EINTR, zmq_strerror(zmq_errno()));
    return {};
  }
  if (items[0].revents) {
    uint64_t rings;
    [[maybe_unused]] const ssize_t n = ::read(bell_, &rings, sizeof rings);
  }
  if (!socket_) return {};
  if (items[2].revents) kind_ == Kind::kRouter ? AnswerKeys() : Listen();
  return {(items[1].revents & ZMQ_POLLIN) != 0, (items[1].revents & ZMQ_POLLOUT) != 0};
}

// What has happened to the connection since the last look. A failed handshake outlives the
// disconnect that follows it.
void WireSocket::Listen() {
  for (Parts parts; ReceiveNow(side_, parts);) {
    if (parts[0]->view().size() < 2) continue;
    uint16_t event;
    std::memcpy(&event, parts[0]->view().data(), sizeof event);
    std::lock_guard lock(mu_);
    switch (event) {
      case ZMQ_EVENT_HANDSHAKE_SUCCEEDED: state_ = "connected"; break;
      case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: state_ = kNoEntry; break;
      case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
      case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        if (state_ != kNoEntry)
          state_ = "somebody is there, but not with the key or protocol expected";
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

bool WireSocket::Allows(const std::string& key) {
  return allowed_->Allows(key) || (also_allowed_ && also_allowed_->Allows(key));
}

// ZeroMQ's question "may this key connect?" (ZAP). The key becomes the connection's User-Id.
void WireSocket::AnswerKeys() {
  for (Parts in; ReceiveNow(side_, in);) {
    // version, request id, domain, address, identity, mechanism, then the client's key as 32 bytes
    char key[41] = "";
    const bool curve = in.size() == 7 && in[0]->view() == "1.0" && in[5]->view() == "CURVE" &&
                       in[6]->view().size() == 32;
    if (curve) zmq_z85_encode(key, reinterpret_cast<const uint8_t*>(in[6]->view().data()), 32);
    const bool known = curve && Allows(key);
    ++(known ? accepted_ : refused_);
    const std::string_view id = in.size() > 1 ? in[1]->view() : "";
    const std::string_view reply[] = {
        "1.0", id, known ? "200" : "400", known ? "OK" : "not allowed", known ? key : "", ""};
    for (size_t i = 0; i < 6; ++i)
      zmq_send(side_, reply[i].data(), reply[i].size(), i < 5 ? ZMQ_SNDMORE : 0);
  }
}

std::string WireSocket::Seal(std::string_view header, std::string_view payload) {
  std::string prefix(kMagic);
  for (const uint32_t sum : {Crc32c(header), Crc32c(payload)})
    prefix.append(reinterpret_cast<const char*>(&sum), sizeof sum);
  return prefix;
}

const char* WireSocket::ProblemOf(std::string_view header, std::string_view payload) {
  if (header.size() < kPrefixBytes || header.size() > kPrefixBytes + kMaxHeaderBytes)
    return "dropped_malformed";
  if (header.substr(0, 4) != kMagic) {
    // Else the byte is damaged: no version was ever called so.
    const bool named = header[3] >= '0' && header[3] <= '9';
    if (named && header.substr(0, 3) == kMagic.substr(0, 3)) {
      const std::string other = "the peer speaks version " + std::string(1, header[3]) +
                                " of Plumb's messages, this build version " + kMagic.back() +
                                ": all roles of a run have to be of one build";
      complaints_.Warning(endpoint_ + ": " + other);
      std::lock_guard lock(mu_);
      other_version_ = other;
    }
    return "dropped_malformed";
  }
  if (payload.size() > options_.max_message_bytes) return "dropped_oversized";
  const std::string seal = Seal(header.substr(kPrefixBytes), payload);
  if (header.substr(4, 4) != seal.substr(4, 4)) return "dropped_malformed";
  return header.substr(8, 4) == seal.substr(8, 4) ? nullptr : "dropped_checksum";
}

bool WireSocket::Receive(Incoming& message) {
  message = {};
  Parts parts;
  const size_t first = kind_ == Kind::kRouter ? 1 : 0;
  while (socket_ && ReceiveNow(socket_, parts)) {
    if (allowed_) {
      const char* user = zmq_msg_gets(&parts.back()->msg, "User-Id");
      if (!Allows(user ? user : "")) {
        ++refused_;  // taken off the list after it had connected, or never asked for by ZAP
        continue;
      }
    }
    if (first == 1) message.route = std::string(parts[0]->view());
    const size_t rest = parts.size() - first;
    message.problem = "dropped_malformed";
    if (!options_.sealed) {
      if (rest != 2 || !parts[first]->view().empty()) return true;
      message.problem = nullptr;
    } else {
      if (rest < 1 || rest > 2) return true;
      message.problem = ProblemOf(parts[first]->view(), rest == 2 ? parts[first + 1]->view() : "");
      if (message.problem) return true;
      message.header = ToPayload(parts[first], kPrefixBytes);
      std::lock_guard lock(mu_);
      other_version_.clear();
    }
    if (rest == 2) message.payload = ToPayload(parts[first + 1]);
    return true;
  }
  return false;
}

WireSocket::Sent WireSocket::Send(const std::string& route, std::string_view header,
                                  const Payload& payload) {
  const Sent refused = kind_ == Kind::kRouter ? Sent::kUnroutable : Sent::kLater;
  if (!socket_) return refused;
  if (kind_ == Kind::kRouter &&
      zmq_send(socket_, route.data(), route.size(), ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
    return refused;
  const bool two = !options_.sealed || payload.size() > 0;
  const std::string head = options_.sealed ? Seal(header, payload).append(header) : std::string();
  if (zmq_send(socket_, head.data(), head.size(), ZMQ_DONTWAIT | (two ? ZMQ_SNDMORE : 0)) < 0)
    return refused;
  if (!two) return Sent::kYes;
  Part body;
  // ZeroMQ wants a mutable pointer and leaves the bytes as they are.
  zmq_msg_init_data(&body.msg, const_cast<char*>(payload.view().data()), payload.size(),
                    &ReleasePayload, new Payload(payload));
  return zmq_msg_send(&body.msg, socket_, ZMQ_DONTWAIT) < 0 ? refused : Sent::kYes;
}

void WireSocket::Reconnect() noexcept {
  PLUMB_CHECK(kind_ == Kind::kDealer);
  Close();  // a new socket, not disconnect and connect: nothing of the old one is left over
  Reopen();
}

void WireSocket::Reopen() noexcept {
  try {
    Say("connecting");
    Open();
  } catch (const Error& e) {
    Close();
    complaints_.Warning(std::string(e.what()) + "; trying again");
    Say(e.message());
  }
}

}  // namespace plumb

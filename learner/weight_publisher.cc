#include "learner/weight_publisher.h"

#include <algorithm>

#include "common/error.h"
#include "common/weight_wire.h"

namespace plumb::learner {

using std::chrono::milliseconds;

namespace {

constexpr std::chrono::seconds kKeep{20};  // after the last part that was asked for

}  // namespace

WeightPublisher::WeightPublisher(const std::string& endpoint) {
  expirer_ = std::thread([this] { Expire(); });
  server_ = std::make_unique<RpcServer>(
      endpoint, [this](RpcRequest request, RpcResponder responder) { Handle(std::move(request), std::move(responder)); });
}

WeightPublisher::~WeightPublisher() {
  server_.reset();
  {
    MutexLock lock(mu_);
    ended_ = true;
  }
  changed_.notify_all();
  expirer_.join();
}

bool WeightPublisher::Wanted(const PolicyVersion& held) const { return newest_.flat && newest_.version != held; }

std::string WeightPublisher::NewestOffer() const {
  return weight_wire::EncodeOffer({newest_.version, newest_.flat ? newest_.flat->size() : 0});
}

void WeightPublisher::Publish(const PolicyVersion& version, std::span<const std::byte> flat) {
  std::list<Waiting> ready;
  std::string offer;
  {
    MutexLock lock(mu_);
    if (newest_.flat && version == newest_.version) return;
    if (version.version <= newest_.version.version) {
      throw Error(ErrorCode::kConflict, "version " + std::to_string(version.version) + " cannot be published after version " +
                                            std::to_string(newest_.version.version), endpoint());
    }
    if (newest_.keep > std::chrono::steady_clock::now()) older_.push_back(std::move(newest_));
    newest_.version = version;
    newest_.keep = {};
    newest_.flat.reset();  // before the copy: at most one that nobody is fetching
    newest_.flat = std::make_shared<const std::string>(reinterpret_cast<const char*>(flat.data()), flat.size());
    offer = NewestOffer();
    for (auto it = waiting_.begin(); it != waiting_.end();) {
      const auto next = std::next(it);
      if (Wanted(it->held)) ready.splice(ready.end(), waiting_, it);
      it = next;
    }
    if (!ready.empty()) newest_.keep = After(kKeep);
  }
  for (Waiting& w : ready) w.responder.Reply(offer);
}

Payload WeightPublisher::Part(const RpcRequest& request) {
  const auto part = weight_wire::DecodePartRequest(request.payload);
  MutexLock lock(mu_);
  Held* held = newest_.flat && newest_.version == part.version ? &newest_ : nullptr;
  for (Held& older : older_) {
    if (older.version == part.version) held = &older;
  }
  if (held == nullptr) {
    throw Error(ErrorCode::kNotFound, "weights version " + std::to_string(part.version.version) + " is no longer at hand", endpoint());
  }
  if (part.bytes > weight_wire::kPartBytes || part.offset > held->flat->size() || part.bytes > held->flat->size() - part.offset) {
    throw Error(ErrorCode::kInvalidArgument, "asked for " + std::to_string(part.bytes) + " bytes of weights from " +
                                                 std::to_string(part.offset) + " on, of " + std::to_string(held->flat->size()) +
                                                 ", at most " + std::to_string(weight_wire::kPartBytes) + " at once",
                endpoint());
  }
  held->keep = After(kKeep);
  return Payload(held->flat, std::string_view(*held->flat).substr(part.offset, part.bytes));
}

void WeightPublisher::Handle(RpcRequest request, RpcResponder responder) {
  if (request.verb == weight_wire::kNewestVerb) {
    MutexLock lock(mu_);
    std::string offer = NewestOffer();
    lock.unlock();
    responder.Reply(std::move(offer));
    return;
  }
  if (request.verb == weight_wire::kPartVerb) {
    responder.Reply(Part(request));
    return;
  }
  if (request.verb != weight_wire::kFetchVerb) {
    responder.Fail(Error(ErrorCode::kUnsupported, "unknown verb '" + request.verb + "'", endpoint()));
    return;
  }
  const auto fetch = weight_wire::DecodeFetchRequest(request.payload);
  std::string offer;
  {
    MutexLock lock(mu_);
    if (!Wanted(fetch.held)) {
      const auto wait = milliseconds(std::clamp<int64_t>(fetch.wait_ms, 0, 60'000));
      waiting_.push_back({fetch.held, std::min(request.deadline, After(wait)), std::move(responder)});
      changed_.notify_all();
      return;
    }
    newest_.keep = After(kKeep);
    offer = NewestOffer();
  }
  responder.Reply(std::move(offer));
}

void WeightPublisher::Expire() {
  const std::string nothing = weight_wire::EncodeOffer({});
  MutexLock lock(mu_);
  while (!ended_) {
    Deadline next = After(milliseconds(500));
    for (const Waiting& w : waiting_) next = std::min(next, w.deadline);
    changed_.wait_until(lock, next);
    std::list<Waiting> expired;
    const auto now = std::chrono::steady_clock::now();
    for (auto it = waiting_.begin(); it != waiting_.end();) {
      const auto after = std::next(it);
      if (it->deadline <= now) expired.splice(expired.end(), waiting_, it);
      it = after;
    }
    older_.remove_if([&](const Held& held) { return held.keep <= now; });
    lock.unlock();
    for (Waiting& w : expired) w.responder.Reply(nothing);
    lock.lock();
  }
}

}  // namespace plumb::learner

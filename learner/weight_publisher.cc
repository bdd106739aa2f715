#include "learner/weight_publisher.h"

#include <algorithm>

#include "common/error.h"
#include "common/weight_wire.h"

namespace plumb::learner {

using std::chrono::milliseconds;

WeightPublisher::WeightPublisher(const std::string& endpoint) {
  expirer_ = std::thread([this] { Expire(); });
  server_ = std::make_unique<RpcServer>(
      endpoint, [this](RpcRequest request, RpcResponder responder) { Handle(std::move(request), std::move(responder)); });
}

WeightPublisher::~WeightPublisher() {
  server_.reset();
  {
    std::lock_guard lock(mu_);
    ended_ = true;
  }
  changed_.notify_all();
  expirer_.join();
}

void WeightPublisher::Publish(const PolicyVersion& version, std::span<const std::byte> flat) {
  std::list<Waiting> ready;
  Payload reply;
  {
    std::lock_guard lock(mu_);
    if (version == version_) return;
    if (version.version <= version_.version) {
      throw Error(ErrorCode::kConflict, "version " + std::to_string(version.version) + " cannot be published after version " +
                                            std::to_string(version_.version), endpoint());
    }
    newest_ = Payload(weight_wire::EncodeReply(version, flat));
    version_ = version;
    reply = newest_;
    for (auto it = waiting_.begin(); it != waiting_.end();) {
      const auto next = std::next(it);
      if (it->than < version.version) ready.splice(ready.end(), waiting_, it);
      it = next;
    }
  }
  for (Waiting& w : ready) w.responder.Reply(reply);
}

void WeightPublisher::Handle(RpcRequest request, RpcResponder responder) {
  if (request.verb == weight_wire::kNewestVerb) {
    PolicyVersion version;
    {
      std::lock_guard lock(mu_);
      version = version_;
    }
    responder.Reply(weight_wire::EncodeReply(version, {}));
    return;
  }
  if (request.verb != weight_wire::kFetchVerb) {
    responder.Fail(Error(ErrorCode::kUnsupported, "unknown verb '" + request.verb + "'", endpoint()));
    return;
  }
  const auto fetch = weight_wire::DecodeFetchRequest(request.payload);
  Payload reply;
  {
    std::lock_guard lock(mu_);
    if (version_.version <= fetch.than) {
      const auto wait = milliseconds(std::clamp<int64_t>(fetch.wait_ms, 0, 60'000));
      waiting_.push_back({fetch.than, std::min(request.deadline, After(wait)), std::move(responder)});
      changed_.notify_all();
      return;
    }
    reply = newest_;
  }
  responder.Reply(reply);
}

void WeightPublisher::Expire() {
  const std::string nothing = weight_wire::EncodeReply(PolicyVersion{}, {});
  std::unique_lock lock(mu_);
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
    lock.unlock();
    for (Waiting& w : expired) w.responder.Reply(nothing);
    lock.lock();
  }
}

}  // namespace plumb::learner

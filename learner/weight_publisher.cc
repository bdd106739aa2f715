#include "learner/weight_publisher.h"

#include "common/error.h"
#include "common/weight_wire.h"

namespace plumb::learner {

WeightPublisher::WeightPublisher(const std::string& endpoint, RpcServerOptions options) {
  server_ = std::make_unique<RpcServer>(
      endpoint,
      [this](const RpcRequest& request, const RpcResponder& responder) {
        Handle(request, responder);
      },
      std::move(options));
}

void WeightPublisher::Publish(const PolicyVersion& version, std::span<const std::byte> flat) {
  std::lock_guard lock(mu_);
  if (newest_.version >= 0 && version == newest_) return;
  if (version.version <= newest_.version) {
    throw Error(ErrorCode::kConflict,
                "version " + std::to_string(version.version) +
                    " cannot be published after version " + std::to_string(newest_.version),
                endpoint());
  }
  flat_ = {};  // before the copy: at most one that nobody is fetching
  flat_ = Payload(std::string(reinterpret_cast<const char*>(flat.data()), flat.size()));
  newest_ = version;
  Offer();
}

void WeightPublisher::Offer() {
  const auto now = std::chrono::steady_clock::now();
  std::erase_if(waiting_, [&](Waiting& w) {
    if (newest_.version < 0 || w.held == newest_) return w.deadline <= now;
    w.responder.Reply(weight_wire::EncodeVersion(newest_));
    return true;
  });
}

void WeightPublisher::Handle(const RpcRequest& request, const RpcResponder& responder) {
  RpcResponder answer = responder;
  if (request.verb != weight_wire::kAwaitVerb && request.verb != weight_wire::kBytesVerb) {
    throw Error(ErrorCode::kUnsupported, "unknown verb '" + request.verb + "'", endpoint());
  }
  const PolicyVersion version = weight_wire::DecodeVersion(request.payload);
  std::lock_guard lock(mu_);
  if (request.verb == weight_wire::kAwaitVerb) {
    waiting_.push_back({version, request.deadline, std::move(answer)});
    return Offer();
  }
  if (version.version < 0 || version != newest_) {
    throw Error(ErrorCode::kNotFound,
                "weights version " + std::to_string(version.version) + " is no longer at hand",
                endpoint());
  }
  answer.Reply(flat_);
}

}  // namespace plumb::learner

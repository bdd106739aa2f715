#include "learner/loop/weight_publisher.h"

#include <utility>

#include "common/base/error.h"
#include "common/net/weight_wire.h"

namespace plumb::learner {

WeightPublisher::WeightPublisher(const std::string& endpoint, RpcServerOptions options, bool lends)
    : shelf_(lends ? std::make_unique<policy_model::WeightShelf>() : nullptr) {
  server_ = std::make_unique<RpcServer>(
      endpoint,
      [this](const RpcRequest& request, const RpcResponder& responder) {
        Handle(request, responder);
      },
      std::move(options));
}

void WeightPublisher::Publish(const PolicyVersion& version, std::span<const WeightSet> sets) {
  // Readers of the version before are answered meanwhile.
  const bool out = [&] {
    MutexLock lock(mu_);
    return newest_.version.version >= 0 && version == newest_.version;
  }();
  if (shelf_ && !out) shelf_->Put(sets);
  MutexLock lock(mu_);
  const PolicyVersion& newest = newest_.version;
  if (newest.version >= 0 && version == newest) return;
  if (version.version <= newest.version) {
    throw Error(ErrorCode::kConflict,
                "version " + std::to_string(version.version) +
                    " cannot be published after version " + std::to_string(newest.version),
                endpoint());
  }
  std::map<Digest, Payload> kept;
  for (const WeightSet& set : sets) {
    if (!set.bytes.empty() || shelf_) continue;
    const auto same = sets_.find(set.digest);
    PLUMB_CHECK(same != sets_.end(),
                "a set without bytes that the version before does not have: " + set.name);
    kept.insert(*same);
  }
  sets_ = std::move(kept);  // before the copies: at most one version that nobody is fetching
  newest_ = {.version = version, .sets = {}};
  for (const WeightSet& set : sets) {
    if (shelf_) {
      newest_.sets.push_back({set.name, set.digest, shelf_->Size(set.digest).value()});
      continue;
    }
    Payload& held = sets_[set.digest];
    if (!set.bytes.empty())
      held =
          Payload(std::string(reinterpret_cast<const char*>(set.bytes.data()), set.bytes.size()));
    newest_.sets.push_back({set.name, set.digest, held.size()});
  }
  Offer();
}

void WeightPublisher::Offer() {
  const PolicyVersion& newest = newest_.version;
  const std::string offer = weight_wire::EncodeOffer(newest_);
  const auto now = std::chrono::steady_clock::now();
  std::erase_if(waiting_, [&](Waiting& w) {
    if (newest.version < 0 || w.held == newest) return w.deadline <= now;
    w.responder.Reply(offer);
    return true;
  });
}

void WeightPublisher::Handle(const RpcRequest& request, const RpcResponder& responder) {
  RpcResponder answer = responder;
  if (request.verb == weight_wire::kAwaitVerb) {
    const PolicyVersion held = weight_wire::DecodeVersion(request.payload);
    MutexLock lock(mu_);
    waiting_.push_back({held, request.deadline, std::move(answer)});
    return Offer();
  }
  const Digest set(request.payload.view());
  if (request.verb == weight_wire::kLendVerb) {
    const auto handle = shelf_ ? shelf_->Lend(set) : std::nullopt;
    if (!handle) throw Error(ErrorCode::kNotFound, "the set of weights is not lent", endpoint());
    return answer.Reply(*handle);
  }
  if (request.verb == weight_wire::kReturnVerb) {
    if (shelf_) shelf_->Return(set);
    return answer.Reply(std::string());
  }
  if (request.verb != weight_wire::kBytesVerb)
    throw Error(ErrorCode::kUnsupported, "unknown verb '" + request.verb + "'", endpoint());
  MutexLock lock(mu_);
  answer.Reply(BytesOf(set));
}

Payload WeightPublisher::BytesOf(const Digest& set) {
  const auto found = sets_.find(set);
  if (found != sets_.end()) return found->second;
  for (const OfferedSet& offered : newest_.sets) {
    if (!shelf_ || offered.digest != set) continue;
    std::string bytes(offered.bytes, '\0');
    if (!shelf_->Read(set, std::as_writable_bytes(std::span(bytes)))) break;
    return sets_[set] = Payload(std::move(bytes));
  }
  throw Error(ErrorCode::kNotFound,
              "the set of weights is none of version " + std::to_string(newest_.version.version) +
                  ", the newest",
              endpoint());
}

}  // namespace plumb::learner

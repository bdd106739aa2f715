#include "learner/loop/weight_publisher.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/net/weight_wire.h"
#include "common/net/weights/block_change.h"

namespace plumb::learner {

WeightPublisher::WeightPublisher(const std::string& endpoint, RpcServerOptions options, bool lends,
                                 WeightBlocks blocks)
    : shelf_(lends ? std::make_unique<policy_model::WeightShelf>() : nullptr), blocks_(blocks) {
  PLUMB_CHECK(!lends || !blocks.on, "what is lent does not come in blocks");
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
  std::map<std::string, Digest> before;
  for (const OfferedSet& set : newest_.sets) before[set.name] = set.digest;
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
  if (blocks_.on) PutBlocks(before);
  Offer();
}

void WeightPublisher::PutBlocks(const std::map<std::string, Digest>& before) {
  std::vector<Digest> sets;
  for (const OfferedSet& set : newest_.sets) sets.push_back(set.digest);
  std::erase_if(leaves_, [&](const auto& each) {
    return std::find(sets.begin(), sets.end(), each.first) == sets.end();
  });
  // What is of the past may go with Open: until the changes are known they are held here.
  std::map<Digest, std::vector<Payload>> bases;
  for (const OfferedSet& set : newest_.sets) {
    const auto old = before.find(set.name);
    if (!blocks_.changes || old == before.end() || old->second == set.digest) continue;
    std::vector<Payload>& base = bases[set.digest];
    const size_t blocks = (set.bytes + kDigestBlockBytes - 1) / kDigestBlockBytes;
    for (size_t i = 0; i < blocks; ++i) base.push_back(block_shelf_.Block(old->second, i));
  }
  block_shelf_.Open(newest_.version.version, sets);
  for (const OfferedSet& set : newest_.sets) {
    if (leaves_.contains(set.digest)) continue;  // as it was
    const Payload& whole = sets_.at(set.digest);
    leaves_[set.digest] = HashBlocks(whole.bytes());
    const auto base = bases.find(set.digest);
    block_shelf_.Begin(set.name, set.digest, set.bytes,
                       base == bases.end() ? Digest() : before.at(set.name));
    for (size_t i = 0, at = 0; at < whole.size(); ++i, at += kDigestBlockBytes) {
      Payload block = whole.Part(at, kDigestBlockBytes), change;
      if (base != bases.end()) {
        std::string shorter = EncodeBlock(block.bytes(), base->second[i].bytes());
        if (shorter.size() < block.size()) change = Payload(std::move(shorter));
      }
      block_shelf_.Put(set.digest, i, std::move(block), std::move(change));
    }
  }
  block_shelf_.Close();
}

std::map<std::string, int64_t> WeightPublisher::counters() const {
  auto counters = block_shelf_.counters();
  MutexLock lock(mu_);
  counters["weight_bytes"] += sent_;
  return counters;
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
  if (blocks_.on && request.verb == weight_wire::kBlocksVerb) {
    // All of a set stands here before it is offered: nothing is waited for.
    return answer.Reply(
        block_shelf_.Answer(weight_wire::DecodeBlocksQuestion(request.payload), Deadline{}));
  }
  if (blocks_.on && request.verb == weight_wire::kLeavesVerb) {
    MutexLock lock(mu_);
    const auto found = leaves_.find(set);
    if (found == leaves_.end()) throw Missing();
    std::string leaves = weight_wire::EncodeLeaves(found->second);
    sent_ += static_cast<int64_t>(leaves.size());
    return answer.Reply(std::move(leaves));
  }
  if (request.verb != weight_wire::kBytesVerb)
    throw Error(ErrorCode::kUnsupported, "unknown verb '" + request.verb + "'", endpoint());
  MutexLock lock(mu_);
  Payload bytes = BytesOf(set);
  sent_ += static_cast<int64_t>(bytes.size());
  answer.Reply(std::move(bytes));
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
  throw Missing();
}

Error WeightPublisher::Missing() const {
  return Error(ErrorCode::kNotFound,
               "the set of weights is none of version " + std::to_string(newest_.version.version) +
                   ", the newest",
               endpoint());
}

}  // namespace plumb::learner

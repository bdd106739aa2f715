#include "run/roles/cluster/member_weights.h"

#include <utility>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/net/local_address.h"
#include "run/roles/cluster/cluster_keys.h"

namespace plumb::run {

MemberWeights::MemberWeights(const configs::Config& config, MemberWeightsOptions options)
    : options_(std::move(options)), relays_(config.run.relay > 0) {
  if (relays_ && options_.listen != kNowhere) Listen(config);
  source_ = std::make_unique<actor::BlockSource>(
      options_.learner, RpcClientOptions{.curve = options_.keys},
      actor::BlockSourceOptions{.who = options_.name,
                                .changes = config.run.weight_deltas,
                                .shelf = relay_ ? &relay_->shelf() : nullptr});
}

void MemberWeights::Listen(const configs::Config& config) {
  try {
    std::string endpoint = options_.listen;
    if (endpoint.empty()) {
      const TcpAddress head = ReadTcpAddress(options_.head, "--join");
      endpoint = "tcp://" + LocalAddressTowards(head.host) + ":*";
    }
    relay_ = std::make_unique<actor::WeightRelay>(
        actor::WeightRelayOptions{.endpoint = endpoint,
                                  .keys = options_.keys,
                                  .folder = options_.folder,
                                  .children = config.run.relay});
  } catch (const Error& e) {
    if (!options_.listen.empty()) throw;
    LogWarning(std::string("hands no weights on, for it cannot listen: ") + e.what());
  }
}

RelaySaying MemberWeights::Saying() {
  MutexLock lock(mu_);
  return {.endpoint = relay_ ? relay_->endpoint() : "",
          .key = options_.keys.own.public_key,
          .left = source_->TakeComplaints(),
          .heard = heard_};
}

void MemberWeights::Hear(const RelayWord& word) {
  bool changed = false;
  {
    MutexLock lock(mu_);
    heard_ = SumOf(word);
    changed = std::exchange(state_, word.state) != word.state;
  }
  if (relay_) relay_->LetIn(word.keys);
  source_->SetPlaces(word.places, word.below > 0);
  if (!relay_ || !changed) return;
  if (word.state == RelayState::kReached) LogInfo("hands weights on at " + relay_->endpoint());
  if (word.state == RelayState::kUnreachable) {
    LogWarning("the head cannot reach this actor at " + relay_->endpoint() +
               ": it hands no weights on (plumb role --hands-on says where it can be reached)");
  }
}

bool MemberWeights::Tried() const {
  MutexLock lock(mu_);
  return state_ != RelayState::kTrying;
}

std::map<std::string, int64_t> MemberWeights::counters() const {
  auto counters = source_->counters();
  if (relay_) counters.merge(relay_->counters());
  return counters;
}

}  // namespace plumb::run

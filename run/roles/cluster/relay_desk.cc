#include "run/roles/cluster/relay_desk.h"

#include <algorithm>
#include <set>
#include <utility>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/net/rpc/rpc.h"

namespace plumb::run {
namespace {

constexpr std::chrono::milliseconds kReach{3000};
constexpr std::chrono::milliseconds kKeysAnew{1000};  // a line taken out of the list counts then

}  // namespace

RelayDesk::RelayDesk(RelayDeskOptions options)
    : options_(std::move(options)), tree_(static_cast<size_t>(options_.fanout)) {
  if (!options_.doors.empty()) allowed_.emplace(options_.doors.allowed_file);
  for (const char* name : {"relays_reached", "relays_unreachable", "relays_left"})
    counters_[name] = 0;
  thread_ = std::thread([this] { Try(); });
}

RelayDesk::~RelayDesk() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool RelayDesk::KeyMayJoin(const std::string& key) {
  return allowed_ ? allowed_->Allows(key) : key.empty();
}

void RelayDesk::Settle(const std::string& name, const Actor& actor) {
  tree_.Put(name, actor.state == RelayState::kReached && actor.until <= Clock::now() &&
                      KeyMayJoin(actor.place.key));
}

std::optional<RelayWord> RelayDesk::Hear(const std::string& name, const RelaySaying& saying) {
  MutexLock lock(mu_);
  const weight_wire::Place place{.name = name, .endpoint = saying.endpoint, .key = saying.key};
  const auto found = actors_.find(name);
  if (found == actors_.end() || found->second.place != place) {
    const bool listens = !place.endpoint.empty() && KeyMayJoin(place.key);
    actors_[name] = {.place = place,
                     .state = listens ? RelayState::kTrying : RelayState::kUnreachable};
    keys_until_ = {};
    if (listens) {
      std::erase_if(to_try_, [&](const weight_wire::Place& each) { return each.name == name; });
      to_try_.push_back(place);
      changed_.notify_all();
    }
  }
  // A word against one that it does not ask is none of its business.
  const std::vector<std::string> above = tree_.Above(name);
  for (const std::string& left : saying.left) {
    const auto against = actors_.find(left);
    if (against == actors_.end() || std::find(above.begin(), above.end(), left) == above.end())
      continue;
    ++counters_["relays_left"];
    against->second.until = Clock::now() + options_.forgive;
    LogWarning(left + " was silent or wrong when " + name +
               " asked it for weights: it hands none on for a while");
    Settle(left, against->second);
  }
  Settle(name, actors_.at(name));
  RelayWord word = WordFor(name);
  if (SumOf(word) == saying.heard) return std::nullopt;
  return word;
}

RelayWord RelayDesk::WordFor(const std::string& name) {
  RelayWord word{.state = actors_.at(name).state, .places = {}, .keys = {}};
  for (const std::string& above : tree_.Above(name)) {
    if (word.places.size() == RelayWord::kMaxPlaces) break;
    word.places.push_back(actors_.at(above).place);
  }
  word.below = static_cast<int64_t>(tree_.Below(name));
  if (Clock::now() >= keys_until_) {
    std::set<std::string> keys;
    for (const auto& [each, actor] : actors_) {
      if (!actor.place.key.empty() && KeyMayJoin(actor.place.key)) keys.insert(actor.place.key);
    }
    keys_.assign(keys.begin(), keys.end());
    keys_until_ = Clock::now() + kKeysAnew;
  }
  word.keys = keys_;
  return word;
}

void RelayDesk::Gone(const std::string& name) {
  MutexLock lock(mu_);
  tree_.Take(name);
  actors_.erase(name);
}

bool RelayDesk::Reach(const weight_wire::Place& place) const {
  if (options_.reach) return options_.reach(place);
  try {
    RpcClient client(place.endpoint, {.curve = {.server_key = place.key,
                                                .own = options_.doors.own,
                                                .open = options_.doors.open}});
    client.Call(weight_wire::kHereVerb, "", After(kReach));
    return true;
  } catch (const Error& e) {
    LogWarning(place.name + " cannot be reached at " + place.endpoint +
               ", it hands no weights on: " + e.message());
    return false;
  }
}

void RelayDesk::Try() {
  MutexLock lock(mu_);
  while (!stopping_) {
    if (to_try_.empty()) {
      changed_.wait_until(lock, After(std::chrono::seconds(1)));
      continue;
    }
    const weight_wire::Place place = to_try_.front();
    to_try_.pop_front();
    lock.unlock();
    const bool reached = Reach(place);
    lock.lock();
    ++counters_[reached ? "relays_reached" : "relays_unreachable"];
    const auto found = actors_.find(place.name);
    if (found == actors_.end() || found->second.place != place) continue;  // another life
    found->second.state = reached ? RelayState::kReached : RelayState::kUnreachable;
    if (reached) LogInfo(place.name + " hands weights on at " + place.endpoint);
    Settle(place.name, found->second);
  }
}

std::map<std::string, int64_t> RelayDesk::counters() const {
  MutexLock lock(mu_);
  return counters_;
}

}  // namespace plumb::run

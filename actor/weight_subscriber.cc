#include "actor/weight_subscriber.h"

#include <algorithm>
#include <bit>
#include <thread>
#include <utility>

#include "common/base/error.h"
#include "common/base/hash/digest.h"
#include "common/base/log.h"
#include "common/net/weight_wire.h"

namespace plumb::actor {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kPoll{1};
constexpr milliseconds kBackoff{50};    // after a refused or failed fetch
constexpr milliseconds kLongPoll{250};  // one wait for news; the end of the actor waits no longer
constexpr milliseconds kAnswerGrace{60000};  // until the first of the bytes are here

bool Past(Deadline deadline) { return std::chrono::steady_clock::now() >= deadline; }

void SleepUntilOr(milliseconds pause, Deadline deadline) {
  std::this_thread::sleep_until(std::min(After(pause), deadline));
}

bool SameSize(const OfferedSet& a, const OfferedSet& b) {
  return a.name == b.name && a.bytes == b.bytes;
}

std::string Describe(std::span<const OfferedSet> sets) {
  std::string out;
  for (const OfferedSet& set : sets)
    out += (out.empty() ? "" : " and ") + std::to_string(set.bytes) + " bytes of " + set.name;
  return out;
}

}  // namespace

SharedPolicy::SharedPolicy(const policy_model::Weights* weights,
                           std::function<PolicyVersion()> policy, std::function<int64_t()> version)
    : weights_(weights), policy_(std::move(policy)), version_(std::move(version)) {}

bool SharedPolicy::Update(int64_t wanted, Deadline deadline) {
  const int64_t least = std::max<int64_t>(wanted, 0);
  while (version_() < least) {
    if (Past(deadline)) return false;
    SleepUntilOr(kPoll, deadline);
  }
  return true;
}

FetchedPolicy::FetchedPolicy(policy_model::Weights weights, WeightSource* source)
    : source_(source), buffers_{std::move(weights), buffers_[0].Twin()} {
  const auto sets = buffers_[0].sets();
  for (auto& held : held_) held.resize(sets.size());
  host_.resize(sets.size());
  staged_.resize(sets.size());
  if (buffers_[0].device().is_cuda()) {
    for (size_t i = 0; i < sets.size(); ++i) host_[i].resize(sets[i]->flat.bytes());
  }
  thread_ = std::thread([this] { Run(); });
}

FetchedPolicy::~FetchedPolicy() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

PolicyCounters FetchedPolicy::counters() const {
  MutexLock lock(mu_);
  return counters_;
}

bool FetchedPolicy::Update(int64_t wanted, Deadline deadline) {
  MutexLock lock(mu_);
  for (bool late = false;; late = changed_.wait_until(lock, deadline) == std::cv_status::timeout) {
    if (error_) std::rethrow_exception(error_);
    // What is newer than wanted stays where it is as long as what is here does.
    if (ready_ && (wanted < 0 || current_.version < wanted || ready_->version <= current_.version))
      Take();
    if (wanted < 0 ? current_.version >= 0 : current_.version == wanted) return true;
    if (late) return current_.version >= std::max<int64_t>(wanted, 0);
  }
}

void FetchedPolicy::Take() {
  const auto next = buffers_[1 - active_].sets();
  for (size_t i = 0; i < next.size(); ++i) {
    if (!staged_[i]) continue;
    next[i]->flat.CopyFromHost(host_[i]);
    staged_[i] = false;
  }
  active_ = 1 - active_;
  current_ = *std::exchange(ready_, std::nullopt);
  ++counters_.fetched;
}

void FetchedPolicy::Run() {
  MutexLock lock(mu_);
  while (!stopping_) {
    lock.unlock();
    bool went_well = false;
    std::exception_ptr failed;
    try {
      went_well = Fetch();
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kDeadline && e.code() != ErrorCode::kUnavailable)
        failed = std::current_exception();
    } catch (const std::exception&) {
      failed = std::current_exception();
    }
    lock.lock();
    if (failed) {
      error_ = failed;
      changed_.notify_all();
      return;
    }
    if (!went_well) {
      changed_.wait_until(lock, After(kBackoff), [&]() PLUMB_REQUIRES(mu_) { return stopping_; });
    }
  }
}

bool FetchedPolicy::Fetch() {
  const std::optional<WeightOffer> offer = source_->Await(known_, After(kLongPoll));
  if (!offer) return true;
  const PolicyVersion& offered = offer->version;
  if (offered.version < known_.version) {
    LogInfo("the learner went back to version " + std::to_string(offered.version) + "; version " +
            std::to_string(known_.version) + " here is of before");
  }
  {
    MutexLock lock(mu_);
    ready_.reset();  // its place is written over
    known_ = current_;
  }
  std::vector<OfferedSet> here;
  for (const auto& set : buffers_[0].sets()) here.push_back({set->name, {}, set->flat.bytes()});
  if (!std::equal(here.begin(), here.end(), offer->sets.begin(), offer->sets.end(), SameSize)) {
    throw Error(ErrorCode::kConflict,
                "weights version " + std::to_string(offered.version) + " come as " +
                    Describe(offer->sets) + ", this model has " + Describe(here) +
                    "; learner and actor must use the same [model] and [policy]");
  }
  std::vector<std::pair<std::string, Digest>> digests;
  for (const OfferedSet& set : offer->sets) digests.emplace_back(set.name, set.digest);
  if (CombineSets(digests) != offered.digest)
    return Refuse(offered, "their sets have not the digest " + offered.digest);
  for (size_t i = 0; i < here.size(); ++i) {
    if (!FetchSet(i, *offer)) return false;
  }
  MutexLock lock(mu_);
  known_ = offered;
  ready_ = offered;
  changed_.notify_all();
  return true;
}

bool FetchedPolicy::FetchSet(size_t i, const WeightOffer& offer) {
  const OfferedSet& offered = offer.sets[i];
  const int idle = 1 - active_;  // Update changes it only where something is ready
  Digest& held = held_[idle][i];
  if (held == offered.digest) return true;
  policy_model::ParameterSet& set = *buffers_[idle].sets()[i];
  if (Shared(i) && !held.empty()) {
    throw Error(ErrorCode::kConflict, "the learner has other weights of '" + set.name +
                                          "' than before, which it does not train: it is another "
                                          "run");
  }
  held.clear();
  staged_[i] = false;
  const std::span<std::byte> into =
      host_[i].empty() ? std::span(static_cast<std::byte*>(set.flat.data()), set.flat.bytes())
                       : std::span(host_[i]);
  if (!source_->Read(offered.digest, into)) return false;
  const Digest digest = WeightDigest(into);
  if (digest != offered.digest) {
    return Refuse(offer.version, "the bytes of '" + offered.name + "' have digest " + digest +
                                     ", promised was " + offered.digest);
  }
  held = digest;
  staged_[i] = !host_[i].empty();
  if (Shared(i)) held_[active_][i] = set.digest = digest;
  return true;
}

bool FetchedPolicy::Refuse(const PolicyVersion& offered, const std::string& why) {
  MutexLock lock(mu_);
  ++counters_.refused_digest;
  // The first, second, fourth, ...: a source that keeps sending wrong bytes must not fill the disk.
  if (std::has_single_bit(counters_.refused_digest)) {
    LogError("refused weights version " + std::to_string(offered.version) + ": " + why +
             "; refused so far: " + std::to_string(counters_.refused_digest) +
             "; keeping version " + std::to_string(current_.version) + " and fetching again");
  }
  return false;
}

std::optional<WeightOffer> RemoteWeightSource::Await(const PolicyVersion& held, Deadline deadline) {
  try {
    return weight_wire::DecodeOffer(
        client_.Call(weight_wire::kAwaitVerb, weight_wire::EncodeVersion(held), deadline));
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kDeadline) throw;
    return std::nullopt;
  }
}

bool RemoteWeightSource::Read(const Digest& set, std::span<std::byte> into) {
  try {
    client_.CallInto(weight_wire::kBytesVerb, Payload(set), into, After(kAnswerGrace));
    return true;
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kNotFound) throw;
    return false;
  }
}

}  // namespace plumb::actor

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
constexpr milliseconds kShortAnswer{2000};   // to a question that needs no bytes
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
    : source_(source),
      buffers_{std::move(weights), buffers_[0].Twin()},
      arrival_(buffers_[0].device()) {
  for (auto& held : held_) held.resize(buffers_[0].sets().size());
  buffers_[0].stream().Synchronize();  // other streams write to them from here on
  thread_ = std::thread([this] { Run(); });
}

FetchedPolicy::~FetchedPolicy() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.notify_all();
  source_->Stop();
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
  const std::optional<Digest> digest = Arrive(offered, set.flat.data());
  if (!digest) return false;
  if (*digest != offered.digest) {
    return Refuse(offer.version, "the bytes of '" + offered.name + "' have digest " + *digest +
                                     ", promised was " + offered.digest);
  }
  held = *digest;
  if (Shared(i)) held_[active_][i] = set.digest = *digest;
  return true;
}

std::optional<Digest> FetchedPolicy::Arrive(const OfferedSet& offered, void* into) {
  if (borrows_) {
    if (const auto digest = Borrow(offered, into)) return digest;
  }
  if (buffers_[0].device().is_cpu()) {
    const std::span to(static_cast<std::byte*>(into), offered.bytes);
    if (!source_->Read(offered.digest, to)) return std::nullopt;
    return WeightDigest(to);
  }
  host_.resize(offered.bytes);
  if (!source_->Read(offered.digest, host_)) return std::nullopt;
  return arrival_.Take(host_, into);
}

std::optional<Digest> FetchedPolicy::Borrow(const OfferedSet& offered, void* into) {
  const std::optional<std::string> handle = source_->Lend(offered.digest);
  if (!handle) return std::nullopt;
  std::optional<Digest> digest;
  try {
    auto at = borrowed_.find(offered.name);
    if (at != borrowed_.end() && at->second.handle() != *handle) {
      borrowed_.erase(at);
      at = borrowed_.end();
    }
    if (at == borrowed_.end())
      at = borrowed_.try_emplace(offered.name, *handle, buffers_[0].device()).first;
    digest = arrival_.Take(at->second, into, offered.bytes);
  } catch (const Error& e) {
    // A copy may fail because who lends has died in the middle of it.
    borrowed_.erase(offered.name);
    borrows_ = e.code() != ErrorCode::kUnsupported;
    LogWarning(std::string("weights come through the host's memory") +
               (borrows_ ? " this time: " : ": ") + e.what());
  }
  source_->Return(offered.digest);
  if (digest) {
    MutexLock lock(mu_);
    ++counters_.borrowed_sets;
  }
  return digest;
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

std::optional<std::string> RemoteWeightSource::Lend(const Digest& set) {
  try {
    return std::string(client_.Call(weight_wire::kLendVerb, Payload(set), After(kShortAnswer)));
  } catch (const Error&) {
    return std::nullopt;  // asked for as bytes, which says what is wrong
  }
}

void RemoteWeightSource::Return(const Digest& set) {
  try {
    client_.Call(weight_wire::kReturnVerb, Payload(set), After(kShortAnswer));
  } catch (const Error& e) {
    // It takes its memory back by itself, after a while.
    LogWarning(std::string("the learner was not told that its weights are here: ") + e.what());
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

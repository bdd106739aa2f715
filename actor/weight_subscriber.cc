#include "actor/weight_subscriber.h"

#include <algorithm>
#include <bit>
#include <thread>
#include <utility>

#include "common/digest.h"
#include "common/error.h"
#include "common/log.h"
#include "common/weight_wire.h"

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

}  // namespace

SharedPolicy::SharedPolicy(const policy_model::Weights* weights, std::function<PolicyVersion()> policy,
                           std::function<int64_t()> version)
    : weights_(weights), policy_(std::move(policy)), version_(std::move(version)) {}

bool SharedPolicy::Update(int64_t wanted, Deadline deadline) {
  const int64_t least = std::max<int64_t>(wanted, 0);
  while (version_() < least) {
    if (Past(deadline)) return false;
    SleepUntilOr(kPoll, deadline);
  }
  return true;
}

FetchedPolicy::FetchedPolicy(const policy_model::ModelShape& shape, const Stream& stream,
                             DType dtype, WeightSource* source)
    : source_(source),
      buffers_{policy_model::Weights(shape, stream, dtype),
               policy_model::Weights(shape, stream, dtype)} {
  if (stream.device().is_cuda()) host_.resize(buffers_[0].flat().bytes());
  thread_ = std::thread([this] { Run(); });
}

FetchedPolicy::~FetchedPolicy() {
  {
    std::lock_guard lock(mu_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

PolicyCounters FetchedPolicy::counters() const {
  std::lock_guard lock(mu_);
  return counters_;
}

bool FetchedPolicy::Update(int64_t wanted, Deadline deadline) {
  std::unique_lock lock(mu_);
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
  policy_model::Weights& next = buffers_[1 - active_];
  if (!host_.empty()) next.flat().CopyFromHost(host_);
  active_ = 1 - active_;
  current_ = *std::exchange(ready_, std::nullopt);
  ++counters_.fetched;
}

void FetchedPolicy::Run() {
  std::unique_lock lock(mu_);
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
    if (!went_well) changed_.wait_for(lock, kBackoff, [&] { return stopping_; });
  }
}

bool FetchedPolicy::Fetch() {
  const std::optional<PolicyVersion> offered = source_->Await(known_, After(kLongPoll));
  if (!offered) return true;
  if (offered->version < known_.version) {
    LogInfo("the learner went back to version " + std::to_string(offered->version) + "; version " +
            std::to_string(known_.version) + " here is of before");
  }
  std::unique_lock lock(mu_);
  ready_.reset();  // its place is written over
  known_ = current_;
  policy_model::Weights& next = buffers_[1 - active_];
  lock.unlock();
  policy_model::FlatBuffer& flat = next.flat();
  const std::span<std::byte> into =
      host_.empty() ? std::span(static_cast<std::byte*>(flat.data()), flat.bytes())
                    : std::span(host_);
  if (!source_->Read(*offered, into)) return false;
  const Digest digest = WeightDigest(into);
  lock.lock();
  if (digest != offered->digest) {
    ++counters_.refused_digest;
    // The first, second, fourth, ...: a source that keeps sending wrong bytes must not fill the disk.
    if (std::has_single_bit(counters_.refused_digest)) {
      LogError("refused weights version " + std::to_string(offered->version) +
               ": their bytes have digest " + digest + ", promised was " + offered->digest +
               "; refused so far: " + std::to_string(counters_.refused_digest) +
               "; keeping version " + std::to_string(current_.version) + " and fetching again");
    }
    return false;
  }
  known_ = *offered;
  ready_ = offered;
  changed_.notify_all();
  return true;
}

std::optional<PolicyVersion> RemoteWeightSource::Await(const PolicyVersion& held,
                                                       Deadline deadline) {
  try {
    return weight_wire::DecodeVersion(
        client_.Call(weight_wire::kAwaitVerb, weight_wire::EncodeVersion(held), deadline));
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kDeadline) throw;
    return std::nullopt;
  }
}

bool RemoteWeightSource::Read(const PolicyVersion& version, std::span<std::byte> flat) {
  try {
    client_.CallInto(weight_wire::kBytesVerb, Payload(weight_wire::EncodeVersion(version)), flat,
                     After(kAnswerGrace));
    return true;
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kNotFound) return false;
    if (e.code() != ErrorCode::kCorruption) throw;
    throw Error(e.code(),
                "weights version " + std::to_string(version.version) + ": " + e.message() +
                    "; learner and actor must use the same [model]",
                e.where());
  }
}

}  // namespace plumb::actor

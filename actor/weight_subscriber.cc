#include "actor/weight_subscriber.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <thread>
#include <utility>

#include "common/error.h"
#include "common/log.h"

namespace plumb::actor {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kPoll{1};
constexpr milliseconds kBackoff{50};           // after a refused or failed fetch
constexpr milliseconds kLongPoll{5000};        // one request is held by the server for so long at most
constexpr milliseconds kAnswerGrace{60000};    // for the answer itself, beyond the wait

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

FetchedPolicy::FetchedPolicy(const policy_model::ModelShape& shape, Device device, DType dtype, WeightSource* source)
    : source_(source),
      buffers_{policy_model::Weights(shape, device, dtype), policy_model::Weights(shape, device, dtype)} {
  if (device != Device::kCpu) host_.resize(buffers_[0].flat().bytes());
}

bool FetchedPolicy::Update(int64_t wanted, Deadline deadline) {
  if (current_.version >= 0 && current_.version >= wanted && !FetchIfReplaced(/*newer_too=*/wanted < 0)) return false;
  if (wanted < 0 && current_.version >= 0) return true;
  const int64_t least = std::max<int64_t>(wanted, 0);
  while (current_.version < least) {
    if (FetchOne(deadline)) continue;
    if (Past(deadline)) return false;
    SleepUntilOr(kBackoff, deadline);
  }
  return true;
}

// Only a look, so that the step loop is never held up by a version that is not there yet. What the learner says that does not
// follow what is held here, an older number or other bytes under the same one, comes from a life of it that went back: false
// until that is here.
bool FetchedPolicy::FetchIfReplaced(bool newer_too) {
  PolicyVersion newest;
  try {
    newest = source_->Newest();
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kDeadline && e.code() != ErrorCode::kUnavailable) throw;
    return true;
  }
  if (newest.version < 0 || newest == current_) return true;
  if (newest.version > current_.version) {
    if (newer_too) FetchOne(Deadline{});
    return true;
  }
  LogInfo("the learner went back to version " + std::to_string(newest.version) + "; version " + std::to_string(current_.version) +
          " here is of before");
  return FetchOne(Deadline{});
}

bool FetchedPolicy::FetchOne(Deadline deadline) {
  policy_model::Weights& next = buffers_[1 - active_];
  policy_model::FlatBuffer& flat = next.flat();
  const bool staged = !host_.empty();
  std::span<std::byte> into = staged ? std::span<std::byte>(host_)
                                     : std::span<std::byte>(static_cast<std::byte*>(flat.data()), flat.bytes());
  std::optional<PolicyVersion> got;
  try {
    got = source_->Fetch(current_, into, deadline);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kDeadline && e.code() != ErrorCode::kUnavailable) throw;
  }
  if (!got) return false;
  if (staged) flat.CopyFromHost(host_);
  const Digest digest = next.ComputeDigest();
  if (digest != got->digest) {
    ++counters_.refused_digest;
    // The first, second, fourth, ...: a source that keeps sending wrong bytes must not fill the disk.
    if (std::has_single_bit(counters_.refused_digest)) {
      LogError("refused weights version " + std::to_string(got->version) + ": their bytes have digest " + digest +
               ", promised was " + got->digest + "; refused so far: " + std::to_string(counters_.refused_digest) +
               "; keeping version " + std::to_string(current_.version) + " and fetching again");
    }
    return false;
  }
  active_ = 1 - active_;
  current_ = *std::move(got);
  ++counters_.fetched;
  return true;
}

RemoteWeightSource::RemoteWeightSource(Call call, uint64_t part_bytes)
    : part_bytes_(std::min(part_bytes, weight_wire::kPartBytes)), call_(std::move(call)) {
  PLUMB_CHECK(part_bytes_ > 0);
}

PolicyVersion RemoteWeightSource::Newest() {
  return weight_wire::DecodeOffer(call_(weight_wire::kNewestVerb, {}, After(kLongPoll)).view()).version;
}

std::optional<PolicyVersion> RemoteWeightSource::Fetch(const PolicyVersion& held, std::span<std::byte> flat, Deadline deadline) {
  for (;;) {
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now());
    const milliseconds wait = std::clamp(left, milliseconds{0}, kLongPoll);
    const Payload reply = call_(weight_wire::kFetchVerb, weight_wire::EncodeFetchRequest({held, wait.count()}), After(wait + kAnswerGrace));
    const weight_wire::Offer offer = weight_wire::DecodeOffer(reply.view());
    if (offer.version.version >= 0 && offer.version != held) {
      if (offer.bytes != flat.size()) {
        throw Error(ErrorCode::kCorruption, "weights version " + std::to_string(offer.version.version) + " come as " +
                                                std::to_string(offer.bytes) + " bytes, this model has " + std::to_string(flat.size()) +
                                                "; learner and actor must use the same [model]");
      }
      if (FetchParts(offer.version, flat)) return offer.version;
    }
    if (Past(deadline)) return std::nullopt;
  }
}

// False: the learner has let go of them meanwhile, or is another life.
bool RemoteWeightSource::FetchParts(const PolicyVersion& version, std::span<std::byte> flat) {
  for (size_t at = 0; at < flat.size();) {
    const uint64_t bytes = std::min<uint64_t>(part_bytes_, flat.size() - at);
    Payload part;
    try {
      part = call_(weight_wire::kPartVerb, weight_wire::EncodePartRequest({version, at, bytes}), After(kAnswerGrace));
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kNotFound) throw;
      return false;
    }
    if (part.size() != bytes) {
      throw Error(ErrorCode::kCorruption, "asked for " + std::to_string(bytes) + " bytes of weights and got " + std::to_string(part.size()));
    }
    std::memcpy(flat.data() + at, part.view().data(), bytes);
    at += bytes;
  }
  return true;
}

}  // namespace plumb::actor

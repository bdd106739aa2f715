#include "actor/weight_subscriber.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <thread>
#include <utility>

#include "common/error.h"
#include "common/log.h"
#include "common/weight_wire.h"

namespace plumb::actor {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kPoll{1};
constexpr milliseconds kBackoff{50};           // after a refused or failed fetch
constexpr milliseconds kLongPoll{5000};        // one request is held by the server for so long at most
constexpr milliseconds kTransferGrace{60000};  // for the bytes themselves, beyond the wait

bool Past(Deadline deadline) { return std::chrono::steady_clock::now() >= deadline; }

void SleepUntilOr(milliseconds pause, Deadline deadline) {
  std::this_thread::sleep_until(std::min(After(pause), deadline));
}

}  // namespace

SharedPolicy::SharedPolicy(const policy_model::Weights* weights, std::function<PolicyVersion()> version)
    : weights_(weights), version_(std::move(version)) {}

bool SharedPolicy::Update(int64_t wanted, Deadline deadline) {
  const int64_t least = std::max<int64_t>(wanted, 0);
  while (version_().version < least) {
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
  if (wanted < 0 && current_.version >= 0) {
    // The newest at hand: only a look, so that the step loop is never held up by a version that is not there yet.
    try {
      if (source_->Newest().version > current_.version) FetchOne(deadline);
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kDeadline && e.code() != ErrorCode::kUnavailable) throw;
    }
    return true;
  }
  const int64_t least = std::max<int64_t>(wanted, 0);
  while (current_.version < least) {
    if (FetchOne(deadline)) continue;
    if (Past(deadline)) return false;
    SleepUntilOr(kBackoff, deadline);
  }
  return true;
}

bool FetchedPolicy::FetchOne(Deadline deadline) {
  policy_model::Weights& next = buffers_[1 - active_];
  policy_model::FlatBuffer& flat = next.flat();
  const bool staged = !host_.empty();
  std::span<std::byte> into = staged ? std::span<std::byte>(host_)
                                     : std::span<std::byte>(static_cast<std::byte*>(flat.data()), flat.bytes());
  std::optional<PolicyVersion> got;
  try {
    got = source_->Fetch(current_.version, into, deadline);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kDeadline && e.code() != ErrorCode::kUnavailable) throw;
  }
  if (!got) return false;
  if (staged) flat.CopyFromHost(host_);
  const Digest digest = next.ComputeDigest();
  if (got->version <= current_.version || digest != got->digest) {
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

RemoteWeightSource::RemoteWeightSource(Call call) : call_(std::move(call)) {}

PolicyVersion RemoteWeightSource::Newest() {
  const std::string reply = call_(weight_wire::kNewestVerb, {}, After(kLongPoll));
  return weight_wire::DecodeReply(reply).version;
}

std::optional<PolicyVersion> RemoteWeightSource::Fetch(int64_t than, std::span<std::byte> flat, Deadline deadline) {
  for (;;) {
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now());
    const milliseconds wait = std::clamp(left, milliseconds{0}, kLongPoll);
    const std::string bytes = call_(weight_wire::kFetchVerb, weight_wire::EncodeFetchRequest({than, wait.count()}),
                                    After(wait + kTransferGrace));
    const weight_wire::Reply reply = weight_wire::DecodeReply(bytes);
    if (reply.version.version > than) {
      if (reply.flat.size() != flat.size()) {
        throw Error(ErrorCode::kCorruption, "weights version " + std::to_string(reply.version.version) + " came as " +
                                                std::to_string(reply.flat.size()) + " bytes, this model has " +
                                                std::to_string(flat.size()) +
                                                "; learner and actor must use the same [model]");
      }
      std::memcpy(flat.data(), reply.flat.data(), flat.size());
      return reply.version;
    }
    if (Past(deadline)) return std::nullopt;
  }
}

}  // namespace plumb::actor

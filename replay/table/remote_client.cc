// The half of replay/table/remote.h that asks.
#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/record/codec.h"
#include "replay/store/record.h"
#include "replay/table/remote.h"

namespace plumb::replay {
namespace {

constexpr std::chrono::milliseconds kReportTimeout{1000}, kReportBackoff{5000};
// How much later than the server's own deadline a caller gives up: of leases, which may be many,
// and of a word.
constexpr std::chrono::seconds kGrace{5}, kWordGrace{2};
// Of calls without which everything goes on as well: who ends must not wait for a store that has
// ended.
constexpr std::chrono::seconds kShort{2};

int64_t RemainingMs(Deadline deadline) {
  const auto left = deadline - std::chrono::steady_clock::now();
  return std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::milliseconds>(left).count());
}

uint64_t EpochNow() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::system_clock::now().time_since_epoch())
                                   .count());
}

}  // namespace

ReplayClient::ReplayClient(const std::string& endpoint, ReplayClientOptions options)
    : options_(std::move(options)),
      epoch_(options_.epoch == 0 ? EpochNow() : options_.epoch),
      rpc_(endpoint, options_.rpc) {}

ReplayClient::~ReplayClient() = default;

std::string ReplayClient::Call(const char* verb, std::string_view payload) {
  return rpc_.Call(verb, payload, After(options_.call_timeout));
}

Payload ReplayClient::CallAndWait(const char* verb, std::string payload, Deadline deadline,
                                  std::chrono::milliseconds grace) {
  const auto latest = Deadline::max() - grace;
  return rpc_.CallPayload(verb, Payload(std::move(payload)), std::min(deadline, latest) + grace);
}

std::vector<PromptLease> ReplayClient::Lease(int max_groups, Deadline deadline) {
  if (max_groups < 1)
    throw Error(ErrorCode::kInvalidArgument, "asked for " + std::to_string(max_groups) + " leases");
  MutexLock lock(lease_mu_);
  ByteWriter request;
  request.Bytes(options_.actor)
      .U64(epoch_)
      .U64(lease_number_)
      .U32(static_cast<uint32_t>(max_groups));
  request.U64(static_cast<uint64_t>(RemainingMs(deadline)));
  // A call that fails leaves the number: whatever the server handed out for it comes with the next
  // call.
  std::vector<PromptLease> leases =
      DecodePromptLeases(CallAndWait("lease", request.Take(), deadline, kGrace).bytes());
  ++lease_number_;
  return leases;
}

void ReplayClient::Release(std::span<const PromptLease> leases) {
  rpc_.Call("release", Encode(leases), After(kShort));
}

// Does not wait for a store that is away: whoever renews has work to go on with.
void ReplayClient::Renew() {
  rpc_.Call("renew", ByteWriter().Bytes(options_.actor).U64(epoch_).bytes(), After(kReportTimeout));
}

// Asked after each empty answer to a lease, and again where nobody answers.
bool ReplayClient::Finished() {
  const std::string reply = rpc_.Call("finished", "", After(kShort));
  return reply == std::string(1, '\1');
}

std::vector<Prompt> ReplayClient::Prompts(std::span<const PromptRef> refs) {
  std::vector<Prompt> prompts;
  while (prompts.size() < refs.size()) {
    const auto rest = refs.subspan(
        prompts.size(), std::min<size_t>(kMaxPromptsAtOnce, refs.size() - prompts.size()));
    ByteWriter request;
    request.U32(static_cast<uint32_t>(rest.size()));
    for (const PromptRef& ref : rest) request.Bytes(ref.dataset).U64(ref.row).U32(ref.sum);
    const std::string reply = Call("prompts", request.bytes());
    ByteReader in(reply, "the store's prompts");
    size_t n = 0;
    for (; n < rest.size() && !in.AtEnd(); ++n) {
      const std::string key = PromptKey(rest[n].dataset, rest[n].row);
      const std::string_view value = in.Bytes(kMaxRecordBytes),
                             payload = Unseal("prompts", key, value);
      CheckPromptSum(rest[n], value, "the store's answer");
      prompts.push_back(DecodePromptRow(key, payload));
    }
    in.ExpectEnd();
    if (n == 0)
      throw Error(ErrorCode::kCorruption, "the store answered a question for prompts with none");
  }
  return prompts;
}

std::vector<InsertResult> ReplayClient::InsertMany(std::span<const ScoredBody> groups) {
  ByteWriter request;
  request.U64(acknowledged_).U32(static_cast<uint32_t>(groups.size()));
  for (const ScoredBody& g : groups)
    request.Bytes(g.body.bytes()).Bytes(EncodeGroupScore(g.scores, g.body.sum()));
  const std::string reply = Call("insert", request.bytes());
  ByteReader in(reply, "the store's answer to an insert");
  const uint64_t acknowledged = in.U64();
  for (uint64_t known = acknowledged_;
       known < acknowledged && !acknowledged_.compare_exchange_weak(known, acknowledged);) {
  }
  std::vector<InsertResult> results;
  for (const char c : std::string(in.Rest())) {
    const uint8_t value = static_cast<uint8_t>(c);
    if (value > static_cast<uint8_t>(InsertResult::kRefused))
      throw Error(ErrorCode::kCorruption, "the store's answer to an insert is malformed");
    results.push_back(static_cast<InsertResult>(value));
  }
  if (results.size() != groups.size()) {
    throw Error(ErrorCode::kCorruption, "the store answered " + std::to_string(results.size()) +
                                            " of " + std::to_string(groups.size()) + " inserts");
  }
  return results;
}

std::vector<TrajectoryGroup> ReplayClient::Next(int64_t step, Deadline deadline) {
  const auto question = [&](Deadline until) {
    return ByteWriter()
        .U64(static_cast<uint64_t>(step))
        .U64(static_cast<uint64_t>(RemainingMs(until)))
        .Take();
  };
  CallAndWait(kAwaitNext, question(deadline), deadline, kWordGrace);
  const Deadline bytes = After(options_.call_timeout);
  return DecodeBatch(CallAndWait(kNext, question(bytes), bytes, kGrace));
}

std::vector<TrajectoryGroup> ReplayClient::Evaluate(int64_t version, int num_samples,
                                                    Deadline deadline) {
  const auto question = [&](Deadline until) {
    return ByteWriter()
        .U64(static_cast<uint64_t>(version))
        .U32(static_cast<uint32_t>(num_samples))
        .U64(static_cast<uint64_t>(RemainingMs(until)))
        .Take();
  };
  CallAndWait(kAwaitEvaluate, question(deadline), deadline, kWordGrace);
  const Deadline bytes = After(options_.call_timeout);
  return DecodeBatch(CallAndWait(kEvaluate, question(bytes), bytes, kGrace));
}

void ReplayClient::Finish() { rpc_.Call("finish", "", After(kShort)); }

int ReplayClient::ReleaseActor(const std::string& actor) {
  const std::string reply = Call("release_actor", ByteWriter().Bytes(actor).bytes());
  return static_cast<int>(ByteReader(reply, "the store's answer").U32());
}

std::map<std::string, int64_t> ReplayClient::Counters() {
  const std::string reply = Call("counters", "");
  ByteReader in(reply, "the store's counters");
  return ReadCounters(in);
}

void ReplayClient::Report(const std::string& role, const std::map<std::string, int64_t>& counters) {
  MutexLock lock(report_mu_);
  if (std::chrono::steady_clock::now() < next_report_) return;
  ByteWriter request;
  request.Bytes(role).U64(epoch_);
  WriteCounters(counters, request);
  try {
    rpc_.Call("report", request.bytes(), After(kReportTimeout));
    next_report_ = After(options_.report_interval);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kUnavailable && e.code() != ErrorCode::kDeadline) throw;
    // A store that imports its prompts says so at once; one that says nothing held up the caller.
    next_report_ =
        After(e.code() == ErrorCode::kUnavailable ? options_.report_interval : kReportBackoff);
  }
}

ReplayTable::Cursor ReplayClient::CursorAt(int64_t consumed_steps) {
  const std::string reply =
      Call("cursor", ByteWriter().U64(static_cast<uint64_t>(consumed_steps)).bytes());
  ByteReader in(reply, "the store's cursor");
  ReplayTable::Cursor cursor;
  cursor.next_step = static_cast<int64_t>(in.U64());
  cursor.sequence = in.U64();
  in.ExpectEnd();
  return cursor;
}

int64_t ReplayClient::Resume(const ReplayTable::Cursor& cursor) {
  const std::string reply =
      Call("resume",
           ByteWriter().U64(static_cast<uint64_t>(cursor.next_step)).U64(cursor.sequence).bytes());
  return static_cast<int64_t>(ByteReader(reply, "the store's answer to a resume").U64());
}

void ReplayClient::Announce(const PolicyVersion& policy) {
  Call("announce",
       ByteWriter().U64(static_cast<uint64_t>(policy.version)).Bytes(policy.digest).bytes());
}

void ReplayClient::Trim(int64_t step) {
  Call("trim", ByteWriter().U64(static_cast<uint64_t>(step)).bytes());
}

}  // namespace plumb::replay

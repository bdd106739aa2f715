// The ports of a ReplayTable for other processes.
//
//   actor, reward worker, learner                      the process that owns the store
//   ReplayClient (ports) ──── common/net/rpc/rpc.h ────► ReplayServer ────► ReplayTable ────► Store
//
// Verbs: lease, prompts, renew, release, release_actor, finished, insert, await_next, next_sealed,
// await_evaluate, evaluate_sealed, finish, counters, announce, cursor, resume, trim, report. Groups
// travel into the store as their actor sealed them, with their scores beside them, and to the
// learner as the store holds them: each reader checks the sums (common/record/group_body.h,
// replay/store/record.h). A lease carries no text of a prompt that has tokens: who needs it asks
// with "prompts". A learner first waits until a batch is there (await_*), then fetches it: however
// long its bytes take, they are no wait. Questions that wait (lease, await_next, await_evaluate)
// occupy no thread of the server: they are parked and asked again when something changes.
// Everything may be repeated: inserts are idempotent by key; questions for leases are numbered, and
// leases whose reply was lost (an actor that was frozen, a cut connection) are sent again to the
// question of the same number. What an actor never asks for again is freed when it starts anew or
// its time runs out. An actor that starts anew comes with a higher epoch: what its earlier life
// held is free at once, and that life gets kConflict from then on, also when it wants to renew what
// it held. Each insert says how far the store had acknowledged when the client last heard: a server
// that came back with less refuses it with kCorruption, because what it lost was promised. Thread
// safety: all methods. Ownership: the server borrows the table. Errors: those of the table with the
// same code and message; kDeadline and kUnavailable of common/net/rpc/rpc.h when the server does
// not answer: may be tried again.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "common/base/mutex.h"
#include "common/net/rpc/rpc.h"
#include "common/record/payload.h"
#include "common/record/ports.h"
#include "replay/table/table.h"

namespace plumb::replay {

// A verb says what form its answer has. Who asks for another form gets kUnsupported.
inline constexpr char kNext[] = "next_sealed", kEvaluate[] = "evaluate_sealed";
inline constexpr char kAwaitNext[] = "await_next", kAwaitEvaluate[] = "await_evaluate";
inline constexpr uint32_t kMaxPromptsAtOnce = 65'536;  // in one question

// What a server that not everybody may ask everything answers.
struct ReplayVerbs {
  std::set<std::string, std::less<>> only = {};  // of those above; empty: all
  RpcHandler others = {};  // is given what is none of `only`; empty: kUnsupported
};

class ReplayServer {
 public:
  // `endpoint`: ipc in a private folder, or loopback tcp, or with keys in `options` any tcp
  // (common/net/endpoint.h).
  ReplayServer(ReplayTable* table, const std::string& endpoint, RpcServerOptions options = {},
               ReplayVerbs verbs = {});
  // Parked questions end with kUnavailable.
  ~ReplayServer();
  ReplayServer(const ReplayServer&) = delete;
  ReplayServer& operator=(const ReplayServer&) = delete;

  const std::string& endpoint() const;
  // The table's counters; those of the socket under "rpc/".
  std::map<std::string, int64_t> Counters() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Stands at the endpoint of a ReplayServer while the store has no table yet, because its prompts
// are being imported: "counters" is answered with import/rows, everything else with kUnavailable.
// Destroy it before the server is made.
class ImportingServer {
 public:
  ImportingServer(const std::string& endpoint, const std::atomic<int64_t>* rows);

 private:
  std::unique_ptr<RpcServer> server_;
};

struct ReplayClientOptions {
  std::string actor = "unnamed";                   // who holds the leases
  uint64_t epoch = 0;                              // 0: nanoseconds since 1970 at construction
  std::chrono::milliseconds call_timeout{60'000};  // of calls that have no deadline of their own
  std::chrono::milliseconds report_interval{
      0};  // reports in between are left out: each says all that was counted
  RpcClientOptions rpc;
};

class ReplayClient : public StorePort {
 public:
  explicit ReplayClient(const std::string& endpoint, ReplayClientOptions options = {});
  ~ReplayClient() override;

  std::vector<PromptLease> Lease(int max_groups, Deadline deadline) override;
  void Release(std::span<const PromptLease> leases) override;
  void Renew() override;
  bool Finished() override;
  std::vector<InsertResult> InsertMany(std::span<const ScoredBody> groups) override;
  std::vector<Prompt> Prompts(std::span<const PromptRef> refs) override;
  std::vector<TrajectoryGroup> Next(int64_t step, Deadline deadline) override;
  std::vector<TrajectoryGroup> Evaluate(int64_t version, int num_samples,
                                        Deadline deadline) override;
  void Finish() override;
  uint64_t epoch() const { return epoch_; }
  // For a supervisor that saw an actor die and will not start it again.
  int ReleaseActor(const std::string& actor);
  std::map<std::string, int64_t> Counters() override;
  // Waits a second at most: it is never worth more. To a store that is away nothing is said for
  // some seconds.
  void Report(const std::string& role, const std::map<std::string, int64_t>& counters) override;
  ReplayTable::Cursor CursorAt(int64_t consumed_steps) override;
  int64_t Resume(const ReplayTable::Cursor& cursor) override;
  void Announce(const PolicyVersion& policy) override;
  void Trim(int64_t step) override;

 private:
  std::string Call(const char* verb, std::string_view payload);
  // The server answers at `deadline` itself, with what is missing; only a silent server makes the
  // call late, by `grace`.
  Payload CallAndWait(const char* verb, std::string payload, Deadline deadline,
                      std::chrono::milliseconds grace);

  const ReplayClientOptions options_;
  const uint64_t epoch_;
  RpcClient rpc_;
  // the store's sequence as told with the newest acknowledgement
  std::atomic<uint64_t> acknowledged_{0};
  Mutex report_mu_;  // one report at a time
  std::chrono::steady_clock::time_point next_report_ PLUMB_GUARDED_BY(report_mu_){};
  Mutex lease_mu_;                                         // one question for leases at a time
  uint64_t lease_number_ PLUMB_GUARDED_BY(lease_mu_) = 0;  // of the next question
};

}  // namespace plumb::replay

// The reward role: runs a recipe's parts over a group and combines them.
//
// Purpose: implements plumb::Scorer. Trajectory::reward = sum of weight * value over the parts;
// each part stands in Trajectory::rewards with the digest of the code that made it.
// What a failure does: the part is tried again `retries` times, then the answer is !scored with a
// reason; what becomes of its group is for the store to decide (replay/store/unscored.h). Under
// on_failure = "penalty" alone the answer gets a score here: `penalty` as its whole reward (part
// "penalty"; its other parts are kept at weight 0). A failure is never a 0, each is counted under
// "reward/failed/<part>/<kind>", and the log says why (reward/part/notice.h). An answer that the
// actor gave up (FinishReason::kAborted) was never generated: no part is asked for it, it keeps the
// actor's reason and stays !scored under every policy. Counted as "reward/aborted".
// Thread safety: Score() from any number of threads. Blocking: until the slowest part answered or
// its deadline.
// Errors: construction throws one Error listing every problem of the recipe's parts. Score() throws
// FunctionDisabled when a part broke five processes in 60 s: the run has to stop; nothing else.
#pragma once

#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/mutex.h"
#include "common/record/ports.h"
#include "configs/config.h"
#include "reward/doors/plugin.h"
#include "reward/part/reward.h"

namespace plumb::reward {

// kUnscored: an answer of the group has no score.
enum class Outcome : uint8_t { kScored, kUnscored };

// Every kind a recipe may name.
std::vector<std::string> KnownKinds();
// What contradicts itself in a recipe's rewards, without a look at what its parts are; a sentence
// each.
std::vector<std::string> RewardProblems(const configs::RewardConfig& config);
// ", did you mean 'length'? known: ...", behind the name of a kind that there is none of.
std::string KindsThatThereAre(const std::string& kind);
// One function from its config. Throws Error.
std::unique_ptr<RewardFunction> MakeFunction(const configs::RewardPartConfig& part,
                                             bool allow_unsandboxed,
                                             const HostOptions& options = {});

class GroupScorer : public Scorer {
 public:
  explicit GroupScorer(const configs::RewardConfig& config, const HostOptions& options = {});
  ~GroupScorer() override;

  void Score(TrajectoryGroup& group) override { ScoreGroup(group); }
  Outcome ScoreGroup(TrajectoryGroup& group);

  // What one part said about a group.
  struct PartResult {
    std::string name;
    double weight = 0;
    // [G]; skipped where an answer was never generated; empty when `error` is set
    std::vector<PartScore> scores;
    double seconds = 0;        // wall time, retries and waiting for a worker included
    std::exception_ptr error;  // FunctionDisabled: the part will not be called again
  };
  // The two halves of ScoreGroup, for who wants to see each part (`plumb reward test`): every part
  // is asked, retries included; then values and failures become rewards by the recipe's weights and
  // on_failure.
  std::vector<PartResult> ScoreParts(const TrajectoryGroup& group);
  // REQUIRES: `results` are this scorer's for `group`, without errors.
  Outcome Combine(TrajectoryGroup& group, const std::vector<PartResult>& results);
  // How many groups the recipe has workers for at once: 1 where all parts are rules.
  int64_t SideBySide() const;
  // Scores all of them, as many side by side as the recipe has workers for; returns when each is
  // scored or given up.
  void ScoreMany(std::span<TrajectoryGroup> groups);

  // What happened so far: "reward/groups", "reward/failed/<part>/<kind>" (each failed attempt of an
  // answer), "reward/retries", "reward/aborted" (answers that were never generated),
  // "reward/penalised".
  std::map<std::string, uint64_t> Counters() const;
  // "reward/<part>/latency_p50" and "_p99" over the last 1024 calls, in seconds, waiting for a
  // worker included.
  std::map<std::string, double> Latencies() const;
  // name -> digest of each part, for the run's records.
  std::vector<std::pair<std::string, std::string>> Digests() const;
  // RewardFunction::truths of each part, in the same order.
  std::vector<std::vector<TruthName>> Truths() const;

 private:
  struct Part {
    std::unique_ptr<RewardFunction> function;
    double weight;
    std::chrono::milliseconds wait;  // the bound of one attempt, queue included
    int64_t workers;
  };
  std::vector<PartResult> RunParts(const TrajectoryGroup& group);  // of answers that were generated
  std::vector<PartScore> RunPart(const Part& part, const TrajectoryGroup& group);
  void CountLatency(const std::string& part, double seconds);
  void Count(const std::string& name, uint64_t by = 1);

  const configs::RewardConfig config_;
  std::vector<Part> parts_;  // constant after construction
  mutable Mutex mu_;
  std::map<std::string, uint64_t> counters_ PLUMB_GUARDED_BY(mu_);
  struct Recent {
    std::vector<double> seconds;  // a ring once it is full
    size_t next = 0;
  };
  std::map<std::string, Recent> latencies_ PLUMB_GUARDED_BY(mu_);
};

}  // namespace plumb::reward

#include "reward/scorer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <exception>
#include <set>
#include <thread>

#include "common/base/nearest.h"
#include "common/base/text.h"
#include "reward/doors/code_tests.h"
#include "reward/doors/http_reward.h"
#include "reward/doors/judge.h"
#include "reward/doors/python.h"
#include "reward/doors/subprocess.h"
#include "reward/doors/zmq_worker.h"
#include "reward/part/notice.h"
#include "reward/rules/rules.h"

namespace plumb::reward {
namespace {

// Beyond this a number is a mistake of the function or the server, and would drown every other
// reward of its batch.
constexpr double kLargestScore = 1e6;

std::string Shown(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

bool Aborted(const Trajectory& t) { return t.finish == FinishReason::kAborted; }

}  // namespace

std::vector<std::string> KnownKinds() {
  std::vector<std::string> kinds = RuleKinds();
  kinds.insert(kinds.end(), {"code_tests", "plugin", "program", "python", "zmq", "http", "judge",
                             "reward_model", "perplexity"});
  return kinds;
}

std::unique_ptr<RewardFunction> MakeFunction(const configs::RewardPartConfig& part,
                                             bool allow_unsandboxed, const HostOptions& options) {
  if (IsRuleKind(part.kind)) return MakeRule(part);
  if (part.kind == "code_tests") return MakeCodeTests(part, allow_unsandboxed, options);
  if (part.kind == "plugin") return MakePlugin(part, allow_unsandboxed, options);
  if (part.kind == "program") return MakeProgram(part, allow_unsandboxed, options);
  if (part.kind == "python") return MakePython(part, allow_unsandboxed, options);
  if (part.kind == "zmq") return MakeZmq(part, options);
  if (part.kind == "http") return MakeHttp(part, options);
  if (part.kind == "judge") return MakeJudge(part, options);
  if (part.kind == "reward_model" || part.kind == "perplexity") {
    if (options.model_part) return options.model_part(part);
    throw Error(
        ErrorCode::kUnsupported,
        "kind " + part.kind + " needs the policy's tokenizer: name the policy as [model] path",
        "reward part '" + part.name + "'");
  }
  throw Error(ErrorCode::kInvalidArgument,
              "unknown kind '" + part.kind + "'" + KindsThatThereAre(part.kind),
              "reward part '" + part.name + "'");
}

std::string KindsThatThereAre(const std::string& kind) {
  const std::string meant = DidYouMean(kind, KnownKinds());
  return (meant.empty() ? ";" : meant) + " known: " + Join(KnownKinds());
}

std::vector<std::string> RewardProblems(const configs::RewardConfig& config) {
  std::vector<std::string> problems;
  if (config.parts.empty())
    problems.push_back("the recipe has no [[reward.parts]]: add one, e.g. kind = \"answer\"");
  if (config.retries < 0 || config.retries > 10)
    problems.push_back("reward.retries has to be 0 to 10");
  if (!std::isfinite(config.penalty)) problems.push_back("reward.penalty has to be finite");
  std::set<std::string> names = {"penalty"};
  for (configs::RewardPartConfig part : config.parts) {
    if (part.name.empty()) part.name = part.kind;
    if (!names.insert(part.name).second)
      problems.push_back("two reward parts are called '" + part.name +
                         "': give each a name = \"...\" of its own");
    if (!std::isfinite(part.weight))
      problems.push_back("reward part '" + part.name + "': weight has to be finite");
  }
  return problems;
}

GroupScorer::GroupScorer(const configs::RewardConfig& config, const HostOptions& options)
    : config_(config) {
  std::vector<std::string> problems = RewardProblems(config);
  ErrorCode code = ErrorCode::kInvalidArgument;
  for (configs::RewardPartConfig part : config.parts) {
    if (part.name.empty()) part.name = part.kind;
    try {
      auto function = MakeFunction(part, config.allow_unsandboxed, options);
      // A call has its own timeout_s; waiting in the queue is back-pressure, named as a stall, and
      // drops nothing.
      parts_.push_back({std::move(function), part.weight, std::chrono::hours(24), part.workers});
    } catch (const Error& error) {
      problems.push_back(error.what());
      if (problems.size() == 1) code = error.code();
    }
  }
  if (problems.empty()) return;
  std::string all;
  for (const std::string& problem : problems) all += (all.empty() ? "" : "\n") + problem;
  throw Error(problems.size() == 1 ? code : ErrorCode::kInvalidArgument, all);
}

GroupScorer::~GroupScorer() = default;

void GroupScorer::Count(const std::string& name, uint64_t by) {
  MutexLock lock(mu_);
  counters_[name] += by;
}

std::map<std::string, uint64_t> GroupScorer::Counters() const {
  MutexLock lock(mu_);
  return counters_;
}

void GroupScorer::CountLatency(const std::string& part, double seconds) {
  constexpr size_t kKept = 1024;
  MutexLock lock(mu_);
  Recent& recent = latencies_[part];
  if (recent.seconds.size() < kKept) {
    recent.seconds.push_back(seconds);
  } else {
    recent.seconds[recent.next++ % kKept] = seconds;
  }
}

std::map<std::string, double> GroupScorer::Latencies() const {
  std::map<std::string, Recent> copy;
  {
    MutexLock lock(mu_);
    copy = latencies_;
  }
  std::map<std::string, double> out;
  for (auto& [part, recent] : copy) {
    std::vector<double>& all = recent.seconds;
    std::sort(all.begin(), all.end());
    // The smallest value that so many per cent do not exceed.
    const auto percentile = [&](size_t p) { return all[(all.size() * p + 99) / 100 - 1]; };
    out["reward/" + part + "/latency_p50"] = percentile(50);
    out["reward/" + part + "/latency_p99"] = percentile(99);
  }
  return out;
}

int64_t GroupScorer::SideBySide() const {
  int64_t parallel = 1;
  for (const Part& part : parts_) {
    if (part.function->slow()) parallel = std::max(parallel, std::min<int64_t>(part.workers, 64));
  }
  return parallel;
}

void GroupScorer::ScoreMany(std::span<TrajectoryGroup> groups) {
  const int64_t parallel = std::min<int64_t>(SideBySide(), static_cast<int64_t>(groups.size()));
  if (parallel <= 1) {
    for (TrajectoryGroup& group : groups) ScoreGroup(group);
    return;
  }
  std::atomic<size_t> next{0};
  std::vector<std::exception_ptr> errors(static_cast<size_t>(parallel));
  {
    std::vector<std::jthread> threads;
    for (int64_t t = 0; t < parallel; ++t) {
      threads.emplace_back([&, t] {
        try {
          for (size_t i; (i = next.fetch_add(1)) < groups.size();) ScoreGroup(groups[i]);
        } catch (...) {
          errors[static_cast<size_t>(t)] = std::current_exception();
          next = groups.size();  // the run stops: the others need not go on
        }
      });
    }
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

std::vector<std::pair<std::string, std::string>> GroupScorer::Digests() const {
  std::vector<std::pair<std::string, std::string>> digests;
  for (const Part& part : parts_)
    digests.emplace_back(part.function->name(), part.function->digest());
  return digests;
}

std::vector<std::vector<TruthName>> GroupScorer::Truths() const {
  std::vector<std::vector<TruthName>> truths;
  for (const Part& part : parts_) truths.push_back(part.function->truths());
  return truths;
}

std::vector<PartScore> GroupScorer::RunPart(const Part& part, const TrajectoryGroup& group) {
  const std::string& name = part.function->name();
  const size_t count = group.trajectories.size();
  for (int64_t attempt = 0;; ++attempt) {
    std::vector<PartScore> scores;
    const auto start = std::chrono::steady_clock::now();
    try {
      scores = part.function->Score(group, After(part.wait));
    } catch (const FunctionDisabled&) {
      Count("reward/disabled/" + name);
      throw;
    } catch (const std::exception& error) {
      scores.assign(count, PartScore::Failed(Failure::kReported, error.what()));
    }
    CountLatency(name,
                 std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    if (scores.size() != count) {
      scores.assign(count, PartScore::Failed(Failure::kWrongCount,
                                             "returned " + std::to_string(scores.size()) +
                                                 " scores for " + std::to_string(count)));
    }
    const PartScore* first = nullptr;
    for (PartScore& score : scores) {
      if (score.scored() && !score.skipped && !std::isfinite(score.value)) {
        score = PartScore::Failed(Failure::kNotFinite, "returned a number that is not finite");
      }
      if (score.scored() && !score.skipped && std::abs(score.value) > kLargestScore) {
        score = PartScore::Failed(
            Failure::kBadReply,
            "returned " + Shown(score.value) + ", which no reward is: it has to be in -1e6 .. 1e6");
      }
      if (score.scored()) continue;
      Count("reward/failed/" + name + "/" + std::string(FailureName(score.failure)));
      if (first == nullptr) first = &score;
    }
    if (first == nullptr) return scores;
    Notice("reward '" + name + "' on group " + std::to_string(group.lease.lease_id) + ": " +
               std::string(FailureName(first->failure)) + ": " + first->reason,
           name);
    // A rule is a pure function, and a quarantined input stays so: asking again gives the same.
    const bool hopeless = !part.function->slow() || first->failure == Failure::kQuarantined;
    if (attempt >= config_.retries || hopeless) return scores;
    Count("reward/retries");
  }
}

std::vector<GroupScorer::PartResult> GroupScorer::ScoreParts(const TrajectoryGroup& group) {
  const auto& all = group.trajectories;
  if (std::none_of(all.begin(), all.end(), Aborted)) return RunParts(group);
  TrajectoryGroup generated = group;
  std::erase_if(generated.trajectories, Aborted);
  generated.lease.num_samples = static_cast<int32_t>(generated.trajectories.size());
  std::vector<PartResult> results;
  if (generated.trajectories.empty()) {
    for (const Part& part : parts_)
      results.push_back(
          {.name = part.function->name(), .weight = part.weight, .scores = {}, .error = {}});
  } else {
    results = RunParts(generated);
  }
  for (PartResult& result : results) {  // back to one score an answer
    if (result.error) continue;
    std::vector<PartScore> scores;
    size_t next = 0;
    for (const Trajectory& t : all)
      scores.push_back(Aborted(t) ? PartScore::Skipped() : std::move(result.scores[next++]));
    result.scores = std::move(scores);
  }
  return results;
}

std::vector<GroupScorer::PartResult> GroupScorer::RunParts(const TrajectoryGroup& group) {
  std::vector<PartResult> results(parts_.size());
  const auto run = [&](size_t p) {
    PartResult& result = results[p];
    result.name = parts_[p].function->name();
    result.weight = parts_[p].weight;
    const auto start = std::chrono::steady_clock::now();
    try {
      result.scores = RunPart(parts_[p], group);
    } catch (...) {
      result.error = std::current_exception();
    }
    result.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  {
    // Slow parts wait for processes of their own side by side; rules run here meanwhile.
    std::vector<std::jthread> beside;
    for (size_t p = 0; p < parts_.size(); ++p) {
      if (parts_[p].function->slow() && parts_.size() > 1)
        beside.emplace_back([&run, p] { run(p); });
    }
    for (size_t p = 0; p < parts_.size(); ++p) {
      if (!parts_[p].function->slow() || parts_.size() == 1) run(p);
    }
  }
  return results;
}

Outcome GroupScorer::ScoreGroup(TrajectoryGroup& group) {
  const std::vector<PartResult> results = ScoreParts(group);
  for (const PartResult& result : results) {
    if (result.error) std::rethrow_exception(result.error);
  }
  return Combine(group, results);
}

Outcome GroupScorer::Combine(TrajectoryGroup& group, const std::vector<PartResult>& results) {
  const size_t count = group.trajectories.size();
  Count("reward/groups");
  bool whole = true;
  uint64_t aborted = 0;
  std::string why_aborted, why_unscored;  // of the first
  for (size_t i = 0; i < count; ++i) {
    Trajectory& trajectory = group.trajectories[i];
    trajectory.rewards.clear();
    trajectory.reward = 0;
    if (Aborted(trajectory)) {
      trajectory.scored = false;
      if (trajectory.unscored_reason.empty()) trajectory.unscored_reason = "the actor gave it up";
      if (aborted++ == 0) why_aborted = trajectory.unscored_reason;
      continue;
    }
    trajectory.scored = true;
    trajectory.unscored_reason.clear();
    size_t applied = 0;
    for (size_t p = 0; p < parts_.size(); ++p) {
      const PartScore& score = results[p].scores[i];
      const RewardFunction& function = *parts_[p].function;
      if (!score.scored()) {
        if (trajectory.scored) {
          trajectory.unscored_reason = "reward '" + function.name() +
                                       "': " + std::string(FailureName(score.failure)) + ": " +
                                       score.reason;
        }
        trajectory.scored = false;
        continue;
      }
      if (score.skipped) continue;
      ++applied;
      const std::string& digest = score.digest.empty() ? function.digest() : score.digest;
      // Of a score by turns the answer's own entry has the sum and no weight: the turns have it.
      trajectory.rewards.push_back({.name = function.name(),
                                    .value = score.value,
                                    .weight = score.turns.empty() ? parts_[p].weight : 0,
                                    .function_digest = digest});
      for (const auto& [segment, value] : score.turns) {
        trajectory.rewards.push_back({.name = function.name(),
                                      .value = value,
                                      .weight = parts_[p].weight,
                                      .scope = RewardScope::kSegment,
                                      .index = segment,
                                      .function_digest = digest});
      }
      for (const auto& [detail, value] : score.details) {
        trajectory.rewards.push_back({.name = function.name() + "." + detail,
                                      .value = value,
                                      .weight = 0,
                                      .function_digest = digest});
      }
      trajectory.reward += parts_[p].weight * score.value;
    }
    if (trajectory.scored && (applied == 0 || !std::isfinite(trajectory.reward))) {
      trajectory.scored = false;
      trajectory.unscored_reason =
          applied == 0 ? "no reward part applies to this answer" : "the weighted sum overflowed";
      Count(applied == 0 ? "reward/failed/none_applies" : "reward/failed/overflow");
      if (why_unscored.empty())
        why_unscored =
            "sample " + std::to_string(trajectory.sample) + ": " + trajectory.unscored_reason;
    }
    if (trajectory.scored) continue;
    if (config_.on_failure != configs::OnFailure::kPenalty) {
      whole = false;
      trajectory.reward = 0;  // what the parts that answered have said stays in `rewards`
      continue;
    }
    for (RewardPart& part : trajectory.rewards) part.weight = 0;
    trajectory.rewards.push_back({.name = "penalty",
                                  .value = config_.penalty,
                                  .weight = 1,
                                  .function_digest = "rule:penalty/1"});
    trajectory.reward = config_.penalty;
    trajectory.scored = true;
    trajectory.unscored_reason.clear();
    Count("reward/penalised");
  }
  const std::string where = " on group " + std::to_string(group.lease.lease_id) + ": ";
  if (!why_unscored.empty()) Notice("reward" + where + why_unscored, "reward");
  if (aborted > 0) {
    Count("reward/aborted", aborted);
    Notice("reward" + where + std::to_string(aborted) + " of " + std::to_string(count) +
               " answers were never generated and get no score: " + why_aborted,
           "aborted");
  }
  return whole && aborted == 0 ? Outcome::kScored : Outcome::kUnscored;
}

}  // namespace plumb::reward

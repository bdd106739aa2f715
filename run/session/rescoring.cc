#include "run/session/rescoring.h"

#include <cstdio>

#include "common/base/error.h"
#include "common/base/hash/sha256.h"
#include "replay/store/record.h"

namespace plumb::run {
namespace {

constexpr size_t kAtOnce = 64;

std::string Number(double v) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", v);
  return text;
}

// As it was before any reward function saw it.
void ForgetScores(TrajectoryGroup& group) {
  for (Trajectory& t : group.trajectories) {
    t.rewards.clear();
    t.reward = 0;
    t.scored = false;
    if (t.finish != FinishReason::kAborted) t.unscored_reason.clear();  // else it is the actor's
  }
}

}  // namespace

std::pair<std::string, std::string> ScoreIdentity(const reward::GroupScorer& scorer,
                                                  const configs::RewardConfig& config) {
  const auto digests = scorer.Digests();
  PLUMB_CHECK(digests.size() == config.parts.size());
  std::string about;
  for (size_t i = 0; i < digests.size(); ++i) {
    if (i > 0) about += " + ";
    about +=
        Number(config.parts[i].weight) + " * " + digests[i].first + " (" + digests[i].second + ")";
  }
  if (config.on_failure == configs::OnFailure::kPenalty)
    about += "; a failure counts " + Number(config.penalty);
  return {Sha256Hex(about).substr(0, 32), about};
}

RescoreReport RescoreStore(replay::Store& store, reward::GroupScorer& scorer,
                           const configs::RewardConfig& config, Purpose purpose,
                           const std::function<bool()>& stop) {
  RescoreReport report;
  const auto [name, about] = ScoreIdentity(scorer, config);
  report.name = name;
  store.DescribeScore(name, about);
  std::vector<TrajectoryGroup> batch, before;
  double sum = 0, stored_sum = 0;
  const auto flush = [&] {
    before = batch;
    for (TrajectoryGroup& group : batch) ForgetScores(group);
    scorer.ScoreMany(batch);
    for (size_t g = 0; g < batch.size(); ++g) {
      const replay::GroupScore score = replay::ScoresOf(batch[g]);
      int64_t failed = 0, aborted = 0;
      for (const Trajectory& t : batch[g].trajectories) {
        aborted += t.finish == FinishReason::kAborted;
        if (t.scored || t.finish == FinishReason::kAborted) continue;
        ++failed;
        ++report.failures[t.unscored_reason.empty() ? "no reason given" : t.unscored_reason];
      }
      report.aborted_answers += aborted;
      if (aborted == static_cast<int64_t>(score.answers.size())) {
        ++report.not_generated;
        continue;
      }
      if (failed > 0) {
        ++report.failed;
        continue;
      }
      if (!store.PutScore(purpose, batch[g].lease.lease_id, name, score)) {
        ++report.already;
        continue;
      }
      ++report.scored;
      for (size_t i = 0; i < score.answers.size(); ++i) {
        if (batch[g].trajectories[i].finish == FinishReason::kAborted) continue;
        sum += score.answers[i].reward;
        ++report.answers;
        const Trajectory& then = before[g].trajectories[i];
        if (!then.scored) continue;
        stored_sum += then.reward;
        ++report.stored_answers;
      }
    }
    batch.clear();
  };
  for (const uint64_t id : store.Ids(purpose)) {
    if (batch.empty() && stop && stop()) {
      report.stopped = true;
      break;
    }
    auto stored = store.Read(purpose, id);
    if (!stored) continue;
    ++report.groups;
    if (stored->kind == replay::GroupKind::kDropped) {
      ++report.dropped;
    } else if (store.ReadScore(purpose, id, name)) {
      ++report.already;
    } else {
      batch.push_back(std::move(stored->group));
      if (batch.size() == kAtOnce) flush();
    }
  }
  flush();
  store.SyncScores();
  if (report.answers > 0) report.mean = sum / static_cast<double>(report.answers);
  if (report.stored_answers > 0)
    report.stored_mean = stored_sum / static_cast<double>(report.stored_answers);
  return report;
}

std::vector<std::string> RescoreReport::Describe() const {
  const auto n = [](int64_t v) { return std::to_string(v); };
  std::vector<std::string> lines = {"groups: " + n(groups) + " read = " + n(scored) + " scored + " +
                                    n(already) + " scored before + " + n(failed) + " failed + " +
                                    n(dropped) + " dropped + " + n(not_generated) +
                                    " never generated"};
  if (aborted_answers > 0)
    lines.push_back("answers never generated, and not scored: " + n(aborted_answers));
  if (answers > 0) {
    char text[160];
    std::snprintf(text, sizeof text, "mean reward of %lld answers: %.4f",
                  static_cast<long long>(answers), mean);
    lines.emplace_back(text);
    if (stored_answers > 0) {
      std::snprintf(text, sizeof text, ", %.4f as %lld of them were stored", stored_mean,
                    static_cast<long long>(stored_answers));
      lines.back() += text;
    }
  }
  for (const auto& [reason, count] : failures)
    lines.push_back("failed: " + n(count) + " answers: " + reason);
  lines.push_back("score " + name);
  return lines;
}

}  // namespace plumb::run

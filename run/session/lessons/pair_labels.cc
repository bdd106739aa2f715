#include "run/session/lessons/pair_labels.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "common/base/error.h"
#include "reward/models/reward_model.h"
#include "reward/scorer.h"
#include "run/session/rescoring.h"

namespace plumb::run {
namespace {

// An answer as a scorer of tokens sees it.
Trajectory AnswerOf(const Demonstration& d, uint32_t sample) {
  Trajectory t;
  t.sample = sample;
  t.tokens = d.tokens;
  t.loss_mask = d.loss_mask;
  const auto begin = std::find(d.loss_mask.begin(), d.loss_mask.end(), 1) - d.loss_mask.begin();
  const auto size = static_cast<int32_t>(d.tokens.size());
  t.segments = {{Origin::kPrompt, 0, static_cast<int32_t>(begin)},
                {Origin::kPolicy, static_cast<int32_t>(begin), size}};
  t.logprobs.assign(d.tokens.size(), 0);
  t.policy_versions.assign(static_cast<size_t>(begin), -1);
  t.policy_versions.resize(d.tokens.size(), 0);
  return t;
}

}  // namespace

std::string LabelCounts::Describe() const {
  char text[200];
  std::snprintf(text, sizeof text,
                "%lld pairs as the rows have them, %lld the other way round, %lld of equal scores "
                "left out; mean margin %.3f",
                static_cast<long long>(kept), static_cast<long long>(turned),
                static_cast<long long>(equal), margin);
  return text;
}

LabelCounts LabelPairs(Scorer& scorer, std::vector<PreferencePair>& pairs) {
  LabelCounts counts;
  std::vector<PreferencePair> labelled;
  for (PreferencePair& pair : pairs) {
    TrajectoryGroup group;
    group.lease.num_samples = 2;
    group.trajectories = {AnswerOf(pair.chosen, 0), AnswerOf(pair.rejected, 1)};
    scorer.Score(group);
    for (const Trajectory& t : group.trajectories) {
      if (t.scored) continue;
      throw Error(ErrorCode::kUnavailable,
                  "an answer of the pair has no score, so that nothing says which one is better: " +
                      t.unscored_reason,
                  "row " + std::to_string(pair.row));
    }
    const double margin = group.trajectories[0].reward - group.trajectories[1].reward;
    if (margin == 0) {
      ++counts.equal;
      continue;
    }
    ++(margin > 0 ? counts.kept : counts.turned);
    if (margin < 0) std::swap(pair.chosen, pair.rejected);
    pair.margin = std::abs(margin);
    pair.has_margin = true;
    counts.margin += pair.margin;
    labelled.push_back(std::move(pair));
  }
  if (!labelled.empty()) counts.margin /= static_cast<double>(labelled.size());
  pairs = std::move(labelled);
  return counts;
}

void LabelByParts(const Session& session, PreferenceData& data) {
  const configs::RewardConfig& rewards = session.config().reward;
  if (rewards.parts.empty()) return;
  reward::GroupScorer scorer(rewards, reward::WithModelParts(session.tokenizer()));
  const LabelCounts counts = LabelPairs(scorer, data.train);
  const auto [name, about] = ScoreIdentity(scorer, rewards);
  data.notes.push_back("labels by " + about + ": " + counts.Describe());
  data.identity += " labelled " + name;
  if (data.train.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "give both answers of every pair the same score: " + counts.Describe(),
                "[[reward.parts]]");
  }
}

}  // namespace plumb::run

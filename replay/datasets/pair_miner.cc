#include "replay/datasets/pair_miner.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "common/base/error.h"
#include "common/base/hash/sha256.h"
#include "common/record/json_text.h"
#include "replay/datasets/missing_rollouts.h"
#include "replay/datasets/rows/end_token.h"

namespace plumb::replay {
namespace {

using Json = nlohmann::json;  // keys in order, as an import of the pairs has them

constexpr size_t kPiece = 256;  // records written at a time

struct Candidate {
  const Trajectory* answer = nullptr;
  double reward = 0;
};

// A conversation that an agent began with words of its own is no answer to the row.
bool OtherPrompt(const Trajectory& t, const std::vector<int32_t>& prompt) {
  return !prompt.empty() && (static_cast<size_t>(t.prompt_length()) != prompt.size() ||
                             !std::equal(prompt.begin(), prompt.end(), t.tokens.begin()));
}

std::vector<int32_t> Completion(const Trajectory& t) {
  return {t.tokens.begin() + t.prompt_length(), t.tokens.end()};
}

std::string StoredDigest(const TrajectoryGroup& group) {
  std::set<std::string> digests;
  for (const Trajectory& t : group.trajectories) {
    for (const RewardPart& part : t.rewards) digests.insert(part.name + ":" + part.function_digest);
  }
  std::string joined;
  for (const std::string& d : digests) joined += (joined.empty() ? "" : ",") + d;
  return joined;
}

// The tokens that make two pairs the same one.
std::string PairDigest(const PreferenceRecord& r) {
  Sha256 hash;
  for (const auto* tokens : {&r.prompt_tokens, &r.chosen_tokens, &r.rejected_tokens}) {
    const uint64_t n = tokens->size();
    hash.Update(std::as_bytes(std::span(&n, 1)));
    hash.Update(std::as_bytes(std::span(*tokens)));
  }
  return hash.HexDigest();
}

PreferenceRecord MakeRecord(const TrajectoryGroup& group, const Candidate& best,
                            const Candidate& worst, const std::string& score_name,
                            const std::string& reward_digest, const MineOptions& options) {
  PreferenceRecord r;
  r.kind = PreferenceKind::kPair;
  const Prompt& prompt = group.lease.prompt;
  if (!prompt.messages.empty()) r.prompt = prompt.messages;
  else r.prompt_text = prompt.text;
  r.chosen = {{.role = "assistant", .content = Said(*best.answer, options.end_tokens)}};
  r.rejected = {{.role = "assistant", .content = Said(*worst.answer, options.end_tokens)}};
  r.margin = options.keep_margin ? best.reward - worst.reward : 0;
  r.has_margin = options.keep_margin;
  r.weight = prompt.weight;
  r.prompt_tokens = {best.answer->tokens.begin(),
                     best.answer->tokens.begin() + best.answer->prompt_length()};
  r.chosen_tokens = Completion(*best.answer);
  r.rejected_tokens = Completion(*worst.answer);
  r.extra_json = DumpJson(
      Json{{"run_id", group.run_id},
           {"lease_id", group.lease.lease_id},
           {"policy_version", group.policy.version},
           {"policy_digest", group.policy.digest},
           {"chosen_sample", best.answer->sample},
           {"rejected_sample", worst.answer->sample},
           {"chosen_reward", best.reward},
           {"rejected_reward", worst.reward},
           {"score", score_name.empty() ? "stored" : score_name},
           {"reward_digest", reward_digest.empty() ? StoredDigest(group) : reward_digest}});
  return r;
}

}  // namespace

std::vector<PreferenceRecord> MineGroup(const TrajectoryGroup& group,
                                        const std::vector<double>& scores,
                                        const std::string& score_name,
                                        const std::string& reward_digest,
                                        const MineOptions& options, MineReport& report) {
  PLUMB_CHECK(scores.empty() || scores.size() == group.trajectories.size());
  std::vector<Candidate> usable;
  for (size_t i = 0; i < group.trajectories.size(); ++i) {
    const Trajectory& t = group.trajectories[i];
    ++report.answers;
    const bool scored = scores.empty() ? t.scored : !std::isnan(scores[i]);
    if (!scored || t.finish == FinishReason::kAborted || t.completion_length() < 1) {
      ++report.unusable_answers;
    } else if (HasEnvironment(t) || OtherPrompt(t, group.lease.prompt.tokens)) {
      ++report.mixed_answers;
    } else {
      usable.push_back({&t, scores.empty() ? t.reward : scores[i]});
    }
  }
  std::vector<PreferenceRecord> out;
  if (usable.size() < 2) {
    ++report.one_sided_groups;
    return out;
  }
  std::stable_sort(usable.begin(), usable.end(),
                   [](const Candidate& a, const Candidate& b) { return a.reward > b.reward; });
  const double widest = usable.front().reward - usable.back().reward;
  if (!(widest > 0)) {
    ++report.tied_groups;
    return out;
  }
  if (widest < options.margin) {
    ++report.close_groups;
    return out;
  }
  for (size_t i = 0; i < usable.size() / 2 && static_cast<int64_t>(out.size()) < options.per_group;
       ++i) {
    const Candidate &best = usable[i], &worst = usable[usable.size() - 1 - i];
    const double apart = best.reward - worst.reward;
    if (!(apart > 0) || apart < options.margin) break;  // what follows is closer still
    if (Completion(*best.answer) == Completion(*worst.answer)) {
      ++report.identical_pairs;  // a reward that is not a function of the answer alone
      continue;
    }
    out.push_back(MakeRecord(group, best, worst, score_name, reward_digest, options));
  }
  if (out.empty()) ++report.identical_groups;
  return out;
}

MineReport MinePairs(const Store& from, Store& into, const MineOptions& options) {
  if (!(options.margin >= 0) || !std::isfinite(options.margin))
    throw Error(ErrorCode::kInvalidArgument, "the margin has to be a number >= 0");
  if (options.per_group < 1)
    throw Error(ErrorCode::kInvalidArgument, "at least one pair a group has to be allowed");
  const std::string name = options.score.empty() ? "" : from.FindScore(options.score);
  MineReport report;
  std::set<std::string> seen;
  std::vector<PreferenceRecord> piece;
  uint64_t hash = kNoRowsHash, rows = 0;
  const auto write = [&] {
    if (piece.empty()) return;
    into.AppendPreferences(options.dataset, rows, piece, hash);
    rows += piece.size();
    piece.clear();
  };
  const uint64_t before = into.PreferenceCount(options.dataset);
  for (const uint64_t id : from.Ids(Purpose::kTrain)) {
    const auto stored = from.Read(Purpose::kTrain, id);
    if (!stored) continue;  // trimmed since the list was made
    ++report.groups;
    if (stored->kind == GroupKind::kDropped) {
      ++report.dropped_groups;
      continue;
    }
    std::vector<double> scores;
    if (!name.empty()) {
      const auto again = from.ReadScore(Purpose::kTrain, id, name);
      if (!again) {
        ++report.unscored_groups;
        continue;
      }
      for (const ScoredAnswer& a : again->answers) scores.push_back(a.reward);
      if (scores.size() != stored->group.trajectories.size()) {
        throw Error(ErrorCode::kCorruption,
                    "score " + name + " of lease " + std::to_string(id) +
                        " has another number of answers than "
                        "its group",
                    from.path());
      }
    }
    int64_t fresh = 0;
    const auto pairs = MineGroup(stored->group, scores, name, name, options, report);
    for (const PreferenceRecord& pair : pairs) {
      if (!seen.insert(PairDigest(pair)).second) {
        ++report.repeated_pairs;
        continue;
      }
      ++fresh;
      piece.push_back(pair);
    }
    if (fresh > 0) ++report.used_groups;
    else if (!pairs.empty()) ++report.repeated_groups;
    if (piece.size() >= kPiece) write();
  }
  write();
  report.pairs = static_cast<int64_t>(rows);
  if (rows == 0) {
    std::string found;
    if (report.groups == 0) found = "\n  " + WhyNoRollouts(from, Purpose::kTrain);
    for (const std::string& line : report.Describe()) found += "\n  " + line;
    throw Error(ErrorCode::kInvalidArgument, "no pair could be mined; nothing was written:" + found,
                from.path());
  }
  into.SealPreferences(options.dataset, rows, hash);
  report.unchanged = before == rows;
  return report;
}

std::vector<std::string> MineReport::Describe() const {
  std::vector<std::string> lines;
  const auto n = [](int64_t v) { return std::to_string(v); };
  lines.push_back("groups: " + n(groups) + " read = " + n(used_groups) + " used + " +
                  n(tied_groups) + " tied + " + n(one_sided_groups) + " one-sided + " +
                  n(close_groups) + " closer than the margin + " + n(identical_groups) +
                  " of equal answers + " + n(repeated_groups) + " repeated + " +
                  n(unscored_groups) + " without this score + " + n(dropped_groups) + " dropped");
  lines.push_back("answers: " + n(answers) + " read, " + n(unusable_answers) +
                  " unscored, aborted or empty, " + n(mixed_answers) +
                  " with tokens of an environment left out");
  lines.push_back("pairs: " + n(pairs) + " written, " + n(identical_pairs) +
                  " of equal answers and " + n(repeated_pairs) + " mined before left out");
  return lines;
}

}  // namespace plumb::replay

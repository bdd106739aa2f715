#include "run/roles/ending/run_summary.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "run/session/row_counts.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

Json EvalJson(const std::optional<learner::EvalResult>& e) {
  if (!e) return nullptr;
  if (e->perplexity) {
    return {{"loss", e->loss.value_or(0)},
            {"perplexity", *e->perplexity},
            {"answers", e->answers},
            {"version", e->version}};
  }
  const auto known = [&](double value) { return e->measured() ? Json(value) : Json(nullptr); };
  Json out = {{"accuracy", known(e->accuracy)},
              {"reward", known(e->reward)},
              {"reward_se", known(e->reward_se)},
              {"answers", e->answers},
              {"scored", e->scored()},
              {"unscored", e->unscored},
              {"aborted", e->aborted},
              {"version", e->version}};
  out["accuracy_se"] = known(e->accuracy_se);
  if (e->reward_chosen) out["reward_chosen"] = *e->reward_chosen;
  if (e->reward_rejected) out["reward_rejected"] = *e->reward_rejected;
  if (e->loss) out["loss"] = *e->loss;
  return out;
}

}  // namespace

std::string HeldOutText(const configs::Config& config, const learner::EvalResult& e) {
  char text[200];
  const auto n = static_cast<long long>(e.answers);
  if (e.perplexity) {
    std::snprintf(text, sizeof text, "loss %.4f, perplexity %.4g (%lld demonstrations)",
                  e.loss.value_or(0), *e.perplexity, n);
  } else if (configs::IsOffline(config)) {
    std::snprintf(text, sizeof text, "accuracy %.3f, margin %.4f, loss %.4f (%lld pairs)",
                  e.accuracy, e.reward, e.loss.value_or(0), n);
  } else if (!e.measured()) {
    std::snprintf(text, sizeof text,
                  "pass@1 -, mean reward - (%lld answer%s, none with a score, temperature %g)", n,
                  n == 1 ? "" : "s", config.rollout.temperature);
  } else {
    const std::string scored =
        e.unscored > 0 ? ", " + std::to_string(e.scored()) + " with a score" : "";
    char error[32] = "";  // of one answer there is none
    if (e.scored() > 1) std::snprintf(error, sizeof error, " +- %.3f", e.reward_se);
    std::snprintf(text, sizeof text,
                  "pass@1 %.3f, mean reward %.3f%s (%lld answer%s%s, temperature %g)", e.accuracy,
                  e.reward, error, n, n == 1 ? "" : "s", scored.c_str(),
                  config.rollout.temperature);
  }
  return text;
}

double BarValue(const learner::EvalResult& e) {
  return e.perplexity ? 1 / *e.perplexity : e.accuracy;
}

std::string BarName(const configs::Config& config) {
  if (config.algorithm.name == configs::AlgorithmName::kSft) return "1 / perplexity";
  return configs::IsOffline(config) ? "accuracy" : "pass@1";
}

std::string LossLine(const std::map<std::string, int64_t>& counters) {
  const auto count = [&](const std::string& name) {
    const auto found = counters.find(name);
    return found == counters.end() ? int64_t{0} : found->second;
  };
  int64_t groups = 0;
  std::string causes;
  for (const auto& [name, n] : counters) {
    if (!name.starts_with("dropped/") || name == "dropped/trajectories" || n == 0) continue;
    groups += n;
    causes += (causes.empty() ? "" : ", ") + std::to_string(n) + " " + name.substr(8);
  }
  std::string line = "dropped: ";
  line += groups == 0 ? "nothing"
                      : std::to_string(groups) + " groups (" + causes +
                            "; answers of groups that trained nothing: " +
                            std::to_string(count("dropped/trajectories")) + ")";
  const int64_t unscored = count("unscored_trajectories"), aborted = count("aborted_trajectories");
  line += "; answers without a score: " + std::to_string(unscored);
  if (aborted > 0) line += ", " + std::to_string(aborted) + " of them never generated";
  if (const int64_t again = count("requeued"); again > 0)
    line += "; groups asked for again: " + std::to_string(again);
  return line;
}

std::string EqualLine(const learner::RewardTally& rewards) {
  if (rewards.groups == 0) return "";
  char line[120];
  std::snprintf(
      line, sizeof line, "equal rewards: %.1f %% of %lld groups with a score",
      100 * static_cast<double>(rewards.equal_groups) / static_cast<double>(rewards.groups),
      static_cast<long long>(rewards.groups));
  return std::string(line) + (rewards.equal_groups == 0 ? "" : ": these had no direction to give");
}

bool SaysMore(const std::string& before, const RunSummary& summary) {
  const learner::LearnerResult& r = summary.learner;
  const Json told = Json::parse(before, nullptr, /*allow_exceptions=*/false);
  if (r.first_step != r.steps || !told.is_object()) return false;
  const auto is = [&](const char* key, const Json& value) {
    return told.contains(key) && told[key] == value;
  };
  return is("steps", r.steps) && is("wanted_steps", summary.wanted_steps) &&
         is("stopped_early", r.stopped_early) && is("weights_sha256", r.weights_sha256);
}

std::string SummaryJson(const RunSummary& summary) {
  const learner::LearnerResult& r = summary.learner;
  Json dropped = Json::object(), counters = Json::object();
  const auto count = [&](const char* name) {
    const auto found = summary.counters.find(name);
    return found == summary.counters.end() ? int64_t{0} : found->second;
  };
  for (const auto& [name, count] : summary.counters) {
    if (name.starts_with("dropped/")) dropped[name.substr(8)] = count;
    else if (!name.starts_with(kRows)) counters[name] = count;
  }
  Json out = {{"eval", {{"before", EvalJson(r.before)}, {"after", EvalJson(r.after)}}},
              {"steps", r.steps},
              {"wanted_steps", summary.wanted_steps},
              {"first_step", r.first_step},
              {"stopped_early", r.stopped_early},
              {"wall_s", r.wall_s},
              {"tokens", r.tokens},
              {"policy_version", r.policy.version},
              {"policy_digest", r.policy.digest},
              {"weights_sha256", r.weights_sha256},
              {"optimizer_sha256", r.optimizer_sha256},
              {"skipped_updates", r.skipped_updates},
              {"equal_reward_steps", r.rewards.equal_steps},
              {"scoreless_steps", r.rewards.scoreless_steps},
              {"rows", RowsJson(summary.counters)},
              {"dropped", dropped},
              {"unscored",
               {{"answers", count("unscored_trajectories")},
                {"never_generated", count("aborted_trajectories")}}},
              {"counters", counters}};
  if (r.rewards.groups > 0)
    out["groups"] = {{"scored", r.rewards.groups}, {"equal", r.rewards.equal_groups}};
  if (r.best) out["eval"]["best"] = EvalJson(r.best);
  // weights and moments of a critic
  for (const auto& [name, sha] : r.model_sha256) out[name + "_sha256"] = sha;
  if (r.sft) {
    out["sft"] = {{"steps", r.sft->steps},
                  {"tokens", r.sft->tokens},
                  {"heldout_first", r.sft->heldout_first},
                  {"heldout_last", r.sft->heldout_last},
                  {"flat", r.sft->flat}};
  }
  return out.dump(1) + "\n";
}

}  // namespace plumb::run

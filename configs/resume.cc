#include "configs/resume.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <sstream>
#include <utility>

#include "common/base/problem.h"

namespace plumb::configs {
namespace {

struct Row {
  const char* section;
  const char* options;  // separated by blanks
  const char* why;      // nullptr: may change
};

constexpr const char* kRows =
    "the store numbers the rows of the run's data, and a run's data never changes";
constexpr const char* kDrawn = "stored answers were drawn with it";
constexpr const char* kShape = "the weights in the checkpoint have this shape";
constexpr const char* kScores = "stored rewards were given by it";
constexpr const char* kWarmStart =
    "the warm start made the weights that the run began with; to make others, start anew with "
    "--overwrite";
constexpr const char* kOfPart = "reward.parts";

// One line a reason. An option is in one line only.
constexpr Row kTable[] = {
    {"run", "seed", "every random draw is keyed by it"},
    {"run", "schedule", "it says which weights answer for which step"},
    {"run",
     "roles steps max_staleness checkpoint_every keep_checkpoints threads device exact memory_gb "
     "actors reward_workers stall_seconds parallel zero gradient_wire listen keys relay "
     "weight_deltas",
     nullptr},
    {"checkpoint", "optimizer optimizer_every background", nullptr},
    {"model", "path",
     "the run's weights are those of its checkpoint; from other weights begins another run"},
    {"model", "dtype", "the checkpoint and the stored log-probs have this precision"},
    {"model", "products", nullptr},
    {"model",
     "layers hidden heads kv_heads ffn max_positions tied rope_theta norms window global_every "
     "attention kv_rank query_rank rope_dim sinks gate_top_k scales memory_table",
     kShape},
    {"experts",
     "count per_token shared shared_gate widths first_dense router renormalize temperature groups "
     "groups_per_token",
     kShape},
    {"experts", "bias_rate aux_coef z_coef capacity capacity_noise", nullptr},
    {"experts", "sync_every", "the experts' moments in the checkpoint are of updates so far apart"},
    {"model", "init_std", "the run began with weights drawn by it"},
    {"model", "vocabulary", "stored answers are tokens of it"},
    {"policy",
     "adapter rank alpha targets rslora rank_pattern alpha_pattern frozen adapters tasks "
     "task_tokens",
     "the checkpoint holds what it says"},
    {"policy", "dropout learning_rates", nullptr},
    {"data",
     "train dataset eval eval_prompts eval_skip map system_prompt chat_template prompt_suffix "
     "max_prompt_tokens "
     "overlong shuffle limit "
     "arithmetic_digits arithmetic_sft_examples",
     kRows},
    {"sft", "syntax_penalty", nullptr},
    {"sft", "batch data", "the updates on demonstrations are counted and cut by it"},
    {"run", "stages", "a stage goes on from the model of the one before"},
    {"sft", "heldout max_tokens curriculum", "it says which rows the steps so far were trained on"},
    {"sft",
     "steps learning_rate lr_schedule warmup_fraction min_lr_fraction weight_decay eval_every "
     "patience",
     kWarmStart},
    {"rollout", "prompts_per_step", "stored answers are numbered by it"},
    {"rollout", "samples_per_prompt", "stored groups have this size"},
    {"rollout", "max_new_tokens temperature top_k top_p min_p stop", kDrawn},
    {"rollout", "kv_type", kDrawn},
    {"rollout", "replay_experts", "stored answers hold their experts, or do not"},
    {"rollout",
     "max_batch page_tokens kv_budget_mb prefill_tokens device tp share_prefixes "
     "kv_after_update",
     nullptr},
    {kOfPart,
     "name kind weight path args target_tokens max_tokens api reply_key model judge_prompt "
     "score_regex scale",
     kScores},
    // How it is run, and where it answers.
    {kOfPart, "timeout_s memory_mb workers endpoint server_key client_key api_key_env", nullptr},
    {"reward", "on_failure retries penalty allow_unsandboxed", nullptr},
    {"environment", "kind path args name endpoint tools corpus tool_form max_turns reply_tokens",
     "stored answers are conversations with it"},
    {"environment", "timeout_s episode_seconds memory_mb workers listen", nullptr},
    {"replay", "prompts", "it says which prompt a numbered answer is to"},
    {"replay",
     "keep_steps groups_per_step sampler max_age_steps max_times_sampled max_groups evict "
     "samples_per_insert min_groups "
     "max_staleness alpha easiest ramp floor stratum difficulty history_steps",
     nullptr},
    {"algorithm", "name",
     "the state of one algorithm is not that of another, and other options have its defaults; "
     "begin another run "
     "from this one's model"},
    {"algorithm",
     "advantage objective ratio advantage_std advantage_eps skip_equal_groups refill_rounds "
     "clip_low clip_high dual_clip "
     "kl_coef kl_estimator kl_placement aggregation entropy_coef epochs minibatches tis_cap "
     "tis_floor off_policy "
     "recompute_logprobs logprob_gate gamma lam whiten_advantages kl_controller kl_target "
     "kl_horizon reward_normalize "
     "reward_clip std_over reward_aggregation pass_k kl_bias_correction kl_straight_through "
     "sapo_tau_positive sapo_tau_negative vespo dro_beta cov_share cov_low cov_high cov_kl_coef "
     "off_policy_sequence_mask mask_truncated entropy_quantile entropy_target reference_sync_every "
     "reference_mix",
     nullptr},
    {"distill",
     "teachers distance coef only beta top_k temperature confidence unsure_share feature_steps "
     "boundary_coef perturb student_share",
     nullptr},
    {"critic", "mode path", "the critic is in the checkpoint"},
    {"critic", "learning_rate value_clip vf_coef warmup_steps", nullptr},
    {"preference", "loss losses",
     "another objective is another run; begin it from this one's model"},
    {"preference", "batch heldout max_tokens",
     "it says which rows the steps so far were trained on"},
    {"preference",
     "beta label_smoothing gamma length_normalize desirable_weight undesirable_weight centering "
     "reference_cache divergence divergence_alpha ld_alpha discopop_tau weighted",
     nullptr},
    {"optimizer",
     "muon_learning_rate muon_momentum learning_rate beta1 beta2 eps weight_decay grad_clip "
     "clip_value lr_schedule warmup_fraction "
     "min_lr_fraction decay_fraction "
     "micro_batch_tokens max_skipped_in_a_row recompute gradients offload loss_scale "
     "loss_scale_steps",
     nullptr},
    {"optimizer", "ramp_steps ramp_start",
     "rows and stored answers are numbered by the batches so far"},
    {"optimizer", "name masters moments",
     "the checkpoint holds the optimizer's state in this form"},
    {"eval", "every samples success_part bar keep_best", nullptr},
    {"metrics", "tensorboard prometheus_port samples_every samples follow", nullptr},
};

using Rules = std::map<std::string, ResumeRule>;

const Rules& Table() {
  static const Rules* const table = [] {
    auto* rules = new Rules;
    (*rules)["run.out"] = {.what = OnResume::kNotCompared, .why = ""};
    for (const Row& row : kTable) {
      std::istringstream words(row.options);
      for (std::string word; words >> word;) {
        const OnResume what = row.why == nullptr      ? OnResume::kMayChange
                              : row.why == kWarmStart ? OnResume::kWarmStart
                                                      : OnResume::kFixed;
        (*rules)[std::string(row.section) + "." + word] = {.what = what,
                                                           .why = row.why ? row.why : ""};
      }
    }
    return rules;
  }();
  return *table;
}

// "section.key" and its value, of TOML that ToToml wrote (one key a line); a part of the reward as
// "reward.parts.0.key".
std::vector<std::pair<std::string, std::string>> Flatten(const std::string& toml) {
  std::vector<std::pair<std::string, std::string>> out;
  std::istringstream in(toml);
  std::string section;
  int64_t part = -1;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("[[")) {
      section = line.substr(2, line.find(']') - 2) + "." + std::to_string(++part);
    } else if (line.starts_with("[")) {
      section = line.substr(1, line.find(']') - 1);
    } else if (const size_t equals = line.find(" = ");
               equals != std::string::npos && !line.starts_with("#")) {
      out.emplace_back(section + "." + line.substr(0, equals), line.substr(equals + 3));
    }
  }
  return out;
}

int64_t PartsIn(const std::map<std::string, std::string>& options) {
  return std::count_if(options.begin(), options.end(), [](const auto& option) {
    return option.first.starts_with("reward.parts.") && option.first.ends_with(".kind");
  });
}

int64_t NumberIn(const std::map<std::string, std::string>& options, const std::string& key) {
  const auto found = options.find(key);
  return found == options.end() ? 0 : std::strtoll(found->second.c_str(), nullptr, 10);
}

// Steps whose groups replay goes back to, behind the one that is trained.
int64_t StepsLookedBack(int64_t groups_per_step, int64_t max_age_steps, bool by_difficulty,
                        int64_t history_steps) {
  return std::max(groups_per_step > 0 ? max_age_steps : 0, by_difficulty ? history_steps : 0);
}

// What a change that the table allows would need and the run does not have.
// `stored`: all options of the run.
Problem WhyNotHere(const std::string& key, const std::map<std::string, std::string>& stored,
                   const std::string& before, const Config& now) {
  if (key == "algorithm.kl_coef") {
    if (before == "0.0") return "the run began without a KL term, so no reference was kept";
    if (now.algorithm.kl_controller == KlController::kAdaptive) {
      return "the adaptive controller goes on from the coefficient in the checkpoint";
    }
  }
  if (key == "replay.groups_per_step" || key == "replay.max_age_steps" ||
      key == "replay.history_steps") {
    const ReplayConfig& r = now.replay;
    const bool by_difficulty = r.prompts == PromptSampler::kDifficulty;  // it cannot have changed
    const int64_t keep = NumberIn(stored, "replay.keep_steps");
    const int64_t kept =
        std::max(keep, StepsLookedBack(NumberIn(stored, "replay.groups_per_step"),
                                       NumberIn(stored, "replay.max_age_steps"), by_difficulty,
                                       NumberIn(stored, "replay.history_steps")));
    const int64_t wanted =
        StepsLookedBack(r.groups_per_step, r.max_age_steps, by_difficulty, r.history_steps);
    if (keep >= 0 && wanted > kept) {
      return "it would draw from " + std::to_string(wanted) + " steps back, and the run keeps " +
             std::to_string(kept) + " (replay.keep_steps keeps more)";
    }
  }
  return std::nullopt;
}

}  // namespace

ResumeRule ResumeRuleOf(const std::string& key) {
  std::string name = key;
  const std::string parts = std::string(kOfPart) + ".";
  if (name.starts_with(parts)) name = parts + name.substr(name.rfind('.') + 1);
  const auto found = Table().find(name);
  return found == Table().end() ? ResumeRule{.what = OnResume::kFixed,
                                             .why = "it is not known how a run depends on it"}
                                : found->second;
}

std::vector<std::string> OptionsWithResumeRule() {
  std::vector<std::string> out = {"run.out"};
  for (const Row& row : kTable) {
    std::istringstream words(row.options);
    for (std::string word; words >> word;) out.push_back(std::string(row.section) + "." + word);
  }
  return out;
}

RecipeDifference CompareForResume(const std::string& stored, const Config& now,
                                  bool warm_start_over) {
  const auto fresh = Flatten(ToToml(now));
  std::map<std::string, std::string> before;
  for (auto& [key, value] : Flatten(stored)) before[key] = value;
  Config defaults;
  defaults.reward.parts.resize(now.reward.parts.size());
  std::map<std::string, std::string> by_default;
  for (auto& [key, value] : Flatten(ToToml(defaults))) by_default[key] = value;

  RecipeDifference difference;
  const auto parts_now = static_cast<int64_t>(now.reward.parts.size());
  if (const int64_t parts_before = PartsIn(before); parts_before != parts_now) {
    difference.refused.push_back({kOfPart, std::to_string(parts_before) + " parts",
                                  std::to_string(parts_now) + " parts", kScores});
  }
  for (const auto& [key, value] : fresh) {
    const bool of_part = key.starts_with("reward.parts.");
    if (of_part && !difference.refused.empty() && difference.refused.front().key == kOfPart)
      continue;  // said as a whole
    const auto found = before.find(key);
    const std::string& then = found != before.end() ? found->second : by_default[key];
    if (then == value) continue;
    const ResumeRule rule = ResumeRuleOf(key);
    if (rule.what == OnResume::kNotCompared) continue;
    const bool fixed =
        rule.what == OnResume::kFixed || (rule.what == OnResume::kWarmStart && warm_start_over);
    const Problem why = fixed ? rule.why : WhyNotHere(key, before, then, now);
    auto& list = why ? difference.refused : difference.changed;
    list.push_back({key, then, value, why.value_or("")});
  }
  return difference;
}

}  // namespace plumb::configs

#include "configs/foreign/foreign_values.h"

#include <cstdint>
#include <optional>
#include <utility>

#include "configs/config.h"
#include "configs/option_names.h"
#include "configs/value_text.h"

namespace plumb::configs {
namespace {

struct Definition {
  const char* table;
  const char* key;    // their name of it
  const char* value;  // theirs
  const char* here;   // ours, as an inline table
};

// TRL 1.16, GRPOTrainer._compute_loss; verl 0.9.1, core_algos.py. What tests compare each with:
// tests/golden/policy_objectives.py and peer_functions.py.
constexpr Definition kDefinitions[] = {
    {"algorithm", "loss_type", "grpo", R"({objective = "clip", aggregation = "sequence"})"},
    {"algorithm", "loss_type", "bnpo", R"({objective = "clip", aggregation = "token"})"},
    {"algorithm", "loss_type", "dapo", R"({objective = "clip", aggregation = "token"})"},
    {"algorithm", "loss_type", "dr_grpo", R"({objective = "clip", aggregation = "constant"})"},
    // The ratio is importance_sampling_level's, there as here.
    {"algorithm", "loss_type", "luspo", R"({objective = "clip", aggregation = "sequence_sum"})"},
    {"algorithm", "loss_type", "cispo", R"({objective = "cispo", aggregation = "token"})"},
    {"algorithm", "loss_type", "sapo", R"({objective = "sapo", aggregation = "sequence"})"},
    {"algorithm", "loss_type", "vespo", R"({objective = "vespo", aggregation = "token"})"},
    {"algorithm", "loss_mode", "vanilla", R"({objective = "clip", ratio = "token"})"},
    {"algorithm", "loss_mode", "gspo", R"({objective = "clip", ratio = "sequence"})"},
    {"algorithm", "loss_mode", "sapo", R"({objective = "sapo", aggregation = "sequence"})"},
    {"algorithm", "loss_mode", "gpg", R"({objective = "policy_gradient"})"},
    {"algorithm", "loss_mode", "geo_mean",
     R"({objective = "geometric", aggregation = "sequence"})"},
    {"algorithm", "loss_agg_mode", "token-mean", R"({aggregation = "token"})"},
    {"algorithm", "loss_agg_mode", "seq-mean-token-sum", R"({aggregation = "sequence_sum"})"},
    {"algorithm", "loss_agg_mode", "seq-mean-token-sum-norm", R"({aggregation = "constant"})"},
    {"algorithm", "loss_agg_mode", "seq-mean-token-mean", R"({aggregation = "sequence"})"},
    {"algorithm", "kl_loss_type", "kl", R"({kl_estimator = "k1"})"},
    {"algorithm", "kl_loss_type", "mse", R"({kl_estimator = "k2"})"},
    {"algorithm", "kl_loss_type", "low_var_kl", R"({kl_estimator = "k3"})"},
    {"algorithm", "kl_loss_type", "k1+", R"({kl_estimator = "k1", kl_straight_through = true})"},
    {"algorithm", "kl_loss_type", "kl+", R"({kl_estimator = "k1", kl_straight_through = true})"},
    {"algorithm", "kl_loss_type", "k3+", R"({kl_estimator = "k3", kl_straight_through = true})"},
    {"algorithm", "kl_loss_type", "low_var_kl+",
     R"({kl_estimator = "k3", kl_straight_through = true})"},
    {"algorithm", "kl_loss_type", "abs+", R"({kl_estimator = "abs", kl_straight_through = true})"},
    {"algorithm", "scale_rewards", "group", R"({advantage_std = true, std_over = "group"})"},
    {"algorithm", "scale_rewards", "batch", R"({advantage_std = true, std_over = "batch"})"},
    {"algorithm", "scale_rewards", "none", R"({advantage_std = false})"},
    // Of verl's an estimator is the advantage alone: ratio, aggregation and KL are other options'.
    {"algorithm", "adv_estimator", "gae", R"({name = "ppo"})"},
    {"algorithm", "adv_estimator", "grpo", R"({name = "grpo", advantage = "group"})"},
    {"algorithm", "adv_estimator", "rloo", R"({name = "grpo", advantage = "leave_one_out"})"},
    {"algorithm", "adv_estimator", "reinforce_plus_plus",
     R"({name = "grpo", advantage = "batch", skip_equal_groups = false})"},
    {"algorithm", "adv_estimator", "reinforce_plus_plus_baseline",
     R"({name = "grpo", advantage = "group_mean_batch_std"})"},
    {"algorithm", "adv_estimator", "remax", R"({name = "grpo", advantage = "greedy"})"},
    {"algorithm", "adv_estimator", "opo", R"({name = "grpo", advantage = "optimal"})"},
    {"algorithm", "adv_estimator", "grpo_passk", R"({name = "grpo", advantage = "pass_k"})"},
    // PEFT's, whose list may be this one word.
    {"policy", "target_modules", "all-linear", R"({targets = ["all-linear"]})"},
};

// At that line, so that what is wrong with it is said of the line.
toml::table AtLine(const char* inline_table, const toml::source_region& source) {
  const uint32_t line = source.begin.line;
  toml::table whole =
      toml::parse(std::string(line > 0 ? line - 1 : 0, '\n') + "here = " + inline_table);
  return std::move(*whole.get_as<toml::table>("here"));
}

template <class Table>
void TakeIn(toml::table& root, const char* name, const ForeignPathCalls& calls,
            ForeignMentions& mentions, std::vector<std::string>& problems) {
  toml::table* table = root.get_as<toml::table>(name);
  if (table == nullptr) return;
  const Names names = NamesOf<Table>();
  const auto given = [&](std::string_view option) {
    for (const auto& [key, node] : *table) {
      const auto known = names.canonical.find(std::string(key.str()));
      if (known != names.canonical.end() && known->second == option) return true;
    }
    return false;
  };
  const std::string prefix = std::string(name) + ".";
  for (const auto& [key, node] : *table) {
    const auto known = names.canonical.find(std::string(key.str()));
    if (known != names.canonical.end()) mentions.values.erase(prefix + known->second);
  }
  for (const Definition& d : kDefinitions) {
    if (std::string_view(d.table) != name) continue;
    const toml::node* node = table->get(d.key);
    if (node == nullptr || node->value_exact<std::string>() != d.value) continue;
    const std::string place = calls.place(node->source());
    const std::string said = std::string(d.key) + " = \"" + d.value + "\"";
    toml::table ours = AtLine(d.here, node->source());
    table->erase(d.key);
    for (auto&& [key, value] : ours) {
      const std::string option(key.str());
      if (given(option)) {
        problems.push_back(place + ": " + prefix + said + " says what " + prefix + option +
                           " is, which is given, too: keep one of them");
        continue;
      }
      value.visit([&](auto& moved) { table->insert(key, std::move(moved)); });
      mentions.values[prefix + option] = {.value = d.value, .said = said};
    }
  }
}

// An option of theirs that is there and is of this kind of value is taken out of the table.
template <class T>
std::optional<T> Taken(toml::table& table, const char* key, const ForeignPathCalls& calls,
                       std::string* place) {
  const toml::node* node = table.get(key);
  const std::optional<T> value = node ? node->value<T>() : std::nullopt;
  if (!value) return std::nullopt;
  *place = calls.place(node->source());
  table.erase(key);
  return value;
}

// What says nothing by itself, or a part of one of our options.
void TakeParts(toml::table& root, const ForeignPathCalls& calls, ForeignMentions& mentions) {
  if (toml::table* algorithm = root.get_as<toml::table>("algorithm")) {
    for (auto& [key, said] : {std::pair("sync_ref_model", &mentions.sync_reference),
                              std::pair("use_adaptive_entropy", &mentions.adaptive_entropy)}) {
      std::string place;
      if (const auto on = Taken<bool>(*algorithm, key, calls, &place))
        *said = {.on = *on, .place = place};
    }
    constexpr const char* kVespo[] = {"vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg",
                                      "vespo_lambda_neg"};
    for (size_t i = 0; i < mentions.vespo.size(); ++i) {
      std::string place;
      if (const auto number = Taken<double>(*algorithm, kVespo[i], calls, &place))
        mentions.vespo[i] = {.text = Text(*number), .place = place};
    }
  }
  toml::table* preference = root.get_as<toml::table>("preference");
  if (preference == nullptr) return;
  const auto list = [&](const char* key, std::vector<std::string>& out) {
    const toml::array* array = preference->get_as<toml::array>(key);
    if (array == nullptr) return;
    std::vector<std::string> all;
    for (const toml::node& one : *array) {
      if (const auto text = one.value_exact<std::string>()) all.push_back(*text);
      else if (const auto number = one.value<double>()) all.push_back(Text(*number));
      else return;
    }
    mentions.losses_place = calls.place(array->source());
    out = std::move(all);
    preference->erase(key);
  };
  list("loss_type", mentions.losses);
  list("loss_weights", mentions.loss_weights);
}

}  // namespace

void TakeForeignValues(toml::table& root, const ForeignPathCalls& calls, ForeignMentions& mentions,
                       std::vector<std::string>& problems) {
  TakeParts(root, calls, mentions);
  TakeIn<AlgorithmConfig>(root, "algorithm", calls, mentions, problems);
  TakeIn<PolicyConfig>(root, "policy", calls, mentions, problems);
}

}  // namespace plumb::configs

#include "configs/foreign/foreign_values.h"

#include <cmath>
#include <cstdint>
#include <optional>
#include <sstream>
#include <type_traits>
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

constexpr const char* kVespoParts[] = {"vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg",
                                       "vespo_lambda_neg"};

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

// What `key` says of the table, taken out of it; `wanted` in words: it is there and says nothing of
// that kind.
template <class T>
std::optional<T> Taken(toml::table& table, const std::string& key, const std::string& prefix,
                       const char* wanted, const ForeignPathCalls& calls, std::string* place,
                       std::vector<std::string>& problems) {
  const toml::node* node = table.get(key);
  if (node == nullptr) return std::nullopt;
  *place = calls.place(node->source());
  std::optional<T> value;
  if constexpr (std::is_same_v<T, bool>) value = node->value_exact<bool>();
  else if (node->is_number()) value = node->value<double>();
  if (!value) {
    std::ostringstream type;
    type << node->type();
    problems.push_back(*place + ": " + prefix + key + " has to be " + wanted + ", not " +
                       type.str());
  }
  table.erase(key);
  return value;
}

// TRL's lists of DPO.
void TakeLosses(toml::table& preference, const ForeignPathCalls& calls, ForeignMentions& mentions,
                std::vector<std::string>& problems) {
  const toml::node* type = preference.get("loss_type");
  // What is said later takes the place of what the file says, and of what the same name said.
  const bool ours = preference.contains("losses") || preference.contains("loss");
  const bool again =
      type != nullptr && mentions.losses_place.starts_with("--set preference.loss_type");
  if (again || ((ours || type != nullptr) && !mentions.losses_place.starts_with("--set"))) {
    mentions.losses.clear();
    if (!again && (type == nullptr || !type->is_array())) mentions.loss_weights.clear();
  }
  const auto list = [&](const char* key, const char* wanted, std::vector<std::string>& out,
                        auto text_of) {
    const toml::node* node = preference.get(key);
    const toml::array* array = node == nullptr ? nullptr : node->as_array();
    const std::string place = node == nullptr ? "" : calls.place(node->source());
    std::vector<std::string> all;
    bool fine = array != nullptr && !array->empty();
    for (size_t i = 0; fine && i < array->size(); ++i) {
      const std::optional<std::string> text = text_of((*array)[i]);
      fine = text.has_value();
      if (fine) all.push_back(*text);
    }
    if (fine) {
      out = std::move(all);
      mentions.losses_place = place;
    } else {
      problems.push_back(place + ": preference." + key + " has to be " + wanted);
    }
    preference.erase(key);
  };
  if (type != nullptr && type->is_array()) {
    list("loss_type", "a loss, or a list of at least one, [\"sigmoid\", \"sft\"]", mentions.losses,
         [](const toml::node& one) { return one.value_exact<std::string>(); });
  }
  if (preference.contains("loss_weights")) {
    list("loss_weights", "a list of numbers, [0.8, 1], one for each of loss_type",
         mentions.loss_weights, [](const toml::node& one) -> std::optional<std::string> {
           if (!one.is_number()) return std::nullopt;
           return Text(*one.value<double>());
         });
  }
}

// What says nothing by itself, or a part of one of our options.
void TakeParts(toml::table& root, const ForeignPathCalls& calls, ForeignMentions& mentions,
               std::vector<std::string>& problems) {
  if (toml::table* algorithm = root.get_as<toml::table>("algorithm")) {
    for (auto& [key, said] : {std::pair("sync_ref_model", &mentions.sync_reference),
                              std::pair("use_adaptive_entropy", &mentions.adaptive_entropy)}) {
      std::string place;
      if (const auto on =
              Taken<bool>(*algorithm, key, "algorithm.", "true or false", calls, &place, problems))
        *said = {.on = *on, .place = place};
    }
    for (size_t i = 0; i < mentions.vespo.size(); ++i) {
      std::string place;
      const auto number = Taken<double>(*algorithm, kVespoParts[i], "algorithm.", "a number", calls,
                                        &place, problems);
      if (!number) continue;
      if (*number >= 0 && std::isfinite(static_cast<float>(*number))) {
        mentions.vespo[i] = {.text = Text(*number), .place = place};
      } else {
        problems.push_back(place + ": algorithm." + kVespoParts[i] + " = " + NumberText(*number) +
                           ": it has to be 0 or more, and finite in 32 bits");
      }
    }
  }
  if (toml::table* preference = root.get_as<toml::table>("preference"))
    TakeLosses(*preference, calls, mentions, problems);
}

}  // namespace

void TakeForeignValues(toml::table& root, const ForeignPathCalls& calls, ForeignMentions& mentions,
                       std::vector<std::string>& problems) {
  TakeParts(root, calls, mentions, problems);
  TakeIn<AlgorithmConfig>(root, "algorithm", calls, mentions, problems);
  TakeIn<PolicyConfig>(root, "policy", calls, mentions, problems);
}

std::vector<std::string> ForeignValuesOf(std::string_view table, std::string_view key) {
  std::vector<std::string> values;
  for (const Definition& d : kDefinitions) {
    if (table == d.table && key == d.key) values.emplace_back(d.value);
  }
  return values;
}

}  // namespace plumb::configs

// Keys in other systems' tables ("actor_rollout_ref.actor.optim.lr"): moved to where they stand
// here.
//
// Purpose: configs/fields.h has the other names of an option within its table; here are those of
// another table, as verl's command lines have them. A key of the same meaning is moved, with its
// line; of any other it is said what is written instead. Thread safety: pure functions. Ownership:
// the tables are the caller's. Errors: none; what is wrong becomes a problem.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "configs/foreign/toml_table.h"

namespace plumb::configs {

// What other systems' names said that no option says by itself (foreign_meaning.h).
struct ForeignMentions {
  struct Switch {
    bool on = false;
    std::string place;
  };
  std::optional<Switch> in_loss, in_reward;  // verl's use_kl_loss, use_kl_in_reward
  // TRL's sync_ref_model, use_adaptive_entropy
  std::optional<Switch> sync_reference, adaptive_entropy;
  struct Part {
    std::string text;  // "": not given
    std::string place;
  };
  std::array<Part, 4> vespo;  // TRL's vespo_k_pos, vespo_lambda_pos, vespo_k_neg, vespo_lambda_neg
  // TRL's list of loss_type with its loss_weights, of DPO.
  std::vector<std::string> losses, loss_weights;
  std::string losses_place;
  struct Value {
    std::string value;  // theirs: "luspo"
    std::string said;   // whole: loss_type = "luspo"
  };
  std::map<std::string, Value> values;  // by our option that it gave (foreign_values.h)
};

struct ForeignPathCalls {
  std::function<std::string(const toml::source_region&)> place;
  // of a key in a table of another system that is not known even there
  std::function<void(const std::string& place, const std::string& key)> unknown;
};

void MoveForeignPaths(toml::table& root, const ForeignPathCalls& calls, ForeignMentions& mentions,
                      std::vector<std::string>& problems);

}  // namespace plumb::configs

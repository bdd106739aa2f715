// Keys and values of other systems' configurations that have another name here: what an error says
// to write instead.
//
// Purpose: an alias (configs/fields.h) stands for a key of the same meaning; here are those whose
// meaning is another option's, and values that stand under our name of an option (under theirs they
// are taken: foreign/foreign_values.h). Nothing is translated silently. Thread safety: pure
// functions. Errors: none; what is not known gives "".
#pragma once

#include <string>
#include <string_view>

namespace plumb::configs {

// What is said of a key of adapters, and of one that names where metrics go.
inline constexpr char kLoraOptions[] =
    "it is policy.adapter = \"lora\" with policy.rank and policy.alpha; without an adapter all "
    "weights train";
inline constexpr char kWhereMetricsGo[] =
    "metrics.tensorboard, metrics.prometheus_port and metrics.follow (wandb, trackio, mlflow) say "
    "where metrics go";

// "it is policy.adapter = \"lora\"", behind "here". `key` with or without its table.
std::string ForeignKey(std::string_view key);

// What to write for another system's `value` of the option `key`, whole: "algorithm.aggregation".
std::string ForeignValue(std::string_view key, std::string_view value);

// What `plumb config new --algorithm NAME` should have been; names of preference losses.
std::string ForeignAlgorithm(std::string_view name);

}  // namespace plumb::configs

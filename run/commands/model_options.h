// Options that the verbs on models share: where the model is computed, and how it is sampled.
//
// Thread safety: the command line's one thread. Ownership: the structs outlive the parsing.
// Errors: kInvalidArgument for values that cannot be.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "kernels/sampling.h"
#include "run/models/sampling_defaults.h"
#include "run/session/model_folder.h"

namespace plumb::run {

// --dtype, --device, --bos, --merge, --task, --threads
void AddModelOptions(CLI::App* verb, ModelOptions& options);

struct SamplingArguments {
  std::optional<double> temperature, top_p, min_p;
  std::optional<int64_t> top_k;
  uint64_t seed = 0;
  bool greedy = false;
  int64_t max_new_tokens = 256;
  std::vector<std::string> stop;
};

// --temperature, --greedy, --top-p, --top-k, --min-p, --seed, --stop, --max-new-tokens
void AddSamplingOptions(CLI::App* verb, SamplingArguments& arguments);

// What was asked for; else what the model's generation_config.json says; else its own
// distribution.
struct Sampling {
  kernels::SamplingOptions options;
  // What came from the file and what it asks for in vain, a line for people; empty: nothing did.
  std::string said;
};
Sampling ResolveSampling(const SamplingArguments& arguments, const SamplingDefaults& defaults);

// --map NAME=COLUMN, any number of times, as recipes have data.map.
std::map<std::string, std::string> ReadMap(const std::vector<std::string>& pairs);

}  // namespace plumb::run

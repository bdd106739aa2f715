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

#include "common/base/error.h"
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

// --map PART=COLUMN,..., any number of times, as recipes have data.map. kInvalidArgument for what
// is no such pair and for a part that is named twice.
std::map<std::string, std::string> ReadMap(const std::vector<std::string>& pairs);

// The columns that the recipe of the run in the folder `model` names (data.map); empty: it is no
// run's folder, or names none.
std::map<std::string, std::string> ColumnsOfRun(const std::string& model);
void SayColumnsOfRun(const std::map<std::string, std::string>& map);

// What `read` makes of rows, given the columns that --map names. Where nobody named any, no row can
// be used as it is and the model is a run's, the columns are those of its recipe, which is said.
template <class Read>
auto WithColumnsOfRun(const std::string& model, const std::vector<std::string>& given,
                      const Read& read) {
  const std::map<std::string, std::string> map = ReadMap(given);
  const auto of_run = map.empty() ? ColumnsOfRun(model) : std::map<std::string, std::string>();
  if (of_run.empty()) return read(map);
  try {
    return read(map);
  } catch (const Error& as_it_is) {
    if (as_it_is.code() != ErrorCode::kInvalidArgument) throw;
    try {
      auto result = read(of_run);
      SayColumnsOfRun(of_run);
      return result;
    } catch (const Error&) {
      throw as_it_is;
    }
  }
}

}  // namespace plumb::run

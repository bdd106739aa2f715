// How a model wants to be sampled: what its generation_config.json says, as vLLM takes it for its
// defaults.
//
// Purpose: temperature, top_k, top_p and min_p where they are named; `do_sample: false` without
// any of them is greedy decoding. What this engine does not do (repetition_penalty and the like)
// is named, not dropped silently.
// Thread safety: a pure function of the folder. Errors: kCorruption for a file that is no JSON or
// holds a number that cannot be, with file and key.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace plumb::run {

struct SamplingDefaults {
  std::optional<double> temperature, top_p, min_p;
  std::optional<int64_t> top_k;
  std::vector<std::string> not_done;  // "repetition_penalty = 1.1"
  bool empty() const { return !temperature && !top_p && !min_p && !top_k; }
};

// Of `folder`/generation_config.json; empty where there is none.
SamplingDefaults ReadSamplingDefaults(const std::string& folder);

}  // namespace plumb::run

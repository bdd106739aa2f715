// What a run will hold in memory, by kind, before it holds any of it.
//
// Purpose: one reckoning for `plumb plan`, for the check at the start of a run and for
// `plumb model info`. Activations are the layout that the transformer itself would make
// (policy_model/pass_bytes.h), for the largest micro-batch that the recipe allows; so a plan is
// what a run takes at most, and short sequences take less.
// Thread safety: pure functions; no weight is read, nothing is taken. Units: bytes; GB are 10^9 of
// them. Errors: kNotFound and kInvalidArgument for a critic that cannot be read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/config.h"
#include "policy_model/memory/weights.h"
#include "policy_model/pass_bytes.h"

namespace plumb::learner {

// Of so many parameters that are trained and so many that are not.
struct StateBytes {
  int64_t weights = 0, masters = 0, gradients = 0, moments = 0;
  int64_t total() const { return weights + masters + gradients + moments; }
};
StateBytes BytesOfState(int64_t trained, int64_t frozen, DType type,
                        const configs::OptimizerConfig& options);

struct MemoryItem {
  std::string kind;  // "weights"
  int64_t bytes = 0;
  // Of how much: "1.54 B parameters, bfloat16". Parameters are those of the tensors; bytes are of
  // storage, in which each tensor is padded.
  std::string what;
};

struct MemoryPlan {
  std::vector<MemoryItem> items;  // none of 0 bytes

  void Add(std::string kind, int64_t bytes, std::string what);
  int64_t total() const;
  // "weights 3.1 GB + gradients 6.2 GB + ... = 30.9 GB"
  std::string Line() const;
  // A line an item, and the sum.
  std::string Text() const;
};

// Checkpoints are written beside the training, as the recipe says and its steps make them.
bool CopiesCheckpoints(const configs::Config& config);
// What such a copy takes: of host memory, on the CPU of the plan.
int64_t CheckpointCopyBytes(const configs::Config& config, const policy_model::Weights& weights);

// Tokens of the largest micro-batch of a recipe, and its longest sequence.
policy_model::PassSize LargestBatch(const configs::Config& config,
                                    const policy_model::ModelShape& shape);

// Of the role that learns. `weights`: as it would have them, a reward model's with the scalar head;
// they need not have memory.
MemoryPlan PlanLearner(const configs::Config& config, const policy_model::Weights& weights);
// What it keeps in the host's memory beside a GPU (optimizer.offload); else empty.
MemoryPlan PlanHost(const configs::Config& config, const policy_model::Weights& weights);

}  // namespace plumb::learner

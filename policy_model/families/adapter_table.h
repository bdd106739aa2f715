// Low-rank adapters (Hu et al., "LoRA", 2021): a linear part W of the base gives W x + scale B (A
// x), and only A and B are trained. Their tensors, their names in PEFT's files, and PEFT's
// adapter_config.json.
//
// With tasks, K adapters stand on the base side by side, and what they add to a row of task t is
// sum_k w[t, k] scale B_k (A_k x), where w[t] is the softmax of W e_t: of a learned embedding e_t
// of the task and a learned gate W. The K of a module are one A [K rank, in] and one B [out, K
// rank], adapter by adapter, so that with the weights put into B they are one adapter of rank K
// rank. PEFT knows no such thing: their folder has a form of its own ("peft_type": "PLUMB_TASKS").
//
// Thread safety: const after construction; the functions are pure. Shapes: A [rank, in], B [out,
// rank]; scale = alpha / rank, or alpha / sqrt(rank) (Kalajdzievski, "A rank stabilization scaling
// factor", 2023), each module by its own rank and alpha. Errors: kInvalidArgument for targets and
// patterns that the model has nothing of; kUnsupported for a file of another kind of adapter.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "policy_model/families/tensor_table.h"

namespace plumb::policy_model {

// In PEFT's terms: r, lora_alpha, target_modules, target_parameters, use_rslora, lora_dropout,
// rank_pattern, alpha_pattern.
struct AdapterSpec {
  int64_t rank = 8;
  double alpha = 16;
  std::vector<std::string> targets = {
      "all-linear"};  // or ends of modules' paths: "q_proj", "layers.3.mlp.down_proj"
  // Not empty: in the place of the targets, a pattern of whole paths of modules.
  std::string target_pattern = {};
  // Ends of the paths of experts' parameters, which hold those of a layer together
  // (TensorEntry::parameter): "experts.gate_up_proj". Each expert has a pair of its own.
  std::vector<std::string> parameters = {};
  bool rslora = false;
  double dropout = 0;  // of what goes into A, in training
  // Ends of modules' paths as regular expressions; the first that matches counts.
  std::vector<std::pair<std::string, int64_t>> rank_pattern = {};
  std::vector<std::pair<std::string, double>> alpha_pattern = {};
  int64_t adapters = 1;                 // K, each of these ranks
  std::vector<std::string> tasks = {};  // names; none: no gate, and one adapter
  int64_t task_tokens = 0;              // learned tokens in front of the rows of a task
  bool operator==(const AdapterSpec&) const = default;

  // The same function of the same numbers, whatever was dropped while they were trained.
  bool SameFunction(const AdapterSpec& other) const {
    return rank == other.rank && alpha == other.alpha && rslora == other.rslora &&
           rank_pattern == other.rank_pattern && alpha_pattern == other.alpha_pattern &&
           adapters == other.adapters && tasks == other.tasks && task_tokens == other.task_tokens;
  }
  // That of one of its tasks alone, the weights being in B: of K times the rank. It has no gate,
  // and the task as its only one where there are task tokens.
  AdapterSpec ForTask(size_t task) const;
  // Which task that is; kInvalidArgument names those that there are.
  int32_t TaskNamed(const std::string& name, const std::string& where) const;
  // For messages: "rank 8 and alpha 16".
  std::string Text() const;
};

// `targets` of a recipe: experts.gate_up_proj and experts.down_proj are parameters of experts; one
// that is no name is a pattern, which then stands alone.
// kInvalidArgument.
void SetTargets(const std::vector<std::string>& targets, AdapterSpec& spec);

// What is added to `rows` rows of a linear part of the base from row_begin on. a, b: offsets in the
// adapter's buffer.
struct LowRank {
  int64_t a = 0, b = 0;
  int64_t row_begin = 0, rows = 0;
  int64_t rank = 0;    // of all adapters together
  int32_t groups = 1;  // adapters, in equal runs of the rank
  // Of experts: `rows` are those of all, `rank` is of one. A has the experts one behind the other,
  // in B they take turns: [rows / experts, rank, experts], as in PEFT's files.
  int64_t experts = 1;
  float scale = 0;
};

// Where the parameters of a gate lie; -1: there are none.
struct TaskSlices {
  int64_t embedding = -1;  // [tasks, kTaskDim]
  int64_t gate = -1;       // [adapters, kTaskDim]
  int64_t tokens = -1;     // [tasks * task_tokens, H]
};
inline constexpr int64_t kTaskDim = 16;  // numbers of a task's embedding

class AdapterTable : public TensorList {
 public:
  AdapterTable(const TensorTable& base, const AdapterSpec& spec);

  const AdapterSpec& spec() const { return spec_; }
  // Of the base's tensor at that offset, in the order of its rows; none: nullptr.
  const std::vector<LowRank>* Of(int64_t weight) const {
    const auto found = parts_.find(weight);
    return found == parts_.end() ? nullptr : &found->second;
  }
  bool gated() const { return tasks_.gate >= 0; }
  const TaskSlices& tasks() const { return tasks_; }

 private:
  void AddTasks(int64_t hidden);
  void AddExperts(const TensorTable& base);

  AdapterSpec spec_;
  std::map<int64_t, std::vector<LowRank>> parts_;
  TaskSlices tasks_;
};

// Before the base's name of a module in PEFT's files.
inline constexpr std::string_view kPeftPrefix = "base_model.model.";
inline constexpr char kAdapterConfig[] = "adapter_config.json";
inline constexpr char kAdapterFile[] = "adapter_model.safetensors";

// adapter_config.json of a folder, of PEFT's form where there are no tasks. `base_model`: the
// folder that the adapter belongs to, as PEFT names it.
void WriteAdapterConfig(const AdapterSpec& spec, const std::string& base_model,
                        const std::string& directory);
struct AdapterConfig {
  AdapterSpec spec;
  std::string base_model;
};
AdapterConfig ReadAdapterConfig(const std::string& directory);

}  // namespace plumb::policy_model

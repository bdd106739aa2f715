// What a model folder holds, what it costs, and everything for which it would not load.
//
// Purpose: `plumb model info`. Config, tokenizer, chat template and tensors are looked at one by
// one, so that one that is broken does not hide another; no weight is read. Memory follows from
// the table of tensors: activations are not in it, because they depend on the batch.
// Thread safety: a pure function of the folder. Errors: kNotFound where there is no model at all;
// what is wrong with one is in `problems`.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "learner/loop/memory_plan.h"
#include "policy_model/families/adapter_table.h"
#include "policy_model/families/model_shape.h"
#include "run/session/model_folder.h"

namespace plumb::run {

struct ModelReportOptions {
  int64_t rank = 8;    // of the adapter that is asked about
  int64_t batch = 1;   // sequences generated together
  int64_t length = 0;  // tokens of each; 0: the context, at most 4096
};

struct ModelReport {
  ModelPlace place;
  std::vector<std::string> problems;              // why it would not load; empty: it would
  std::optional<policy_model::ModelShape> shape;  // empty: config.json could not be read
  std::string dtype;                              // as stored
  int64_t file_bytes = 0;                         // of its weights' files
  int64_t parameters = 0, active = 0;             // active: what a token goes through
  // Elements that memory holds of them: tensors and the padding behind each, as `plumb plan`
  // counts.
  int64_t stored = 0, adapter_stored = 0;
  int64_t embedding = 0, head = 0;  // head: of its own, 0 where it is the embedding
  // Of an adapter's folder: its own; else that of options.rank on every linear part.
  policy_model::AdapterSpec adapter;
  int64_t adapter_parameters = 0;
  int64_t vocabulary = -1;  // of the tokenizer; -1: it could not be read
  bool chat_template = false, takes_tools = false;
  std::vector<std::pair<int32_t, std::string>> ends;  // end tokens, with their text
  int64_t batch = 1, length = 0;                      // what generation is reckoned for
  int64_t kv_bytes_per_token = 0;                     // of one sequence, in the stored dtype
  int64_t state_bytes = 0;                            // of one sequence, whatever its length

  int64_t WeightBytes(DType type) const;
  // What training holds of them but activations (learner/loop/memory_plan.h).
  learner::StateBytes Full(DType type, const configs::OptimizerConfig& options = {}) const;
  learner::StateBytes Lora(DType type) const;
  DType type() const { return dtype == "float32" ? DType::kFloat32 : DType::kBFloat16; }

  nlohmann::ordered_json Json() const;
  std::string Text() const;
};

ModelReport ReportOnModel(const std::string& path, const ModelReportOptions& options);

}  // namespace plumb::run

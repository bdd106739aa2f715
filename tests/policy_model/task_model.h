// A small model with adapters that are weighed by tasks, for tests.
#pragma once

#include <string>
#include <vector>

#include "common/base/rng.h"
#include "policy_model/memory/weights.h"

namespace plumb::policy_model::testing {

inline ModelShape TaskShape(const std::string& family = "llama") {
  return {.family = family,
          .layers = 2,
          .hidden = 32,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .ffn = 40,
          .vocab = 31,
          .max_positions = 96,
          .tied = true,
          .eos_tokens = {2}};
}

inline AdapterSpec TaskSpec(int64_t task_tokens = 0) {
  return {.rank = 2,
          .alpha = 6,
          .rank_pattern = {{"layers.0.mlp.down_proj", 3}},
          .alpha_pattern = {{".*layers\\.1\\..*", 3}},
          .adapters = 3,
          .tasks = {"code", "sums"},
          .task_tokens = task_tokens};
}

// With numbers in B, and a gate that weighs the adapters unequally.
inline Weights TaskModel(const AdapterSpec& spec = TaskSpec(), const std::string& family = "llama",
                         DType dtype = DType::kFloat32) {
  Weights weights(TaskShape(family), Device::kCpu, dtype);
  weights.Initialise(11, 0.15);
  weights.AddAdapter(spec, 5);
  ParameterSet& set = *weights.adapters()[0];
  RandomStream random(9, 9);
  for (const TensorEntry& e : set.table->entries()) {
    const float std = e.name.ends_with("lora_B") ? 0.1f : e.name.starts_with("task_") ? 0.4f : 0.0f;
    std::vector<float> values(static_cast<size_t>(e.elements));
    for (float& v : values) v = std * random.NextNormal();
    if (std == 0) continue;
    std::vector<std::byte> bytes(values.size() * ElementSize(dtype));
    ConvertFloat(values, dtype, bytes.data());
    set.flat.CopyFromHost(bytes, e.offset);
  }
  return weights;
}

}  // namespace plumb::policy_model::testing

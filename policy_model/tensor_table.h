// Name, shape, axes and place of every weight: the one table that load, save, shard, checkpoint and publish walk.
//
// Thread safety: const after construction. The flat buffer is ordered by backward bucket (head and final norm first used
// in the backward, embedding last); each tensor starts at a multiple of 64 elements, each bucket at kBucketElements.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "policy_model/files/model_config.h"

namespace plumb::policy_model {

// A slice of rows of one merged tensor that has a name of its own in HF files.
struct HfPart {
  std::string name;
  int64_t row_begin = 0, row_end = 0;
};

enum class TensorGroup : uint8_t { kDense = 0, kExpert = 1 };

struct TensorEntry {
  std::string name;             // ours: "layers.3.qkv"
  std::vector<int64_t> shape;   // [rows, cols] or [n]
  int tensor_axis = -1;         // axis split under tensor parallelism, -1: replicated
  int expert_axis = -1;
  TensorGroup group = TensorGroup::kDense;
  bool required = true;
  bool decay = true;            // weight decay applies (matrices; not norms and biases)
  int bucket = 0;
  int64_t offset = 0;           // elements from the start of the flat buffer
  int64_t elements = 0;
  std::vector<HfPart> parts;    // q, k, v of qkv; gate, up of gate_up; else one part
};

// Offsets of one layer's tensors in elements; -1 where the family has none.
struct LayerSlices {
  int64_t input_norm, qkv, qkv_bias, o, post_norm, gate_up, down;
};

class TensorTable {
 public:
  explicit TensorTable(const ModelShape& shape);

  const std::vector<TensorEntry>& entries() const { return entries_; }
  const LayerSlices& layer(int64_t i) const { return layers_[static_cast<size_t>(i)]; }
  int64_t embedding() const { return embedding_; }
  int64_t final_norm() const { return final_norm_; }
  int64_t lm_head() const { return lm_head_; }  // embedding() when tied; -1 with a scalar head
  int64_t score() const { return score_; }      // [1, H]; -1 without a scalar head
  int64_t flat_elements() const { return flat_elements_; }  // padded
  int64_t parameters() const { return parameters_; }        // without padding
  const ModelShape& shape() const { return shape_; }

 private:
  ModelShape shape_;
  std::vector<TensorEntry> entries_;
  std::vector<LayerSlices> layers_;
  int64_t embedding_ = 0, final_norm_ = 0, lm_head_ = -1, score_ = -1, flat_elements_ = 0, parameters_ = 0;
};

}  // namespace plumb::policy_model

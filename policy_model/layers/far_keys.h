// What a token sees beside the attention of its layer: tokens before the window that a gate chose
// (kernels/sparse/token_gate.h), and a table of keys and values (kernels/sparse/table_attention.h).
// A part of AttentionStage, which calls it at the places that the methods name; without either it
// does nothing.
//
// Saved for the backward: gates, sets, queries before rotation. A paged step reads and writes the
// layer's part of its slot's state. Thread safety, protocol: stage.h. Ownership: shares the table.
#pragma once

#include <memory>

#include "kernels/attention_paged.h"
#include "kernels/sparse/table_attention.h"
#include "policy_model/layers/stage.h"
#include "policy_model/memory/key_table.h"

namespace plumb::policy_model {

class FarKeys {
 public:
  // `state`: where the layer's part of a slot's state begins.
  FarKeys(const ModelShape& shape, const LayerSpec& spec, const LayerSlices& slices, int64_t state);

  bool chooses() const { return count_ > 0; }

  void PlanForward(const PackedPass& pass);
  // qkv before rotation.
  void TakeQueries(const PackedPass& pass, const void* qkv) const;
  // After the attention of the layer: `out` and `lse` become those of all that is seen.
  void Forward(const PackedPass& pass, const AttentionShape& shape, const void* in, const void* qkv,
               void* out, float* lse) const;

  void PlanBackward(const PackedPass& pass);
  // After the backward of attention, before `in` may be overwritten: adds to dqkv and to the gate's
  // gradient.
  void Backward(const PackedPass& pass, const AttentionShape& shape, const void* dout,
                const void* in, const void* qkv, const void* out, const float* lse,
                void* dqkv) const;
  // dqkv has been turned back.
  void AddQueries(const PackedPass& pass, void* dqkv) const;
  // The gate's part of the gradient of `in`.
  void AddInput(const PackedPass& pass, void* din) const;

  void PlanStep(const PagedPass& pass);
  // qkv before rotation; the step's argument gets what it sees besides.
  void BeginStep(const PagedPass& pass, const void* in, const void* qkv,
                 kernels::AttentionPaged& step) const;
  void EndStep(const PagedPass& pass, const kernels::AttentionPaged& step) const;

 private:
  kernels::TableShape TableOf(const Pass& pass, int64_t rows) const;
  int64_t width() const { return (heads_ + 2 * kv_heads_) * head_dim_; }
  int64_t queries_width() const { return heads_ * head_dim_; }

  const int64_t heads_, kv_heads_, head_dim_, window_, count_;
  const float scale_;
  const int64_t gate_, state_;                             // offset of the gate's weights
  const std::shared_ptr<const KeyTable> table_;            // nullptr: none
  mutable std::shared_ptr<const FlatBuffer> table_there_;  // on a GPU

  // Offsets of the last plans: saved, the backward's scratch, the step's.
  int64_t gates_ = 0, chosen_ = 0, queries_ = 0;
  int64_t dgates_ = 0, chosen_scratch_ = 0, dqueries_ = 0;
  int64_t step_gates_ = 0, step_chosen_ = 0, step_weight_ = 0, step_queries_ = 0, step_lse_ = 0;
};

}  // namespace plumb::policy_model

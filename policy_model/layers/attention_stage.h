// Grouped-query attention over merged q, k, v: biases, QK-norm, rotary positions and windows as the
// layer's specification says; with a gate each head of the product has a second half behind its
// query.
//
// Saved for the backward: q, k, v after the rotation, also before QK-norm where there is one, the
// mixed values, their log-sum-exp. Thread safety, protocol, errors: stage.h.
#pragma once

#include <vector>

#include "kernels/delta/move_columns.h"
#include "kernels/head_norm.h"
#include "policy_model/layers/far_keys.h"
#include "policy_model/layers/linear.h"

namespace plumb::policy_model {

class AttentionStage : public Stage {
 public:
  // `state`: where what its gate has chosen lies in a slot's state (far_keys.h).
  AttentionStage(const ModelShape& shape, const LayerSpec& spec, const LayerSlices& slices,
                 float weight_offset, int32_t layer, int32_t layer_of_kind, int64_t state);

  void PlanForward(const PackedPass& pass) override;
  void Forward(const PackedPass& pass, const void* in, bool accumulate, void* out) override;
  void PlanBackward(const PackedPass& pass) override;
  void Backward(const PackedPass& pass, const void* dout, const void* in, bool accumulate,
                void* din) override;
  void PlanStep(const PagedPass& pass) override;
  void Step(const PagedPass& pass, const void* in, bool accumulate, void* out) override;

 private:
  AttentionShape Shape(const PackedPass& pass) const;
  kernels::HeadNormShape NormShape(int64_t rows) const;
  const RotaryTable* Rotary(const Pass& pass) const;  // nullptr: no positions
  // `turned`: but for the scale of queries that has been done.
  void Turn(const PackedPass& pass, void* qkv, bool inverse, bool turned = false) const;
  // Of a paged step, with everything but pointers.
  kernels::AttentionPaged StepAttention(const PagedPass& pass) const;
  void ScaleQueries(const Pass& pass, const int32_t* position, int64_t rows, void* qkv) const;

  const LayerSpec spec_;
  const LayerSlices at_;
  const int64_t heads_, kv_heads_, head_dim_;
  const float norm_eps_, weight_offset_;
  // Among those with keys and values, and those of them whose pages lie in its pool.
  const int32_t layer_, layer_of_kind_;
  const std::vector<kernels::ColumnRun> to_qkv_, to_gate_;  // of the product; empty: no gate
  LinearLayer qkv_product_, o_product_;
  FarKeys far_;
  int64_t width() const { return (heads_ + 2 * kv_heads_) * head_dim_; }
  int64_t mixed_width() const { return heads_ * head_dim_; }
  bool normed() const { return spec_.qk_norm != QkNorm::kNone; }
  int64_t product_width() const { return width() + (spec_.attention_gate ? mixed_width() : 0); }
  // Of the product's rows, or into them.
  void Move(const Pass& pass, int64_t n, const void* from, int64_t from_width,
            const std::vector<kernels::ColumnRun>& runs, int64_t to_width, void* to) const;

  // Offsets of the last plans: of saved, of the backward's scratch, of the step's scratch.
  int64_t qkv_ = 0, raw_ = 0, rstd_ = 0, mixed_ = 0, lse_ = 0;
  int64_t dmixed_ = 0, dqkv_ = 0, norm_scratch_ = 0, attention_scratch_ = 0;
  int64_t step_qkv_ = 0, step_mixed_ = 0, step_attention_ = 0, step_attention_bytes_ = 0;
  // With a gate: it; the product, and what is mixed times it.
  int64_t gate_ = 0, product_ = 0, gated_ = 0, gated_again_ = 0, dproduct_ = 0, dgate_ = 0,
          step_product_ = 0, step_gate_ = 0;
};

}  // namespace plumb::policy_model

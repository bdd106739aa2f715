// Latent attention (DeepSeek-AI, "DeepSeek-V2", 2024): keys and values of all heads follow from one
// normed vector a token and one rotated key; queries may go through a narrow vector of their own.
//
// Packed passes use the plain form, every head with keys and values of its own, so that windows and
// prefixes that sequences share are those of attention.h. Paged steps keep the vector and the
// rotated key alone and use the absorbed form (kernels/latent/latent_heads.h), rows of a prompt
// too: in one form a row has the same bits however a prompt is cut into calls.
// Saved for the backward: both vectors before and behind their norms, merged heads after the
// rotation, the mixed values, their log-sum-exp. Thread safety, protocol, errors:
// stage.h.
#pragma once

#include "kernels/latent/latent_heads.h"
#include "policy_model/layers/linear.h"

namespace plumb::policy_model {

class LatentStage : public Stage {
 public:
  LatentStage(const ModelShape& shape, const LayerSpec& spec, const LayerSlices& slices,
              float weight_offset, int32_t layer, int32_t layer_of_kind);

  void PlanForward(const PackedPass& pass) override;
  void Forward(const PackedPass& pass, const void* in, bool accumulate, void* out) override;
  void PlanBackward(const PackedPass& pass) override;
  void Backward(const PackedPass& pass, const void* dout, const void* in, bool accumulate,
                void* din) override;
  void PlanStep(const PagedPass& pass) override;
  void Step(const PagedPass& pass, const void* in, bool accumulate, void* out) override;

 private:
  // A vector between two products, [rows, width]: before its norm, behind it, and what the norm's
  // backward needs.
  struct Narrow {
    int64_t raw = 0, normed = 0, rstd = 0;
  };

  kernels::LatentShape Heads(int64_t rows) const;
  AttentionShape Shape(const PackedPass& pass) const;
  Narrow PlanNarrow(const Pass& pass, int64_t rows, int64_t width, Arena& arena) const;
  void Norm(const Pass& pass, Arena& arena, const Narrow& at, int64_t rows, int64_t width,
            int64_t weight) const;
  // dx may be dy.
  void NormBackward(const PackedPass& pass, const Narrow& at, int64_t width, int64_t weight,
                    void* d) const;
  void Turn(const PackedPass& pass, void* qkv, bool inverse) const;

  const LatentShape shape_;
  const LayerSpec spec_;
  const LayerSlices at_;
  const int64_t heads_;
  const float weight_offset_;
  const int32_t layer_, layer_of_kind_;  // of all, and of those whose pages lie in its pool
  LinearLayer q_down_product_, q_product_, kv_down_product_, kv_up_product_, o_product_;

  bool narrow_queries() const { return shape_.query_rank > 0; }
  int64_t queries_width() const { return heads_ * (shape_.nope + shape_.rope); }
  int64_t kv_width() const { return heads_ * (shape_.nope + shape_.value); }
  int64_t values_width() const { return heads_ * shape_.value; }
  int64_t mixed_width() const { return heads_ * shape_.head(); }

  // Offsets of the last plans: of saved, of the forward's scratch, of the backward's scratch, of
  // the step's scratch.
  Narrow query_, latent_;
  int64_t qkv_ = 0, mixed_ = 0, lse_ = 0;
  int64_t q_ = 0, down_ = 0, kv_ = 0, values_ = 0;
  int64_t values_again_ = 0, dvalues_ = 0, dmixed_ = 0, dqkv_ = 0, dq_ = 0, dkv_ = 0, ddown_ = 0,
          dlatent_ = 0, dquery_ = 0, norm_scratch_ = 0, attention_scratch_ = 0;
  Narrow step_query_, step_latent_;
  int64_t step_q_ = 0, step_down_ = 0, step_rows_ = 0, step_mixed_ = 0, step_values_ = 0;
};

}  // namespace plumb::policy_model

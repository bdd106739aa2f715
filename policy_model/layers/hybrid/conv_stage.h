// A gated short convolution in the place of attention: of what comes of a token, b, c and x, it
// gives c * conv(b * x).
//
// Saved for the backward: what comes of each token, b * x and its convolution. A paged step reads
// and writes the layer's part of its slot's state (kernels/delta/sequence_states.h). Thread safety,
// protocol, errors: stage.h.
#pragma once

#include "kernels/delta/short_conv.h"
#include "policy_model/layers/linear.h"

namespace plumb::policy_model {

class ConvStage : public Stage {
 public:
  // `state`: where the layer's part of a slot's state begins.
  ConvStage(const ModelShape& shape, const LayerSpec& spec, const LayerSlices& slices,
            int64_t state);

  void PlanForward(const PackedPass& pass) override;
  void Forward(const PackedPass& pass, const void* in, bool accumulate, void* out) override;
  void PlanBackward(const PackedPass& pass) override;
  void Backward(const PackedPass& pass, const void* dout, const void* in, bool accumulate,
                void* din) override;
  void PlanStep(const PagedPass& pass) override;
  void Step(const PagedPass& pass, const void* in, bool accumulate, void* out) override;

 private:
  kernels::ShortConvShape ConvOf(const PackedPass* pass) const;
  // y = a * b; each is part `p` of what comes of a token (b, c, x), or, with p < 0, by itself.
  void Multiply(const Pass& pass, int64_t n, const void* a, int part_a, const void* b, int part_b,
                void* y, int part_y) const;

  const ConvSpec spec_;
  const LayerSlices at_;
  const int64_t state_;
  LinearLayer in_product_, out_product_;

  // Offsets of the last plans: of saved, of the three scratches.
  int64_t parts_ = 0, gated_ = 0, mixed_ = 0;
  int64_t y_ = 0, y_again_ = 0, dy_ = 0, dmixed_ = 0, dparts_ = 0;
  int64_t step_parts_ = 0, step_gated_ = 0, step_y_ = 0;
};

}  // namespace plumb::policy_model

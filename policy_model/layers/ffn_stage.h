// The gated feed-forward: down(act(gate x) * up x), with biases where the layer's specification
// says.
//
// Saved for the backward: gate and up. Thread safety, protocol, errors: stage.h.
#pragma once

#include "kernels/glu.h"
#include "policy_model/layers/linear.h"

namespace plumb::policy_model {

class FfnStage : public Stage {
 public:
  FfnStage(int64_t hidden, const LayerSpec& spec, const LayerSlices& slices);

  void PlanForward(const PackedPass& pass) override;
  void Forward(const PackedPass& pass, const void* in, bool accumulate, void* out) override;
  void PlanBackward(const PackedPass& pass) override;
  void Backward(const PackedPass& pass, const void* dout, const void* in, bool accumulate,
                void* din) override;
  void PlanStep(const PagedPass& pass) override;
  void Step(const PagedPass& pass, const void* in, bool accumulate, void* out) override;

 private:
  const int64_t ffn_;
  const kernels::Activation activation_;
  const LayerSlices at_;
  LinearLayer gate_up_product_, down_product_;

  // Offsets of the last plans: of saved and scratch, of the backward's scratch, of the step's
  // scratch.
  int64_t gate_up_ = 0, act_ = 0;
  int64_t act_again_ = 0, dact_ = 0;
  int64_t step_gate_up_ = 0, step_act_ = 0;
};

}  // namespace plumb::policy_model

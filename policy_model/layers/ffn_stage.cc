#include "policy_model/layers/ffn_stage.h"

#include "kernels/embedding.h"
#include "policy_model/ops.h"

namespace plumb::policy_model {

using kernels::Call;

FfnStage::FfnStage(const LayerSpec& spec, const LayerSlices& slices)
    : ffn_(spec.ffn),
      activation_(spec.activation == FfnActivation::kSilu ? kernels::Activation::kSilu : kernels::Activation::kGeluTanh),
      at_(slices) {}

void FfnStage::PlanForward(const PackedPass& pass) {
  gate_up_ = pass.saved.Reserve(pass.Bytes(pass.tokens() * 2 * ffn_));
  act_ = pass.scratch.Reserve(pass.Bytes(pass.tokens() * ffn_));
}

void FfnStage::Forward(const PackedPass& pass, const void* in, bool accumulate, void* out) {
  const int64_t n = pass.tokens(), h = pass.hidden();
  void* gate_up = pass.saved.At(gate_up_);
  void* act = pass.scratch.At(act_);
  ops::Linear(pass.launch, in, pass.W(at_.gate_up), n, 2 * ffn_, h, false, gate_up);
  if (at_.gate_up_bias >= 0) {
    Call(pass.launch, kernels::AddBias{.x = gate_up, .bias = pass.W(at_.gate_up_bias), .rows = n, .width = 2 * ffn_});
  }
  Call(pass.launch, kernels::Glu{.gate_up = gate_up, .rows = n, .ffn = ffn_, .activation = activation_, .out = act});
  ops::Linear(pass.launch, act, pass.W(at_.down), n, h, ffn_, accumulate, out);
  if (at_.down_bias >= 0) Call(pass.launch, kernels::AddBias{.x = out, .bias = pass.W(at_.down_bias), .rows = n, .width = h});
}

void FfnStage::PlanBackward(const PackedPass& pass) {
  act_again_ = pass.scratch.Reserve(pass.Bytes(pass.tokens() * ffn_));
  dact_ = pass.scratch.Reserve(pass.Bytes(pass.tokens() * ffn_));
}

void FfnStage::Backward(const PackedPass& pass, const void* dout, const void* in, bool accumulate, void* din) {
  const int64_t n = pass.tokens(), h = pass.hidden();
  void* gate_up = pass.saved.At(gate_up_);
  void* act = pass.scratch.At(act_again_);
  void* dact = pass.scratch.At(dact_);
  Call(pass.launch, kernels::Glu{.gate_up = gate_up, .rows = n, .ffn = ffn_, .activation = activation_, .out = act});
  ops::LinearBackwardWeight(pass.launch, dout, act, n, h, ffn_, pass.G(at_.down));
  if (at_.down_bias >= 0) {
    Call(pass.launch, kernels::BiasBackward{.dx = dout, .rows = n, .width = h, .dbias = pass.G(at_.down_bias)});
  }
  ops::LinearBackwardInput(pass.launch, dout, pass.W(at_.down), n, h, ffn_, false, dact);
  Call(pass.launch, kernels::GluBackward{.dout = dact, .gate_up = gate_up, .rows = n, .ffn = ffn_, .activation = activation_,
                                         .dgate_up = gate_up});
  if (at_.gate_up_bias >= 0) {
    Call(pass.launch, kernels::BiasBackward{.dx = gate_up, .rows = n, .width = 2 * ffn_, .dbias = pass.G(at_.gate_up_bias)});
  }
  ops::LinearBackwardWeight(pass.launch, gate_up, in, n, 2 * ffn_, h, pass.G(at_.gate_up));
  ops::LinearBackwardInput(pass.launch, gate_up, pass.W(at_.gate_up), n, 2 * ffn_, h, accumulate, din);
}

void FfnStage::PlanStep(const PagedPass& pass) {
  step_gate_up_ = pass.scratch.Reserve(pass.Bytes(pass.rows.rows * 2 * ffn_));
  step_act_ = pass.scratch.Reserve(pass.Bytes(pass.rows.rows * ffn_));
}

void FfnStage::Step(const PagedPass& pass, const void* in, bool accumulate, void* out) {
  const int64_t n = pass.rows.rows, h = pass.hidden();
  void* gate_up = pass.scratch.At(step_gate_up_);
  void* act = pass.scratch.At(step_act_);
  ops::LinearRows(pass.launch, in, pass.W(at_.gate_up), n, 2 * ffn_, h, false, gate_up);
  if (at_.gate_up_bias >= 0) {
    Call(pass.launch, kernels::AddBias{.x = gate_up, .bias = pass.W(at_.gate_up_bias), .rows = n, .width = 2 * ffn_});
  }
  Call(pass.launch, kernels::Glu{.gate_up = gate_up, .rows = n, .ffn = ffn_, .activation = activation_, .out = act});
  ops::LinearRows(pass.launch, act, pass.W(at_.down), n, h, ffn_, accumulate, out);
  if (at_.down_bias >= 0) Call(pass.launch, kernels::AddBias{.x = out, .bias = pass.W(at_.down_bias), .rows = n, .width = h});
}

}  // namespace plumb::policy_model

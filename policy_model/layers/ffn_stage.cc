#include "policy_model/layers/ffn_stage.h"

#include "kernels/embedding.h"

namespace plumb::policy_model {

using kernels::Call;

FfnStage::FfnStage(int64_t hidden, const LayerSpec& spec, const LayerSlices& slices)
    : ffn_(spec.ffn),
      activation_(spec.activation == FfnActivation::kSilu ? kernels::Activation::kSilu
                                                          : kernels::Activation::kGeluTanh),
      at_(slices),
      gate_up_product_(slices.gate_up, 2 * spec.ffn, hidden),
      down_product_(slices.down, hidden, spec.ffn) {}

void FfnStage::PlanForward(const PackedPass& pass) {
  gate_up_ = pass.saved.Reserve(pass.Bytes(pass.tokens() * 2 * ffn_));
  act_ = pass.scratch.Reserve(pass.Bytes(pass.tokens() * ffn_));
  gate_up_product_.Plan(pass, pass.tokens(), pass.scratch);
  down_product_.Plan(pass, pass.tokens(), pass.scratch);
}

void FfnStage::Forward(const PackedPass& pass, const void* in, bool accumulate, void* out) {
  const int64_t n = pass.tokens(), h = pass.hidden();
  void* gate_up = pass.saved.At(gate_up_);
  void* act = pass.scratch.At(act_);
  gate_up_product_.Forward(pass, in, false, gate_up);
  if (at_.gate_up_bias >= 0) {
    Call(pass.launch,
         kernels::AddBias{
             .x = gate_up, .bias = pass.W(at_.gate_up_bias), .rows = n, .width = 2 * ffn_});
  }
  if (!pass.output) return;
  Call(pass.launch,
       kernels::Glu{
           .gate_up = gate_up, .rows = n, .ffn = ffn_, .activation = activation_, .out = act});
  down_product_.Forward(pass, act, accumulate, out);
  if (at_.down_bias >= 0 && pass.AddsBias())
    Call(pass.launch,
         kernels::AddBias{.x = out, .bias = pass.W(at_.down_bias), .rows = n, .width = h});
}

void FfnStage::PlanBackward(const PackedPass& pass) {
  act_again_ = pass.scratch.Reserve(pass.Bytes(pass.tokens() * ffn_));
  dact_ = pass.scratch.Reserve(pass.Bytes(pass.tokens() * ffn_));
  gate_up_product_.Plan(pass, pass.tokens(), pass.scratch);
  down_product_.Plan(pass, pass.tokens(), pass.scratch);
}

void FfnStage::Backward(const PackedPass& pass, const void* dout, const void* in, bool accumulate,
                        void* din) {
  const int64_t n = pass.tokens(), h = pass.hidden();
  void* gate_up = pass.saved.At(gate_up_);
  void* act = pass.scratch.At(act_again_);
  void* dact = pass.scratch.At(dact_);
  // What goes into the second product is needed for its weights alone, unless an adapter sees it:
  // then it comes out of the same pass over gate and up as their gradients.
  const bool apart = !down_product_.HasParts(pass);
  if (apart) {
    down_product_.BackwardInput(pass, dout, false, dact);
  } else {
    Call(pass.launch,
         kernels::Glu{
             .gate_up = gate_up, .rows = n, .ffn = ffn_, .activation = activation_, .out = act});
    down_product_.Backward(pass, dout, act, false, dact);
  }
  if (at_.down_bias >= 0 && pass.G(at_.down_bias)) {
    Call(pass.launch,
         kernels::BiasBackward{.dx = dout, .rows = n, .width = h, .dbias = pass.G(at_.down_bias)});
  }
  Call(pass.launch, kernels::GluBackward{.dout = dact,
                                         .gate_up = gate_up,
                                         .rows = n,
                                         .ffn = ffn_,
                                         .activation = activation_,
                                         .dgate_up = gate_up,
                                         .act = apart ? act : nullptr});
  if (apart) down_product_.BackwardWeight(pass, dout, act);
  if (at_.gate_up_bias >= 0 && pass.G(at_.gate_up_bias)) {
    Call(pass.launch,
         kernels::BiasBackward{
             .dx = gate_up, .rows = n, .width = 2 * ffn_, .dbias = pass.G(at_.gate_up_bias)});
  }
  gate_up_product_.Backward(pass, gate_up, in, accumulate, din);
}

void FfnStage::PlanStep(const PagedPass& pass) {
  step_gate_up_ = pass.scratch.Reserve(pass.Bytes(pass.rows.rows * 2 * ffn_));
  step_act_ = pass.scratch.Reserve(pass.Bytes(pass.rows.rows * ffn_));
  gate_up_product_.Plan(pass, pass.rows.rows, pass.scratch);
  down_product_.Plan(pass, pass.rows.rows, pass.scratch);
}

void FfnStage::Step(const PagedPass& pass, const void* in, bool accumulate, void* out) {
  const int64_t n = pass.rows.rows, h = pass.hidden();
  void* gate_up = pass.scratch.At(step_gate_up_);
  void* act = pass.scratch.At(step_act_);
  gate_up_product_.Step(pass, in, false, gate_up);
  if (at_.gate_up_bias >= 0) {
    Call(pass.launch,
         kernels::AddBias{
             .x = gate_up, .bias = pass.W(at_.gate_up_bias), .rows = n, .width = 2 * ffn_});
  }
  Call(pass.launch,
       kernels::Glu{
           .gate_up = gate_up, .rows = n, .ffn = ffn_, .activation = activation_, .out = act});
  down_product_.Step(pass, act, accumulate, out);
  if (at_.down_bias >= 0 && pass.AddsBias())
    Call(pass.launch,
         kernels::AddBias{.x = out, .bias = pass.W(at_.down_bias), .rows = n, .width = h});
}

}  // namespace plumb::policy_model

// What experts do alike on every device: experts_stage.h.
#include <span>

#include "kernels/device/device_memory.h"
#include "kernels/embedding.h"
#include "policy_model/layers/experts_stage.h"
#include "policy_model/layers/ops.h"

namespace plumb::policy_model {

using kernels::Call;

namespace {

int32_t* Ints(Arena& arena, int64_t at) { return static_cast<int32_t*>(arena.At(at)); }

}  // namespace

void ExpertsStage::Dispatch(const Pass& pass, int64_t n, Arena& kept, const Kept& k,
                            const int64_t* capacity) const {
  Call(pass.launch, kernels::DispatchTokens{.rows = n,
                                            .experts = static_cast<int32_t>(spec_.count()),
                                            .per_token = static_cast<int32_t>(spec_.per_token),
                                            .expert = Ints(kept, k.expert),
                                            .weight = kept.Floats(k.weight),
                                            .capacity = capacity,
                                            .begin = Ints(kept, k.begin),
                                            .slot = Ints(kept, k.slot),
                                            .token = Ints(kept, k.token),
                                            .slot_weight = kept.Floats(k.slot_weight)});
}

int64_t ExpertsStage::DweightParts(const Pass& pass) const {
  return pass.launch.device().is_cuda() ? kernels::GatedExpertBackward::Parts(spec_.widest()) : 1;
}

void ExpertsStage::Combine(const Pass& pass, const void* rows, const int32_t* slot,
                           const float* weight, int64_t n, bool accumulate, void* out) const {
  Call(pass.launch, kernels::CombineExperts{.y = rows,
                                            .slot = slot,
                                            .weight = weight,
                                            .rows = n,
                                            .width = hidden_,
                                            .per_token = static_cast<int32_t>(spec_.per_token),
                                            .accumulate = accumulate,
                                            .out = out});
}

float* ExpertsStage::SharedBackward(const PackedPass& pass, const void* dout, const void* in,
                                    bool accumulate, void* din) {
  const int64_t n = pass.tokens();
  float* dgate = nullptr;
  if (shared_ && spec_.shared_gate) {
    dgate = pass.scratch.Floats(dgate_);
    const float* gate = pass.saved.Floats(kept_.gate);
    void* dshared = pass.scratch.At(dshared_);
    kernels::Copy(pass.launch.stream, dshared, dout, static_cast<size_t>(pass.Bytes(n * hidden_)));
    Call(pass.launch, kernels::WeighSlots{.weight = gate,
                                          .slots = n,
                                          .width = hidden_,
                                          .act = pass.saved.At(kept_.shared),
                                          .dact = dshared,
                                          .dweight = dgate});
    if (pass.launch.device().is_cuda()) {
      ops::SigmoidBackward(pass.launch, gate, n, dgate);
    } else {
      for (int64_t i = 0; i < n; ++i) dgate[i] *= gate[i] * (1 - gate[i]);
    }
    shared_->Backward(pass, dshared, in, accumulate, din);
  } else if (shared_) {
    shared_->Backward(pass, dout, in, accumulate, din);
  }
  return dgate;
}

void ExpertsStage::RouterWeightsBackward(const PackedPass& pass, const void* in, int64_t n,
                                         const float* dlogits, float* dgate, void* din) const {
  const auto back = [&](const float* dl, void* rounded, int64_t weight, int64_t outputs) {
    if (pass.launch.device().is_cuda()) ops::Round(pass.launch, dl, n * outputs, rounded);
    else ConvertFloat(std::span(dl, static_cast<size_t>(n * outputs)), pass.launch.dtype, rounded);
    if (float* g = pass.G(weight))
      ops::LinearBackwardWeight(pass.launch, rounded, in, n, outputs, hidden_, g);
    ops::LinearBackwardInput(pass.launch, rounded, pass.W(weight), n, outputs, hidden_, true, din);
  };
  back(dlogits, pass.scratch.At(dlogits_rounded_), at_.router, spec_.count());
  if (spec_.biased && pass.G(at_.router_logit_bias)) {
    Call(pass.launch, kernels::BiasBackward{.dx = pass.scratch.At(dlogits_rounded_),
                                            .rows = n,
                                            .width = spec_.count(),
                                            .dbias = pass.G(at_.router_logit_bias)});
  }
  if (dgate) back(dgate, dgate + n, at_.shared_gate, 1);
}

}  // namespace plumb::policy_model

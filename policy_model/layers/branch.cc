#include "policy_model/layers/branch.h"

#include "common/base/error.h"
#include "kernels/device/device_memory.h"
#include "kernels/embedding.h"
#include "policy_model/layers/attention_stage.h"
#include "policy_model/layers/experts_stage.h"
#include "policy_model/layers/ffn_stage.h"
#include "policy_model/layers/hybrid/conv_stage.h"
#include "policy_model/layers/hybrid/delta_stage.h"
#include "policy_model/layers/latent_stage.h"
#include "policy_model/layers/ops.h"

namespace plumb::policy_model {

using kernels::AddScaled;
using kernels::Call;

void Branch::PlanForward(const PackedPass& pass) {
  const int64_t n = pass.tokens(), row = pass.Bytes(n * pass.hidden());
  rstd_before_ = before_.there() ? pass.saved.Reserve(4 * n) : 0;
  norm_ = before_.there() ? pass.scratch.Reserve(row) : 0;
  if (behind_.there()) {
    rstd_behind_ = pass.saved.Reserve(4 * n);
    y_ = pass.saved.Reserve(row);
  }
  joining_ = apart(pass) ? pass.scratch.Reserve(row) : 0;
  stage_->PlanForward(pass);
}

void Branch::Forward(const PackedPass& pass, const void* x, void* out) {
  const int64_t n = pass.tokens(), h = pass.hidden();
  const void* in = x;
  if (before_.there()) {
    void* norm = pass.scratch.At(norm_);
    before_.Forward(pass, x, n, norm, pass.saved.Floats(rstd_before_),
                    pass.output && out != x ? out : nullptr);
    in = norm;
  } else if (pass.output && out != x) {
    kernels::Copy(pass.launch.stream, out, x, static_cast<size_t>(pass.Bytes(n * h)));
  }
  if (!apart(pass)) {
    stage_->Forward(pass, in, true, out);
    return;
  }
  void* joining = pass.scratch.At(joining_);
  void* y = behind_.there() ? pass.saved.At(y_) : joining;
  PackedPass of_stage = pass;
  of_stage.output = pass.output || behind_.there();  // a norm's backward reads what the stage gave
  stage_->Forward(of_stage, in, false, y);
  if (pass.group && of_stage.output)
    pass.group->Sum(pass.launch.stream, pass.launch.dtype, y, n * h);
  if (behind_.there()) behind_.Forward(pass, y, n, joining, pass.saved.Floats(rstd_behind_));
  if (!pass.output) return;
  Call(pass.launch, AddScaled{.x = joining, .n = n * h, .scale = scale_, .y = out});
}

void Branch::PlanBackward(const PackedPass& pass) {
  const int64_t row = pass.Bytes(pass.tokens() * pass.hidden());
  norm_again_ = before_.there() ? pass.scratch.Reserve(row) : 0;
  dnorm_ = before_.there() ? pass.scratch.Reserve(row) : 0;
  dscaled_ = scale_ != 1 ? pass.scratch.Reserve(row) : 0;
  dy_ = behind_.there() ? pass.scratch.Reserve(row) : 0;
  stage_->PlanBackward(pass);
}

void Branch::Backward(const PackedPass& pass, const void* x, void* dx) {
  const int64_t n = pass.tokens(), elements = n * pass.hidden();
  const void* dout = dx;
  if (scale_ != 1) {
    void* dscaled = pass.scratch.At(dscaled_);
    kernels::Copy(pass.launch.stream, dscaled, dx, static_cast<size_t>(pass.Bytes(elements)));
    ops::Scale(pass.launch, elements, scale_, dscaled);
    dout = dscaled;
  }
  if (behind_.there()) {
    void* dy = pass.scratch.At(dy_);
    behind_.Backward(pass, dout, pass.saved.At(y_), pass.saved.Floats(rstd_behind_), n, false, dy);
    dout = dy;
  }
  if (!before_.there()) {
    PLUMB_CHECK(!pass.group, "a share of a model has norms before its branches");
    stage_->Backward(pass, dout, x, true, dx);
    return;
  }
  void* norm = pass.scratch.At(norm_again_);
  void* dnorm = pass.scratch.At(dnorm_);
  before_.Forward(pass, x, n, norm, nullptr);
  stage_->Backward(pass, dout, norm, false, dnorm);
  if (pass.group) pass.group->Sum(pass.launch.stream, pass.launch.dtype, dnorm, elements);
  before_.Backward(pass, dnorm, x, pass.saved.Floats(rstd_before_), n, true, dx);
}

void Branch::PlanStep(const PagedPass& pass) {
  const int64_t row = pass.Bytes(pass.rows.rows * pass.hidden());
  step_norm_ = before_.there() ? pass.scratch.Reserve(row) : 0;
  step_y_ = apart(pass) ? pass.scratch.Reserve(row) : 0;
  stage_->PlanStep(pass);
}

void Branch::Step(const PagedPass& pass, void* x) {
  const int64_t n = pass.rows.rows;
  const void* in = x;
  if (before_.there()) {
    void* norm = pass.scratch.At(step_norm_);
    before_.Forward(pass, x, n, norm, nullptr);
    in = norm;
  }
  if (!apart(pass)) {
    stage_->Step(pass, in, true, x);
    return;
  }
  void* y = pass.scratch.At(step_y_);
  stage_->Step(pass, in, false, y);
  if (pass.group) pass.group->Sum(pass.launch.stream, pass.launch.dtype, y, n * pass.hidden());
  if (behind_.there()) behind_.Forward(pass, y, n, y, nullptr);
  Call(pass.launch, AddScaled{.x = y, .n = n * pass.hidden(), .scale = scale_, .y = x});
}

NormLayer FinalNormOf(const TensorTable& table) {
  return {.kind = table.plan().final_norm,
          .weight = table.final_norm(),
          .bias = table.final_norm_bias(),
          .eps = static_cast<float>(table.shape().norm_eps),
          .weight_offset = static_cast<float>(table.plan().norm_offset)};
}

float EmbeddingScaleOf(const TensorTable& table, DType dtype) {
  const auto x = static_cast<float>(table.plan().embedding_scale);
  const bool round = table.plan().round_embedding_scale && dtype == DType::kBFloat16;
  return round ? ToFloat(ToBFloat16(x)) : x;
}

std::vector<Branch> BranchesOf(const TensorTable& table) {
  const ModelShape& shape = table.shape();
  const auto eps = static_cast<float>(shape.norm_eps),
             offset = static_cast<float>(table.plan().norm_offset);
  const auto norm = [&](NormKind kind, int64_t weight, int64_t bias = -1) {
    return NormLayer{
        .kind = kind, .weight = weight, .bias = bias, .eps = eps, .weight_offset = offset};
  };
  std::vector<Branch> branches;
  int32_t of_kind[2] = {0, 0};  // layers so far that keep pages, and that give them back
  int32_t with_pages = 0;
  int64_t with_experts = 0, state = 0;  // states of the layers so far
  for (int64_t l = 0; l < shape.layers; ++l) {
    const LayerSpec& spec = table.plan().layers[static_cast<size_t>(l)];
    const LayerSlices& at = table.layer(l);
    const auto scale = static_cast<float>(spec.residual_scale);
    std::unique_ptr<Stage> mixer;
    if (spec.delta.there()) {
      mixer = std::make_unique<DeltaStage>(shape, spec, at, state);
    } else if (spec.conv.there()) {
      mixer = std::make_unique<ConvStage>(shape, spec, at, state);
    } else {
      const int32_t layer = with_pages++, layer_of_kind = of_kind[spec.GivesPagesBack() ? 1 : 0]++;
      if (spec.latent)
        mixer = std::make_unique<LatentStage>(shape, spec, at, offset, layer, layer_of_kind);
      else
        mixer =
            std::make_unique<AttentionStage>(shape, spec, at, offset, layer, layer_of_kind, state);
    }
    state += spec.state();
    branches.emplace_back(norm(spec.norm, at.attention_norm, at.attention_norm_bias),
                          std::move(mixer), norm(spec.norm, at.attention_behind), scale);
    std::unique_ptr<Stage> ffn;
    if (spec.experts.there())
      ffn = std::make_unique<ExpertsStage>(shape.hidden, spec, at, l, with_experts++);
    else ffn = std::make_unique<FfnStage>(shape.hidden, spec, at);
    branches.emplace_back(norm(spec.norm, at.ffn_norm, at.ffn_norm_bias), std::move(ffn),
                          norm(spec.norm, at.ffn_behind), scale);
  }
  return branches;
}

}  // namespace plumb::policy_model

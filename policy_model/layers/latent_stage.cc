#include "policy_model/layers/latent_stage.h"

#include <algorithm>

#include "common/base/error.h"
#include "kernels/attention_paged.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "policy_model/layers/ops.h"

namespace plumb::policy_model {

using kernels::Call;

LatentStage::LatentStage(const ModelShape& shape, const LayerSpec& spec, const LayerSlices& slices,
                         float weight_offset, int32_t layer, int32_t layer_of_kind)
    : shape_(shape.latent),
      spec_(spec),
      at_(slices),
      heads_(shape.heads),
      weight_offset_(weight_offset),
      layer_(layer),
      layer_of_kind_(layer_of_kind),
      q_down_product_(slices.q_down, shape_.query_rank, shape.hidden),
      q_product_(slices.q, queries_width(), narrow_queries() ? shape_.query_rank : shape.hidden),
      kv_down_product_(slices.kv_down, shape_.cached(), shape.hidden),
      kv_up_product_(slices.kv_up, kv_width(), shape_.kv_rank),
      o_product_(slices.o, shape.hidden, values_width()) {
  PLUMB_CHECK(spec.rotary >= 0, "latent attention has positions");
}

kernels::LatentShape LatentStage::Heads(int64_t rows) const {
  return {.rows = rows,
          .heads = static_cast<int32_t>(heads_),
          .nope = static_cast<int32_t>(shape_.nope),
          .rope = static_cast<int32_t>(shape_.rope),
          .value = static_cast<int32_t>(shape_.value),
          .rank = static_cast<int32_t>(shape_.kv_rank),
          .head = static_cast<int32_t>(shape_.head())};
}

AttentionShape LatentStage::Shape(const PackedPass& pass) const {
  AttentionShape shape = pass.attention;
  shape.scale = static_cast<float>(spec_.attention_scale);
  shape.window = static_cast<int32_t>(spec_.window);
  shape.global_every = static_cast<int32_t>(spec_.global_every);
  shape.begins = nullptr;  // a step reads latents, by a kernel of their own
  return shape;
}

LatentStage::Narrow LatentStage::PlanNarrow(const Pass& pass, int64_t rows, int64_t width,
                                            Arena& arena) const {
  Narrow at;
  at.raw = arena.Reserve(pass.Bytes(rows * width));
  at.normed = arena.Reserve(pass.Bytes(rows * width));
  at.rstd = arena.Reserve(4 * rows);
  return at;
}

void LatentStage::Norm(const Pass& pass, Arena& arena, const Narrow& at, int64_t rows,
                       int64_t width, int64_t weight) const {
  Call(pass.launch, kernels::RmsNorm{.x = arena.At(at.raw),
                                     .w = pass.W(weight),
                                     .rows = rows,
                                     .hidden = width,
                                     .eps = static_cast<float>(shape_.norm_eps),
                                     .weight_offset = weight_offset_,
                                     .y = arena.At(at.normed),
                                     .rstd = arena.Floats(at.rstd)});
}

void LatentStage::NormBackward(const PackedPass& pass, const Narrow& at, int64_t width,
                               int64_t weight, void* d) const {
  Call(pass.launch, kernels::RmsNormBackward{.dy = d,
                                             .x = pass.saved.At(at.raw),
                                             .w = pass.W(weight),
                                             .rstd = pass.saved.Floats(at.rstd),
                                             .rows = pass.tokens(),
                                             .hidden = width,
                                             .weight_offset = weight_offset_,
                                             .dx = d,
                                             .dw = pass.G(weight),
                                             .scratch = pass.scratch.Floats(norm_scratch_)});
}

void LatentStage::Turn(const PackedPass& pass, void* qkv, bool inverse) const {
  const RotaryTable& table = pass.rotary[static_cast<size_t>(spec_.rotary)];
  const auto heads = static_cast<int32_t>(heads_);
  Call(pass.launch, kernels::RopeInPlace{.qkv = qkv,
                                         .position = pass.positions,
                                         .cos_sin = table.cos_sin.f32(),
                                         .rows = pass.tokens(),
                                         .heads = heads,
                                         .kv_heads = heads,
                                         .head_dim = static_cast<int32_t>(shape_.head()),
                                         .dims = table.dims,
                                         .interleaved = table.interleaved,
                                         .inverse = inverse});
}

void LatentStage::PlanForward(const PackedPass& pass) {
  const int64_t n = pass.tokens();
  if (narrow_queries()) query_ = PlanNarrow(pass, n, shape_.query_rank, pass.saved);
  latent_ = PlanNarrow(pass, n, shape_.kv_rank, pass.saved);
  qkv_ = pass.saved.Reserve(pass.Bytes(n * 3 * mixed_width()));
  mixed_ = pass.saved.Reserve(pass.Bytes(n * mixed_width()));
  lse_ = pass.saved.Reserve(4 * AttentionLseElements(pass.launch, pass.attention));
  q_ = pass.scratch.Reserve(pass.Bytes(n * queries_width()));
  down_ = pass.scratch.Reserve(pass.Bytes(n * shape_.cached()));
  kv_ = pass.scratch.Reserve(pass.Bytes(n * kv_width()));
  values_ = pass.scratch.Reserve(pass.Bytes(n * values_width()));
  if (narrow_queries()) q_down_product_.Plan(pass, n, pass.scratch);
  q_product_.Plan(pass, n, pass.scratch);
  kv_down_product_.Plan(pass, n, pass.scratch);
  kv_up_product_.Plan(pass, n, pass.scratch);
  o_product_.Plan(pass, n, pass.scratch);
}

void LatentStage::Forward(const PackedPass& pass, const void* in, bool accumulate, void* out) {
  const int64_t n = pass.tokens();
  void* q = pass.scratch.At(q_);
  void* down = pass.scratch.At(down_);
  void* kv = pass.scratch.At(kv_);
  if (narrow_queries()) {
    q_down_product_.Forward(pass, in, false, pass.saved.At(query_.raw));
    Norm(pass, pass.saved, query_, n, shape_.query_rank, at_.q_down_norm);
  }
  q_product_.Forward(pass, narrow_queries() ? pass.saved.At(query_.normed) : in, false, q);
  kv_down_product_.Forward(pass, in, false, down);
  ops::CopyColumns(pass.launch, down, n, shape_.cached(), 0, shape_.kv_rank,
                   pass.saved.At(latent_.raw));
  Norm(pass, pass.saved, latent_, n, shape_.kv_rank, at_.kv_down_norm);
  kv_up_product_.Forward(pass, pass.saved.At(latent_.normed), false, kv);
  void* qkv = pass.saved.At(qkv_);
  Call(pass.launch,
       kernels::JoinLatentHeads{.shape = Heads(n), .q = q, .kv = kv, .down = down, .qkv = qkv});
  Turn(pass, qkv, false);
  void* mixed = pass.saved.At(mixed_);
  AttentionForward(pass.launch, Shape(pass), qkv, mixed, pass.saved.Floats(lse_));
  if (!pass.output) return;
  void* values = pass.scratch.At(values_);
  Call(pass.launch, kernels::TakeValues{.shape = Heads(n), .mixed = mixed, .values = values});
  o_product_.Forward(pass, values, accumulate, out);
}

void LatentStage::PlanBackward(const PackedPass& pass) {
  const int64_t n = pass.tokens();
  values_again_ = pass.scratch.Reserve(pass.Bytes(n * values_width()));
  dvalues_ = pass.scratch.Reserve(pass.Bytes(n * values_width()));
  dmixed_ = pass.scratch.Reserve(pass.Bytes(n * mixed_width()));
  dqkv_ = pass.scratch.Reserve(pass.Bytes(n * 3 * mixed_width()));
  dq_ = pass.scratch.Reserve(pass.Bytes(n * queries_width()));
  dkv_ = pass.scratch.Reserve(pass.Bytes(n * kv_width()));
  ddown_ = pass.scratch.Reserve(pass.Bytes(n * shape_.cached()));
  dlatent_ = pass.scratch.Reserve(pass.Bytes(n * shape_.kv_rank));
  dquery_ = pass.scratch.Reserve(pass.Bytes(n * shape_.query_rank));
  norm_scratch_ = pass.scratch.Reserve(4 * kernels::kRmsNormScratchRows *
                                       std::max(shape_.kv_rank, shape_.query_rank));
  const bool cpu = pass.launch.device().is_cpu();
  attention_scratch_ =
      pass.scratch.Reserve(cpu ? 4 * kernels::AttentionVarlenScratch(pass.attention) : 0);
  if (narrow_queries()) q_down_product_.Plan(pass, n, pass.scratch);
  q_product_.Plan(pass, n, pass.scratch);
  kv_down_product_.Plan(pass, n, pass.scratch);
  kv_up_product_.Plan(pass, n, pass.scratch);
  o_product_.Plan(pass, n, pass.scratch);
}

void LatentStage::Backward(const PackedPass& pass, const void* dout, const void* in,
                           bool accumulate, void* din) {
  const int64_t n = pass.tokens();
  const void* mixed = pass.saved.At(mixed_);
  void* values = pass.scratch.At(values_again_);
  void* dvalues = pass.scratch.At(dvalues_);
  void* dmixed = pass.scratch.At(dmixed_);
  void* dqkv = pass.scratch.At(dqkv_);
  void* dq = pass.scratch.At(dq_);
  void* dkv = pass.scratch.At(dkv_);
  void* ddown = pass.scratch.At(ddown_);
  void* dlatent = pass.scratch.At(dlatent_);
  Call(pass.launch, kernels::TakeValues{.shape = Heads(n), .mixed = mixed, .values = values});
  o_product_.Backward(pass, dout, values, false, dvalues);
  Call(pass.launch, kernels::PutValues{.shape = Heads(n), .values = dvalues, .mixed = dmixed});
  AttentionBackward(pass.launch, Shape(pass), dmixed, pass.saved.At(qkv_), mixed,
                    pass.saved.Floats(lse_), dqkv, pass.scratch.Floats(attention_scratch_));
  Turn(pass, dqkv, true);
  Call(pass.launch, kernels::SplitLatentHeads{
                        .shape = Heads(n), .dqkv = dqkv, .dq = dq, .dkv = dkv, .ddown = ddown});
  kv_up_product_.Backward(pass, dkv, pass.saved.At(latent_.normed), false, dlatent);
  NormBackward(pass, latent_, shape_.kv_rank, at_.kv_down_norm, dlatent);
  ops::AddToColumns(pass.launch, dlatent, n, shape_.kv_rank, shape_.cached(), 0, ddown);
  kv_down_product_.Backward(pass, ddown, in, accumulate, din);
  if (!narrow_queries()) {
    q_product_.Backward(pass, dq, in, true, din);
    return;
  }
  void* dquery = pass.scratch.At(dquery_);
  q_product_.Backward(pass, dq, pass.saved.At(query_.normed), false, dquery);
  NormBackward(pass, query_, shape_.query_rank, at_.q_down_norm, dquery);
  q_down_product_.Backward(pass, dquery, in, true, din);
}

void LatentStage::PlanStep(const PagedPass& pass) {
  const int64_t n = pass.rows.rows;
  if (narrow_queries()) step_query_ = PlanNarrow(pass, n, shape_.query_rank, pass.scratch);
  step_latent_ = PlanNarrow(pass, n, shape_.kv_rank, pass.scratch);
  step_q_ = pass.scratch.Reserve(pass.Bytes(n * queries_width()));
  step_down_ = pass.scratch.Reserve(pass.Bytes(n * shape_.cached()));
  step_rows_ = pass.scratch.Reserve(pass.Bytes(n * (heads_ + 1) * shape_.cached()));
  step_mixed_ = pass.scratch.Reserve(pass.Bytes(n * heads_ * shape_.cached()));
  step_values_ = pass.scratch.Reserve(pass.Bytes(n * values_width()));
  if (narrow_queries()) q_down_product_.Plan(pass, n, pass.scratch);
  q_product_.Plan(pass, n, pass.scratch);
  kv_down_product_.Plan(pass, n, pass.scratch);
  o_product_.Plan(pass, n, pass.scratch);
}

void LatentStage::Step(const PagedPass& pass, const void* in, bool accumulate, void* out) {
  const int64_t n = pass.rows.rows;
  Arena& a = pass.scratch;
  void* q = a.At(step_q_);
  void* down = a.At(step_down_);
  void* rows = a.At(step_rows_);
  void* mixed = a.At(step_mixed_);
  void* values = a.At(step_values_);
  const void* kv_up = pass.W(at_.kv_up);
  if (narrow_queries()) {
    q_down_product_.Step(pass, in, false, a.At(step_query_.raw));
    Norm(pass, a, step_query_, n, shape_.query_rank, at_.q_down_norm);
  }
  q_product_.Step(pass, narrow_queries() ? a.At(step_query_.normed) : in, false, q);
  kv_down_product_.Step(pass, in, false, down);
  ops::CopyColumns(pass.launch, down, n, shape_.cached(), 0, shape_.kv_rank,
                   a.At(step_latent_.raw));
  Norm(pass, a, step_latent_, n, shape_.kv_rank, at_.kv_down_norm);
  Call(pass.launch, kernels::AbsorbQueries{.shape = Heads(n),
                                           .q = q,
                                           .down = down,
                                           .latent = a.At(step_latent_.normed),
                                           .w = kv_up,
                                           .out = rows});
  kernels::PagedRows paged = pass.rows;
  const bool apart = pass.sliding && spec_.GivesPagesBack();
  if (apart) paged.page_table = pass.sliding->page_table;
  const kernels::PagedKv& kv = apart ? pass.sliding->kv : pass.kv;
  PLUMB_CHECK(kv.keys_only && kv.kv_heads == 1 && kv.head_dim == shape_.cached(),
              "pages of latent attention");
  const int32_t layer = pass.sliding ? layer_of_kind_ : layer_;
  const RotaryTable& table = pass.rotary[static_cast<size_t>(spec_.rotary)];
  const auto heads = static_cast<int32_t>(heads_);
  Call(pass.launch, kernels::RopeAndWriteKv{.qkv = rows,
                                            .rows = paged,
                                            .cos_sin = table.cos_sin.f32(),
                                            .heads = heads,
                                            .dims = table.dims,
                                            .interleaved = table.interleaved,
                                            .layer = layer,
                                            .kv = kv});
  Call(pass.launch,
       kernels::AttentionPaged{.q = rows,
                               .q_stride = (heads_ + 1) * shape_.cached(),
                               .rows = paged,
                               .heads = heads,
                               .layer = layer,
                               .kv = kv,
                               .scale = static_cast<float>(spec_.attention_scale),
                               .window = static_cast<int32_t>(spec_.window),
                               .global_every = static_cast<int32_t>(spec_.global_every),
                               .out = mixed});
  Call(pass.launch,
       kernels::ExpandValues{.shape = Heads(n), .mixed = mixed, .w = kv_up, .values = values});
  o_product_.Step(pass, values, accumulate, out);
}

}  // namespace plumb::policy_model

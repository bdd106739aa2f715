#include "policy_model/layers/attention_stage.h"

#include "kernels/attention_paged.h"
#include "kernels/embedding.h"
#include "kernels/rope.h"

namespace plumb::policy_model {

using kernels::Call;

AttentionStage::AttentionStage(const ModelShape& shape, const LayerSpec& spec,
                               const LayerSlices& slices, float weight_offset, int32_t layer,
                               int32_t layer_of_kind)
    : spec_(spec),
      at_(slices),
      heads_(shape.heads),
      kv_heads_(shape.kv_heads),
      head_dim_(shape.head_dim),
      norm_eps_(static_cast<float>(shape.norm_eps)),
      weight_offset_(weight_offset),
      layer_(layer),
      layer_of_kind_(layer_of_kind),
      qkv_product_(slices.qkv, width(), shape.hidden),
      o_product_(slices.o, shape.hidden, mixed_width()) {}

AttentionShape AttentionStage::Shape(const PackedPass& pass) const {
  AttentionShape shape = pass.attention;
  shape.scale = static_cast<float>(spec_.attention_scale);
  shape.window = static_cast<int32_t>(spec_.window);
  shape.global_every = static_cast<int32_t>(spec_.global_every);
  return shape;
}

kernels::HeadNormShape AttentionStage::NormShape(int64_t rows) const {
  const bool whole = spec_.qk_norm == QkNorm::kFullWidth;
  const auto q = static_cast<int32_t>(heads_), k = static_cast<int32_t>(kv_heads_),
             d = static_cast<int32_t>(head_dim_);
  return {.rows = rows,
          .width = width(),
          .q_parts = whole ? 1 : q,
          .k_parts = whole ? 1 : k,
          .q_size = whole ? q * d : d,
          .k_size = whole ? k * d : d,
          .eps = norm_eps_,
          .weight_offset = weight_offset_};
}

const RotaryTable* AttentionStage::Rotary(const Pass& pass) const {
  return spec_.rotary < 0 ? nullptr : &pass.rotary[static_cast<size_t>(spec_.rotary)];
}

void AttentionStage::Turn(const PackedPass& pass, void* qkv, bool inverse) const {
  const RotaryTable* table = Rotary(pass);
  if (!table) return;
  Call(pass.launch, kernels::RopeInPlace{.qkv = qkv,
                                         .position = pass.positions,
                                         .cos_sin = table->cos_sin.f32(),
                                         .rows = pass.tokens(),
                                         .heads = static_cast<int32_t>(heads_),
                                         .kv_heads = static_cast<int32_t>(kv_heads_),
                                         .head_dim = static_cast<int32_t>(head_dim_),
                                         .dims = table->dims,
                                         .interleaved = table->interleaved,
                                         .inverse = inverse});
  ScaleQueries(pass, pass.positions, pass.tokens(), qkv);  // in either order: both are linear
}

void AttentionStage::ScaleQueries(const Pass& pass, const int32_t* position, int64_t rows,
                                  void* qkv) const {
  const RotaryTable* table = Rotary(pass);
  if (!table || table->query_scale.elements() == 0) return;
  Call(pass.launch, kernels::ScaleQueries{.qkv = qkv,
                                          .position = position,
                                          .scale = table->query_scale.f32(),
                                          .rows = rows,
                                          .width = mixed_width(),
                                          .stride = width()});
}

void AttentionStage::PlanForward(const PackedPass& pass) {
  const int64_t n = pass.tokens();
  qkv_ = pass.saved.Reserve(pass.Bytes(n * width()));
  raw_ = normed() && pass.keep ? pass.saved.Reserve(pass.Bytes(n * width())) : qkv_;
  rstd_ = normed() ? pass.saved.Reserve(4 * n * NormShape(n).parts()) : 0;
  mixed_ = pass.saved.Reserve(pass.Bytes(n * mixed_width()));
  lse_ = pass.saved.Reserve(4 * AttentionLseElements(pass.launch, pass.attention));
  qkv_product_.Plan(pass, n, pass.scratch);
  o_product_.Plan(pass, n, pass.scratch);
}

void AttentionStage::Forward(const PackedPass& pass, const void* in, bool accumulate, void* out) {
  const int64_t n = pass.tokens(), h = pass.hidden();
  void* qkv = pass.saved.At(qkv_);
  void* raw = pass.saved.At(raw_);
  qkv_product_.Forward(pass, in, false, raw);
  if (spec_.qkv_bias)
    Call(pass.launch,
         kernels::AddBias{.x = raw, .bias = pass.W(at_.qkv_bias), .rows = n, .width = width()});
  if (normed()) {
    Call(pass.launch, kernels::HeadNorm{.shape = NormShape(n),
                                        .x = raw,
                                        .w_q = pass.W(at_.q_norm),
                                        .w_k = pass.W(at_.k_norm),
                                        .y = qkv,
                                        .rstd = pass.saved.Floats(rstd_)});
  }
  Turn(pass, qkv, false);
  void* mixed = pass.saved.At(mixed_);
  AttentionForward(pass.launch, Shape(pass), qkv, mixed, pass.saved.Floats(lse_));
  o_product_.Forward(pass, mixed, accumulate, out);
  if (spec_.o_bias)
    Call(pass.launch,
         kernels::AddBias{.x = out, .bias = pass.W(at_.o_bias), .rows = n, .width = h});
}

void AttentionStage::PlanBackward(const PackedPass& pass) {
  const int64_t n = pass.tokens();
  dmixed_ = pass.scratch.Reserve(pass.Bytes(n * mixed_width()));
  dqkv_ = pass.scratch.Reserve(pass.Bytes(n * width()));
  const kernels::HeadNormShape norm = NormShape(n);
  norm_scratch_ =
      normed()
          ? pass.scratch.Reserve(4 * kernels::kHeadNormScratchRows * (norm.q_size + norm.k_size))
          : 0;
  const bool cpu = pass.launch.device().is_cpu();
  attention_scratch_ =
      pass.scratch.Reserve(cpu ? 4 * kernels::AttentionVarlenScratch(pass.attention) : 0);
  qkv_product_.Plan(pass, n, pass.scratch);
  o_product_.Plan(pass, n, pass.scratch);
}

void AttentionStage::Backward(const PackedPass& pass, const void* dout, const void* in,
                              bool accumulate, void* din) {
  const int64_t n = pass.tokens(), h = pass.hidden();
  const void* mixed = pass.saved.At(mixed_);
  void* dmixed = pass.scratch.At(dmixed_);
  void* dqkv = pass.scratch.At(dqkv_);
  o_product_.Backward(pass, dout, mixed, false, dmixed);
  if (spec_.o_bias && pass.G(at_.o_bias)) {
    Call(pass.launch,
         kernels::BiasBackward{.dx = dout, .rows = n, .width = h, .dbias = pass.G(at_.o_bias)});
  }
  AttentionBackward(pass.launch, Shape(pass), dmixed, pass.saved.At(qkv_), mixed,
                    pass.saved.Floats(lse_), dqkv, pass.scratch.Floats(attention_scratch_));
  Turn(pass, dqkv, true);
  if (normed()) {
    Call(pass.launch, kernels::HeadNormBackward{.shape = NormShape(n),
                                                .d = dqkv,
                                                .x = pass.saved.At(raw_),
                                                .w_q = pass.W(at_.q_norm),
                                                .w_k = pass.W(at_.k_norm),
                                                .rstd = pass.saved.Floats(rstd_),
                                                .dw_q = pass.G(at_.q_norm),
                                                .dw_k = pass.G(at_.k_norm),
                                                .scratch = pass.scratch.Floats(norm_scratch_)});
  }
  if (spec_.qkv_bias && pass.G(at_.qkv_bias)) {
    Call(pass.launch, kernels::BiasBackward{
                          .dx = dqkv, .rows = n, .width = width(), .dbias = pass.G(at_.qkv_bias)});
  }
  qkv_product_.Backward(pass, dqkv, in, accumulate, din);
}

void AttentionStage::PlanStep(const PagedPass& pass) {
  step_qkv_ = pass.scratch.Reserve(pass.Bytes(pass.rows.rows * width()));
  step_mixed_ = pass.scratch.Reserve(pass.Bytes(pass.rows.rows * mixed_width()));
  qkv_product_.Plan(pass, pass.rows.rows, pass.scratch);
  o_product_.Plan(pass, pass.rows.rows, pass.scratch);
}

void AttentionStage::Step(const PagedPass& pass, const void* in, bool accumulate, void* out) {
  const int64_t n = pass.rows.rows, h = pass.hidden();
  void* qkv = pass.scratch.At(step_qkv_);
  void* mixed = pass.scratch.At(step_mixed_);
  qkv_product_.Step(pass, in, false, qkv);
  if (spec_.qkv_bias)
    Call(pass.launch,
         kernels::AddBias{.x = qkv, .bias = pass.W(at_.qkv_bias), .rows = n, .width = width()});
  if (normed()) {
    Call(pass.launch, kernels::HeadNorm{.shape = NormShape(n),
                                        .x = qkv,
                                        .w_q = pass.W(at_.q_norm),
                                        .w_k = pass.W(at_.k_norm),
                                        .y = qkv});
  }
  kernels::PagedRows rows = pass.rows;
  const bool apart = pass.sliding && spec_.GivesPagesBack();
  if (apart) rows.page_table = pass.sliding->page_table;
  const kernels::PagedKv& kv = apart ? pass.sliding->kv : pass.kv;
  const int32_t layer = pass.sliding ? layer_of_kind_ : layer_;
  const RotaryTable* table = Rotary(pass);
  const auto heads = static_cast<int32_t>(heads_);
  Call(pass.launch, kernels::RopeAndWriteKv{.qkv = qkv,
                                            .rows = rows,
                                            .cos_sin = table ? table->cos_sin.f32() : nullptr,
                                            .heads = heads,
                                            .dims = table ? table->dims : 0,
                                            .interleaved = table && table->interleaved,
                                            .layer = layer,
                                            .kv = kv});
  ScaleQueries(pass, pass.rows.position, n, qkv);
  Call(pass.launch,
       kernels::AttentionPaged{.q = qkv,
                               .q_stride = width(),
                               .rows = rows,
                               .heads = heads,
                               .layer = layer,
                               .kv = kv,
                               .scale = static_cast<float>(spec_.attention_scale),
                               .window = static_cast<int32_t>(spec_.window),
                               .global_every = static_cast<int32_t>(spec_.global_every),
                               .out = mixed});
  o_product_.Step(pass, mixed, accumulate, out);
  if (spec_.o_bias)
    Call(pass.launch,
         kernels::AddBias{.x = out, .bias = pass.W(at_.o_bias), .rows = n, .width = h});
}

}  // namespace plumb::policy_model

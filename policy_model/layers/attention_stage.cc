#include "policy_model/layers/attention_stage.h"

#include "kernels/attention_paged.h"
#include "kernels/delta/sigmoid_gate.h"
#include "kernels/embedding.h"
#include "kernels/rope.h"
#include "kernels/sinks/attention_sinks.h"

namespace plumb::policy_model {

using kernels::Call;
using kernels::ColumnRun;

namespace {

// With a gate a head's columns of the product are its query and then its gate; keys and values come
// behind all heads.
std::vector<ColumnRun> ToQkv(const ModelShape& shape, const LayerSpec& spec) {
  std::vector<ColumnRun> runs;
  if (!spec.attention_gate) return runs;
  for (int64_t h = 0; h < shape.heads; ++h)
    runs.push_back({2 * h * shape.head_dim, h * shape.head_dim, shape.head_dim});
  const int64_t q = shape.heads * shape.head_dim;
  runs.push_back({2 * q, q, 2 * shape.kv_width()});
  return runs;
}

std::vector<ColumnRun> ToGate(const ModelShape& shape, const LayerSpec& spec) {
  std::vector<ColumnRun> runs;
  for (int64_t h = 0; spec.attention_gate && h < shape.heads; ++h)
    runs.push_back({(2 * h + 1) * shape.head_dim, h * shape.head_dim, shape.head_dim});
  return runs;
}

}  // namespace

AttentionStage::AttentionStage(const ModelShape& shape, const LayerSpec& spec,
                               const LayerSlices& slices, float weight_offset, int32_t layer,
                               int32_t layer_of_kind, int64_t state)
    : spec_(spec),
      at_(slices),
      heads_(shape.heads),
      kv_heads_(shape.kv_heads),
      head_dim_(shape.head_dim),
      norm_eps_(static_cast<float>(shape.norm_eps)),
      weight_offset_(weight_offset),
      layer_(layer),
      layer_of_kind_(layer_of_kind),
      to_qkv_(ToQkv(shape, spec)),
      to_gate_(ToGate(shape, spec)),
      qkv_product_(slices.qkv, product_width(), shape.hidden),
      o_product_(slices.o, shape.hidden, mixed_width()),
      far_(shape, spec, slices, state) {}

void AttentionStage::Move(const Pass& pass, int64_t n, const void* from, int64_t from_width,
                          const std::vector<ColumnRun>& runs, int64_t to_width, void* to) const {
  Call(pass.launch, kernels::MoveColumns{.x = from,
                                         .rows = n,
                                         .x_width = from_width,
                                         .y_width = to_width,
                                         .runs = runs.data(),
                                         .count = static_cast<int64_t>(runs.size()),
                                         .y = to});
}

AttentionShape AttentionStage::Shape(const PackedPass& pass) const {
  AttentionShape shape = pass.attention;
  shape.scale = static_cast<float>(spec_.attention_scale);
  shape.window = static_cast<int32_t>(spec_.window);
  shape.global_every = static_cast<int32_t>(spec_.global_every);
  // A step takes those in with its own keys, by another kernel.
  if (spec_.sinks || far_.chooses()) shape.begins = nullptr;
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

void AttentionStage::Turn(const PackedPass& pass, void* qkv, bool inverse, bool turned) const {
  const RotaryTable* table = Rotary(pass);
  if (!table) return;
  if (!turned) {
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
  }
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
  if (spec_.attention_gate) {
    gate_ = pass.saved.Reserve(pass.Bytes(n * mixed_width()));
    product_ = pass.scratch.Reserve(pass.Bytes(n * product_width()));
    gated_ = pass.scratch.Reserve(pass.Bytes(n * mixed_width()));
  }
  far_.PlanForward(pass);
  qkv_product_.Plan(pass, n, pass.scratch);
  o_product_.Plan(pass, n, pass.scratch);
}

void AttentionStage::Forward(const PackedPass& pass, const void* in, bool accumulate, void* out) {
  const int64_t n = pass.tokens(), h = pass.hidden();
  void* qkv = pass.saved.At(qkv_);
  void* raw = pass.saved.At(raw_);
  void* product = spec_.attention_gate ? pass.scratch.At(product_) : raw;
  qkv_product_.Forward(pass, in, false, product);
  if (spec_.qkv_bias) {
    Call(pass.launch,
         kernels::AddBias{
             .x = product, .bias = pass.W(at_.qkv_bias), .rows = n, .width = product_width()});
  }
  if (spec_.attention_gate) {
    Move(pass, n, product, product_width(), to_qkv_, width(), raw);
    Move(pass, n, product, product_width(), to_gate_, mixed_width(), pass.saved.At(gate_));
  }
  if (normed()) {
    Call(pass.launch, kernels::HeadNorm{.shape = NormShape(n),
                                        .x = raw,
                                        .w_q = pass.W(at_.q_norm),
                                        .w_k = pass.W(at_.k_norm),
                                        .y = qkv,
                                        .rstd = pass.saved.Floats(rstd_)});
  }
  far_.TakeQueries(pass, qkv);
  Turn(pass, qkv, false);
  void* mixed = pass.saved.At(mixed_);
  AttentionForward(pass.launch, Shape(pass), qkv, mixed, pass.saved.Floats(lse_));
  far_.Forward(pass, Shape(pass), in, qkv, mixed, pass.saved.Floats(lse_));
  if (spec_.sinks) {
    Call(pass.launch,
         kernels::AttentionSinks{.sinks = pass.W(at_.sinks),
                                 .tokens = n,
                                 .heads = static_cast<int32_t>(heads_),
                                 .head_dim = static_cast<int32_t>(head_dim_),
                                 .out = mixed,
                                 .lse = pass.saved.Floats(lse_),
                                 .layout = AttentionLseLayout(pass.launch, Shape(pass))});
  }
  if (spec_.attention_gate) {
    void* gated = pass.scratch.At(gated_);
    Call(pass.launch,
         kernels::SigmoidGate{
             .x = mixed, .gate = pass.saved.At(gate_), .n = n * mixed_width(), .y = gated});
    mixed = gated;
  }
  o_product_.Forward(pass, mixed, accumulate, out);
  if (spec_.o_bias && pass.AddsBias())
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
  if (spec_.attention_gate) {
    gated_again_ = pass.scratch.Reserve(pass.Bytes(n * mixed_width()));
    dgate_ = pass.scratch.Reserve(pass.Bytes(n * mixed_width()));
    dproduct_ = pass.scratch.Reserve(pass.Bytes(n * product_width()));
  }
  const bool cpu = pass.launch.device().is_cpu();
  attention_scratch_ =
      pass.scratch.Reserve(cpu ? 4 * kernels::AttentionVarlenScratch(pass.attention) : 0);
  far_.PlanBackward(pass);
  qkv_product_.Plan(pass, n, pass.scratch);
  o_product_.Plan(pass, n, pass.scratch);
}

void AttentionStage::Backward(const PackedPass& pass, const void* dout, const void* in,
                              bool accumulate, void* din) {
  const int64_t n = pass.tokens(), h = pass.hidden();
  const void* mixed = pass.saved.At(mixed_);
  void* dmixed = pass.scratch.At(dmixed_);
  void* dqkv = pass.scratch.At(dqkv_);
  const void* given = mixed;
  if (spec_.attention_gate) {
    void* gated = pass.scratch.At(gated_again_);
    Call(pass.launch,
         kernels::SigmoidGate{
             .x = mixed, .gate = pass.saved.At(gate_), .n = n * mixed_width(), .y = gated});
    given = gated;
  }
  o_product_.Backward(pass, dout, given, false, dmixed);
  if (spec_.attention_gate) {
    Call(pass.launch, kernels::SigmoidGateBackward{.dy = dmixed,
                                                   .x = mixed,
                                                   .gate = pass.saved.At(gate_),
                                                   .n = n * mixed_width(),
                                                   .dx = dmixed,
                                                   .dgate = pass.scratch.At(dgate_)});
  }
  if (spec_.o_bias && pass.G(at_.o_bias)) {
    Call(pass.launch,
         kernels::BiasBackward{.dx = dout, .rows = n, .width = h, .dbias = pass.G(at_.o_bias)});
  }
  if (spec_.sinks && pass.G(at_.sinks)) {
    Call(pass.launch,
         kernels::AttentionSinksBackward{.sinks = pass.W(at_.sinks),
                                         .dout = dmixed,
                                         .out = mixed,
                                         .lse = pass.saved.Floats(lse_),
                                         .tokens = n,
                                         .heads = static_cast<int32_t>(heads_),
                                         .head_dim = static_cast<int32_t>(head_dim_),
                                         .dsinks = pass.G(at_.sinks),
                                         .layout = AttentionLseLayout(pass.launch, Shape(pass))});
  }
  const RotaryTable* table = Rotary(pass);
  const Turned how = table ? Turned{.position = pass.positions,
                                    .cos_sin = table->cos_sin.f32(),
                                    .dims = table->dims,
                                    .interleaved = table->interleaved}
                           : Turned{};
  const bool turned = AttentionBackward(
      pass.launch, Shape(pass), dmixed, pass.saved.At(qkv_), mixed, pass.saved.Floats(lse_), dqkv,
      pass.scratch.Floats(attention_scratch_), table && !far_.chooses() ? &how : nullptr);
  far_.Backward(pass, Shape(pass), dmixed, in, pass.saved.At(qkv_), mixed, pass.saved.Floats(lse_),
                dqkv);
  Turn(pass, dqkv, true, turned);
  far_.AddQueries(pass, dqkv);
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
  void* dproduct = dqkv;
  if (spec_.attention_gate) {
    dproduct = pass.scratch.At(dproduct_);
    Move(pass, n, dqkv, width(), kernels::Reversed(to_qkv_), product_width(), dproduct);
    Move(pass, n, pass.scratch.At(dgate_), mixed_width(), kernels::Reversed(to_gate_),
         product_width(), dproduct);
  }
  if (spec_.qkv_bias && pass.G(at_.qkv_bias)) {
    Call(pass.launch,
         kernels::BiasBackward{
             .dx = dproduct, .rows = n, .width = product_width(), .dbias = pass.G(at_.qkv_bias)});
  }
  qkv_product_.Backward(pass, dproduct, in, accumulate, din);
  far_.AddInput(pass, din);
}

kernels::AttentionPaged AttentionStage::StepAttention(const PagedPass& pass) const {
  const bool apart = pass.sliding && spec_.GivesPagesBack();
  kernels::AttentionPaged attention{.q_stride = width(),
                                    .rows = pass.rows,
                                    .heads = static_cast<int32_t>(heads_),
                                    .layer = pass.sliding ? layer_of_kind_ : layer_,
                                    .kv = apart ? pass.sliding->kv : pass.kv,
                                    .scale = static_cast<float>(spec_.attention_scale),
                                    .window = static_cast<int32_t>(spec_.window),
                                    .global_every = static_cast<int32_t>(spec_.global_every)};
  if (apart) attention.rows.page_table = pass.sliding->page_table;
  return attention;
}

void AttentionStage::PlanStep(const PagedPass& pass) {
  step_qkv_ = pass.scratch.Reserve(pass.Bytes(pass.rows.rows * width()));
  step_mixed_ = pass.scratch.Reserve(pass.Bytes(pass.rows.rows * mixed_width()));
  if (spec_.attention_gate) {
    step_product_ = pass.scratch.Reserve(pass.Bytes(pass.rows.rows * product_width()));
    step_gate_ = pass.scratch.Reserve(pass.Bytes(pass.rows.rows * mixed_width()));
  }
  step_attention_bytes_ = spec_.sinks || far_.chooses()
                              ? 0
                              : kernels::AttentionPagedScratch(pass.launch, StepAttention(pass));
  step_attention_ = pass.scratch.Reserve(step_attention_bytes_);
  far_.PlanStep(pass);
  qkv_product_.Plan(pass, pass.rows.rows, pass.scratch);
  o_product_.Plan(pass, pass.rows.rows, pass.scratch);
}

void AttentionStage::Step(const PagedPass& pass, const void* in, bool accumulate, void* out) {
  const int64_t n = pass.rows.rows, h = pass.hidden();
  void* qkv = pass.scratch.At(step_qkv_);
  void* mixed = pass.scratch.At(step_mixed_);
  void* product = spec_.attention_gate ? pass.scratch.At(step_product_) : qkv;
  qkv_product_.Step(pass, in, false, product);
  if (spec_.qkv_bias) {
    Call(pass.launch,
         kernels::AddBias{
             .x = product, .bias = pass.W(at_.qkv_bias), .rows = n, .width = product_width()});
  }
  if (spec_.attention_gate) {
    Move(pass, n, product, product_width(), to_qkv_, width(), qkv);
    Move(pass, n, product, product_width(), to_gate_, mixed_width(), pass.scratch.At(step_gate_));
  }
  if (normed()) {
    Call(pass.launch, kernels::HeadNorm{.shape = NormShape(n),
                                        .x = qkv,
                                        .w_q = pass.W(at_.q_norm),
                                        .w_k = pass.W(at_.k_norm),
                                        .y = qkv});
  }
  kernels::AttentionPaged attention = StepAttention(pass);
  attention.q = qkv;
  attention.sinks = spec_.sinks ? pass.W(at_.sinks) : nullptr;
  attention.scratch = step_attention_bytes_ > 0 ? pass.scratch.At(step_attention_) : nullptr;
  attention.out = mixed;
  const RotaryTable* table = Rotary(pass);
  const auto heads = static_cast<int32_t>(heads_);
  far_.BeginStep(pass, in, qkv, attention);
  Call(pass.launch, kernels::RopeAndWriteKv{.qkv = qkv,
                                            .rows = attention.rows,
                                            .cos_sin = table ? table->cos_sin.f32() : nullptr,
                                            .heads = heads,
                                            .dims = table ? table->dims : 0,
                                            .interleaved = table && table->interleaved,
                                            .layer = attention.layer,
                                            .kv = attention.kv});
  ScaleQueries(pass, pass.rows.position, n, qkv);
  Call(pass.launch, attention);
  far_.EndStep(pass, attention);
  if (spec_.attention_gate) {
    Call(pass.launch,
         kernels::SigmoidGate{
             .x = mixed, .gate = pass.scratch.At(step_gate_), .n = n * mixed_width(), .y = mixed});
  }
  o_product_.Step(pass, mixed, accumulate, out);
  if (spec_.o_bias && pass.AddsBias())
    Call(pass.launch,
         kernels::AddBias{.x = out, .bias = pass.W(at_.o_bias), .rows = n, .width = h});
}

}  // namespace plumb::policy_model

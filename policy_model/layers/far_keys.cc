#include "policy_model/layers/far_keys.h"

#include "kernels/sparse/chosen_attention.h"
#include "kernels/sparse/token_gate.h"
#include "policy_model/layers/ops.h"

namespace plumb::policy_model {

using kernels::Call;

namespace {

int32_t* Ints(Arena& arena, int64_t at) { return static_cast<int32_t*>(arena.At(at)); }

// The sequences where the device reads them.
kernels::VarlenShape There(const Pass& pass, const AttentionShape& shape) {
  kernels::VarlenShape there = shape;
  if (pass.launch.device().is_cuda()) there.parents = shape.parents_there;
  return there;
}

}  // namespace

FarKeys::FarKeys(const ModelShape& shape, const LayerSpec& spec, const LayerSlices& slices,
                 int64_t state)
    : heads_(shape.heads),
      kv_heads_(shape.kv_heads),
      head_dim_(shape.head_dim),
      window_(spec.window),
      count_(spec.gate_top_k),
      scale_(static_cast<float>(spec.attention_scale)),
      gate_(slices.token_gate),
      state_(state),
      table_(spec.table ? KeyTableOf(shape) : nullptr) {}

// Copies the table to a GPU in the first pass that computes there; plans take no memory.
kernels::TableShape FarKeys::TableOf(const Pass& pass, int64_t rows) const {
  const Stream& stream = pass.launch.stream;
  if (stream.device().is_cuda() && !table_there_) table_there_ = KeyTableOn(table_, stream);
  const float* keys = table_there_ ? table_there_->f32() : table_->keys.data();
  const float* values = table_there_ ? keys + table_->keys.size() : table_->values.data();
  return {.rows = rows,
          .heads = static_cast<int32_t>(heads_),
          .head_dim = static_cast<int32_t>(head_dim_),
          .scale = scale_,
          .keys = keys,
          .values = values,
          .entries = static_cast<int64_t>(table_->keys.size()) / head_dim_};
}

void FarKeys::PlanForward(const PackedPass& pass) {
  const int64_t n = pass.tokens();
  if (count_ > 0) {
    gates_ = pass.saved.Reserve(4 * n);
    chosen_ = pass.saved.Reserve(4 * n * count_);
  }
  if (table_) queries_ = pass.saved.Reserve(pass.Bytes(n * queries_width()));
}

void FarKeys::TakeQueries(const PackedPass& pass, const void* qkv) const {
  if (!table_) return;
  ops::CopyColumns(pass.launch, qkv, pass.tokens(), width(), 0, queries_width(),
                   pass.saved.At(queries_));
}

void FarKeys::Forward(const PackedPass& pass, const AttentionShape& shape, const void* in,
                      const void* qkv, void* out, float* lse) const {
  const int64_t n = pass.tokens();
  const kernels::LseLayout layout = AttentionLseLayout(pass.launch, shape);
  if (count_ > 0) {
    float* gates = pass.saved.Floats(gates_);
    const auto count = static_cast<int32_t>(count_);
    Call(pass.launch,
         kernels::TokenGate{
             .x = in, .w = pass.W(gate_), .rows = n, .width = pass.hidden(), .gate = gates});
    Call(pass.launch, kernels::ChooseTokens{.shape = There(pass, shape),
                                            .gate = gates,
                                            .count = count,
                                            .chosen = Ints(pass.saved, chosen_)});
    Call(pass.launch, kernels::ChosenAttention{.shape = There(pass, shape),
                                               .qkv = qkv,
                                               .gate = gates,
                                               .chosen = Ints(pass.saved, chosen_),
                                               .count = count,
                                               .out = out,
                                               .lse = lse,
                                               .layout = layout});
  }
  if (!table_) return;
  Call(pass.launch, kernels::TableAttention{.shape = TableOf(pass, n),
                                            .q = pass.saved.At(queries_),
                                            .out = out,
                                            .lse = lse,
                                            .layout = layout});
}

void FarKeys::PlanBackward(const PackedPass& pass) {
  const int64_t n = pass.tokens();
  if (count_ > 0) {
    dgates_ = pass.scratch.Reserve(4 * n);
    chosen_scratch_ = pass.scratch.Reserve(
        4 * kernels::ChosenAttentionScratch(pass.attention, pass.launch.device()));
  }
  if (table_) dqueries_ = pass.scratch.Reserve(pass.Bytes(n * queries_width()));
}

void FarKeys::Backward(const PackedPass& pass, const AttentionShape& shape, const void* dout,
                       const void* in, const void* qkv, const void* out, const float* lse,
                       void* dqkv) const {
  if (count_ > 0) {
    Call(pass.launch,
         kernels::ChosenAttentionBackward{.shape = There(pass, shape),
                                          .dout = dout,
                                          .qkv = qkv,
                                          .out = out,
                                          .lse = lse,
                                          .gate = pass.saved.Floats(gates_),
                                          .chosen = Ints(pass.saved, chosen_),
                                          .count = static_cast<int32_t>(count_),
                                          .dqkv = dqkv,
                                          .dgate = pass.scratch.Floats(dgates_),
                                          .scratch = pass.scratch.Floats(chosen_scratch_),
                                          .layout = AttentionLseLayout(pass.launch, shape)});
    Call(pass.launch, kernels::TokenGateBackward{.dgate = pass.scratch.Floats(dgates_),
                                                 .x = in,
                                                 .w = pass.W(gate_),
                                                 .rows = pass.tokens(),
                                                 .width = pass.hidden(),
                                                 .dw = pass.G(gate_)});
  }
  if (!table_) return;
  Call(pass.launch,
       kernels::TableAttentionBackward{.shape = TableOf(pass, pass.tokens()),
                                       .dout = dout,
                                       .q = pass.saved.At(queries_),
                                       .out = out,
                                       .lse = lse,
                                       .dq = pass.scratch.At(dqueries_),
                                       .layout = AttentionLseLayout(pass.launch, shape)});
}

void FarKeys::AddQueries(const PackedPass& pass, void* dqkv) const {
  if (!table_) return;
  ops::AddToColumns(pass.launch, pass.scratch.At(dqueries_), pass.tokens(), queries_width(),
                    width(), 0, dqkv);
}

void FarKeys::AddInput(const PackedPass& pass, void* din) const {
  if (count_ == 0) return;
  Call(pass.launch, kernels::TokenGateBackward{.dgate = pass.scratch.Floats(dgates_),
                                               .w = pass.W(gate_),
                                               .rows = pass.tokens(),
                                               .width = pass.hidden(),
                                               .dx = din});
}

void FarKeys::PlanStep(const PagedPass& pass) {
  const int64_t n = pass.rows.rows;
  if (count_ > 0) {
    step_gates_ = pass.scratch.Reserve(4 * n);
    step_chosen_ = pass.scratch.Reserve(4 * n * count_);
    step_weight_ = pass.scratch.Reserve(4 * n * count_);
  }
  if (table_) {
    step_queries_ = pass.scratch.Reserve(pass.Bytes(n * queries_width()));
    step_lse_ = pass.scratch.Reserve(4 * n * heads_);
  }
}

void FarKeys::BeginStep(const PagedPass& pass, const void* in, const void* qkv,
                        kernels::AttentionPaged& step) const {
  const int64_t n = pass.rows.rows;
  Arena& a = pass.scratch;
  if (count_ > 0) {
    PLUMB_CHECK(pass.states && pass.states->data, "memory for what the gate has chosen");
    float* gates = a.Floats(step_gates_);
    const auto count = static_cast<int32_t>(count_);
    Call(pass.launch,
         kernels::TokenGate{
             .x = in, .w = pass.W(gate_), .rows = n, .width = pass.hidden(), .gate = gates});
    Call(pass.launch, kernels::ChooseTokensStep{.rows = pass.rows,
                                                .states = *pass.states,
                                                .offset = state_,
                                                .window = static_cast<int32_t>(window_),
                                                .count = count,
                                                .gate = gates,
                                                .chosen = Ints(a, step_chosen_),
                                                .weight = a.Floats(step_weight_)});
    step.chosen = Ints(a, step_chosen_);
    step.chosen_weight = a.Floats(step_weight_);
    step.chosen_count = count;
  }
  if (!table_) return;
  ops::CopyColumns(pass.launch, qkv, n, width(), 0, queries_width(), a.At(step_queries_));
  step.lse = a.Floats(step_lse_);
}

void FarKeys::EndStep(const PagedPass& pass, const kernels::AttentionPaged& step) const {
  if (!table_) return;
  Call(pass.launch, kernels::TableAttention{.shape = TableOf(pass, pass.rows.rows),
                                            .q = pass.scratch.At(step_queries_),
                                            .out = step.out,
                                            .lse = step.lse});
}

}  // namespace plumb::policy_model

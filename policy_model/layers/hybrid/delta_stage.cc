#include "policy_model/layers/hybrid/delta_stage.h"

#include "kernels/delta/delta_step.h"
#include "kernels/delta/gated_norm.h"
#include "policy_model/layers/hybrid/packed_shape.h"

namespace plumb::policy_model {
namespace {

using kernels::Call;
using kernels::ColumnRun;

// Files of one kind have, for each head of keys: q, k, and v and the gates of its heads of values;
// behind all of these, for each, the strengths and the decays of its heads of values.
std::vector<ColumnRun> RunsOf(const DeltaSpec& s) {
  std::vector<ColumnRun> runs;
  if (!s.by_k_head) return runs;
  const int64_t group = s.v_heads / s.k_heads, values = group * s.v_dim;
  const int64_t gate = s.conv_width(), strength = gate + s.value_width();
  for (int64_t h = 0; h < s.k_heads; ++h) {
    const int64_t at = h * 2 * (s.k_dim + values);
    runs.push_back({at, h * s.k_dim, s.k_dim});
    runs.push_back({at + s.k_dim, s.key_width() + h * s.k_dim, s.k_dim});
    runs.push_back({at + 2 * s.k_dim, 2 * s.key_width() + h * values, values});
    runs.push_back({at + 2 * s.k_dim + values, gate + h * values, values});
    const int64_t scalars = strength + h * 2 * group;
    runs.push_back({scalars, strength + h * group, group});
    runs.push_back({scalars + group, strength + s.v_heads + h * group, group});
  }
  return runs;
}

}  // namespace

DeltaStage::DeltaStage(const ModelShape& shape, const LayerSpec& spec, const LayerSlices& slices,
                       int64_t state)
    : spec_(spec.delta),
      at_(slices),
      eps_(static_cast<float>(shape.norm_eps)),
      state_(state),
      runs_(RunsOf(spec.delta)),
      in_product_(slices.delta_in, spec.delta.in_width(), shape.hidden),
      out_product_(slices.delta_out, shape.hidden, spec.delta.value_width()) {}

kernels::DeltaShape DeltaStage::RuleOf(const PackedPass* pass) const {
  kernels::DeltaShape s{.k_heads = static_cast<int32_t>(spec_.k_heads),
                        .v_heads = static_cast<int32_t>(spec_.v_heads),
                        .k_dim = static_cast<int32_t>(spec_.k_dim),
                        .v_dim = static_cast<int32_t>(spec_.v_dim)};
  FillSequences(pass, s);
  return s;
}

kernels::ShortConvShape DeltaStage::ConvOf(const PackedPass* pass) const {
  kernels::ShortConvShape s{.channels = spec_.conv_width(),
                            .taps = static_cast<int32_t>(spec_.taps),
                            .silu = true,
                            .x_stride = spec_.in_width(),
                            .y_stride = spec_.conv_width()};
  FillSequences(pass, s);
  return s;
}

void DeltaStage::Arrange(const Pass& pass, const void* product, int64_t n, void* arranged) const {
  if (runs_.empty()) return;  // it is the same memory
  Call(pass.launch, kernels::MoveColumns{.x = product,
                                         .rows = n,
                                         .x_width = spec_.in_width(),
                                         .y_width = spec_.in_width(),
                                         .runs = runs_.data(),
                                         .count = static_cast<int64_t>(runs_.size()),
                                         .y = arranged});
}

void DeltaStage::Gates(const Pass& pass, const void* arranged, int64_t n, float* g,
                       float* beta) const {
  Call(pass.launch, kernels::DeltaGates{.a = Column(pass, arranged, decay_at()),
                                        .b = Column(pass, arranged, strength_at()),
                                        .rows = n,
                                        .stride = spec_.in_width(),
                                        .heads = static_cast<int32_t>(spec_.v_heads),
                                        .a_log = pass.W(at_.delta_a_log),
                                        .bias = pass.W(at_.delta_bias),
                                        .g = g,
                                        .beta = beta});
}

void DeltaStage::Norm(const Pass& pass, const void* read, const void* arranged, int64_t n,
                      void* y) const {
  Call(pass.launch, kernels::GatedNorm{.x = read,
                                       .z = Column(pass, arranged, gate_at()),
                                       .w = pass.W(at_.delta_norm),
                                       .rows = n,
                                       .z_stride = spec_.in_width(),
                                       .heads = static_cast<int32_t>(spec_.v_heads),
                                       .dim = static_cast<int32_t>(spec_.v_dim),
                                       .eps = eps_,
                                       .y = y});
}

// Of the blocks of a GPU.
int64_t DeltaStage::PlanWork(const PackedPass& pass, const kernels::DeltaShape& rule,
                             bool backward) {
  const bool there = pass.launch.device().is_cuda();
  return there ? pass.scratch.Reserve(4 * kernels::GatedDeltaWork(rule, backward)) : 0;
}

void DeltaStage::PlanForward(const PackedPass& pass) {
  const int64_t n = pass.tokens(), scalars = 4 * n * spec_.v_heads;
  const kernels::DeltaShape rule = RuleOf(&pass);
  arranged_ = pass.saved.Reserve(pass.Bytes(n * spec_.in_width()));
  mixed_ = pass.saved.Reserve(pass.Bytes(n * spec_.conv_width()));
  g_ = pass.saved.Reserve(scalars);
  beta_ = pass.saved.Reserve(scalars);
  states_ = pass.saved.Reserve(4 * rule.slots(pass.keep) * rule.v_heads * rule.state());
  read_ = pass.saved.Reserve(pass.Bytes(n * spec_.value_width()));
  product_ = runs_.empty() ? 0 : pass.scratch.Reserve(pass.Bytes(n * spec_.in_width()));
  y_ = pass.scratch.Reserve(pass.Bytes(n * spec_.value_width()));
  work_ = PlanWork(pass, rule, false);
  in_product_.Plan(pass, n, pass.scratch);
  out_product_.Plan(pass, n, pass.scratch);
}

void DeltaStage::Forward(const PackedPass& pass, const void* in, bool accumulate, void* out) {
  const int64_t n = pass.tokens();
  void* arranged = pass.saved.At(arranged_);
  void* product = runs_.empty() ? arranged : pass.scratch.At(product_);
  void* mixed = pass.saved.At(mixed_);
  void* read = pass.saved.At(read_);
  in_product_.Forward(pass, in, false, product);
  Arrange(pass, product, n, arranged);
  Call(pass.launch,
       kernels::ShortConv{
           .shape = ConvOf(&pass), .x = arranged, .w = pass.W(at_.delta_conv), .y = mixed});
  Gates(pass, arranged, n, pass.saved.Floats(g_), pass.saved.Floats(beta_));
  Call(pass.launch, kernels::GatedDelta{.shape = RuleOf(&pass),
                                        .qkv = mixed,
                                        .g = pass.saved.Floats(g_),
                                        .beta = pass.saved.Floats(beta_),
                                        .keep = pass.keep,
                                        .states = pass.saved.Floats(states_),
                                        .out = read,
                                        .work = pass.scratch.Floats(work_)});
  if (!pass.output) return;
  void* y = pass.scratch.At(y_);
  Norm(pass, read, arranged, n, y);
  out_product_.Forward(pass, y, accumulate, out);
}

void DeltaStage::PlanBackward(const PackedPass& pass) {
  const int64_t n = pass.tokens(), scalars = 4 * n * spec_.v_heads,
                values = pass.Bytes(n * spec_.value_width()),
                wide = pass.Bytes(n * spec_.in_width());
  y_again_ = pass.scratch.Reserve(values);
  dread_ = pass.scratch.Reserve(values);
  dmixed_ = pass.scratch.Reserve(pass.Bytes(n * spec_.conv_width()));
  darranged_ = pass.scratch.Reserve(wide);
  dproduct_ = runs_.empty() ? darranged_ : pass.scratch.Reserve(wide);
  dg_ = pass.scratch.Reserve(scalars);
  dbeta_ = pass.scratch.Reserve(scalars);
  norm_scratch_ = pass.scratch.Reserve(4 * kernels::kGatedNormScratchRows * spec_.v_dim);
  dstates_ = pass.scratch.Reserve(4 * kernels::GatedDeltaScratch(RuleOf(&pass)));
  dwork_ = PlanWork(pass, RuleOf(&pass), true);
  in_product_.Plan(pass, n, pass.scratch);
  out_product_.Plan(pass, n, pass.scratch);
}

void DeltaStage::Backward(const PackedPass& pass, const void* dout, const void* in, bool accumulate,
                          void* din) {
  const int64_t n = pass.tokens();
  const void* arranged = pass.saved.At(arranged_);
  const void* mixed = pass.saved.At(mixed_);
  const void* read = pass.saved.At(read_);
  const float* g = pass.saved.Floats(g_);
  const float* beta = pass.saved.Floats(beta_);
  void* y = pass.scratch.At(y_again_);
  void* dread = pass.scratch.At(dread_);
  void* dmixed = pass.scratch.At(dmixed_);
  void* darranged = pass.scratch.At(darranged_);
  float* dg = pass.scratch.Floats(dg_);
  float* dbeta = pass.scratch.Floats(dbeta_);
  Norm(pass, read, arranged, n, y);
  out_product_.Backward(pass, dout, y, false, dread);
  Call(pass.launch, kernels::GatedNormBackward{.dy = dread,
                                               .x = read,
                                               .z = Column(pass, arranged, gate_at()),
                                               .w = pass.W(at_.delta_norm),
                                               .rows = n,
                                               .z_stride = spec_.in_width(),
                                               .heads = static_cast<int32_t>(spec_.v_heads),
                                               .dim = static_cast<int32_t>(spec_.v_dim),
                                               .eps = eps_,
                                               .dx = dread,
                                               .dz = Column(pass, darranged, gate_at()),
                                               .dw = pass.G(at_.delta_norm),
                                               .scratch = pass.scratch.Floats(norm_scratch_)});
  Call(pass.launch, kernels::GatedDeltaBackward{.shape = RuleOf(&pass),
                                                .dout = dread,
                                                .qkv = mixed,
                                                .g = g,
                                                .beta = beta,
                                                .states = pass.saved.Floats(states_),
                                                .dqkv = dmixed,
                                                .dg = dg,
                                                .dbeta = dbeta,
                                                .scratch = pass.scratch.Floats(dstates_),
                                                .work = pass.scratch.Floats(dwork_)});
  Call(pass.launch, kernels::DeltaGatesBackward{.a = Column(pass, arranged, decay_at()),
                                                .b = Column(pass, arranged, strength_at()),
                                                .rows = n,
                                                .stride = spec_.in_width(),
                                                .heads = static_cast<int32_t>(spec_.v_heads),
                                                .a_log = pass.W(at_.delta_a_log),
                                                .bias = pass.W(at_.delta_bias),
                                                .dg = dg,
                                                .dbeta = dbeta,
                                                .da = Column(pass, darranged, decay_at()),
                                                .db = Column(pass, darranged, strength_at()),
                                                .da_log = pass.G(at_.delta_a_log),
                                                .dbias = pass.G(at_.delta_bias)});
  Call(pass.launch, kernels::ShortConvBackward{.shape = ConvOf(&pass),
                                               .dy = dmixed,
                                               .x = arranged,
                                               .w = pass.W(at_.delta_conv),
                                               .dx = darranged,
                                               .dw = pass.G(at_.delta_conv)});
  void* dproduct = pass.scratch.At(dproduct_);
  if (!runs_.empty()) {
    const std::vector<ColumnRun> back = kernels::Reversed(runs_);
    Call(pass.launch, kernels::MoveColumns{.x = darranged,
                                           .rows = n,
                                           .x_width = spec_.in_width(),
                                           .y_width = spec_.in_width(),
                                           .runs = back.data(),
                                           .count = static_cast<int64_t>(back.size()),
                                           .y = dproduct});
  }
  in_product_.Backward(pass, dproduct, in, accumulate, din);
}

void DeltaStage::PlanStep(const PagedPass& pass) {
  const int64_t n = pass.rows.rows, scalars = 4 * n * spec_.v_heads,
                wide = pass.Bytes(n * spec_.in_width());
  step_product_ = pass.scratch.Reserve(wide);
  step_arranged_ = runs_.empty() ? step_product_ : pass.scratch.Reserve(wide);
  step_mixed_ = pass.scratch.Reserve(pass.Bytes(n * spec_.conv_width()));
  step_g_ = pass.scratch.Reserve(scalars);
  step_beta_ = pass.scratch.Reserve(scalars);
  step_y_ = pass.scratch.Reserve(pass.Bytes(n * spec_.value_width()));
  in_product_.Plan(pass, n, pass.scratch);
  out_product_.Plan(pass, n, pass.scratch);
}

void DeltaStage::Step(const PagedPass& pass, const void* in, bool accumulate, void* out) {
  PLUMB_CHECK(pass.states, "a model with states needs them in every step");
  const int64_t n = pass.rows.rows;
  void* product = pass.scratch.At(step_product_);
  void* arranged = pass.scratch.At(step_arranged_);
  void* mixed = pass.scratch.At(step_mixed_);
  void* y = pass.scratch.At(step_y_);
  float* g = pass.scratch.Floats(step_g_);
  float* beta = pass.scratch.Floats(step_beta_);
  in_product_.Step(pass, in, false, product);
  Arrange(pass, product, n, arranged);
  Call(pass.launch, kernels::ShortConvStep{.shape = ConvOf(nullptr),
                                           .rows = pass.rows,
                                           .x = arranged,
                                           .w = pass.W(at_.delta_conv),
                                           .states = *pass.states,
                                           .offset = state_,
                                           .y = mixed});
  Gates(pass, arranged, n, g, beta);
  Call(pass.launch, kernels::DeltaStep{.shape = RuleOf(nullptr),
                                       .rows = pass.rows,
                                       .qkv = mixed,
                                       .g = g,
                                       .beta = beta,
                                       .states = *pass.states,
                                       .offset = state_ + spec_.conv_state(),
                                       .out = y});
  Norm(pass, y, arranged, n, y);
  out_product_.Step(pass, y, accumulate, out);
}

}  // namespace plumb::policy_model

#include "policy_model/layers/experts_stage.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "kernels/device/device_memory.h"
#include "kernels/embedding.h"
#include "policy_model/families/experts/exact_floats.h"
#include "policy_model/layers/ops.h"

namespace plumb::policy_model {

using kernels::Call;

namespace {

LayerSpec SharedSpec(const LayerSpec& spec) {
  LayerSpec shared = spec;
  shared.ffn = spec.experts.shared_ffn;
  shared.ffn_bias = false;
  return shared;
}

LayerSlices SharedSlices(const LayerSlices& at) {
  LayerSlices shared;
  shared.gate_up = at.shared_gate_up;
  shared.down = at.shared_down;
  return shared;
}

int32_t* Ints(Arena& arena, int64_t at) { return static_cast<int32_t*>(arena.At(at)); }

}  // namespace

ExpertsStage::ExpertsStage(int64_t hidden, const LayerSpec& spec, const LayerSlices& slices,
                           int64_t layer, int64_t place)
    : hidden_(hidden),
      spec_(spec.experts),
      activation_(spec.activation == FfnActivation::kSilu ? kernels::Activation::kSilu
                                                          : kernels::Activation::kGeluTanh),
      at_(slices),
      layer_(layer),
      place_(place),
      gate_up_adapters_(slices.experts_gate_up, 2 * spec_.widest(), hidden),
      down_adapters_(slices.experts_down[0], hidden, spec_.widest()),
      visits_(spec_.here()) {
  int64_t rows = 0;
  for (const int64_t width : spec_.widths) {
    gate_up_rows_.push_back(rows);
    rows += 2 * width;
  }
  if (spec_.shared_ffn > 0)
    shared_ = std::make_unique<FfnStage>(hidden, SharedSpec(spec), SharedSlices(slices));
}

kernels::RouterShape ExpertsStage::RouterOf(int64_t n) const {
  return {.rows = n,
          .experts = static_cast<int32_t>(spec_.count()),
          .per_token = static_cast<int32_t>(spec_.per_token),
          .sigmoid = spec_.score == RouterScore::kSigmoid,
          .renormalize = spec_.renormalize,
          .temperature = static_cast<float>(spec_.temperature),
          .scale = static_cast<float>(spec_.scale),
          .groups = static_cast<int32_t>(spec_.groups),
          .groups_per_token = static_cast<int32_t>(spec_.groups_per_token),
          .group_best = static_cast<int32_t>(spec_.group_best)};
}

ExpertsStage::Kept ExpertsStage::PlanKept(const Pass& pass, int64_t n, Arena& arena) const {
  const int64_t s = slots(n), e = spec_.count();
  Kept k;
  k.logits = arena.Reserve(4 * n * e);
  k.expert = arena.Reserve(4 * s);
  k.weight = arena.Reserve(4 * s);
  k.begin = arena.Reserve(4 * (e + 1));
  k.slot = arena.Reserve(4 * s);
  k.token = arena.Reserve(4 * s);
  k.slot_weight = arena.Reserve(4 * s);
  if (!VisitsOf(pass)) k.gate_up = arena.Reserve(pass.Bytes(s * 2 * spec_.widest()));
  if (shared_ && spec_.shared_gate) {
    k.gate = arena.Reserve(4 * n);
    k.shared = arena.Reserve(pass.Bytes(n * hidden_));
  }
  return k;
}

ExpertsStage::Passing ExpertsStage::PlanPassing(const Pass& pass, int64_t n, Arena& arena) {
  Passing p;
  p.rows = arena.Reserve(pass.Bytes(slots(n) * hidden_));
  if (!VisitsOf(pass)) p.act = arena.Reserve(pass.Bytes(slots(n) * spec_.widest()));
  p.bias = arena.Reserve(4 * (1 + kExactParts) * spec_.count());
  p.logit_bias = spec_.biased ? arena.Reserve(4 * spec_.count()) : 0;
  // On a GPU those of all experts at once.
  const int64_t most = pass.launch.device().is_cuda() ? slots(n) : n;
  gate_up_adapters_.Plan(pass, most, arena);
  down_adapters_.Plan(pass, most, arena);
  return p;
}

ExpertsStage::RouterBiases ExpertsStage::Biases(const Pass& pass, Arena& arena,
                                                const Passing& p) const {
  const auto count = static_cast<size_t>(spec_.count());
  RouterBiases out;
  if (at_.router_bias >= 0) {
    const std::span bias(arena.Floats(p.bias), count),
        parts(bias.data() + count, kExactParts * count);
    ConvertToFloat(pass.W(at_.router_bias), pass.launch.dtype, parts);
    JoinExact(parts, bias);
    out.balancing = bias.data();
  }
  if (at_.router_logit_bias >= 0) {
    const std::span bias(arena.Floats(p.logit_bias), count);
    ConvertToFloat(pass.W(at_.router_logit_bias), pass.launch.dtype, bias);
    out.logits = bias.data();
  }
  return out;
}

void ExpertsStage::Activate(const Pass& pass, const void* gate_up, int64_t rows, int64_t width,
                            void* act) const {
  if (spec_.glu_limit > 0) {
    Call(pass.launch, kernels::ClampedGlu{.gate_up = gate_up,
                                          .rows = rows,
                                          .ffn = width,
                                          .alpha = static_cast<float>(spec_.glu_alpha),
                                          .limit = static_cast<float>(spec_.glu_limit),
                                          .out = act});
    return;
  }
  Call(pass.launch,
       kernels::Glu{
           .gate_up = gate_up, .rows = rows, .ffn = width, .activation = activation_, .out = act});
}

void ExpertsStage::ActivateBackward(const Pass& pass, const void* dact, int64_t rows, int64_t width,
                                    void* gate_up) const {
  if (spec_.glu_limit > 0) {
    Call(pass.launch, kernels::ClampedGluBackward{.dout = dact,
                                                  .gate_up = gate_up,
                                                  .rows = rows,
                                                  .ffn = width,
                                                  .alpha = static_cast<float>(spec_.glu_alpha),
                                                  .limit = static_cast<float>(spec_.glu_limit),
                                                  .dgate_up = gate_up});
    return;
  }
  Call(pass.launch, kernels::GluBackward{.dout = dact,
                                         .gate_up = gate_up,
                                         .rows = rows,
                                         .ffn = width,
                                         .activation = activation_,
                                         .dgate_up = gate_up});
}

// Where the expert's part of a bias begins; -1: it has none.
int64_t ExpertsStage::GateUpBias(int32_t expert) const {
  return spec_.biased ? at_.experts_gate_up_bias + gate_up_rows_[static_cast<size_t>(expert)] : -1;
}

int64_t ExpertsStage::DownBias(int32_t expert) const {
  return spec_.biased ? at_.experts_down_bias + expert * hidden_ : -1;
}

const void* ExpertsStage::GateUp(const Pass& pass, int32_t expert) const {
  return pass.W(at_.experts_gate_up + gate_up_rows_[static_cast<size_t>(expert)] * hidden_);
}

// What comes of it is not finite either: an update is skipped and counted, an answer ends. The
// first such layer says where it began.
void ExpertsStage::CheckFinite(const float* logits, int64_t n) const {
  // NaN and infinity times 0 are NaN; the sum is 0 otherwise.
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n * spec_.count(); ++i) sum += logits[i] * 0.0f;
  if (sum != 0) WarnNotFinite();
}

void ExpertsStage::WarnNotFinite() const {
  LogWarningOnce(
      "layer " + std::to_string(layer_) +
      ": the router's scores of the experts are not finite: the weights hold NaN or "
      "infinity, or the hidden state has outgrown its type. Updates that are not finite "
      "for it are skipped (optim/skipped), answers end; look for a learning rate that is "
      "too high, or load the weights anew");
}

void ExpertsStage::Route(const Pass& pass, const void* in, int64_t n, Arena& kept, const Kept& k,
                         const RouterBiases& biases, const int64_t* capacity,
                         LayerLoad* load) const {
  float* logits = kept.Floats(k.logits);
  // The product whose rows do not depend on one another, in training too: the choice is the same.
  ops::LinearRowsToFloat(pass.launch, in, pass.W(at_.router), n, spec_.count(), hidden_, logits);
  if (biases.logits) {
    const kernels::Launch floats = {.stream = pass.launch.stream, .dtype = DType::kFloat32};
    Call(floats,
         kernels::AddBias{.x = logits, .bias = biases.logits, .rows = n, .width = spec_.count()});
  }
  CheckFinite(logits, n);
  Routing* routing = pass.routing;
  const int64_t k_of = spec_.per_token,
                stride = routing ? k_of * static_cast<int64_t>(routing->load.size()) : 0;
  const int32_t* given = routing && routing->given ? routing->given + place_ * k_of : nullptr;
  for (int64_t t = 0; load && given && t < n; ++t) load->given += given[t * stride] < 0 ? 0 : k_of;
  Call(pass.launch, kernels::RouteTokens{.shape = RouterOf(n),
                                         .logits = logits,
                                         .bias = biases.balancing,
                                         .given = given,
                                         .given_stride = stride,
                                         .otherwise = load && given ? &load->otherwise : nullptr,
                                         .expert = Ints(kept, k.expert),
                                         .weight = kept.Floats(k.weight)});
  for (int64_t t = 0; routing && t < n; ++t) {
    std::copy_n(Ints(kept, k.expert) + t * k_of, k_of,
                routing->taken.begin() + t * stride + place_ * k_of);
  }
  Dispatch(pass, n, kept, k, capacity);
}

void ExpertsStage::Gate(const Pass& pass, const void* in, int64_t n, Arena& kept,
                        const Kept& k) const {
  float* gate = kept.Floats(k.gate);
  ops::LinearRowsToFloat(pass.launch, in, pass.W(at_.shared_gate), n, 1, hidden_, gate);
  if (pass.launch.device().is_cuda()) {
    ops::Sigmoid(pass.launch, n, gate);
    return;
  }
  for (int64_t i = 0; i < n; ++i) gate[i] = 1 / (1 + std::exp(-gate[i]));
}

void ExpertsStage::Through(Product product, const Pass& pass, const int32_t* begin, Arena& passing,
                           const void* in, void* gate_up, void* act, void* out) const {
  int64_t used = 0;  // elements of gate_up
  for (int32_t e = 0; e < spec_.here(); ++e) {
    const int64_t first = begin[e], m = begin[e + 1] - first,
                  width = spec_.widths[static_cast<size_t>(e)];
    if (m == 0) continue;
    const std::byte* x = static_cast<const std::byte*>(in) + pass.Bytes(first * hidden_);
    std::byte* y = static_cast<std::byte*>(out) + pass.Bytes(first * hidden_);
    std::byte* both = static_cast<std::byte*>(gate_up) + pass.Bytes(used);
    used += m * 2 * width;
    product(pass.launch, x, GateUp(pass, e), m, 2 * width, hidden_, false, both);
    const auto add_bias = [&](int64_t bias, int64_t row, void* to) {
      if (bias < 0) return;
      Call(pass.launch, kernels::AddBias{.x = to, .bias = pass.W(bias), .rows = m, .width = row});
    };
    gate_up_adapters_.Add(product, pass, passing, e, m, x, both);
    add_bias(GateUpBias(e), 2 * width, both);
    Activate(pass, both, m, width, act);
    product(pass.launch, act, pass.W(at_.experts_down[static_cast<size_t>(e)]), m, hidden_, width,
            false, y);
    down_adapters_.Add(product, pass, passing, e, m, act, y);
    add_bias(DownBias(e), hidden_, y);
  }
}

void ExpertsStage::Apply(Product product, const Pass& pass, int64_t n, Arena& kept, const Kept& k,
                         Arena& passing, const Passing& p, bool accumulate, void* out) const {
  void* rows = passing.At(p.rows);
  // What went in is not needed any more: what comes out lies there.
  if (!VisitsOf(pass)) {
    Through(product, pass, Ints(kept, k.begin), passing, rows, kept.At(k.gate_up),
            passing.At(p.act), rows);
  }
  Combine(pass, rows, Ints(kept, k.slot), kept.Floats(k.weight), n, accumulate, out);
}

std::vector<int64_t> ExpertsStage::Capacity(const PackedPass& pass) const {
  if (!pass.keep || !pass.routing || pass.routing->options.capacity <= 0) return {};
  const RoutingOptions& o = pass.routing->options;
  const double equal =
      static_cast<double>(slots(pass.tokens())) / static_cast<double>(spec_.count());
  std::vector<int64_t> out;
  for (int64_t e = 0; e < spec_.count(); ++e) {
    const double u = o.capacity_noise > 0
                         ? static_cast<double>(UniformOpen(RandomAt(o.seed, pass.routing->pass,
                                                                    static_cast<uint32_t>(layer_),
                                                                    static_cast<uint32_t>(e))
                                                               .x[0]))
                         : 0;
    out.push_back(static_cast<int64_t>(equal * (o.capacity + o.capacity_noise * u)));
  }
  return out;
}

void ExpertsStage::Count(const PackedPass& pass, const int32_t* expert, const float* logits) const {
  const int64_t n = pass.tokens(), count = spec_.count();
  LayerLoad& load = pass.routing->load[static_cast<size_t>(place_)];
  load.layer = layer_;
  load.tokens.resize(static_cast<size_t>(count));
  std::vector<int64_t> chosen(static_cast<size_t>(count));
  for (int64_t i = 0; i < slots(n); ++i) ++chosen[static_cast<size_t>(expert[i])];
  std::vector<double> share(static_cast<size_t>(count));
  double z = 0, aux = 0;
  Call(pass.launch, kernels::RouterSums{.shape = RouterOf(n),
                                        .logits = logits,
                                        .share = share.data(),
                                        .entropy = &load.entropy,
                                        .lse_squared = &z});
  for (size_t e = 0; e < chosen.size(); ++e) {
    load.tokens[e] += chosen[e];
    aux += static_cast<double>(chosen[e]) * share[e];
  }
  load.rows += n;
  load.aux += static_cast<double>(count) * aux / static_cast<double>(n);
  load.z += z;
}

void ExpertsStage::PlanForward(const PackedPass& pass) {
  const int64_t n = pass.tokens();
  kept_ = PlanKept(pass, n, pass.saved);
  passing_ = PlanPassing(pass, n, pass.scratch);
  if (pass.launch.device().is_cuda()) PlanLoad(n, pass.scratch, passing_);
  if (VisitsOf(pass)) PlanVisits(pass, n);
  if (shared_) shared_->PlanForward(pass);
}

// What every token goes through besides its own experts.
void ExpertsStage::SharedForward(const PackedPass& pass, const void* in, bool accumulate,
                                 void* out) {
  if (!shared_) return;
  if (!spec_.shared_gate) return shared_->Forward(pass, in, accumulate, out);
  const int64_t n = pass.tokens();
  Gate(pass, in, n, pass.saved, kept_);
  void* shared = pass.saved.At(kept_.shared);
  PackedPass of_shared = pass;
  of_shared.output = true;  // the gate's gradient reads it
  shared_->Forward(of_shared, in, false, shared);
  Call(pass.launch, kernels::CombineExperts{.y = shared,
                                            .weight = pass.saved.Floats(kept_.gate),
                                            .rows = n,
                                            .width = hidden_,
                                            .accumulate = accumulate,
                                            .out = out});
}

void ExpertsStage::Forward(const PackedPass& pass, const void* in, bool accumulate, void* out) {
  if (pass.launch.device().is_cuda()) return ForwardOnGpu(pass, in, accumulate, out);
  const int64_t n = pass.tokens();
  const std::vector<int64_t> capacity = Capacity(pass);
  LayerLoad* load = pass.keep && !pass.again && pass.routing
                        ? &pass.routing->load[static_cast<size_t>(place_)]
                        : nullptr;
  Route(pass, in, n, pass.saved, kept_, Biases(pass, pass.scratch, passing_),
        capacity.empty() ? nullptr : capacity.data(), load);
  const int64_t filled = Ints(pass.saved, kept_.begin)[spec_.count()];
  if (load) {
    Count(pass, Ints(pass.saved, kept_.expert), pass.saved.Floats(kept_.logits));
    load->dropped += slots(n) - filled;
  }
  Call(pass.launch, kernels::GatherRows{.table = in,
                                        .index = Ints(pass.saved, kept_.token),
                                        .rows = filled,
                                        .width = hidden_,
                                        .out = pass.scratch.At(passing_.rows)});
  SharedForward(pass, in, accumulate, out);
  if (VisitsOf(pass))
    VisitForward(pass, Ints(pass.saved, kept_.begin), pass.scratch.At(passing_.rows));
  Apply(ops::Linear, pass, n, pass.saved, kept_, pass.scratch, passing_,
        accumulate || shared_ != nullptr, out);
}

void ExpertsStage::PlanBackward(const PackedPass& pass) {
  const int64_t n = pass.tokens(), s = slots(n);
  again_ = PlanPassing(pass, n, pass.scratch);
  dslots_ = pass.scratch.Reserve(pass.Bytes(s * hidden_));
  if (!VisitsOf(pass)) dact_ = pass.scratch.Reserve(pass.Bytes(s * spec_.widest()));
  slot_dweight_ = pass.scratch.Reserve(4 * s * DweightParts(pass));
  dweight_ = pass.scratch.Reserve(4 * s);
  dlogits_ = pass.scratch.Reserve(4 * n * spec_.count());
  dlogits_rounded_ = pass.scratch.Reserve(pass.Bytes(n * spec_.count()));
  dshare_ = pass.scratch.Reserve(4 * spec_.count());
  if (!shared_) return;
  if (spec_.shared_gate) {
    dgate_ = pass.scratch.Reserve(4 * n + pass.Bytes(n));
    dshared_ = pass.scratch.Reserve(pass.Bytes(n * hidden_));
  }
  shared_->PlanBackward(pass);
}

// y_slot = down(act) and out = sum w y: with a = act, da = dout down the weight's gradient is
// <a, da>, and what goes on is w da.
void ExpertsStage::BackThrough(const PackedPass& pass, const BackwardRows& r) const {
  int64_t used = 0;
  for (int32_t e = 0; e < spec_.here(); ++e) {
    const int64_t first = r.begin[e], m = r.begin[e + 1] - first,
                  width = spec_.widths[static_cast<size_t>(e)];
    if (m == 0) continue;
    const int64_t down = at_.experts_down[static_cast<size_t>(e)],
                  up = at_.experts_gate_up + gate_up_rows_[static_cast<size_t>(e)] * hidden_;
    std::byte* both = static_cast<std::byte*>(r.gate_up) + pass.Bytes(used);
    std::byte* dy = static_cast<std::byte*>(r.d) + pass.Bytes(first * hidden_);
    const std::byte* from = static_cast<const std::byte*>(r.x) + pass.Bytes(first * hidden_);
    used += m * 2 * width;
    Activate(pass, both, m, width, r.act);
    ops::LinearBackwardInput(pass.launch, dy, pass.W(down), m, hidden_, width, false, r.dact);
    down_adapters_.BackwardInput(pass, e, m, dy, r.dact);
    Call(pass.launch, kernels::WeighSlots{.weight = r.weight + first,
                                          .slots = m,
                                          .width = width,
                                          .act = r.act,
                                          .dact = r.dact,
                                          .dweight = r.dweight + first});
    if (const int64_t bias = DownBias(e); bias >= 0) {
      Call(pass.launch, kernels::ExpertBiasBackward{.dy = dy,
                                                    .bias = pass.W(bias),
                                                    .weight = r.weight + first,
                                                    .slots = m,
                                                    .width = hidden_,
                                                    .dweight = r.dweight + first,
                                                    .dbias = pass.G(bias)});
    }
    if (float* g = pass.G(down))
      ops::LinearBackwardWeight(pass.launch, dy, r.act, m, hidden_, width, g);
    down_adapters_.BackwardWeights(pass, e, m, dy, r.act);
    ActivateBackward(pass, r.dact, m, width, both);
    if (const int64_t bias = GateUpBias(e); bias >= 0 && pass.G(bias)) {
      Call(pass.launch,
           kernels::BiasBackward{.dx = both, .rows = m, .width = 2 * width, .dbias = pass.G(bias)});
    }
    if (float* g = pass.G(up))
      ops::LinearBackwardWeight(pass.launch, both, from, m, 2 * width, hidden_, g);
    gate_up_adapters_.BackwardWeights(pass, e, m, both, from);
    ops::LinearBackwardInput(pass.launch, both, pass.W(up), m, 2 * width, hidden_, false, dy);
    gate_up_adapters_.BackwardInput(pass, e, m, both, dy);
  }
}

void ExpertsStage::Backward(const PackedPass& pass, const void* dout, const void* in,
                            bool accumulate, void* din) {
  if (pass.launch.device().is_cuda()) return BackwardOnGpu(pass, dout, in, accumulate, din);
  const int64_t n = pass.tokens();
  const int32_t* begin = Ints(pass.saved, kept_.begin);
  const int64_t filled = begin[spec_.count()];
  void* x = pass.scratch.At(again_.rows);
  void* d = pass.scratch.At(dslots_);
  for (const auto& [from, to] : {std::pair<const void*, void*>{in, x}, {dout, d}}) {
    if (from == in && VisitsOf(pass)) continue;  // the experts' ranks have kept it
    Call(pass.launch, kernels::GatherRows{.table = from,
                                          .index = Ints(pass.saved, kept_.token),
                                          .rows = filled,
                                          .width = hidden_,
                                          .out = to});
  }
  // What every token goes through; everything of `dout` has been read before `din` is written.
  float* dgate = SharedBackward(pass, dout, in, accumulate, din);
  float* slot_dweight = pass.scratch.Floats(slot_dweight_);
  const float* slot_weight = pass.saved.Floats(kept_.slot_weight);
  if (VisitsOf(pass)) {
    VisitBackward(pass, slot_weight, d, slot_dweight);
  } else {
    BackThrough(pass, {.begin = begin,
                       .x = x,
                       .d = d,
                       .weight = slot_weight,
                       .dweight = slot_dweight,
                       .gate_up = pass.saved.At(kept_.gate_up),
                       .act = pass.scratch.At(again_.act),
                       .dact = pass.scratch.At(dact_)});
  }
  Combine(pass, d, Ints(pass.saved, kept_.slot), nullptr, n, accumulate || shared_ != nullptr, din);
  RouterBackward(pass, in, n, slot_dweight, dgate, din);
}

// The objective through the weights, and the losses of its own.
void ExpertsStage::RouterBackward(const PackedPass& pass, const void* in, int64_t n,
                                  const float* slot_dweight, float* dgate, void* din) const {
  const int32_t* slot = Ints(pass.saved, kept_.slot);
  const int32_t* expert = Ints(pass.saved, kept_.expert);
  float* dweight = pass.scratch.Floats(dweight_);
  for (int64_t i = 0; i < slots(n); ++i) dweight[i] = slot[i] < 0 ? 0 : slot_dweight[slot[i]];
  std::vector<float> dshare;
  double z = 0;
  if (pass.routing) {
    const Routing& r = *pass.routing;
    const double each = r.share / static_cast<double>(r.load.size()) / static_cast<double>(n);
    z = r.options.z_coef * each;
    if (r.options.aux_coef > 0) {
      dshare.resize(static_cast<size_t>(spec_.count()));
      const double a =
          r.options.aux_coef * each * static_cast<double>(spec_.count()) / static_cast<double>(n);
      for (int64_t i = 0; i < slots(n); ++i)
        dshare[static_cast<size_t>(expert[i])] += static_cast<float>(a);
    }
  }
  float* dlogits = pass.scratch.Floats(dlogits_);
  Call(pass.launch, kernels::RouteTokensBackward{.shape = RouterOf(n),
                                                 .logits = pass.saved.Floats(kept_.logits),
                                                 .expert = expert,
                                                 .dweight = dweight,
                                                 .dshare = dshare.empty() ? nullptr : dshare.data(),
                                                 .z = static_cast<float>(z),
                                                 .dlogits = dlogits});
  RouterWeightsBackward(pass, in, n, dlogits, dgate, din);
}

void ExpertsStage::PlanStep(const PagedPass& pass) {
  const int64_t n = pass.rows.rows;
  step_kept_ = PlanKept(pass, n, pass.scratch);
  step_ = PlanPassing(pass, n, pass.scratch);
  if (shared_) shared_->PlanStep(pass);
}

void ExpertsStage::Step(const PagedPass& pass, const void* in, bool accumulate, void* out) {
  PLUMB_CHECK(!VisitsOf(pass), "a share of a model generates nothing");
  const bool gpu = pass.launch.device().is_cuda();
  const int64_t n = pass.rows.rows;
  Arena& a = pass.scratch;
  if (gpu) RouteOnGpu(pass, in, n, a, step_kept_, BiasesOnGpu(pass, a, step_), nullptr, nullptr);
  else Route(pass, in, n, a, step_kept_, Biases(pass, a, step_), nullptr, nullptr);
  Call(pass.launch, kernels::GatherRows{.table = in,
                                        .index = Ints(a, step_kept_.token),
                                        .rows = slots(n),
                                        .width = hidden_,
                                        .out = a.At(step_.rows)});
  if (shared_ && spec_.shared_gate) {
    Gate(pass, in, n, a, step_kept_);
    void* shared = a.At(step_kept_.shared);
    shared_->Step(pass, in, false, shared);
    Call(pass.launch, kernels::CombineExperts{.y = shared,
                                              .weight = a.Floats(step_kept_.gate),
                                              .rows = n,
                                              .width = hidden_,
                                              .accumulate = accumulate,
                                              .out = out});
  } else if (shared_) {
    shared_->Step(pass, in, accumulate, out);
  }
  const bool add = accumulate || shared_ != nullptr;
  if (gpu) ApplyOnGpu(pass, n, a, step_kept_, a, step_, nullptr, add, out);
  else Apply(ops::LinearRows, pass, n, a, step_kept_, a, step_, add, out);
}

}  // namespace plumb::policy_model

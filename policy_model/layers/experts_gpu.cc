// Experts on a GPU: experts_stage.h.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/base/log.h"
#include "kernels/device/device_memory.h"
#include "kernels/embedding.h"
#include "policy_model/families/experts/exact_floats.h"
#include "policy_model/layers/experts_stage.h"
#include "policy_model/layers/ops.h"

namespace plumb::policy_model {

using kernels::Call;

namespace {

int32_t* Ints(Arena& arena, int64_t at) { return static_cast<int32_t*>(arena.At(at)); }

// One expert by itself.
kernels::ExpertGroups Alone(const kernels::ExpertGroups& groups, size_t expert) {
  return {.begin = groups.begin + expert, .experts = 1, .rows = groups.rows};
}

kernels::Launch Floats(const Pass& pass) {
  return {.stream = pass.launch.stream, .dtype = DType::kFloat32};
}

}  // namespace

// Where the numbers of a layer's load lie, 8 bytes each.
struct ExpertsStage::GpuLoad {
  explicit GpuLoad(int64_t experts) : experts(experts) {}
  int64_t bytes() const { return 8 * (experts + 5); }

  int64_t* tokens(void* at) const { return static_cast<int64_t*>(at); }
  int64_t* dropped(void* at) const { return tokens(at) + experts; }
  int64_t* otherwise(void* at) const { return tokens(at) + experts + 1; }
  double* entropy(void* at) const { return static_cast<double*>(at) + experts + 2; }
  double* lse_squared(void* at) const { return static_cast<double*>(at) + experts + 3; }
  double* aux(void* at) const { return static_cast<double*>(at) + experts + 4; }

  int64_t experts;
};

kernels::ExpertGroups ExpertsStage::Groups(Arena& kept, const Kept& k, int64_t n) const {
  return {.begin = Ints(kept, k.begin),
          .experts = static_cast<int32_t>(spec_.count()),
          .rows = slots(n)};
}

// The gates or the ups of one expert.
struct ExpertsStage::Half {
  kernels::ExpertGroups groups;
  int64_t weight, width;  // where its matrix begins
  void* rows;             // where its columns of the rows of gate and up begin
  bool second;            // the ups
};

template <class Body>
void ExpertsStage::ForEachHalf(const Pass& pass, const kernels::ExpertGroups& groups, void* gate_up,
                               const Body& body) const {
  PLUMB_CHECK(!spec_.biased, "experts of different widths have no biases");
  for (size_t e = 0; e < spec_.widths.size(); ++e) {
    const int64_t width = spec_.widths[e];
    for (const int64_t half : {0, 1}) {
      body(Half{.groups = Alone(groups, e),
                .weight = at_.experts_gate_up + (gate_up_rows_[e] + half * width) * hidden_,
                .width = width,
                .rows = static_cast<std::byte*>(gate_up) + pass.Bytes(half * spec_.widest()),
                .second = half == 1});
    }
  }
}

void ExpertsStage::PlanLoad(int64_t n, Arena& arena, Passing& p) const {
  p.load = arena.Reserve(kernels::RouterLoad::ScratchBytes(RouterOf(n)));
  p.capacity = arena.Reserve(8 * spec_.count());
}

bool ExpertsStage::Together(const Pass& pass) const {
  return spec_.equal() && !spec_.biased && !(spec_.glu_limit > 0) &&
         !gate_up_adapters_.There(pass) && !down_adapters_.There(pass);
}

// Asks first whether it is to be written: then nothing is there, not even zeros.
ExpertsStage::WeightGradient ExpertsStage::GradientOf(const PackedPass& pass, int64_t offset,
                                                      int64_t elements) const {
  const bool written = pass.TakeEmpty(offset, elements);
  return {.at = pass.G(offset), .written = written};
}

ExpertsStage::RouterBiases ExpertsStage::BiasesOnGpu(const Pass& pass, Arena& arena,
                                                     const Passing& p) const {
  RouterBiases out;
  const auto join = [&](int64_t bias, int64_t parts, int64_t at) {
    Call(pass.launch,
         kernels::JoinParts{
             .x = pass.W(bias), .parts = parts, .n = spec_.count(), .out = arena.Floats(at)});
    return arena.Floats(at);
  };
  if (at_.router_bias >= 0) out.balancing = join(at_.router_bias, kExactParts, p.bias);
  if (at_.router_logit_bias >= 0) out.logits = join(at_.router_logit_bias, 1, p.logit_bias);
  return out;
}

void ExpertsStage::RouteOnGpu(const Pass& pass, const void* in, int64_t n, Arena& kept,
                              const Kept& k, const RouterBiases& biases, const int64_t* capacity,
                              int64_t* otherwise) const {
  float* logits = kept.Floats(k.logits);
  ops::LinearRowsToFloat(pass.launch, in, pass.W(at_.router), n, spec_.count(), hidden_, logits);
  if (biases.logits) {
    Call(Floats(pass),
         kernels::AddBias{.x = logits, .bias = biases.logits, .rows = n, .width = spec_.count()});
  }
  const Routing* routing = pass.routing;
  const int64_t own = place_ * spec_.per_token,
                stride = routing ? spec_.per_token * static_cast<int64_t>(routing->load.size()) : 0;
  Call(pass.launch,
       kernels::RouteTokens{
           .shape = RouterOf(n),
           .logits = logits,
           .bias = biases.balancing,
           .given = routing && routing->given ? routing->given + own : nullptr,
           .given_stride = stride,
           .otherwise = otherwise,
           .expert = Ints(kept, k.expert),
           .weight = kept.Floats(k.weight),
           .taken = routing && routing->taken_there ? routing->taken_there + own : nullptr,
           .taken_stride = stride});
  Dispatch(pass, n, kept, k, capacity);
}

// Experts of one width are one product. Of different widths each is a product of its own, and rows
// of gate and up, and of what comes of them, have room for the widest: gates from column 0 on, ups
// behind it, and zeros where the expert is narrower, which the gated unit leaves zeros.
void ExpertsStage::GateUpOnGpu(const Pass& pass, const kernels::ExpertGroups& groups, const void* x,
                               void* gate_up) const {
  const int64_t widest = spec_.widest();
  if (spec_.equal()) {
    const int64_t bias = GateUpBias(0);
    Call(pass.launch, kernels::ExpertProduct{.groups = groups,
                                             .x = x,
                                             .w = pass.W(at_.experts_gate_up),
                                             .n = 2 * widest,
                                             .k = hidden_,
                                             .bias = bias < 0 ? nullptr : pass.W(bias),
                                             .y = gate_up});
    return;
  }
  kernels::Zero(pass.launch.stream, gate_up,
                static_cast<size_t>(pass.Bytes(groups.rows * 2 * widest)));
  ForEachHalf(pass, groups, gate_up, [&](const Half& half) {
    Call(pass.launch, kernels::ExpertProduct{.groups = half.groups,
                                             .x = x,
                                             .w = pass.W(half.weight),
                                             .n = half.width,
                                             .k = hidden_,
                                             .y = half.rows,
                                             .y_stride = 2 * widest});
  });
}

void ExpertsStage::DownOnGpu(const Pass& pass, const kernels::ExpertGroups& groups, const void* act,
                             void* y) const {
  if (spec_.equal()) {
    const int64_t bias = DownBias(0);
    Call(pass.launch, kernels::ExpertProduct{.groups = groups,
                                             .x = act,
                                             .w = pass.W(at_.experts_down[0]),
                                             .n = hidden_,
                                             .k = spec_.widest(),
                                             .bias = bias < 0 ? nullptr : pass.W(bias),
                                             .y = y});
    return;
  }
  for (size_t e = 0; e < spec_.widths.size(); ++e) {
    Call(pass.launch, kernels::ExpertProduct{.groups = Alone(groups, e),
                                             .x = act,
                                             .w = pass.W(at_.experts_down[e]),
                                             .n = hidden_,
                                             .k = spec_.widths[e],
                                             .y = y,
                                             .x_stride = spec_.widest()});
  }
}

void ExpertsStage::DownBackwardOnGpu(const PackedPass& pass, const kernels::ExpertGroups& groups,
                                     const void* dy, void* dact) const {
  const int64_t widest = spec_.widest();
  if (!spec_.equal())
    kernels::Zero(pass.launch.stream, dact, static_cast<size_t>(pass.Bytes(groups.rows * widest)));
  for (size_t e = 0; e < (spec_.equal() ? 1 : spec_.widths.size()); ++e) {
    Call(pass.launch, kernels::ExpertProduct{.groups = spec_.equal() ? groups : Alone(groups, e),
                                             .x = dy,
                                             .w = pass.W(at_.experts_down[e]),
                                             .n = hidden_,
                                             .k = spec_.widths[e],
                                             .by_columns = true,
                                             .y = dact,
                                             .y_stride = widest});
  }
}

void ExpertsStage::DownWeightsOnGpu(const PackedPass& pass, const kernels::ExpertGroups& groups,
                                    const void* dy, const void* act) const {
  for (size_t e = 0; e < (spec_.equal() ? 1 : spec_.widths.size()); ++e) {
    const int64_t experts = spec_.equal() ? spec_.count() : 1;
    const WeightGradient g =
        GradientOf(pass, at_.experts_down[e], experts * hidden_ * spec_.widths[e]);
    if (g.at) {
      Call(pass.launch,
           kernels::ExpertWeightProduct{.groups = spec_.equal() ? groups : Alone(groups, e),
                                        .dy = dy,
                                        .x = act,
                                        .n = hidden_,
                                        .k = spec_.widths[e],
                                        .dw = g.at,
                                        .x_stride = spec_.widest(),
                                        .written = g.written});
    }
  }
}

void ExpertsStage::GateUpBackwardOnGpu(const PackedPass& pass, const kernels::ExpertGroups& groups,
                                       void* dgate_up, void* dx) const {
  const int64_t widest = spec_.widest();
  if (spec_.equal()) {
    Call(pass.launch, kernels::ExpertProduct{.groups = groups,
                                             .x = dgate_up,
                                             .w = pass.W(at_.experts_gate_up),
                                             .n = 2 * widest,
                                             .k = hidden_,
                                             .by_columns = true,
                                             .y = dx});
    return;
  }
  ForEachHalf(pass, groups, dgate_up, [&](const Half& half) {
    Call(pass.launch, kernels::ExpertProduct{.groups = half.groups,
                                             .x = half.rows,
                                             .w = pass.W(half.weight),
                                             .n = half.width,
                                             .k = hidden_,
                                             .by_columns = true,
                                             .accumulate = half.second,
                                             .y = dx,
                                             .x_stride = 2 * widest});
  });
}

void ExpertsStage::GateUpWeightsOnGpu(const PackedPass& pass, const kernels::ExpertGroups& groups,
                                      void* dgate_up, const void* x) const {
  const int64_t widest = spec_.widest();
  if (spec_.equal()) {
    const WeightGradient g =
        GradientOf(pass, at_.experts_gate_up, spec_.count() * 2 * widest * hidden_);
    if (g.at) {
      Call(pass.launch, kernels::ExpertWeightProduct{.groups = groups,
                                                     .dy = dgate_up,
                                                     .x = x,
                                                     .n = 2 * widest,
                                                     .k = hidden_,
                                                     .dw = g.at,
                                                     .written = g.written});
    }
    return;
  }
  ForEachHalf(pass, groups, dgate_up, [&](const Half& half) {
    if (float* g = pass.G(half.weight)) {
      Call(pass.launch, kernels::ExpertWeightProduct{.groups = half.groups,
                                                     .dy = half.rows,
                                                     .x = x,
                                                     .n = half.width,
                                                     .k = hidden_,
                                                     .dw = g,
                                                     .dy_stride = 2 * widest});
    }
  });
}

void ExpertsStage::ApplyOnGpu(const Pass& pass, int64_t n, Arena& kept, const Kept& k,
                              Arena& passing, const Passing& p, const void* in, bool accumulate,
                              void* out) const {
  const kernels::ExpertGroups groups = Groups(kept, k, n);
  void* rows = passing.At(p.rows);
  void* gate_up = kept.At(k.gate_up);
  void* act = passing.At(p.act);
  if (in) {
    Call(pass.launch, kernels::GatedExpertProduct{.groups = groups,
                                                  .x = in,
                                                  .token = Ints(kept, k.token),
                                                  .w = pass.W(at_.experts_gate_up),
                                                  .ffn = spec_.widest(),
                                                  .k = hidden_,
                                                  .activation = activation_,
                                                  .rows = rows,
                                                  .gate_up = gate_up,
                                                  .act = act});
  } else {
    GateUpOnGpu(pass, groups, rows, gate_up);
    gate_up_adapters_.AddAll(pass, passing, groups, rows, gate_up);
    Activate(pass, gate_up, slots(n), spec_.widest(), act);
  }
  // What went in is not needed any more: what comes out lies there.
  DownOnGpu(pass, groups, act, rows);
  down_adapters_.AddAll(pass, passing, groups, act, rows);
  Combine(pass, rows, Ints(kept, k.slot), kept.Floats(k.weight), n, accumulate, out);
}

void* ExpertsStage::BeginLoad(const PackedPass& pass) {
  if (load_.elements() == 0) {
    load_ = FlatBuffer(pass.launch.stream, DType::kFloat32,
                       GpuLoad(spec_.count()).bytes() / static_cast<int64_t>(sizeof(float)));
  }
  Routing& routing = *pass.routing;
  routing.late.resize(routing.load.size());
  auto& late = routing.late[static_cast<size_t>(place_)];
  if (!late) late = [this](LayerLoad& load) { TakeLoadFromGpu(load); };
  loaded_ = true;
  return load_.data();
}

void ExpertsStage::CountOnGpu(const PackedPass& pass, void* there, const int64_t* capacity) const {
  const int64_t n = pass.tokens();
  const GpuLoad at(spec_.count());
  Call(pass.launch, kernels::RouterLoad{.shape = RouterOf(n),
                                        .logits = pass.saved.Floats(kept_.logits),
                                        .expert = Ints(pass.saved, kept_.expert),
                                        .capacity = capacity,
                                        .tokens = at.tokens(there),
                                        .dropped = at.dropped(there),
                                        .entropy = at.entropy(there),
                                        .lse_squared = at.lse_squared(there),
                                        .aux = at.aux(there),
                                        .scratch = pass.scratch.At(passing_.load)});
  LayerLoad& load = pass.routing->load[static_cast<size_t>(place_)];
  load.rows += n;
  const Routing& routing = *pass.routing;
  const int64_t stride = spec_.per_token * static_cast<int64_t>(routing.load.size());
  for (int64_t t = 0; routing.given_here && t < n; ++t) {
    const bool given = routing.given_here[t * stride + place_ * spec_.per_token] >= 0;
    load.given += given ? spec_.per_token : 0;
  }
}

void ExpertsStage::TakeLoadFromGpu(LayerLoad& load) {
  if (!loaded_) return;
  const GpuLoad at(spec_.count());
  std::vector<int64_t> here(static_cast<size_t>(at.bytes() / 8));
  load_.CopyToHost(std::as_writable_bytes(std::span(here)));
  load_.Zero();
  loaded_ = false;
  load.layer = layer_;
  load.tokens.resize(static_cast<size_t>(spec_.count()));
  for (size_t e = 0; e < load.tokens.size(); ++e) load.tokens[e] += at.tokens(here.data())[e];
  load.dropped += *at.dropped(here.data());
  load.otherwise += *at.otherwise(here.data());
  load.entropy += *at.entropy(here.data());
  load.aux += *at.aux(here.data());
  load.z += *at.lse_squared(here.data());
  if (!std::isfinite(*at.lse_squared(here.data()))) WarnNotFinite();
}

void ExpertsStage::ForwardOnGpu(const PackedPass& pass, const void* in, bool accumulate,
                                void* out) {
  const int64_t n = pass.tokens();
  const std::vector<int64_t> capacity = Capacity(pass);
  auto* bound = static_cast<int64_t*>(pass.scratch.At(passing_.capacity));
  if (!capacity.empty())
    kernels::CopyAndWait(pass.launch.stream, bound, capacity.data(), 8 * capacity.size());
  const bool count = pass.keep && !pass.again && pass.routing;
  void* load = count ? BeginLoad(pass) : nullptr;
  RouteOnGpu(pass, in, n, pass.saved, kept_, BiasesOnGpu(pass, pass.scratch, passing_),
             capacity.empty() ? nullptr : bound,
             count && pass.routing->given ? GpuLoad(spec_.count()).otherwise(load) : nullptr);
  if (count) CountOnGpu(pass, load, capacity.empty() ? nullptr : bound);
  // In one with the experts' first product where nothing else reads the rows.
  const bool together = Together(pass);
  if (!together) {
    Call(pass.launch, kernels::GatherRows{.table = in,
                                          .index = Ints(pass.saved, kept_.token),
                                          .rows = slots(n),
                                          .width = hidden_,
                                          .out = pass.scratch.At(passing_.rows)});
  }
  SharedForward(pass, in, accumulate, out);
  ApplyOnGpu(pass, n, pass.saved, kept_, pass.scratch, passing_, together ? in : nullptr,
             accumulate || shared_ != nullptr, out);
}

void ExpertsStage::TogetherBackwardOnGpu(const PackedPass& pass, const void* dout, const void* in,
                                         void* d, float* slot_dweight) const {
  const int64_t width = spec_.widest();
  const kernels::ExpertGroups groups = Groups(pass.saved, kept_, pass.tokens());
  const int32_t* token = Ints(pass.saved, kept_.token);
  void* gate_up = pass.saved.At(kept_.gate_up);
  void* act = pass.scratch.At(again_.act);
  void* rows = pass.scratch.At(again_.rows);
  Call(pass.launch, kernels::GatedExpertBackward{.groups = groups,
                                                 .dout = dout,
                                                 .token = token,
                                                 .w = pass.W(at_.experts_down[0]),
                                                 .n = hidden_,
                                                 .ffn = width,
                                                 .activation = activation_,
                                                 .weight = pass.saved.Floats(kept_.slot_weight),
                                                 .gate_up = gate_up,
                                                 .act = act,
                                                 .dweight = slot_dweight,
                                                 .rows = rows,
                                                 .dact = pass.scratch.At(dact_)});
  const WeightGradient first = GradientOf(pass, at_.experts_gate_up,
                                          spec_.count() * 2 * width * hidden_),
                       second =
                           GradientOf(pass, at_.experts_down[0], spec_.count() * hidden_ * width);
  Call(pass.launch, kernels::GatedExpertGradients{.groups = groups,
                                                  .dout = dout,
                                                  .x = in,
                                                  .token = token,
                                                  .w = pass.W(at_.experts_gate_up),
                                                  .n = hidden_,
                                                  .ffn = width,
                                                  .dgate_up = gate_up,
                                                  .act = act,
                                                  .dw_first = first.at,
                                                  .dw_second = second.at,
                                                  .first_written = first.written,
                                                  .second_written = second.written,
                                                  .dx = d,
                                                  .rows = rows});
}

void ExpertsStage::RowsBackwardOnGpu(const PackedPass& pass, const void* dout, const void* in,
                                     void* d, float* slot_dweight) const {
  const int64_t s = slots(pass.tokens()), width = spec_.widest();
  const kernels::ExpertGroups groups = Groups(pass.saved, kept_, pass.tokens());
  void* x = pass.scratch.At(again_.rows);
  void* gate_up = pass.saved.At(kept_.gate_up);
  for (const auto& [from, to] : {std::pair<const void*, void*>{in, x}, {dout, d}}) {
    Call(pass.launch, kernels::GatherRows{.table = from,
                                          .index = Ints(pass.saved, kept_.token),
                                          .rows = s,
                                          .width = hidden_,
                                          .out = to});
  }
  void* act = pass.scratch.At(again_.act);
  void* dact = pass.scratch.At(dact_);
  Activate(pass, gate_up, s, width, act);
  DownBackwardOnGpu(pass, groups, d, dact);
  down_adapters_.BackwardInputAll(pass, groups, d, dact);
  Call(pass.launch, kernels::WeighSlots{.weight = pass.saved.Floats(kept_.slot_weight),
                                        .slots = s,
                                        .width = width,
                                        .act = act,
                                        .dact = dact,
                                        .dweight = slot_dweight});
  if (const int64_t bias = DownBias(0); bias >= 0) {
    Call(pass.launch, kernels::ExpertBiasSums{.groups = groups,
                                              .dy = d,
                                              .weight = pass.saved.Floats(kept_.slot_weight),
                                              .n = hidden_,
                                              .dbias = pass.G(bias),
                                              .bias = pass.W(bias),
                                              .dweight = slot_dweight});
  }
  DownWeightsOnGpu(pass, groups, d, act);
  down_adapters_.BackwardWeightsAll(pass, groups, d, act);
  ActivateBackward(pass, dact, s, width, gate_up);
  if (const int64_t bias = GateUpBias(0); bias >= 0 && pass.G(bias)) {
    Call(pass.launch, kernels::ExpertBiasSums{
                          .groups = groups, .dy = gate_up, .n = 2 * width, .dbias = pass.G(bias)});
  }
  GateUpWeightsOnGpu(pass, groups, gate_up, x);
  gate_up_adapters_.BackwardWeightsAll(pass, groups, gate_up, x);
  GateUpBackwardOnGpu(pass, groups, gate_up, d);
  gate_up_adapters_.BackwardInputAll(pass, groups, gate_up, d);
}

void ExpertsStage::BackwardOnGpu(const PackedPass& pass, const void* dout, const void* in,
                                 bool accumulate, void* din) {
  const int64_t n = pass.tokens(), s = slots(n);
  void* d = pass.scratch.At(dslots_);
  float* slot_dweight = pass.scratch.Floats(slot_dweight_);
  const bool together = Together(pass);
  if (together) TogetherBackwardOnGpu(pass, dout, in, d, slot_dweight);
  else RowsBackwardOnGpu(pass, dout, in, d, slot_dweight);
  // What every token goes through; everything of `dout` has been read before `din` is written.
  float* dgate = SharedBackward(pass, dout, in, accumulate, din);
  Combine(pass, d, Ints(pass.saved, kept_.slot), nullptr, n, accumulate || shared_ != nullptr, din);
  // The router: the objective through the weights, and the losses of its own.
  float* dweight = pass.scratch.Floats(dweight_);
  Call(pass.launch, kernels::TakeSlots{.slot_dweight = slot_dweight,
                                       .slot = Ints(pass.saved, kept_.slot),
                                       .pairs = s,
                                       .dweight = dweight,
                                       .parts = together ? DweightParts(pass) : 1,
                                       .slots = s});
  float* dshare = nullptr;
  double z = 0;
  if (pass.routing) {
    const Routing& r = *pass.routing;
    const double each = r.share / static_cast<double>(r.load.size()) / static_cast<double>(n);
    z = r.options.z_coef * each;
    if (r.options.aux_coef > 0) {
      dshare = pass.scratch.Floats(dshare_);
      const double a =
          r.options.aux_coef * each * static_cast<double>(spec_.count()) / static_cast<double>(n);
      Call(pass.launch, kernels::CountChosen{.expert = Ints(pass.saved, kept_.expert),
                                             .pairs = s,
                                             .experts = static_cast<int32_t>(spec_.count()),
                                             .scale = static_cast<float>(a),
                                             .share = dshare});
    }
  }
  float* dlogits = pass.scratch.Floats(dlogits_);
  Call(pass.launch, kernels::RouteTokensBackward{.shape = RouterOf(n),
                                                 .logits = pass.saved.Floats(kept_.logits),
                                                 .expert = Ints(pass.saved, kept_.expert),
                                                 .dweight = dweight,
                                                 .dshare = dshare,
                                                 .z = static_cast<float>(z),
                                                 .dlogits = dlogits});
  RouterWeightsBackward(pass, in, n, dlogits, dgate, din);
}

}  // namespace plumb::policy_model

// The feed-forward part as a mixture of experts: sum_e w_e down_e(act(gate_e x) * up_e x) over the
// experts that the router chose for a token (kernels/experts.h), and what every token goes through
// besides.
//
// Tokens are laid out by expert, each expert is two products over just its tokens, without padding.
// The router computes in float32 from its logits on. Saved for the backward: logits, the choice,
// gate and up. On the CPU in float32 a step's row has the same bits in any batch.
// On a GPU (experts_gpu.cc) all experts are one product over rows that lie by expert, and where
// each begins stays there: neither a step nor a pass waits for anything; loads are added up there
// until somebody takes them (Routing::TakeLoad). There experts have one width (kUnsupported when
// others are planned). Where ranks share the experts out (experts_visited.cc, CPU) rows go to the
// ranks that have theirs and come back; what an expert is given then are the rows of all ranks.
// Thread safety, protocol: stage.h.
#pragma once

#include <memory>
#include <span>

#include "kernels/experts.h"
#include "kernels/products/expert_products.h"
#include "policy_model/layers/expert_adapters.h"
#include "policy_model/layers/expert_visits.h"
#include "policy_model/layers/ffn_stage.h"
#include "policy_model/layers/routing.h"
#include "policy_model/memory/flat_buffer.h"

namespace plumb::policy_model {

class ExpertsStage : public Stage {
 public:
  // `place`: of the layer among those that have experts.
  ExpertsStage(int64_t hidden, const LayerSpec& spec, const LayerSlices& slices, int64_t layer,
               int64_t place);

  void PlanForward(const PackedPass& pass) override;
  void Forward(const PackedPass& pass, const void* in, bool accumulate, void* out) override;
  void PlanBackward(const PackedPass& pass) override;
  void Backward(const PackedPass& pass, const void* dout, const void* in, bool accumulate,
                void* din) override;
  void PlanStep(const PagedPass& pass) override;
  void Step(const PagedPass& pass, const void* in, bool accumulate, void* out) override;
  void PassBy(const PackedPass& pass, PassParts::Way way) override;

 private:
  using Product = void (*)(const kernels::Launch&, const void*, const void*, int64_t, int64_t,
                           int64_t, bool, void*);
  // Offsets of one plan: what a backward needs, and what is of the call alone.
  struct Kept {
    int64_t logits = 0, expert = 0, weight = 0, begin = 0, slot = 0, token = 0, slot_weight = 0,
            gate_up = 0, gate = 0, shared = 0;
  };
  struct Passing {
    int64_t rows = 0, act = 0, bias = 0, logit_bias = 0;  // rows: T[S, H]
    int64_t load = 0, capacity = 0;                       // of a pass on a GPU
  };
  // [E] or nullptr: added where experts are chosen, and to the logits.
  struct RouterBiases {
    const float *balancing = nullptr, *logits = nullptr;
  };

  kernels::RouterShape RouterOf(int64_t n) const;
  Kept PlanKept(const Pass& pass, int64_t n, Arena& arena) const;
  Passing PlanPassing(const Pass& pass, int64_t n, Arena& arena);
  RouterBiases Biases(const Pass& pass, Arena& arena, const Passing& p) const;
  // The gated unit of an expert, and its backward over what went in.
  void Activate(const Pass& pass, const void* gate_up, int64_t rows, int64_t width,
                void* act) const;
  void ActivateBackward(const Pass& pass, const void* dact, int64_t rows, int64_t width,
                        void* gate_up) const;
  int64_t GateUpBias(int32_t expert) const;
  int64_t DownBias(int32_t expert) const;
  void CheckFinite(const float* logits, int64_t n) const;
  void WarnNotFinite() const;
  // Logits, choice and layout of the tokens. `capacity`: [E] or nullptr. `load`: counts what was
  // given, or nullptr.
  void Route(const Pass& pass, const void* in, int64_t n, Arena& kept, const Kept& k,
             const RouterBiases& biases, const int64_t* capacity, LayerLoad* load) const;
  // Who was chosen, laid out by expert.
  void Dispatch(const Pass& pass, int64_t n, Arena& kept, const Kept& k,
                const int64_t* capacity) const;
  // out[n, H]: what a token's experts gave, or their gradients, added up; `weight` nullptr: as they
  // are.
  void Combine(const Pass& pass, const void* rows, const int32_t* slot, const float* weight,
               int64_t n, bool accumulate, void* out) const;
  // All rows in[begin[here]] of the experts here through these: gate_up is kept, out[.., H] may be
  // `in`.
  void Through(Product product, const Pass& pass, const int32_t* begin, Arena& passing,
               const void* in, void* gate_up, void* act, void* out) const;
  // The gradients of those rows: d[.., H] becomes that of what went in.
  struct BackwardRows {
    const int32_t* begin = nullptr;  // [here + 1]
    const void* x = nullptr;         // what went in
    void* d = nullptr;
    const float* weight = nullptr;  // by which tokens take them
    float* dweight = nullptr;
    void *gate_up = nullptr, *act = nullptr, *dact = nullptr;
  };
  void BackThrough(const PackedPass& pass, const BackwardRows& rows) const;
  void RouterBackward(const PackedPass& pass, const void* in, int64_t n, const float* slot_dweight,
                      float* dgate, void* din) const;
  // Of the part that all tokens go through; returns its gate's gradient, [2 n], or nullptr.
  float* SharedBackward(const PackedPass& pass, const void* dout, const void* in, bool accumulate,
                        void* din);
  // Into the router's matrix and bias, that gate, and `din`.
  void RouterWeightsBackward(const PackedPass& pass, const void* in, int64_t n,
                             const float* dlogits, float* dgate, void* din) const;

  // Of ranks that share the experts out; nullptr: all are here.
  static ExpertVisits* VisitsOf(const Pass& pass) {
    return pass.routing ? pass.routing->visits : nullptr;
  }
  void PlanVisits(const PackedPass& pass, int64_t n) const;
  // rows[filled, H] by expert become what their experts give; begin: of all experts.
  void VisitForward(const PackedPass& pass, const int32_t* begin, void* rows);
  void VisitBackward(const PackedPass& pass, const float* weight, void* rows, float* dweight);

  // Everything behind the router but the shared part; adds the experts' sum to `out`.
  void Apply(Product product, const Pass& pass, int64_t n, Arena& kept, const Kept& k,
             Arena& passing, const Passing& p, bool accumulate, void* out) const;
  void SharedForward(const PackedPass& pass, const void* in, bool accumulate, void* out);
  void Gate(const Pass& pass, const void* in, int64_t n, Arena& kept, const Kept& k) const;
  std::vector<int64_t> Capacity(const PackedPass& pass) const;  // empty: no bound
  void Count(const PackedPass& pass, const int32_t* expert, const float* logits) const;
  const void* GateUp(const Pass& pass, int32_t expert) const;

  // The same on a GPU.
  struct GpuLoad;
  kernels::ExpertGroups Groups(Arena& kept, const Kept& k, int64_t n) const;
  void PlanLoad(int64_t n, Arena& arena, Passing& p) const;
  // Whether nothing reads the experts' rows between their products: these are one with the gated
  // unit then.
  bool Together(const Pass& pass) const;
  struct WeightGradient {
    float* at;     // nullptr: not trained
    bool written;  // instead of added to
  };
  WeightGradient GradientOf(const PackedPass& pass, int64_t offset, int64_t elements) const;
  RouterBiases BiasesOnGpu(const Pass& pass, Arena& arena, const Passing& p) const;
  void RouteOnGpu(const Pass& pass, const void* in, int64_t n, Arena& kept, const Kept& k,
                  const RouterBiases& biases, const int64_t* capacity, int64_t* otherwise) const;
  struct Half;
  template <class Body>
  void ForEachHalf(const Pass& pass, const kernels::ExpertGroups& groups, void* gate_up,
                   const Body& body) const;
  void GateUpOnGpu(const Pass& pass, const kernels::ExpertGroups& groups, const void* x,
                   void* gate_up) const;
  void DownOnGpu(const Pass& pass, const kernels::ExpertGroups& groups, const void* act,
                 void* y) const;
  void DownBackwardOnGpu(const PackedPass& pass, const kernels::ExpertGroups& groups,
                         const void* dy, void* dact) const;
  void DownWeightsOnGpu(const PackedPass& pass, const kernels::ExpertGroups& groups, const void* dy,
                        const void* act) const;
  void GateUpBackwardOnGpu(const PackedPass& pass, const kernels::ExpertGroups& groups,
                           void* dgate_up, void* dx) const;
  void GateUpWeightsOnGpu(const PackedPass& pass, const kernels::ExpertGroups& groups,
                          void* dgate_up, const void* x) const;
  // in: the tokens, whose rows are not gathered yet; nullptr: they lie in `p.rows`.
  void ApplyOnGpu(const Pass& pass, int64_t n, Arena& kept, const Kept& k, Arena& passing,
                  const Passing& p, const void* in, bool accumulate, void* out) const;
  // What the load of a pass is added to, on the GPU.
  void* BeginLoad(const PackedPass& pass);
  void CountOnGpu(const PackedPass& pass, void* there, const int64_t* capacity) const;
  void TakeLoadFromGpu(LayerLoad& load);
  // The experts' part of a backward, up to the rows' gradients in d.
  void RowsBackwardOnGpu(const PackedPass& pass, const void* dout, const void* in, void* d,
                         float* slot_dweight) const;
  void TogetherBackwardOnGpu(const PackedPass& pass, const void* dout, const void* in, void* d,
                             float* slot_dweight) const;
  int64_t DweightParts(const Pass& pass) const;
  void ForwardOnGpu(const PackedPass& pass, const void* in, bool accumulate, void* out);
  void BackwardOnGpu(const PackedPass& pass, const void* dout, const void* in, bool accumulate,
                     void* din);
  int64_t slots(int64_t n) const { return n * spec_.per_token; }

  const int64_t hidden_;
  const ExpertsSpec spec_;
  const kernels::Activation activation_;
  const LayerSlices at_;
  const int64_t layer_, place_;
  std::vector<int64_t> gate_up_rows_;  // [E] where an expert's rows begin
  std::unique_ptr<FfnStage> shared_;
  ExpertAdapters gate_up_adapters_, down_adapters_;
  LayerVisits visits_;
  FlatBuffer load_;      // GpuLoad; of the first pass on
  bool loaded_ = false;  // something is in it

  // Offsets of the last plans: of saved and scratch, of the backward's scratch, of the step's
  // scratch.
  Kept kept_, step_kept_;
  Passing passing_, again_, step_;
  int64_t dslots_ = 0, dact_ = 0, slot_dweight_ = 0, dweight_ = 0, dlogits_ = 0,
          dlogits_rounded_ = 0, dgate_ = 0, dshared_ = 0, dshare_ = 0;
};

}  // namespace plumb::policy_model

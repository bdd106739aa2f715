// A gated delta net in the place of attention: product, short convolution, delta rule, gated norm,
// product.
//
// Saved for the backward: what comes of each token, queries, keys and values behind the
// convolution, the two gates, the state behind every chunk, what the heads read. A paged step reads
// and writes the layer's part of its slot's state (kernels/delta/sequence_states.h). Thread safety,
// protocol, errors: stage.h.
#pragma once

#include <vector>

#include "kernels/delta/delta_gates.h"
#include "kernels/delta/gated_delta.h"
#include "kernels/delta/move_columns.h"
#include "kernels/delta/short_conv.h"
#include "policy_model/layers/linear.h"

namespace plumb::policy_model {

class DeltaStage : public Stage {
 public:
  // `state`: where the layer's part of a slot's state begins.
  DeltaStage(const ModelShape& shape, const LayerSpec& spec, const LayerSlices& slices,
             int64_t state);

  void PlanForward(const PackedPass& pass) override;
  void Forward(const PackedPass& pass, const void* in, bool accumulate, void* out) override;
  void PlanBackward(const PackedPass& pass) override;
  void Backward(const PackedPass& pass, const void* dout, const void* in, bool accumulate,
                void* din) override;
  void PlanStep(const PagedPass& pass) override;
  void Step(const PagedPass& pass, const void* in, bool accumulate, void* out) override;

 private:
  kernels::DeltaShape RuleOf(const PackedPass* pass) const;
  kernels::ShortConvShape ConvOf(const PackedPass* pass) const;
  // What comes of tokens, in the order queries, keys, values, gate, strength, decay.
  void Arrange(const Pass& pass, const void* product, int64_t n, void* arranged) const;
  void Gates(const Pass& pass, const void* arranged, int64_t n, float* g, float* beta) const;
  void Norm(const Pass& pass, const void* read, const void* arranged, int64_t n, void* y) const;
  static int64_t PlanWork(const PackedPass& pass, const kernels::DeltaShape& rule, bool backward);
  const void* Column(const Pass& pass, const void* arranged, int64_t column) const {
    return static_cast<const std::byte*>(arranged) + pass.Bytes(column);
  }
  void* Column(const Pass& pass, void* arranged, int64_t column) const {
    return static_cast<std::byte*>(arranged) + pass.Bytes(column);
  }
  int64_t gate_at() const { return spec_.conv_width(); }
  int64_t strength_at() const { return gate_at() + spec_.value_width(); }
  int64_t decay_at() const { return strength_at() + spec_.v_heads; }

  const DeltaSpec spec_;
  const LayerSlices at_;
  const float eps_;
  const int64_t state_;
  const std::vector<kernels::ColumnRun> runs_;  // of Arrange; empty: nothing moves
  LinearLayer in_product_, out_product_;

  // Offsets of the last plans: of saved, of the three scratches.
  int64_t arranged_ = 0, mixed_ = 0, g_ = 0, beta_ = 0, states_ = 0, read_ = 0;
  int64_t product_ = 0, y_ = 0;
  int64_t y_again_ = 0, dread_ = 0, dmixed_ = 0, darranged_ = 0, dproduct_ = 0, dg_ = 0, dbeta_ = 0,
          norm_scratch_ = 0, dstates_ = 0, work_ = 0, dwork_ = 0;
  int64_t step_product_ = 0, step_arranged_ = 0, step_mixed_ = 0, step_g_ = 0, step_beta_ = 0,
          step_y_ = 0;
};

}  // namespace plumb::policy_model

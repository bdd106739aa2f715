#include "policy_model/layers/hybrid/conv_stage.h"

#include "kernels/delta/column_product.h"
#include "policy_model/layers/hybrid/packed_shape.h"

namespace plumb::policy_model {
namespace {

using kernels::Call;

// Of what comes of a token.
constexpr int kB = 0, kC = 1, kX = 2, kParts = 3, kOwn = -1;

}  // namespace

ConvStage::ConvStage(const ModelShape& shape, const LayerSpec& spec, const LayerSlices& slices,
                     int64_t state)
    : spec_(spec.conv),
      at_(slices),
      state_(state),
      in_product_(slices.conv_in, kParts * spec.conv.channels, shape.hidden),
      out_product_(slices.conv_out, shape.hidden, spec.conv.channels) {}

kernels::ShortConvShape ConvStage::ConvOf(const PackedPass* pass) const {
  kernels::ShortConvShape s{.channels = spec_.channels,
                            .taps = static_cast<int32_t>(spec_.taps),
                            .x_stride = spec_.channels,
                            .y_stride = spec_.channels};
  FillSequences(pass, s);
  return s;
}

void ConvStage::Multiply(const Pass& pass, int64_t n, const void* a, int part_a, const void* b,
                         int part_b, void* y, int part_y) const {
  const auto at = [&](int part) { return part < 0 ? 0 : pass.Bytes(part * spec_.channels); };
  const auto stride = [&](int part) { return part < 0 ? spec_.channels : kParts * spec_.channels; };
  Call(pass.launch, kernels::ColumnProduct{.a = static_cast<const std::byte*>(a) + at(part_a),
                                           .b = static_cast<const std::byte*>(b) + at(part_b),
                                           .rows = n,
                                           .width = spec_.channels,
                                           .a_stride = stride(part_a),
                                           .b_stride = stride(part_b),
                                           .y_stride = stride(part_y),
                                           .y = static_cast<std::byte*>(y) + at(part_y)});
}

void ConvStage::PlanForward(const PackedPass& pass) {
  const int64_t n = pass.tokens(), row = pass.Bytes(n * spec_.channels);
  parts_ = pass.saved.Reserve(kParts * row);
  gated_ = pass.saved.Reserve(row);
  mixed_ = pass.saved.Reserve(row);
  y_ = pass.scratch.Reserve(row);
  in_product_.Plan(pass, n, pass.scratch);
  out_product_.Plan(pass, n, pass.scratch);
}

void ConvStage::Forward(const PackedPass& pass, const void* in, bool accumulate, void* out) {
  const int64_t n = pass.tokens();
  void* parts = pass.saved.At(parts_);
  void* gated = pass.saved.At(gated_);
  void* mixed = pass.saved.At(mixed_);
  void* y = pass.scratch.At(y_);
  in_product_.Forward(pass, in, false, parts);
  Multiply(pass, n, parts, kB, parts, kX, gated, kOwn);
  Call(pass.launch,
       kernels::ShortConv{
           .shape = ConvOf(&pass), .x = gated, .w = pass.W(at_.conv_taps), .y = mixed});
  Multiply(pass, n, parts, kC, mixed, kOwn, y, kOwn);
  out_product_.Forward(pass, y, accumulate, out);
}

void ConvStage::PlanBackward(const PackedPass& pass) {
  const int64_t n = pass.tokens(), row = pass.Bytes(n * spec_.channels);
  y_again_ = pass.scratch.Reserve(row);
  dy_ = pass.scratch.Reserve(row);
  dmixed_ = pass.scratch.Reserve(row);
  dparts_ = pass.scratch.Reserve(kParts * row);
  in_product_.Plan(pass, n, pass.scratch);
  out_product_.Plan(pass, n, pass.scratch);
}

void ConvStage::Backward(const PackedPass& pass, const void* dout, const void* in, bool accumulate,
                         void* din) {
  const int64_t n = pass.tokens();
  const void* parts = pass.saved.At(parts_);
  const void* gated = pass.saved.At(gated_);
  const void* mixed = pass.saved.At(mixed_);
  void* y = pass.scratch.At(y_again_);
  void* dy = pass.scratch.At(dy_);
  void* dmixed = pass.scratch.At(dmixed_);
  void* dparts = pass.scratch.At(dparts_);
  Multiply(pass, n, parts, kC, mixed, kOwn, y, kOwn);
  out_product_.Backward(pass, dout, y, false, dy);
  Multiply(pass, n, dy, kOwn, mixed, kOwn, dparts, kC);
  Multiply(pass, n, dy, kOwn, parts, kC, dmixed, kOwn);
  void* dgated = dy;  // it has been read
  Call(pass.launch, kernels::ShortConvBackward{.shape = ConvOf(&pass),
                                               .dy = dmixed,
                                               .x = gated,
                                               .w = pass.W(at_.conv_taps),
                                               .dx = dgated,
                                               .dw = pass.G(at_.conv_taps)});
  Multiply(pass, n, dgated, kOwn, parts, kX, dparts, kB);
  Multiply(pass, n, dgated, kOwn, parts, kB, dparts, kX);
  in_product_.Backward(pass, dparts, in, accumulate, din);
}

void ConvStage::PlanStep(const PagedPass& pass) {
  const int64_t n = pass.rows.rows, row = pass.Bytes(n * spec_.channels);
  step_parts_ = pass.scratch.Reserve(kParts * row);
  step_gated_ = pass.scratch.Reserve(row);
  step_y_ = pass.scratch.Reserve(row);
  in_product_.Plan(pass, n, pass.scratch);
  out_product_.Plan(pass, n, pass.scratch);
}

void ConvStage::Step(const PagedPass& pass, const void* in, bool accumulate, void* out) {
  PLUMB_CHECK(pass.states, "a model with states needs them in every step");
  const int64_t n = pass.rows.rows;
  void* parts = pass.scratch.At(step_parts_);
  void* gated = pass.scratch.At(step_gated_);
  void* y = pass.scratch.At(step_y_);
  in_product_.Step(pass, in, false, parts);
  Multiply(pass, n, parts, kB, parts, kX, gated, kOwn);
  Call(pass.launch, kernels::ShortConvStep{.shape = ConvOf(nullptr),
                                           .rows = pass.rows,
                                           .x = gated,
                                           .w = pass.W(at_.conv_taps),
                                           .states = *pass.states,
                                           .offset = state_,
                                           .y = y});
  Multiply(pass, n, parts, kC, y, kOwn, y, kOwn);
  out_product_.Step(pass, y, accumulate, out);
}

}  // namespace plumb::policy_model

// The tensors of layers with states, in the order in which the backward meets them.
#include "policy_model/families/tensor_table.h"

namespace plumb::policy_model {

void TensorTable::AddDelta(int64_t l) {
  const DeltaSpec& spec = plan_.layers[static_cast<size_t>(l)].delta;
  LayerSlices& s = layers_[static_cast<size_t>(l)];
  const int64_t h = shape_.hidden, heads = spec.v_heads;
  const std::string ours = "layers." + std::to_string(l) + ".",
                    file = "model.layers." + std::to_string(l) + ".linear_attn.";
  // A rank would need whole heads of keys with their heads of values: nothing is cut.
  const auto part = [&](const char* name, int64_t rows) {
    return Part{file + name, rows, SplitAxis::kNone};
  };
  s.delta_out = Add(ours + "delta_out", {h, spec.value_width()}, true, TensorInit::kResidual,
                    {part("out_proj.weight", h)});
  // Multiplied as it is, also where the model's other norms are stored as distances from 1.
  s.delta_norm = Add(ours + "delta_norm", {spec.v_dim}, false, TensorInit::kOnes,
                     {part("norm.weight", spec.v_dim)});
  s.delta_bias =
      Add(ours + "delta_bias", {heads}, false, TensorInit::kOnes, {part("dt_bias", heads)});
  s.delta_a_log =
      Add(ours + "delta_a_log", {heads}, false, TensorInit::kZeros, {part("A_log", heads)});
  s.delta_conv = Add(ours + "delta_conv", {spec.conv_width(), 1, spec.taps}, true,
                     TensorInit::kNormal, {part("conv1d.weight", spec.conv_width())});
  const int64_t qkv = spec.conv_width(), z = spec.value_width();
  s.delta_in = Add(
      ours + "delta_in", {spec.in_width(), h}, true, TensorInit::kNormal,
      spec.by_k_head
          ? std::vector<Part>{part("in_proj_qkvz.weight", qkv + z),
                              part("in_proj_ba.weight", 2 * heads)}
          : std::vector<Part>{part("in_proj_qkv.weight", qkv), part("in_proj_z.weight", z),
                              part("in_proj_b.weight", heads), part("in_proj_a.weight", heads)});
}

void TensorTable::AddConv(int64_t l) {
  const ConvSpec& spec = plan_.layers[static_cast<size_t>(l)].conv;
  LayerSlices& s = layers_[static_cast<size_t>(l)];
  const int64_t h = shape_.hidden, channels = spec.channels;
  const std::string ours = "layers." + std::to_string(l) + ".",
                    file = "model.layers." + std::to_string(l) + ".conv.";
  s.conv_out = Add(ours + "conv_out", {h, channels}, true, TensorInit::kResidual,
                   {{file + "out_proj.weight", h, SplitAxis::kNone}});
  s.conv_taps = Add(ours + "conv_taps", {channels, 1, spec.taps}, true, TensorInit::kNormal,
                    {{file + "conv.weight", channels, SplitAxis::kNone}});
  s.conv_in = Add(ours + "conv_in", {3 * channels, h}, true, TensorInit::kNormal,
                  {{file + "in_proj.weight", 3 * channels, SplitAxis::kNone}});
}

}  // namespace plumb::policy_model

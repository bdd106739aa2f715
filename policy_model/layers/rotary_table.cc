#include "policy_model/layers/rotary_table.h"

#include <cmath>

#include "kernels/rope.h"

namespace plumb::policy_model {
namespace {

FlatBuffer OnDevice(const std::vector<float>& values, const Stream& stream) {
  FlatBuffer buffer(stream, DType::kFloat32, static_cast<int64_t>(values.size()));
  buffer.CopyFromHost(std::as_bytes(std::span<const float>(values)));
  return buffer;
}

}  // namespace

RotaryTable MakeRotaryTable(const RotarySpec& spec, int64_t max_positions, const Stream& stream) {
  const auto dims = static_cast<int64_t>(2 * spec.frequencies.size());
  RotaryTable made;
  made.dims = static_cast<int32_t>(dims);
  made.interleaved = spec.interleaved;
  std::vector<float> values(static_cast<size_t>(max_positions * dims));
  kernels::RopeTable(max_positions, spec.frequencies, spec.factor, values.data());
  made.cos_sin = OnDevice(values, stream);
  if (spec.query_beta == 0) return made;
  values.resize(static_cast<size_t>(max_positions));
  for (size_t p = 0; p < values.size(); ++p) {
    const double turns = std::floor(static_cast<double>(p) / spec.query_step);
    values[p] = static_cast<float>(1 + spec.query_beta * std::log(1 + turns));
  }
  made.query_scale = OnDevice(values, stream);
  return made;
}

}  // namespace plumb::policy_model

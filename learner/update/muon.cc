#include "learner/update/muon.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "common/base/error.h"
#include "policy_model/memory/torch_stream.h"

namespace plumb::learner {
namespace {

template <class T>
at::Tensor View(const Stream& stream, const T* data, int64_t rows, int64_t columns) {
  const auto type = std::is_same_v<T, double>     ? at::kDouble
                    : std::is_same_v<T, BFloat16> ? at::kBFloat16
                                                  : at::kFloat;
  return at::from_blob(
      const_cast<T*>(data), {rows, columns},
      at::TensorOptions().dtype(type).device(policy_model::TorchDevice(stream.device())));
}

at::Tensor NewtonSchulz(const at::Tensor& update) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  const bool tall = update.size(0) > update.size(1);
  at::Tensor x = tall ? update.t() : update;
  x = x / (x.norm() + 1e-7);
  for (int i = 0; i < 5; ++i) {
    const at::Tensor gram = x.matmul(x.t());
    x = a * x + (b * gram + c * gram.matmul(gram)).matmul(x);
  }
  return tall ? x.t() : x;
}

}  // namespace

template <class T>
void MuonUpdate(const Stream& stream, int64_t rows, int64_t columns, T* weight, T* momentum,
                const T* grad, const MuonOptions& options) {
  const policy_model::OnStream here(stream);
  at::Tensor w = View(stream, weight, rows, columns), m = View(stream, momentum, rows, columns);
  const at::Tensor g = View(stream, grad, rows, columns) * options.grad_scale;
  m.mul_(options.momentum).add_(g, 1 - options.momentum);
  const at::Tensor o = NewtonSchulz(m * options.momentum + g * (1 - options.momentum));
  const double scale =
      std::sqrt(std::max(1.0, static_cast<double>(rows) / static_cast<double>(columns)));
  w.mul_(1 - options.learning_rate * options.weight_decay).add_(o, -options.learning_rate * scale);
}

template void MuonUpdate<float>(const Stream&, int64_t, int64_t, float*, float*, const float*,
                                const MuonOptions&);
template void MuonUpdate<double>(const Stream&, int64_t, int64_t, double*, double*, const double*,
                                 const MuonOptions&);

void RoundToBFloat16(const Stream& stream, const float* from, BFloat16* to, int64_t n) {
  const policy_model::OnStream here(stream);
  View(stream, to, 1, n).copy_(View(stream, from, 1, n));
}

std::vector<MuonMatrix> MuonMatrices(const policy_model::TensorEntry& entry) {
  const bool inside = entry.name.starts_with("layers.");
  if (!inside || !entry.decay || entry.exact || entry.shape.size() != 2 || entry.shape[0] < 2 ||
      entry.columns() < 2 || entry.name.ends_with("conv") || entry.name.ends_with("taps"))
    return {};
  std::vector<MuonMatrix> out;
  for (const policy_model::TensorPart& part : entry.parts) {
    const int64_t rows = part.row_end - part.row_begin,
                  stack = std::max<int64_t>(1, part.file_stack);
    PLUMB_CHECK(rows % stack == 0);
    for (int64_t s = 0; s < stack; ++s)
      out.push_back({.row_begin = part.row_begin + s * (rows / stack), .rows = rows / stack});
  }
  return out;
}

}  // namespace plumb::learner

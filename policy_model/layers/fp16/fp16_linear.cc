#include "policy_model/layers/fp16/fp16_linear.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "common/base/error.h"
#include "kernels/fp16/round_half.h"
#include "policy_model/memory/torch_stream.h"

namespace plumb::policy_model {
namespace {

// Of sums at a time: enough rows that a product does not notice, of the widest layers, too.
constexpr int64_t kSumElements = int64_t{32} << 20;

at::Tensor View(const PackedPass& pass, const void* data, int64_t rows, int64_t columns,
                at::ScalarType type) {
  const auto options = at::TensorOptions().dtype(type).device(TorchDevice(pass.launch.device()));
  return at::from_blob(const_cast<void*>(data), {rows, columns}, options);
}

int64_t OperandBytes(const Pass& pass, int64_t elements) {
  return elements *
         static_cast<int64_t>(pass.launch.device().is_cpu() ? sizeof(float) : sizeof(uint16_t));
}

// x[rows, columns] as an operand, which lies at `to`.
at::Tensor Rounded(const PackedPass& pass, const void* x, int64_t rows, int64_t columns, void* to) {
  const bool cpu = pass.launch.device().is_cpu();
  kernels::Call(pass.launch,
                kernels::RoundToHalf{.x = x,
                                     .n = rows * columns,
                                     .code = cpu ? nullptr : static_cast<uint16_t*>(to),
                                     .value = cpu ? static_cast<float*>(to) : nullptr});
  return View(pass, to, rows, columns, cpu ? at::kFloat : at::kHalf);
}

// out (+)= a b, in float.
void Multiply(const at::Tensor& a, const at::Tensor& b, bool accumulate, at::Tensor out) {
  if (a.scalar_type() == at::kFloat) {
    if (accumulate) at::addmm_out(out, out, a, b);
    else at::mm_out(out, a, b);
  } else {
    if (accumulate) at::addmm_out(out, out, a, b, at::kFloat);
    else at::mm_out(out, a, b, at::kFloat);
  }
}

}  // namespace

void CheckFp16(const TensorTable& table) {
  for (const LayerSpec& layer : table.plan().layers) {
    if (!layer.experts.there()) continue;
    throw Error(ErrorCode::kUnsupported,
                "is \"fp16\", and products of experts are computed in model.dtype only: leave it "
                "at \"dtype\"",
                "model.products");
  }
}

void Fp16Linear::Plan(const Pass& pass, int64_t n, int64_t rows, int64_t columns, int64_t rank,
                      Arena& scratch) {
  const int64_t wide = std::max({rows, columns, rank}),
                narrow = std::max(std::min(rows, columns), rank);
  left_ = scratch.Reserve(OperandBytes(pass, n * wide));
  // Weights; of a gradient of weights the other side's rows.
  right_ = scratch.Reserve(OperandBytes(pass, std::max(wide * narrow, n * narrow)));
  const bool is_float = pass.launch.dtype == DType::kFloat32;
  // One row at least; of a gradient that is written narrow it is one of W.
  sum_elements_ = is_float ? 0 : std::max(wide, std::min(kSumElements, std::max(n, narrow) * wide));
  sums_ = scratch.Reserve(sum_elements_ * static_cast<int64_t>(sizeof(float)));
}

namespace {

// y[m, n] (+)= a[m, k] b[k, n] in the model's type; `sums`: float[elements], n at least.
void Product(const PackedPass& pass, const at::Tensor& a, const at::Tensor& b, bool accumulate,
             float* sums, int64_t elements, void* y) {
  const int64_t m = a.size(0), n = b.size(1);
  if (pass.launch.dtype == DType::kFloat32)
    return Multiply(a, b, accumulate, View(pass, y, m, n, at::kFloat));
  const int64_t at_once = elements / n;
  for (int64_t first = 0; first < m; first += at_once) {
    const int64_t rows = std::min(at_once, m - first);
    const at::Tensor sum = View(pass, sums, rows, n, at::kFloat);
    Multiply(a.narrow(0, first, rows), b, false, sum);
    const at::Tensor out =
        View(pass, static_cast<BFloat16*>(y) + first * n, rows, n, at::kBFloat16);
    if (accumulate) out.add_(sum);
    else out.copy_(sum);
  }
}

}  // namespace

void Fp16Linear::Linear(const PackedPass& pass, const void* x, const void* w, int64_t m, int64_t n,
                        int64_t k, bool accumulate, void* y) const {
  const c10::InferenceMode guard;
  const OnStream on(pass.launch.stream);
  const at::Tensor a = Rounded(pass, x, m, k, pass.scratch.At(left_)),
                   b = Rounded(pass, w, n, k, pass.scratch.At(right_)).t();
  Product(pass, a, b, accumulate, pass.scratch.Floats(sums_), sum_elements_, y);
}

void Fp16Linear::BackwardInput(const PackedPass& pass, const void* dy, const void* w, int64_t m,
                               int64_t n, int64_t k, bool accumulate, void* dx) const {
  const c10::InferenceMode guard;
  const OnStream on(pass.launch.stream);
  const at::Tensor a = Rounded(pass, dy, m, n, pass.scratch.At(left_)),
                   b = Rounded(pass, w, n, k, pass.scratch.At(right_));
  Product(pass, a, b, accumulate, pass.scratch.Floats(sums_), sum_elements_, dx);
}

// dy^T and x: the wider one lies where there is room for the wider.
void Fp16Linear::BackwardWeight(const PackedPass& pass, const void* dy, const void* x, int64_t m,
                                int64_t n, int64_t k, float* dw, bool accumulate) const {
  const c10::InferenceMode guard;
  const OnStream on(pass.launch.stream);
  const at::Tensor a = Rounded(pass, dy, m, n, pass.scratch.At(n >= k ? left_ : right_)).t(),
                   b = Rounded(pass, x, m, k, pass.scratch.At(n >= k ? right_ : left_));
  Multiply(a, b, accumulate, View(pass, dw, n, k, at::kFloat));
}

void Fp16Linear::BackwardWeightNarrow(const PackedPass& pass, const void* dy, const void* x,
                                      int64_t m, int64_t n, int64_t k, BFloat16* dw) const {
  PLUMB_CHECK(pass.launch.dtype == DType::kBFloat16, "a gradient that is as wide as the model");
  const c10::InferenceMode guard;
  const OnStream on(pass.launch.stream);
  const at::Tensor a = Rounded(pass, dy, m, n, pass.scratch.At(n >= k ? left_ : right_)).t(),
                   b = Rounded(pass, x, m, k, pass.scratch.At(n >= k ? right_ : left_));
  Product(pass, a, b, false, pass.scratch.Floats(sums_), sum_elements_, dw);
}

}  // namespace plumb::policy_model

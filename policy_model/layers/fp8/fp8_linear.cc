#include "policy_model/layers/fp8/fp8_linear.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "common/base/error.h"
#include "kernels/device/compute_capability.h"
#include "kernels/fp8/fp8_product.h"
#include "kernels/fp8/quantise_fp8.h"
#include "policy_model/memory/torch_stream.h"

namespace plumb::policy_model {
namespace {

using kernels::Fp8;

constexpr int64_t kMultiple = 16;   // of both sizes of W: what LibTorch's products want
constexpr int kOldest = 89;         // compute capability
constexpr int64_t kRowsAtOnce = 4;  // whose scales begin on 16 bytes

// Of both: where codes and scales lie.
struct Operands {
  const uint8_t* a = nullptr;  // [m, k]
  const float* a_scale = nullptr;
  Fp8 a_format = Fp8::kE4M3;
  const uint8_t* b = nullptr;  // [n, k], E4M3
  const float* b_scale = nullptr;
};

at::Tensor View(const kernels::Launch& launch, const void* data, int64_t rows, int64_t columns,
                at::ScalarType type) {
  const auto options = at::TensorOptions().dtype(type).device(TorchDevice(launch.device()));
  return at::from_blob(const_cast<void*>(data), {rows, columns}, options);
}

// y[m, n] = a b^T; `sum`: room for so many elements, kRowsAtOnce rows at least, through which they
// are added.
void Product(const kernels::Launch& launch, const Operands& of, int64_t m, int64_t n, int64_t k,
             bool accumulate, void* sum, int64_t sum_elements, void* y) {
  if (launch.device().is_cpu()) {
    kernels::Call(launch, kernels::Fp8Product{.a = of.a,
                                              .a_scale = of.a_scale,
                                              .a_format = of.a_format,
                                              .b = of.b,
                                              .b_scale = of.b_scale,
                                              .m = m,
                                              .n = n,
                                              .k = k,
                                              .accumulate = accumulate,
                                              .y = y});
    return;
  }
  const c10::InferenceMode guard;
  const OnStream on(launch.stream);
  const auto type = of.a_format == Fp8::kE4M3 ? at::kFloat8_e4m3fn : at::kFloat8_e5m2;
  int64_t at_once = m;
  if (accumulate && m * n > sum_elements) at_once = sum_elements / n / kRowsAtOnce * kRowsAtOnce;
  for (int64_t first = 0; first < m; first += at_once) {
    const int64_t rows = std::min(at_once, m - first);
    void* const here = static_cast<BFloat16*>(y) + first * n;
    at::Tensor out = View(launch, accumulate ? sum : here, rows, n, at::kBFloat16);
    at::_scaled_mm_out(out, View(launch, of.a + first * k, rows, k, type),
                       View(launch, of.b, n, k, at::kFloat8_e4m3fn).t(),
                       View(launch, of.a_scale + first, rows, 1, at::kFloat),
                       View(launch, of.b_scale, 1, n, at::kFloat), /*bias=*/std::nullopt,
                       /*scale_result=*/std::nullopt, at::kBFloat16, /*use_fast_accum=*/false);
    if (accumulate) View(launch, here, rows, n, at::kBFloat16).add_(out);
  }
}

}  // namespace

void CheckFp8(const Stream& stream, DType dtype, const TensorTable& table) {
  const auto refuse = [](ErrorCode code, const std::string& why) {
    throw Error(code, "is \"fp8\", and " + why + ": leave it at \"dtype\"", "model.products");
  };
  for (const LayerSpec& layer : table.plan().layers) {
    if (layer.experts.there())
      refuse(ErrorCode::kUnsupported, "products of experts are computed in model.dtype only");
  }
  for (const TensorEntry& entry : table.entries()) {
    const bool product = entry.adapts && entry.shape.size() == 2 &&
                         entry.offset != table.embedding() && entry.offset != table.lm_head();
    if (!product || (entry.shape[0] % kMultiple == 0 && entry.shape[1] % kMultiple == 0)) continue;
    refuse(ErrorCode::kInvalidArgument, entry.name + " is " + std::to_string(entry.shape[0]) +
                                            " x " + std::to_string(entry.shape[1]) +
                                            ", where products want multiples of " +
                                            std::to_string(kMultiple));
  }
  if (stream.device().is_cpu()) return;
  if (dtype != DType::kBFloat16) {
    throw Error(ErrorCode::kInvalidArgument,
                "is \"fp8\", whose products give bfloat16 on a GPU: set model.dtype to "
                "\"bfloat16\", or leave it at \"dtype\"",
                "model.products");
  }
  const int here = kernels::ComputeCapability(stream.device());
  if (here < kOldest) {
    refuse(ErrorCode::kUnsupported, DeviceName(stream.device()) + " has compute capability " +
                                        std::to_string(here / 10) + "." +
                                        std::to_string(here % 10) + ", where 8.9 or later has it");
  }
}

void Fp8Linear::Plan(const Pass& pass, int64_t n, Arena& scratch) {
  const int64_t wide = std::max(rows_, columns_);
  token_codes_ = scratch.Reserve(n * wide);
  token_scales_ = scratch.Reserve(n * static_cast<int64_t>(sizeof(float)));
  weight_codes_ = scratch.Reserve(rows_ * columns_);
  weight_scales_ = scratch.Reserve(wide * static_cast<int64_t>(sizeof(float)));
  // What is added is most often as wide as the narrower side, the hidden state.
  sum_elements_ = pass.launch.device().is_cuda()
                      ? std::max(n * std::min(rows_, columns_), kRowsAtOnce * wide)
                      : 0;
  sum_ = scratch.Reserve(pass.Bytes(sum_elements_));
}

void Fp8Linear::Forward(const PackedPass& pass, const void* w, const void* x, bool accumulate,
                        void* y) const {
  const int64_t n = pass.tokens();
  auto* const tokens = static_cast<uint8_t*>(pass.scratch.At(token_codes_));
  auto* const weights = static_cast<uint8_t*>(pass.scratch.At(weight_codes_));
  float* const token_scales = pass.scratch.Floats(token_scales_);
  float* const weight_scales = pass.scratch.Floats(weight_scales_);
  kernels::Call(
      pass.launch,
      kernels::QuantiseRows{
          .x = x, .rows = n, .columns = columns_, .codes = tokens, .scale = token_scales});
  kernels::Call(
      pass.launch,
      kernels::QuantiseRows{
          .x = w, .rows = rows_, .columns = columns_, .codes = weights, .scale = weight_scales});
  Product(pass.launch,
          {.a = tokens, .a_scale = token_scales, .b = weights, .b_scale = weight_scales}, n, rows_,
          columns_, accumulate, pass.scratch.At(sum_), sum_elements_, y);
}

void Fp8Linear::BackwardInput(const PackedPass& pass, const void* w, const void* dy,
                              bool accumulate, void* dx) const {
  const int64_t n = pass.tokens();
  auto* const tokens = static_cast<uint8_t*>(pass.scratch.At(token_codes_));
  auto* const weights = static_cast<uint8_t*>(pass.scratch.At(weight_codes_));
  float* const token_scales = pass.scratch.Floats(token_scales_);
  float* const weight_scales = pass.scratch.Floats(weight_scales_);
  kernels::Call(pass.launch, kernels::QuantiseRows{.x = dy,
                                                   .rows = n,
                                                   .columns = rows_,
                                                   .format = Fp8::kE5M2,
                                                   .codes = tokens,
                                                   .scale = token_scales});
  kernels::Call(
      pass.launch,
      kernels::QuantiseColumns{
          .x = w, .rows = rows_, .columns = columns_, .codes = weights, .scale = weight_scales});
  Product(pass.launch,
          {.a = tokens,
           .a_scale = token_scales,
           .a_format = Fp8::kE5M2,
           .b = weights,
           .b_scale = weight_scales},
          n, columns_, rows_, accumulate, pass.scratch.At(sum_), sum_elements_, dx);
}

}  // namespace plumb::policy_model

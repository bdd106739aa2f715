#include "policy_model/layers/ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <omp.h>

#include <thread>

#include "common/base/error.h"
#include "kernels/bf16_gemm.h"
#include "kernels/bf16_matvec.h"
#include "kernels/gemm_rows.h"
#include "kernels/products/row_product.h"
#include "policy_model/memory/torch_stream.h"

namespace plumb::policy_model::ops {
namespace {

at::ScalarType TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return at::kFloat;
    case DType::kBFloat16: return at::kBFloat16;
    default:
      throw Error(ErrorCode::kUnsupported, "products are computed in float32 and bfloat16 only");
  }
}

at::Tensor View(const kernels::Launch& launch, const void* data, int64_t rows, int64_t cols,
                at::ScalarType type) {
  const auto options = at::TensorOptions().dtype(type).device(TorchDevice(launch.device()));
  return at::from_blob(const_cast<void*>(data), {rows, cols}, options);
}

// The bf16 product with float results of the MKL inside LibTorch's CPU library, where it is
// exported: logits keep their fp32 sums, and weight gradients accumulate in place. nullptr
// elsewhere.
using Bf16ToFloatProduct = void (*)(int order, int trans_a, int trans_b, int m, int n, int k,
                                    float alpha, const void* a, int lda, const void* b, int ldb,
                                    float beta, float* c, int ldc);
constexpr int kRowMajor = 101, kPlain = 111, kTransposed = 112;  // of the CBLAS interface

Bf16ToFloatProduct MklBf16Product() {
  static const auto product =
      reinterpret_cast<Bf16ToFloatProduct>(dlsym(RTLD_DEFAULT, "cblas_gemm_bf16bf16f32"));
  return product;
}

bool Bf16OnCpu(const kernels::Launch& launch) {
  return launch.device().is_cpu() && launch.dtype == DType::kBFloat16;
}

// bf16 products on a processor where they are faster in fp32 lanes than in the library.
bool WidenedBf16(const kernels::Launch& launch) {
  return Bf16OnCpu(launch) && kernels::PreferBf16Gemm();
}

void Widened(const kernels::Launch& launch, const void* a, kernels::Layout a_layout, const void* b,
             kernels::Layout b_layout, int64_t m, int64_t n, int64_t k, bool accumulate,
             DType y_dtype, void* y, const LowRankOperands& more = {}) {
  kernels::Call(launch, kernels::Bf16Gemm{.a = static_cast<const BFloat16*>(a),
                                          .a_layout = a_layout,
                                          .b = static_cast<const BFloat16*>(b),
                                          .b_layout = b_layout,
                                          .m = m,
                                          .n = n,
                                          .k = k,
                                          .more_a = static_cast<const BFloat16*>(more.rows),
                                          .more_b = static_cast<const BFloat16*>(more.matrix),
                                          .more_k = more.rank,
                                          .accumulate = accumulate,
                                          .y_dtype = y_dtype,
                                          .y = y});
}

// Products of the CPU of which a row has the same bits for one row and for many.
void CpuRows(const kernels::Launch& launch, const void* x, const void* w, int64_t m, int64_t n,
             int64_t k, bool accumulate, DType y_dtype, void* y) {
  if (launch.dtype == DType::kFloat32) {
    kernels::Call(launch, kernels::GemmRows{.x = static_cast<const float*>(x),
                                            .w = static_cast<const float*>(w),
                                            .m = m,
                                            .n = n,
                                            .k = k,
                                            .accumulate = accumulate,
                                            .y = static_cast<float*>(y)});
    return;
  }
  Widened(launch, x, kernels::Layout::kTermsInner, w, kernels::Layout::kTermsInner, m, n, k,
          accumulate, y_dtype, y);
}

// Forward products of the engine and the learner alike, where they are to be (kernels::ExactOn).
// false: each does it in its own way.
bool Exact(const kernels::Launch& launch, const void* x, const void* w, int64_t m, int64_t n,
           int64_t k, bool accumulate, DType y_dtype, void* y) {
  if (!kernels::ExactOn(launch.device())) return false;
  if (launch.dtype != DType::kFloat32 && launch.dtype != DType::kBFloat16) return false;
  if (launch.device().is_cpu()) {
    CpuRows(launch, x, w, m, n, k, accumulate, y_dtype, y);
    return true;
  }
  kernels::Call(launch, kernels::RowProduct{.x = x,
                                            .w = w,
                                            .m = m,
                                            .n = n,
                                            .k = k,
                                            .residual = accumulate ? y : nullptr,
                                            .y_dtype = y_dtype,
                                            .y = y});
  return true;
}

}  // namespace

void SetThreads(int threads) {
  const int n = threads > 0 ? threads : static_cast<int>(std::thread::hardware_concurrency());
  at::set_num_threads(n);
  omp_set_num_threads(n);
}

int Threads() { return at::get_num_threads(); }

void Linear(const kernels::Launch& launch, const void* x, const void* w, int64_t m, int64_t n,
            int64_t k, bool accumulate, void* y) {
  if (Exact(launch, x, w, m, n, k, accumulate, launch.dtype, y)) return;
  if (WidenedBf16(launch)) {
    Widened(launch, x, kernels::Layout::kTermsInner, w, kernels::Layout::kTermsInner, m, n, k,
            accumulate, DType::kBFloat16, y);
    return;
  }
  const c10::InferenceMode guard;
  const OnStream on(launch.stream);
  const auto type = TypeOf(launch.dtype);
  at::Tensor out = View(launch, y, m, n, type);
  const at::Tensor a = View(launch, x, m, k, type), b = View(launch, w, n, k, type).t();
  if (accumulate) at::addmm_out(out, out, a, b);
  else at::mm_out(out, a, b);
}

void LinearToFloat(const kernels::Launch& launch, const void* x, const void* w, int64_t m,
                   int64_t n, int64_t k, float* y) {
  if (Exact(launch, x, w, m, n, k, false, DType::kFloat32, y)) return;
  if (WidenedBf16(launch)) {
    Widened(launch, x, kernels::Layout::kTermsInner, w, kernels::Layout::kTermsInner, m, n, k,
            false, DType::kFloat32, y);
    return;
  }
  const c10::InferenceMode guard;
  const OnStream on(launch.stream);
  const auto type = TypeOf(launch.dtype);
  at::Tensor out = View(launch, y, m, n, at::kFloat);
  const at::Tensor a = View(launch, x, m, k, type), b = View(launch, w, n, k, type).t();
  if (type == at::kFloat) {
    at::mm_out(out, a, b);
  } else if (Bf16OnCpu(launch) && MklBf16Product()) {
    MklBf16Product()(kRowMajor, kPlain, kTransposed, static_cast<int>(m), static_cast<int>(n),
                     static_cast<int>(k), 1.0f, x, static_cast<int>(k), w, static_cast<int>(k),
                     0.0f, y, static_cast<int>(n));
  } else if (launch.device().is_cuda()) {
    // the fp32 sums as they are: rounded logits move log-probs by hundredths
    at::mm_out(out, a, b, at::kFloat);
  } else {
    out.copy_(at::mm(a, b));
  }
}

void LinearRows(const kernels::Launch& launch, const void* x, const void* w, int64_t m, int64_t n,
                int64_t k, bool accumulate, void* y) {
  if (launch.device().is_cpu() && launch.dtype == DType::kFloat32) {
    CpuRows(launch, x, w, m, n, k, accumulate, DType::kFloat32, y);
    return;
  }
  if (Bf16OnCpu(launch) && m <= kernels::kBf16MatvecRows && !kernels::ExactOnCpu()) {
    kernels::Call(launch, kernels::Bf16Matvec{.x = static_cast<const BFloat16*>(x),
                                              .w = static_cast<const BFloat16*>(w),
                                              .m = m,
                                              .n = n,
                                              .k = k,
                                              .accumulate = accumulate,
                                              .y_dtype = DType::kBFloat16,
                                              .y = y});
    return;
  }
  Linear(launch, x, w, m, n, k, accumulate, y);
}

void LinearRowsToFloat(const kernels::Launch& launch, const void* x, const void* w, int64_t m,
                       int64_t n, int64_t k, float* y) {
  if (launch.device().is_cpu() && launch.dtype == DType::kFloat32) {
    CpuRows(launch, x, w, m, n, k, false, DType::kFloat32, y);
    return;
  }
  if (Bf16OnCpu(launch) && m <= kernels::kBf16MatvecRows && !kernels::ExactOnCpu()) {
    kernels::Call(launch, kernels::Bf16Matvec{.x = static_cast<const BFloat16*>(x),
                                              .w = static_cast<const BFloat16*>(w),
                                              .m = m,
                                              .n = n,
                                              .k = k,
                                              .y_dtype = DType::kFloat32,
                                              .y = y});
    return;
  }
  LinearToFloat(launch, x, w, m, n, k, y);
}

void LinearBackwardInput(const kernels::Launch& launch, const void* dy, const void* w, int64_t m,
                         int64_t n, int64_t k, bool accumulate, void* dx) {
  if (WidenedBf16(launch)) {
    Widened(launch, dy, kernels::Layout::kTermsInner, w, kernels::Layout::kTermsOuter, m, k, n,
            accumulate, DType::kBFloat16, dx);
    return;
  }
  const c10::InferenceMode guard;
  const OnStream on(launch.stream);
  const auto type = TypeOf(launch.dtype);
  at::Tensor out = View(launch, dx, m, k, type);
  const at::Tensor a = View(launch, dy, m, n, type), b = View(launch, w, n, k, type);
  if (accumulate) at::addmm_out(out, out, a, b);
  else at::mm_out(out, a, b);
}

void LinearBackwardWeight(const kernels::Launch& launch, const void* dy, const void* x, int64_t m,
                          int64_t n, int64_t k, float* dw, bool accumulate) {
  if (WidenedBf16(launch)) {
    Widened(launch, dy, kernels::Layout::kTermsOuter, x, kernels::Layout::kTermsOuter, n, k, m,
            accumulate, DType::kFloat32, dw);
    return;
  }
  const c10::InferenceMode guard;
  const OnStream on(launch.stream);
  const auto type = TypeOf(launch.dtype);
  at::Tensor out = View(launch, dw, n, k, at::kFloat);
  const at::Tensor a = View(launch, dy, m, n, type).t(), b = View(launch, x, m, k, type);
  if (type == at::kFloat) {
    if (accumulate) at::addmm_out(out, out, a, b);
    else at::mm_out(out, a, b);
  } else if (Bf16OnCpu(launch) && MklBf16Product()) {
    MklBf16Product()(kRowMajor, kTransposed, kPlain, static_cast<int>(n), static_cast<int>(k),
                     static_cast<int>(m), 1.0f, dy, static_cast<int>(n), x, static_cast<int>(k),
                     accumulate ? 1.0f : 0.0f, dw, static_cast<int>(k));
  } else if (launch.device().is_cuda()) {
    if (accumulate) at::addmm_out(out, out, a, b, at::kFloat);
    else at::mm_out(out, a, b, at::kFloat);
  } else {
    if (accumulate) out.add_(at::mm(a, b));
    else out.copy_(at::mm(a, b));
  }
}

namespace {

// Products whose parts of a sum are added up in float, also where the library computes them apart.
class FloatSums {
 public:
  FloatSums() : before_(at::globalContext().allowBF16ReductionCuBLAS()) {
    at::globalContext().setAllowBF16ReductionCuBLAS(false);
  }
  ~FloatSums() {
    using Option = at::CuBLASReductionOption;
    at::globalContext().setAllowBF16ReductionCuBLAS(
        before_ == Option::AllowReducedPrecisionWithSplitK,
        before_ != Option::DisallowReducedPrecisionDisallowSplitK);
  }
  FloatSums(const FloatSums&) = delete;
  FloatSums& operator=(const FloatSums&) = delete;

 private:
  const at::CuBLASReductionOption before_;
};

}  // namespace

void LinearBackwardWeightNarrow(const kernels::Launch& launch, const void* dy, const void* x,
                                int64_t m, int64_t n, int64_t k, BFloat16* dw) {
  PLUMB_CHECK(launch.device().is_cuda() && launch.dtype == DType::kBFloat16,
              "bfloat16 products of a GPU");
  const c10::InferenceMode guard;
  const OnStream on(launch.stream);
  const FloatSums sums;
  at::Tensor out = View(launch, dw, n, k, at::kBFloat16);
  at::mm_out(out, View(launch, dy, m, n, at::kBFloat16).t(), View(launch, x, m, k, at::kBFloat16));
}

bool JoinsLowRank(const kernels::Launch& launch) {
  return WidenedBf16(launch) && !kernels::ExactOnCpu();
}

void LinearJoined(const kernels::Launch& launch, const void* x, const void* w, int64_t m, int64_t n,
                  int64_t k, const LowRankOperands& more, bool accumulate, void* y) {
  Widened(launch, x, kernels::Layout::kTermsInner, w, kernels::Layout::kTermsInner, m, n, k,
          accumulate, DType::kBFloat16, y, more);
}

void LinearBackwardInputJoined(const kernels::Launch& launch, const void* dy, const void* w,
                               int64_t m, int64_t n, int64_t k, const LowRankOperands& more,
                               bool accumulate, void* dx) {
  Widened(launch, dy, kernels::Layout::kTermsInner, w, kernels::Layout::kTermsOuter, m, k, n,
          accumulate, DType::kBFloat16, dx, more);
}

void Scale(const kernels::Launch& launch, int64_t n, float scale, void* x) {
  const c10::InferenceMode guard;
  const OnStream on(launch.stream);
  View(launch, x, 1, n, TypeOf(launch.dtype)).mul_(scale);
}

void Round(const kernels::Launch& launch, const float* x, int64_t n, void* out) {
  const c10::InferenceMode guard;
  const OnStream on(launch.stream);
  View(launch, out, 1, n, TypeOf(launch.dtype)).copy_(View(launch, x, 1, n, at::kFloat));
}

void Sigmoid(const kernels::Launch& launch, int64_t n, float* x) {
  const c10::InferenceMode guard;
  const OnStream on(launch.stream);
  View(launch, x, 1, n, at::kFloat).sigmoid_();
}

void SigmoidBackward(const kernels::Launch& launch, const float* y, int64_t n, float* d) {
  const c10::InferenceMode guard;
  const OnStream on(launch.stream);
  at::Tensor grad = View(launch, d, 1, n, at::kFloat);
  at::sigmoid_backward_out(grad, grad, View(launch, y, 1, n, at::kFloat));
}

void AddToColumns(const kernels::Launch& launch, const void* x, int64_t m, int64_t n, int64_t width,
                  int64_t first, void* y) {
  const c10::InferenceMode guard;
  const OnStream on(launch.stream);
  const auto type = TypeOf(launch.dtype);
  View(launch, y, m, width, type).narrow(1, first, n).add_(View(launch, x, m, n, type));
}

void CopyColumns(const kernels::Launch& launch, const void* y, int64_t m, int64_t width,
                 int64_t first, int64_t n, void* x) {
  const c10::InferenceMode guard;
  const OnStream on(launch.stream);
  const auto type = TypeOf(launch.dtype);
  View(launch, x, m, n, type).copy_(View(launch, y, m, width, type).narrow(1, first, n));
}

}  // namespace plumb::policy_model::ops

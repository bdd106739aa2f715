// bf16 matrix product with fp32 sums, for processors where it beats the library's.
//
// Libraries are not made for every processor: on a Sapphire Rapids core without AMX they use the
// bf16 dot product instruction, which is slower there than widened operands and fp32
// multiply-adds; on a Zen 4 core, where it is twice as fast as those, MKL's product with float
// results stays below half of it. Which way this one goes: products/bf16_words.h.
// A bf16 product is exact in fp32, and every output is one running sum over k in ascending order
// (blocks of kBf16GemmDepth are summed in order; the dot product instruction adds two terms at a
// time): it depends neither on the number of rows nor on the threads, and few rows and many give
// the same bits.
// Thread safety: pure function of its buffers; OpenMP inside; work areas are kept by the calling
// and the worker threads.
#pragma once

#include "kernels/device/launch.h"
#include "kernels/products/bf16_words.h"

namespace plumb::kernels {

inline constexpr int64_t kBf16GemmDepth = 2048;

// Whether Bf16Gemm is the better product on this processor (products/bf16_words.h). The same on
// every run.
bool PreferBf16Gemm();

// How an operand lies: op(X)[i, p] for a row i of the result (or column, for `b`) and a term p of
// the sum.
enum class Layout {
  kTermsInner,  // x[i * terms + p]
  kTermsOuter,  // x[p * count + i]
};

// y[m, n] = sum_p op(a)[i, p] op(b)[j, p], added to y when `accumulate` (the sum is finished
// first). y: BFloat16 or float as `y_dtype` says. x w^T is (kTermsInner, kTermsInner), dy w
// (kTermsInner, kTermsOuter), dy^T x (kTermsOuter, kTermsOuter).
// CPU only: on CUDA products go through cuBLAS (kUnsupported).
struct Bf16Gemm {
  static constexpr const char* kName = "Bf16Gemm (on CUDA: cuBLAS, through policy_model/ops)";
  const BFloat16* a = nullptr;
  Layout a_layout = Layout::kTermsInner;
  const BFloat16* b = nullptr;
  Layout b_layout = Layout::kTermsInner;
  int64_t m = 0, n = 0, k = 0;
  // Terms that follow the first k, of operands of their own that lie likewise: what a low-rank
  // matrix adds to the product costs its terms, and no second pass over y.
  const BFloat16* more_a = nullptr;
  const BFloat16* more_b = nullptr;
  int64_t more_k = 0;
  bool accumulate = false;
  DType y_dtype = DType::kBFloat16;
  void* y = nullptr;  // [m, n]
  // How it multiplies; kNone as kFloats. REQUIRES: kPairs only where OwnBf16Words says so.
  Bf16Words words = OwnBf16Words();
  void Cpu(const Launch& launch) const;
};

}  // namespace plumb::kernels

// The CPU's own bfloat16 products in a train step's three layouts, and the head that is fused with
// its log-probs beside a product and log-probs of chunks of rows, in GFLOP/s of processor time.
//
//   products_bench [ROWS]
//
// Shapes are those of Qwen3-0.6B; ROWS (256) tokens. One thread. Every product's samples are
// compared with double before it is timed; the two heads' log-probs with each other.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <vector>

#include "bench/bench_program.h"
#include "common/base/rng.h"
#include "kernels/bf16_gemm.h"
#include "kernels/head/head_logprob.h"
#include "kernels/token_logprob.h"

namespace plumb::kernels {
namespace {

using bench::ProcessorSeconds;

// The best of five, after one.
double Seconds(const std::function<void()>& run) {
  run();
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    const double begin = ProcessorSeconds();
    run();
    best = std::min(best, ProcessorSeconds() - begin);
  }
  return best;
}

std::vector<BFloat16> Drawn(int64_t n, uint64_t seed, float scale) {
  RandomStream random(1, seed);
  std::vector<BFloat16> x(static_cast<size_t>(n));
  for (BFloat16& v : x) v = ToBFloat16((random.NextUniform() - 0.5f) * scale);
  return x;
}

void Fail(const char* what) {
  std::fprintf(stderr, "products_bench: WRONG RESULT of %s\n", what);
  std::exit(1);
}

double At(const std::vector<BFloat16>& x, int64_t i) {
  return static_cast<double>(ToFloat(x[static_cast<size_t>(i)]));
}

// y = a b^T into float: GFLOP/s.
double Product(const char* what, const std::vector<BFloat16>& a, Layout a_layout,
               const std::vector<BFloat16>& b, Layout b_layout, int64_t m, int64_t n, int64_t k) {
  std::vector<float> y(static_cast<size_t>(m * n));
  const Bf16Gemm gemm{.a = a.data(),
                      .a_layout = a_layout,
                      .b = b.data(),
                      .b_layout = b_layout,
                      .m = m,
                      .n = n,
                      .k = k,
                      .y_dtype = DType::kFloat32,
                      .y = y.data()};
  const double seconds = Seconds([&] { Call({}, gemm); });
  for (int64_t s = 0; s < 64; ++s) {
    const int64_t i = s * 7919 % m, j = s * 104729 % n;
    double sum = 0, size = 0;
    for (int64_t p = 0; p < k; ++p) {
      const double term = At(a, a_layout == Layout::kTermsInner ? i * k + p : p * m + i) *
                          At(b, b_layout == Layout::kTermsInner ? j * k + p : p * n + j);
      sum += term;
      size += std::abs(term);
    }
    if (!(std::abs(static_cast<double>(y[static_cast<size_t>(i * n + j)]) - sum) < 1e-5 * size))
      Fail(what);
  }
  return 2e-9 * static_cast<double>(m * n * k) / seconds;
}

void Heads(int64_t rows) {
  constexpr int64_t kHidden = 1024, kVocab = 151936, kChunk = 55;  // of 32 MiB
  const auto x = Drawn(rows * kHidden, 1, 2), w = Drawn(kVocab * kHidden, 2, 0.2f);
  std::vector<int32_t> target(static_cast<size_t>(rows));
  for (int64_t r = 0; r < rows; ++r)
    target[static_cast<size_t>(r)] = static_cast<int32_t>(r * 7919 % kVocab);
  const Launch launch{.dtype = DType::kBFloat16};
  const int64_t at_a_time = std::min(rows, HeadRows(launch, kHidden));
  std::vector<float> scratch(static_cast<size_t>(HeadScratch(at_a_time, kHidden, kVocab)));
  std::vector<float> fused(static_cast<size_t>(rows)), chunked(fused), entropy(fused), lse(fused);
  std::vector<float> logits(static_cast<size_t>(kChunk * kVocab));
  const auto flops = 2e-9 * static_cast<double>(rows * kHidden * kVocab);
  const double one = Seconds([&] {
    for (int64_t r = 0; r < rows; r += at_a_time) {
      Call(launch, HeadLogprob{.shape = {.x = x.data() + r * kHidden,
                                         .w = w.data(),
                                         .target = target.data() + r,
                                         .rows = std::min(at_a_time, rows - r),
                                         .hidden = kHidden,
                                         .vocab = kVocab},
                               .logprob = fused.data() + r,
                               .entropy = entropy.data() + r,
                               .lse = lse.data() + r,
                               .scratch = scratch.data()});
    }
  });
  const double other = Seconds([&] {
    for (int64_t r = 0; r < rows; r += kChunk) {
      const int64_t some = std::min(kChunk, rows - r);
      Call(launch, Bf16Gemm{.a = x.data() + r * kHidden,
                            .b = w.data(),
                            .m = some,
                            .n = kVocab,
                            .k = kHidden,
                            .y_dtype = DType::kFloat32,
                            .y = logits.data()});
      Call(launch, TokenLogprob{.logits = logits.data(),
                                .target = target.data() + r,
                                .rows = some,
                                .vocab = kVocab,
                                .logprob = chunked.data() + r,
                                .entropy = entropy.data() + r,
                                .lse = lse.data() + r});
    }
  });
  for (size_t r = 0; r < fused.size(); ++r) {
    if (!(std::abs(fused[r] - chunked[r]) < 1e-4f)) Fail("the heads");
  }
  std::printf("head, vocabulary of %lld: fused %.0f GFLOP/s, in chunks %.0f\n",
              static_cast<long long>(kVocab), flops / one, flops / other);
}

void Run(int64_t rows) {
  using enum Layout;
  omp_set_num_threads(1);
  struct Shape {
    int64_t n, k;
  };
  for (const Shape& s :
       {Shape{4096, 1024}, Shape{1024, 2048}, Shape{6144, 1024}, Shape{1024, 3072}}) {
    const auto x = Drawn(rows * s.k, 1, 2), w = Drawn(s.n * s.k, 2, 2),
               dy = Drawn(rows * s.n, 3, 2);
    std::printf("%lld x %lld x %lld: x w^T %.0f GFLOP/s, dy w %.0f, dy^T x %.0f\n",
                static_cast<long long>(rows), static_cast<long long>(s.n),
                static_cast<long long>(s.k),
                Product("x w^T", x, kTermsInner, w, kTermsInner, rows, s.n, s.k),
                Product("dy w", dy, kTermsInner, w, kTermsOuter, rows, s.k, s.n),
                Product("dy^T x", dy, kTermsOuter, x, kTermsOuter, s.n, s.k, rows));
    std::fflush(stdout);
  }
  Heads(rows);
}

}  // namespace
}  // namespace plumb::kernels

int main(int argc, char** argv) {
  const long long rows = argc > 1 ? std::atoll(argv[1]) : 256;
  if (rows < 1) {
    std::fprintf(stderr, "products_bench: ROWS is a number from 1 on\n");
    return 2;
  }
  plumb::kernels::Run(rows);
}

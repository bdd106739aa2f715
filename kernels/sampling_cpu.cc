#include <algorithm>
#include <cmath>
#include <vector>

#include "common/rng.h"
#include "kernels/cpu_common.h"
#include "kernels/cuda_twins.h"
#include "kernels/sampling.h"

namespace plumb::kernels {
namespace {

constexpr int64_t kBlock = 1024;

// Probability (relative to the most likely token, so in (0, 1]) below which a token is filtered out.
float Threshold(std::vector<float>& sorted, double total, const SamplingOptions& o) {
  std::sort(sorted.begin(), sorted.end(), std::greater<float>());
  float threshold = 0;
  auto kept = sorted.size();
  if (o.top_k > 0 && static_cast<size_t>(o.top_k) < kept) {
    threshold = sorted[static_cast<size_t>(o.top_k) - 1];
    kept = static_cast<size_t>(std::upper_bound(sorted.begin(), sorted.end(), threshold, std::greater<float>()) - sorted.begin());
    total = 0;
    for (size_t i = 0; i < kept; ++i) total += static_cast<double>(sorted[i]);
  }
  if (o.top_p < 1.0f) {
    double mass = 0;
    for (size_t i = 0; i < kept; ++i) {
      mass += static_cast<double>(sorted[i]);
      if (mass >= static_cast<double>(o.top_p) * total) {
        threshold = std::max(threshold, sorted[i]);
        break;
      }
    }
  }
  return std::max(threshold, o.min_p);
}

void SampleRow(const float* x, int64_t vocab, const SamplingOptions& o, uint64_t prompt, uint32_t sample,
               int32_t position, float* p, int32_t* token, float* logprob) {
  *token = -1;
  *logprob = 0;
  float top = -INFINITY;
  int64_t bad = 0;
#pragma omp simd reduction(max : top) reduction(+ : bad)
  for (int64_t j = 0; j < vocab; ++j) {
    top = std::max(top, x[j]);
    bad += x[j] != x[j];
  }
  if (bad || !std::isfinite(top)) return;
  const bool greedy = o.temperature == 0;
  const float scale = greedy ? 1.0f : 1.0f / o.temperature;

  // p[j] = exp((x - top) / T), with sums of blocks: the scan below then skips blocks.
  double total = 0;
  const int64_t blocks = (vocab + kBlock - 1) / kBlock;
  float* block_sum = p + vocab;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t end = std::min(vocab, (b + 1) * kBlock);
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t j = b * kBlock; j < end; ++j) {
      p[j] = FastExp((x[j] - top) * scale);
      s += p[j];
    }
    block_sum[b] = s;
    total += static_cast<double>(s);
  }
  if (greedy) {
    for (int64_t j = 0; j < vocab; ++j) {
      if (x[j] == top) {
        *token = static_cast<int32_t>(j);
        break;
      }
    }
    *logprob = static_cast<float>(-std::log(total));
    return;
  }
  if (o.top_k > 0 || o.top_p < 1.0f || o.min_p > 0) {
    float threshold = o.min_p;
    if (o.top_k > 0 || o.top_p < 1.0f) {
      thread_local std::vector<float> sorted;
      sorted.assign(p, p + vocab);
      threshold = Threshold(sorted, total, o);
    }
    total = 0;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t end = std::min(vocab, (b + 1) * kBlock);
      float s = 0;
#pragma omp simd reduction(+ : s)
      for (int64_t j = b * kBlock; j < end; ++j) {
        p[j] = p[j] >= threshold ? p[j] : 0.0f;
        s += p[j];
      }
      block_sum[b] = s;
      total += static_cast<double>(s);
    }
  }
  const Random4 bits = RandomAt(o.seed, prompt, sample, static_cast<uint32_t>(position));
  const double target = UniformOpen(bits.x[0], bits.x[1]) * total;
  double mass = 0;
  int64_t chosen = -1;
  for (int64_t b = 0; b < blocks && chosen < 0; ++b) {
    // The last block always takes the draw: rounding of the block sums must not let it fall off the end.
    if (b + 1 < blocks && mass + static_cast<double>(block_sum[b]) < target) {
      mass += static_cast<double>(block_sum[b]);
      continue;
    }
    const int64_t end = std::min(vocab, (b + 1) * kBlock);
    for (int64_t j = b * kBlock; j < end; ++j) {
      if (p[j] <= 0) continue;
      mass += static_cast<double>(p[j]);
      chosen = j;  // the last token with mass when the sum falls short by rounding
      if (mass >= target) break;
    }
  }
  if (chosen < 0) {  // the last block was wholly filtered out and rounding led there: the last kept token
    for (int64_t j = vocab - 1; j >= 0 && chosen < 0; --j) {
      if (p[j] > 0) chosen = j;
    }
  }
  *token = static_cast<int32_t>(chosen);
  *logprob = static_cast<float>(
      std::min(0.0, static_cast<double>((x[chosen] - top) * scale) - std::log(total)));
}

}  // namespace

int64_t SamplingScratch(int64_t rows, int64_t vocab) {
  return rows * (vocab + (vocab + kBlock - 1) / kBlock + 16) * static_cast<int64_t>(sizeof(float));
}

void SampleTokens(const Launch& launch, const float* logits, int64_t rows, int64_t vocab, const SamplingOptions& options,
                  const uint64_t* prompt, const uint32_t* sample, const int32_t* position, int32_t* token,
                  float* logprob, void* scratch) {
  PLUMB_DISPATCH_CUDA(launch, SampleTokens(launch, logits, rows, vocab, options, prompt, sample, position, token, logprob, scratch))
  const int64_t stride = SamplingScratch(1, vocab) / static_cast<int64_t>(sizeof(float));
#pragma omp parallel for schedule(static) if (rows * vocab > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    SampleRow(logits + r * vocab, vocab, options, prompt[r], sample[r], position[r],
              static_cast<float*>(scratch) + r * stride, token + r, logprob + r);
  }
}

}  // namespace plumb::kernels

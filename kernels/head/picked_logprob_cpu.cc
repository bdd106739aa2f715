#include "kernels/head/picked_logprob.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/device/cpu_common.h"

namespace plumb::kernels {
namespace {

constexpr int64_t kBlock = 4096;  // rounding grows with the block, not with the vocabulary

template <class T>
void Backward(const PickedLogprobBackward& k, T* dlogits) {
  const float scale = 1.0f / k.temperature;
#pragma omp parallel for schedule(static) if (k.rows * k.vocab > kParallelElements)
  for (int64_t r = 0; r < k.rows; ++r) {
    const float* x = k.logits + r * k.vocab;
    const int32_t* ids = k.ids + r * k.picks;
    const float* g = k.g + r * k.picks;
    T* d = dlogits + r * k.vocab;
    double all = 0;
    for (int64_t i = 0; i < k.picks; ++i) all += ids[i] < 0 ? 0.0 : static_cast<double>(g[i]);
    const float sum = static_cast<float>(all), l = k.lse[r];
    if (sum != 0.0f) {
#pragma omp simd
      for (int64_t j = 0; j < k.vocab; ++j)
        d[j] = FromFloat<T>(ToFloat(d[j]) - sum * FastExp(x[j] * scale - l) * scale);
    }
    for (int64_t i = 0; i < k.picks; ++i) {
      if (ids[i] >= 0) d[ids[i]] = FromFloat<T>(ToFloat(d[ids[i]]) + g[i] * scale);
    }
  }
}

}  // namespace

void PickedLogprob::Cpu(const Launch&) const {
  const float scale = 1.0f / temperature;
#pragma omp parallel for schedule(static) if (rows * vocab > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    const float* x = logits + r * vocab;
    const float* top = std::max_element(x, x + vocab);
    double sum = 0;
    for (int64_t begin = 0; begin < vocab; begin += kBlock) {
      const int64_t end = std::min(vocab, begin + kBlock);
      float s = 0;
#pragma omp simd reduction(+ : s)
      for (int64_t j = begin; j < end; ++j) s += FastExp((x[j] - *top) * scale);
      sum += static_cast<double>(s);
    }
    const double log_sum = std::log(sum);
    lse[r] = static_cast<float>(log_sum + static_cast<double>(*top * scale));
    best[r] = static_cast<int32_t>(top - x);
    for (int64_t i = 0; i < picks; ++i) {
      const int32_t id = ids[r * picks + i];
      logprob[r * picks + i] =
          id < 0 ? -std::numeric_limits<float>::infinity()
                 : static_cast<float>(
                       std::min(0.0, static_cast<double>((x[id] - *top) * scale) - log_sum));
    }
  }
}

void PickedLogprobBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Backward(*this, static_cast<T*>(dlogits)); });
}

void TopTokens::Cpu(const Launch&) const {
#pragma omp parallel if (rows * vocab > kParallelElements)
  {
    std::vector<int32_t> order(static_cast<size_t>(vocab));
#pragma omp for schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
      const float* x = logits + r * vocab;
      std::iota(order.begin(), order.end(), 0);
      const auto larger = [x](int32_t a, int32_t b) {
        return x[a] > x[b] || (x[a] == x[b] && a < b);
      };
      const auto end = order.begin() + count;
      if (count < vocab) std::nth_element(order.begin(), end - 1, order.end(), larger);
      std::sort(order.begin(), end, larger);
      for (int64_t i = 0; i < count; ++i) {
        const int32_t id = order[static_cast<size_t>(i)];
        ids[r * count + i] = x[id] > -std::numeric_limits<float>::infinity() ? id : -1;
      }
    }
  }
}

}  // namespace plumb::kernels

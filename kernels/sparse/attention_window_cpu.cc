#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/sparse/attention_window.h"

namespace plumb::kernels {
namespace {

float Dot(const float* a, const float* b, int32_t n) {
  float sum = 0;
  for (int32_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// Calls see(t, h, first, own) for every query: its place, its head, and the keys that it sees.
template <class See>
void ForQueries(const WindowShape& s, const See& see) {
  for (int32_t b = 0; b < s.sequences; ++b) {
    for (int32_t t = s.cu_q[b]; t < s.cu_q[b + 1]; ++t) {
      const int64_t own = s.cu_k[b + 1] - (s.cu_q[b + 1] - t);
      for (int32_t h = 0; h < s.heads; ++h)
        see(int64_t{t}, h, std::max<int64_t>(s.cu_k[b], own - s.window + 1), own);
    }
  }
}

}  // namespace

void AttentionWindow::Cpu(const Launch&) const {
  const WindowShape& s = shape;
  ForQueries(s, [&](int64_t t, int32_t h, int64_t first, int64_t own) {
    const int32_t d = s.head_dim, kv = h / (s.heads / s.kv_heads);
    const float* query = q + t * s.q_stride + int64_t{h} * d;
    std::vector<float> score;
    for (int64_t j = first; j <= own; ++j)
      score.push_back(s.scale * Dot(query, k + j * s.k_stride + int64_t{kv} * d, d));
    const float most = *std::max_element(score.begin(), score.end());
    float sum = 0;
    for (const float x : score) sum += std::exp(x - most);
    lse[h * s.queries + t] = most + std::log(sum);
    float* to = out + (t * s.heads + h) * d;
    std::fill_n(to, d, 0.0f);
    for (int64_t j = first; j <= own; ++j) {
      const float p = std::exp(score[static_cast<size_t>(j - first)] - most) / sum;
      const float* value = v + j * s.k_stride + int64_t{kv} * d;
      for (int32_t i = 0; i < d; ++i) to[i] += p * value[i];
    }
  });
}

void AttentionWindowBackward::Cpu(const Launch&) const {
  const WindowShape& s = shape;
  const int64_t kv_width = int64_t{s.kv_heads} * s.head_dim;
  std::fill_n(dk, s.keys * kv_width, 0.0f);
  std::fill_n(dv, s.keys * kv_width, 0.0f);
  ForQueries(s, [&](int64_t t, int32_t h, int64_t first, int64_t own) {
    const int32_t d = s.head_dim, kv = h / (s.heads / s.kv_heads);
    const int64_t at = (t * s.heads + h) * d;
    const float *query = q + t * s.q_stride + int64_t{h} * d, *g = dout + at;
    const float both = Dot(g, out + at, d);
    std::fill_n(dq + at, d, 0.0f);
    for (int64_t j = first; j <= own; ++j) {
      const float *key = k + j * s.k_stride + int64_t{kv} * d,
                  *value = v + j * s.k_stride + int64_t{kv} * d;
      const float p = std::exp(s.scale * Dot(query, key, d) - lse[h * s.queries + t]),
                  ds = p * (Dot(g, value, d) - both) * s.scale;
      float *gk = dk + j * kv_width + int64_t{kv} * d, *gv = dv + j * kv_width + int64_t{kv} * d;
      for (int32_t i = 0; i < d; ++i) {
        dq[at + i] += ds * key[i];
        gk[i] += ds * query[i];
        gv[i] += p * g[i];
      }
    }
  });
}

}  // namespace plumb::kernels

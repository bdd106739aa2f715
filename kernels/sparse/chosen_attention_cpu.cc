#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/device/cpu_common.h"
#include "kernels/sparse/chosen_attention.h"
#include "kernels/sparse/token_gate.h"

namespace plumb::kernels {
namespace {

template <class T>
float Dot(const T* a, const T* b, int32_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int32_t i = 0; i < n; ++i) sum += ToFloat(a[i]) * ToFloat(b[i]);
  return sum;
}

int32_t Held(const int32_t* chosen, int32_t count) {
  return static_cast<int32_t>(std::find(chosen, chosen + count, -1) - chosen);
}

template <class T>
void Forward(const ChosenAttention& k) {
  const VarlenShape& s = k.shape;
  const int32_t d = s.head_dim, group = s.heads / s.kv_heads;
  const int64_t row = int64_t{s.heads + 2 * s.kv_heads} * d;
  const auto* qkv = static_cast<const T*>(k.qkv);
#pragma omp parallel if (s.tokens * row > kParallelElements)
  {
    std::vector<float> weight(static_cast<size_t>(k.count)), score(weight.size());
    std::vector<float> mixed(static_cast<size_t>(d));
#pragma omp for schedule(static)
    for (int64_t t = 0; t < s.tokens; ++t) {
      const int32_t* chosen = k.chosen + t * k.count;
      const int32_t held = Held(chosen, k.count);
      if (held == 0) continue;
      for (int32_t c = 0; c < held; ++c)
        weight[static_cast<size_t>(c)] = LogSigmoid(k.gate[chosen[c]]);
      for (int32_t h = 0; h < s.heads; ++h) {
        const T* q = qkv + t * row + int64_t{h} * d;
        const int64_t k_at = int64_t{s.heads + h / group} * d,
                      v_at = k_at + int64_t{s.kv_heads} * d;
        float& lse = k.lse[h * s.tokens + t];
        float top = lse;
        for (int32_t c = 0; c < held; ++c) {
          float& x = score[static_cast<size_t>(c)];
          x = s.scale * Dot(q, qkv + chosen[c] * row + k_at, d) + weight[static_cast<size_t>(c)];
          top = std::max(top, x);
        }
        T* out = static_cast<T*>(k.out) + (t * s.heads + h) * d;
        const float window = std::exp(lse - top);
        float sum = window;
#pragma omp simd
        for (int32_t i = 0; i < d; ++i) mixed[static_cast<size_t>(i)] = window * ToFloat(out[i]);
        for (int32_t c = 0; c < held; ++c) {
          const float p = std::exp(score[static_cast<size_t>(c)] - top);
          sum += p;
          const T* v = qkv + chosen[c] * row + v_at;
#pragma omp simd
          for (int32_t i = 0; i < d; ++i) mixed[static_cast<size_t>(i)] += p * ToFloat(v[i]);
        }
        const float inverse = 1 / sum;
#pragma omp simd
        for (int32_t i = 0; i < d; ++i)
          out[i] = FromFloat<T>(mixed[static_cast<size_t>(i)] * inverse);
        lse = top + std::log(sum);
      }
    }
  }
}

// A KV head's part of the scratch memory: gradients of keys, of values, of gates.
int64_t PartOf(const VarlenShape& s) { return s.tokens * (2 * int64_t{s.head_dim} + 1); }

template <class T>
void Backward(const ChosenAttentionBackward& k) {
  const VarlenShape& s = k.shape;
  const int32_t d = s.head_dim, group = s.heads / s.kv_heads;
  const int64_t row = int64_t{s.heads + 2 * s.kv_heads} * d;
  const auto* qkv = static_cast<const T*>(k.qkv);
  auto* dqkv = static_cast<T*>(k.dqkv);
  // One task owns a KV head, with its columns of the queries' gradient.
#pragma omp parallel for schedule(static) if (s.tokens * row > kParallelElements)
  for (int32_t kv = 0; kv < s.kv_heads; ++kv) {
    float* dk = k.scratch + kv * PartOf(s);
    float *dv = dk + s.tokens * d, *dgate = dv + s.tokens * d;
    std::fill_n(dk, PartOf(s), 0.0f);
    std::vector<float> weight(static_cast<size_t>(k.count)), dq(static_cast<size_t>(d));
    const int64_t k_at = int64_t{s.heads + kv} * d, v_at = k_at + int64_t{s.kv_heads} * d;
    for (int64_t t = 0; t < s.tokens; ++t) {
      const int32_t* chosen = k.chosen + t * k.count;
      const int32_t held = Held(chosen, k.count);
      if (held == 0) continue;
      for (int32_t c = 0; c < held; ++c)
        weight[static_cast<size_t>(c)] = LogSigmoid(k.gate[chosen[c]]);
      for (int32_t h = kv * group; h < (kv + 1) * group; ++h) {
        const T* q = qkv + t * row + int64_t{h} * d;
        const int64_t at = (t * s.heads + h) * d;
        const T *dout = static_cast<const T*>(k.dout) + at,
                *out = static_cast<const T*>(k.out) + at;
        const float delta = Dot(dout, out, d), lse = k.lse[h * s.tokens + t];
        std::fill(dq.begin(), dq.end(), 0.0f);
        for (int32_t c = 0; c < held; ++c) {
          const int64_t j = chosen[c];
          const T *key = qkv + j * row + k_at, *value = qkv + j * row + v_at;
          const float p = std::exp(s.scale * Dot(q, key, d) + weight[static_cast<size_t>(c)] - lse);
          const float ds = p * (Dot(dout, value, d) - delta), by = ds * s.scale;
          dgate[j] += ds;
          float *dkj = dk + j * d, *dvj = dv + j * d;
#pragma omp simd
          for (int32_t i = 0; i < d; ++i) {
            dq[static_cast<size_t>(i)] += by * ToFloat(key[i]);
            dkj[i] += by * ToFloat(q[i]);
            dvj[i] += p * ToFloat(dout[i]);
          }
        }
        T* to = dqkv + t * row + int64_t{h} * d;
#pragma omp simd
        for (int32_t i = 0; i < d; ++i)
          to[i] = FromFloat<T>(ToFloat(to[i]) + dq[static_cast<size_t>(i)]);
      }
    }
    for (int64_t t = 0; t < s.tokens; ++t) {
      T *to_k = dqkv + t * row + k_at, *to_v = dqkv + t * row + v_at;
#pragma omp simd
      for (int32_t i = 0; i < d; ++i) {
        to_k[i] = FromFloat<T>(ToFloat(to_k[i]) + dk[t * d + i]);
        to_v[i] = FromFloat<T>(ToFloat(to_v[i]) + dv[t * d + i]);
      }
    }
  }
  // d log sigmoid(x) = sigmoid(-x)
  for (int64_t t = 0; t < s.tokens; ++t) {
    float sum = 0;
    for (int32_t kv = 0; kv < s.kv_heads; ++kv)
      sum += k.scratch[kv * PartOf(s) + 2 * s.tokens * d + t];
    k.dgate[t] = sum == 0 ? 0 : sum / (1 + std::exp(k.gate[t]));
  }
}

}  // namespace

int64_t ChosenAttentionScratch(const VarlenShape& shape, Device device) {
  return shape.kv_heads * (device.is_cpu() ? PartOf(shape) : shape.tokens);
}

void ChosenAttention::Cpu(const Launch& launch) const {
  PLUMB_CHECK(chosen && gate,
              "on the CPU AttentionVarlen looks at every so manyth position itself");
  ForDType(launch.dtype, [&]<class T>(T) { Forward<T>(*this); });
}

void ChosenAttentionBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Backward<T>(*this); });
}

}  // namespace plumb::kernels

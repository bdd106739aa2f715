#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/attention_varlen.h"
#include "kernels/cpu_common.h"
#include "kernels/cuda_twins.h"

namespace plumb::kernels {
namespace {

// Query rows handled together: each key or value row that is loaded serves all of them.
constexpr int32_t kQueries = 4;

// Keys (or values) of one sequence and head, transposed to [d][stride] so that loops over keys vectorise.
template <class T>
void Transpose(const T* x, int64_t row_stride, int32_t n, int32_t d, int32_t stride, float* out) {
  for (int32_t j = 0; j < n; ++j) {
    for (int32_t i = 0; i < d; ++i) out[int64_t{i} * stride + j] = ToFloat(x[j * row_stride + i]);
  }
}

template <class T>
void Widen(const T* x, int64_t row_stride, int32_t n, int32_t d, float* out) {
  for (int32_t j = 0; j < n; ++j) {
#pragma omp simd
    for (int32_t i = 0; i < d; ++i) out[int64_t{j} * d + i] = ToFloat(x[j * row_stride + i]);
  }
}

// s[q][j] = sum_i a[q][i] * b_t[i][j] for j < n.
inline void Products(const float* a, const float* b_t, int32_t queries, int32_t n, int32_t d, int32_t stride, float* s) {
  for (int32_t j0 = 0; j0 < n; j0 += 64) {
    const int32_t width = std::min(64, n - j0);
    float acc[kQueries][64] = {};
    if (width == 64) {
      for (int32_t i = 0; i < d; ++i) {
        const float* b = b_t + int64_t{i} * stride + j0;
        for (int32_t q = 0; q < kQueries; ++q) {
          const float x = a[q * d + i];
#pragma omp simd
          for (int32_t j = 0; j < 64; ++j) acc[q][j] += x * b[j];
        }
      }
    } else {
      for (int32_t i = 0; i < d; ++i) {
        const float* b = b_t + int64_t{i} * stride + j0;
        for (int32_t q = 0; q < queries; ++q) {
          const float x = a[q * d + i];
#pragma omp simd
          for (int32_t j = 0; j < width; ++j) acc[q][j] += x * b[j];
        }
      }
    }
    for (int32_t q = 0; q < queries; ++q) std::copy(acc[q], acc[q] + width, s + int64_t{q} * stride + j0);
  }
}

struct Work {
  std::vector<float> k_t, v_t, k, dk, dv, query, dout, out, s, dp;
  void Reserve(size_t rows, size_t d, size_t stride) {
    for (auto* x : {&k_t, &v_t}) Grow(*x, d * stride);
    for (auto* x : {&k, &dk, &dv}) Grow(*x, rows * d);
    for (auto* x : {&query, &dout, &out}) Grow(*x, kQueries * d);
    for (auto* x : {&s, &dp}) Grow(*x, kQueries * stride);
  }
  static void Grow(std::vector<float>& x, size_t n) {
    if (x.size() < n) x.resize(n);
  }
};

int32_t Stride(int32_t n) { return (n + 15) / 16 * 16; }

template <class T>
void Forward(const VarlenShape& shape, const T* qkv, T* out, float* lse) {
  const int32_t d = shape.head_dim, group = shape.heads / shape.kv_heads;
  const int64_t width = int64_t{shape.heads + 2 * shape.kv_heads} * d;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  const int64_t tasks = int64_t{shape.sequences} * shape.kv_heads;
#pragma omp parallel if (shape.tokens * width > kParallelElements)
  {
    thread_local Work w;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; ++task) {
      const auto b = static_cast<int32_t>(task / shape.kv_heads), h = static_cast<int32_t>(task % shape.kv_heads);
      const int32_t begin = shape.cu_seqlens[b], n = shape.cu_seqlens[b + 1] - begin, stride = Stride(n);
      w.Reserve(static_cast<size_t>(n), static_cast<size_t>(d), static_cast<size_t>(stride));
      const T* first = qkv + begin * width;
      Transpose(first + int64_t{shape.heads + h} * d, width, n, d, stride, w.k_t.data());
      Widen(first + int64_t{shape.heads + shape.kv_heads + h} * d, width, n, d, w.k.data());  // values, row-major
      for (int32_t g = 0; g < group; ++g) {
        const int32_t head = h * group + g;
        for (int32_t i0 = 0; i0 < n; i0 += kQueries) {
          const int32_t queries = std::min(kQueries, n - i0);
          for (int32_t q = 0; q < kQueries; ++q) {
            const T* from = first + (i0 + std::min(q, queries - 1)) * width + int64_t{head} * d;
            for (int32_t i = 0; i < d; ++i) w.query[static_cast<size_t>(q * d + i)] = ToFloat(from[i]) * scale;
          }
          const int32_t keys = i0 + queries;
          Products(w.query.data(), w.k_t.data(), queries, keys, d, stride, w.s.data());
          for (int32_t q = 0; q < queries; ++q) {
            float* s = w.s.data() + int64_t{q} * stride;
            const int32_t visible = i0 + q + 1;
            float top = s[0];
#pragma omp simd reduction(max : top)
            for (int32_t j = 0; j < visible; ++j) top = std::max(top, s[j]);
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int32_t j = 0; j < visible; ++j) {
              s[j] = FastExp(s[j] - top);
              sum += s[j];
            }
            for (int32_t j = visible; j < keys; ++j) s[j] = 0;
            lse[int64_t{head} * shape.tokens + begin + i0 + q] = top + std::log(sum);
            const float inverse = 1.0f / sum;
#pragma omp simd
            for (int32_t j = 0; j < visible; ++j) s[j] *= inverse;
          }
          std::fill(w.out.begin(), w.out.begin() + kQueries * d, 0.0f);
          for (int32_t j = 0; j < keys; ++j) {
            const float* v = w.k.data() + int64_t{j} * d;
            for (int32_t q = 0; q < queries; ++q) {
              const float p = w.s[static_cast<size_t>(q * stride + j)];
              float* o = w.out.data() + q * d;
#pragma omp simd
              for (int32_t i = 0; i < d; ++i) o[i] += p * v[i];
            }
          }
          for (int32_t q = 0; q < queries; ++q) {
            T* to = out + (int64_t{begin + i0 + q} * shape.heads + head) * d;
            for (int32_t i = 0; i < d; ++i) to[i] = FromFloat<T>(w.out[static_cast<size_t>(q * d + i)]);
          }
        }
      }
    }
  }
}

// With P = exp(S - lse), D_i = dO_i . O_i: dS = P (dO V^T - D) scale, dQ = dS K, dK = dS^T Q, dV = P^T dO. One task owns
// a sequence's KV head, so nothing is shared.
template <class T>
void Backward(const VarlenShape& shape, const T* dout, const T* qkv, const T* out, const float* lse, T* dqkv) {
  const int32_t d = shape.head_dim, group = shape.heads / shape.kv_heads;
  const int64_t width = int64_t{shape.heads + 2 * shape.kv_heads} * d;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  const int64_t tasks = int64_t{shape.sequences} * shape.kv_heads;
#pragma omp parallel if (shape.tokens * width > kParallelElements)
  {
    thread_local Work w;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; ++task) {
      const auto b = static_cast<int32_t>(task / shape.kv_heads), h = static_cast<int32_t>(task % shape.kv_heads);
      const int32_t begin = shape.cu_seqlens[b], n = shape.cu_seqlens[b + 1] - begin, stride = Stride(n);
      w.Reserve(static_cast<size_t>(n), static_cast<size_t>(d), static_cast<size_t>(stride));
      const T* first = qkv + begin * width;
      const int64_t k_at = int64_t{shape.heads + h} * d, v_at = int64_t{shape.heads + shape.kv_heads + h} * d;
      Transpose(first + k_at, width, n, d, stride, w.k_t.data());
      Transpose(first + v_at, width, n, d, stride, w.v_t.data());
      Widen(first + k_at, width, n, d, w.k.data());
      std::fill(w.dk.begin(), w.dk.begin() + int64_t{n} * d, 0.0f);
      std::fill(w.dv.begin(), w.dv.begin() + int64_t{n} * d, 0.0f);
      for (int32_t g = 0; g < group; ++g) {
        const int32_t head = h * group + g;
        for (int32_t i0 = 0; i0 < n; i0 += kQueries) {
          const int32_t queries = std::min(kQueries, n - i0), keys = i0 + queries;
          float delta[kQueries] = {};
          for (int32_t q = 0; q < kQueries; ++q) {
            const int64_t row = begin + i0 + std::min(q, queries - 1);
            const T* from = qkv + row * width + int64_t{head} * d;
            const T* dfrom = dout + (row * shape.heads + head) * d;
            const T* ofrom = out + (row * shape.heads + head) * d;
            float dot = 0;
            for (int32_t i = 0; i < d; ++i) {
              w.query[static_cast<size_t>(q * d + i)] = ToFloat(from[i]) * scale;
              w.dout[static_cast<size_t>(q * d + i)] = ToFloat(dfrom[i]);
              dot += ToFloat(dfrom[i]) * ToFloat(ofrom[i]);
            }
            delta[q] = dot;
          }
          Products(w.query.data(), w.k_t.data(), queries, keys, d, stride, w.s.data());
          Products(w.dout.data(), w.v_t.data(), queries, keys, d, stride, w.dp.data());
          for (int32_t q = 0; q < queries; ++q) {
            float* s = w.s.data() + int64_t{q} * stride;
            float* dp = w.dp.data() + int64_t{q} * stride;
            const float l = lse[int64_t{head} * shape.tokens + begin + i0 + q], dq = delta[q];
            const int32_t visible = i0 + q + 1;
#pragma omp simd
            for (int32_t j = 0; j < visible; ++j) {
              s[j] = FastExp(s[j] - l);
              dp[j] = s[j] * (dp[j] - dq);
            }
            for (int32_t j = visible; j < keys; ++j) s[j] = dp[j] = 0;
          }
          std::fill(w.out.begin(), w.out.begin() + kQueries * d, 0.0f);
          for (int32_t j = 0; j < keys; ++j) {
            const float* k = w.k.data() + int64_t{j} * d;
            float* dk = w.dk.data() + int64_t{j} * d;
            float* dv = w.dv.data() + int64_t{j} * d;
            for (int32_t q = 0; q < queries; ++q) {
              const float p = w.s[static_cast<size_t>(q * stride + j)], ds = w.dp[static_cast<size_t>(q * stride + j)];
              float* o = w.out.data() + q * d;
              const float* query = w.query.data() + q * d;  // already times scale
              const float* go = w.dout.data() + q * d;
#pragma omp simd
              for (int32_t i = 0; i < d; ++i) {
                o[i] += ds * k[i];
                dk[i] += ds * query[i];
                dv[i] += p * go[i];
              }
            }
          }
          for (int32_t q = 0; q < queries; ++q) {
            T* to = dqkv + (begin + i0 + q) * width + int64_t{head} * d;
            for (int32_t i = 0; i < d; ++i) to[i] = FromFloat<T>(w.out[static_cast<size_t>(q * d + i)] * scale);
          }
        }
      }
      for (int32_t j = 0; j < n; ++j) {
        T* to = dqkv + (begin + j) * width;
        for (int32_t i = 0; i < d; ++i) {
          to[k_at + i] = FromFloat<T>(w.dk[static_cast<size_t>(j * d + i)]);
          to[v_at + i] = FromFloat<T>(w.dv[static_cast<size_t>(j * d + i)]);
        }
      }
    }
  }
}

}  // namespace

int64_t AttentionVarlenScratch(const VarlenShape&) { return 1; }  // the CPU's work areas belong to its threads

void AttentionVarlenForward(const Launch& launch, const VarlenShape& shape, const void* qkv, void* out, float* lse) {
  if (launch.device == Device::kCuda) NoCuda("AttentionVarlenForward (on CUDA: policy_model/ops)");
  ForDType(launch.dtype, [&]<class T>(T) { Forward(shape, static_cast<const T*>(qkv), static_cast<T*>(out), lse); });
}

void AttentionVarlenBackward(const Launch& launch, const VarlenShape& shape, const void* dout, const void* qkv,
                             const void* out, const float* lse, void* dqkv, float*) {
  if (launch.device == Device::kCuda) NoCuda("AttentionVarlenBackward (on CUDA: policy_model/ops)");
  ForDType(launch.dtype, [&]<class T>(T) {
    Backward(shape, static_cast<const T*>(dout), static_cast<const T*>(qkv), static_cast<const T*>(out), lse,
             static_cast<T*>(dqkv));
  });
}

}  // namespace plumb::kernels

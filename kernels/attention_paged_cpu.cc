#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/attention_paged.h"
#include "kernels/cpu_common.h"
#include "kernels/cuda_twins.h"

namespace plumb::kernels {
namespace {

// One row and one KV head: the group's query heads read each key and value once. Scores of a page are computed together,
// then folded into the running maximum, sum and output (online softmax), page after page in order.
template <class T>
void RowHead(const T* q, int32_t group, int32_t d, int32_t length, const int32_t* table, const T* layer, int32_t kv_head,
             const PagedKv& kv, T* out, float* work) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  float* query = work;                       // [group, d]
  float* acc = query + group * d;            // [group, d]
  float* top = acc + group * d;              // [group]
  float* sum = top + group;                  // [group]
  float* score = sum + group;                // [group, page_tokens]
  float* key = score + group * kv.page_tokens;  // [d]
  for (int32_t i = 0; i < group * d; ++i) {
    query[i] = ToFloat(q[i]) * scale;
    acc[i] = 0;
  }
  std::fill(top, top + group, -INFINITY);
  std::fill(sum, sum + group, 0.0f);
  for (int32_t start = 0; start < length; start += kv.page_tokens) {
    const int32_t n = std::min(kv.page_tokens, length - start);
    const T* k = layer + table[start / kv.page_tokens] * kv.page_stride() + kv_head * kv.head_stride();
    const T* v = k + kv.kv_stride();
    for (int32_t t = 0; t < n; ++t) {
      for (int32_t i = 0; i < d; ++i) key[i] = ToFloat(k[int64_t{t} * d + i]);
      for (int32_t g = 0; g < group; ++g) {
        const float* qg = query + g * d;
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int32_t i = 0; i < d; ++i) dot += qg[i] * key[i];
        score[g * kv.page_tokens + t] = dot;
      }
    }
    for (int32_t g = 0; g < group; ++g) {
      float* s = score + g * kv.page_tokens;
      float page_top = top[g];
      for (int32_t t = 0; t < n; ++t) page_top = std::max(page_top, s[t]);
      const float rescale = FastExp(top[g] - page_top);  // 0 at the first page
      top[g] = page_top;
      sum[g] *= rescale;
      float* a = acc + g * d;
#pragma omp simd
      for (int32_t i = 0; i < d; ++i) a[i] *= rescale;
      for (int32_t t = 0; t < n; ++t) {
        s[t] = FastExp(s[t] - page_top);
        sum[g] += s[t];
      }
    }
    for (int32_t t = 0; t < n; ++t) {
      for (int32_t i = 0; i < d; ++i) key[i] = ToFloat(v[int64_t{t} * d + i]);
      for (int32_t g = 0; g < group; ++g) {
        const float p = score[g * kv.page_tokens + t];
        float* a = acc + g * d;
#pragma omp simd
        for (int32_t i = 0; i < d; ++i) a[i] += p * key[i];
      }
    }
  }
  for (int32_t g = 0; g < group; ++g) {
    const float inverse = 1.0f / sum[g];
    for (int32_t i = 0; i < d; ++i) out[g * d + i] = FromFloat<T>(acc[g * d + i] * inverse);
  }
}

template <class T>
void Attention(const T* q, int64_t q_stride, const PagedRows& rows, int32_t heads, int32_t layer, const PagedKv& kv,
               T* out) {
  const int32_t d = kv.head_dim, group = heads / kv.kv_heads;
  const T* base = static_cast<const T*>(kv.pages) + layer * kv.layer_stride();
  const int64_t tasks = int64_t{rows.rows} * kv.kv_heads;
  const size_t work_size = static_cast<size_t>(group * (2 * d + 2 + kv.page_tokens) + d);
#pragma omp parallel if (tasks * group * d > 2048)
  {
    thread_local std::vector<float> work;  // grows once a thread
    if (work.size() < work_size) work.resize(work_size);
#pragma omp for schedule(static)
    for (int64_t task = 0; task < tasks; ++task) {
      const auto r = static_cast<int32_t>(task / kv.kv_heads), h = static_cast<int32_t>(task % kv.kv_heads);
      RowHead(q + r * q_stride + int64_t{h} * group * d, group, d, rows.position[r] + 1,
              rows.page_table + int64_t{rows.slot[r]} * rows.page_table_stride, base, h, kv,
              out + (int64_t{r} * heads + int64_t{h} * group) * d, work.data());
    }
  }
}

}  // namespace

void AttentionPaged(const Launch& launch, const void* q, int64_t q_stride, const PagedRows& rows, int32_t heads,
                    int32_t layer, const PagedKv& kv, void* out) {
  PLUMB_DISPATCH_CUDA(launch, AttentionPaged(launch, q, q_stride, rows, heads, layer, kv, out))
  ForDType(launch.dtype, [&]<class T>(T) {
    Attention(static_cast<const T*>(q), q_stride, rows, heads, layer, kv, static_cast<T*>(out));
  });
}

void CopyPages(const Launch& launch, const int32_t* from, const int32_t* to, int32_t count, const PagedKv& kv) {
  PLUMB_DISPATCH_CUDA(launch, CopyPages(launch, from, to, count, kv))
  const size_t element = ElementSize(kv.dtype);
  auto* base = static_cast<std::byte*>(kv.pages);
  for (int32_t layer = 0; layer < kv.layers; ++layer) {
    for (int32_t i = 0; i < count; ++i) {
      std::memcpy(base + static_cast<size_t>(layer * kv.layer_stride() + to[i] * kv.page_stride()) * element,
                  base + static_cast<size_t>(layer * kv.layer_stride() + from[i] * kv.page_stride()) * element,
                  static_cast<size_t>(kv.page_stride()) * element);
    }
  }
}

}  // namespace plumb::kernels

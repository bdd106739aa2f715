#include <algorithm>

#include "kernels/delta/gated_norm.h"
#include "kernels/device/cuda_common.h"

namespace plumb::kernels {
namespace {

constexpr int kWarps = 8;

template <class T>
__device__ float Rstd(const T* x, int32_t dim, float eps) {
  float sum = 0;
  for (int32_t i = static_cast<int32_t>(threadIdx.x % 32); i < dim; i += 32)
    sum += ToFloat(x[i]) * ToFloat(x[i]);
  return 1.0f / sqrtf(WarpSum(sum) / static_cast<float>(dim) + eps);
}

// One warp a head of a row.
template <class T>
__global__ void Forward(GatedNorm k) {
  const int64_t at = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (at >= k.rows * k.heads) return;
  const int64_t r = at / k.heads, column = (at - r * k.heads) * k.dim;
  const T* x = static_cast<const T*>(k.x) + at * k.dim;
  const T* z = static_cast<const T*>(k.z) + r * k.z_stride + column;
  T* y = static_cast<T*>(k.y) + at * k.dim;
  const float rstd = Rstd(x, k.dim, k.eps);
  for (int32_t i = static_cast<int32_t>(threadIdx.x % 32); i < k.dim; i += 32) {
    const float gate = ToFloat(z[i]);
    y[i] = FromFloat<T>(ToFloat(static_cast<const T*>(k.w)[i]) * (ToFloat(x[i]) * rstd) * gate /
                        (1.0f + expf(-gate)));
  }
}

// One block a run of rows, with its own sum of dw: each warp's by itself, then one behind the
// other.
template <class T>
__global__ void Backward(GatedNormBackward k, int64_t runs) {
  extern __shared__ float sums[];  // [kWarps, dim]
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t run = blockIdx.x, first = k.rows * run / runs * k.heads,
                end = k.rows * (run + 1) / runs * k.heads;
  float* sum = sums + warp * k.dim;
  for (int32_t i = lane; i < k.dim; i += 32) sum[i] = 0;
  for (int64_t at = first + warp; at < end; at += kWarps) {
    const int64_t r = at / k.heads, column = (at - r * k.heads) * k.dim;
    const T* x = static_cast<const T*>(k.x) + at * k.dim;
    const T* z = static_cast<const T*>(k.z) + r * k.z_stride + column;
    const T* dy = static_cast<const T*>(k.dy) + at * k.dim;
    T* dx = static_cast<T*>(k.dx) + at * k.dim;
    T* dz = static_cast<T*>(k.dz) + r * k.z_stride + column;
    const T* w = static_cast<const T*>(k.w);
    const float rstd = Rstd(x, k.dim, k.eps);
    float along = 0;  // of the normed vector
    for (int32_t i = lane; i < k.dim; i += 32) {
      const float gate = ToFloat(z[i]), s = 1.0f / (1.0f + expf(-gate));
      along += ToFloat(dy[i]) * gate * s * ToFloat(w[i]) * (ToFloat(x[i]) * rstd);
    }
    along = WarpSum(along) / static_cast<float>(k.dim);
    for (int32_t i = lane; i < k.dim; i += 32) {
      const float gate = ToFloat(z[i]), s = 1.0f / (1.0f + expf(-gate)),
                  normed = ToFloat(x[i]) * rstd, d = ToFloat(dy[i]), weight = ToFloat(w[i]);
      sum[i] += d * gate * s * normed;
      dz[i] = FromFloat<T>(d * weight * normed * s * (1.0f + gate * (1.0f - s)));
      dx[i] = FromFloat<T>(rstd * (d * gate * s * weight - along * normed));
    }
  }
  __syncthreads();
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < k.dim;
       i += static_cast<int32_t>(blockDim.x)) {
    float total = 0;
    for (int w = 0; w < kWarps; ++w) total += sums[w * k.dim + i];
    k.scratch[run * k.dim + i] = total;
  }
}

__global__ void AddRuns(const float* partial, int64_t runs, int32_t dim, float* dw) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= dim) return;
  float sum = dw[i];
  for (int64_t run = 0; run < runs; ++run) sum += partial[run * dim + i];
  dw[i] = sum;
}

}  // namespace

void GatedNorm::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  ForDType(launch.dtype, [&]<class T>(T) {
    Forward<T><<<static_cast<unsigned>((rows * heads + kWarps - 1) / kWarps), 32 * kWarps, 0,
                 StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

void GatedNormBackward::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  const int64_t runs = std::min(kGatedNormScratchRows, rows);
  ForDType(launch.dtype, [&]<class T>(T) {
    Backward<T>
        <<<static_cast<unsigned>(runs), 32 * kWarps,
           static_cast<size_t>(kWarps * dim) * sizeof(float), StreamOf(launch)>>>(*this, runs);
  });
  CheckLaunch(kName);
  if (!dw) return;
  AddRuns<<<Blocks(dim, 128), 128, 0, StreamOf(launch)>>>(scratch, runs, dim, dw);
  CheckLaunch("GatedNormBackward (sum)");
}

}  // namespace plumb::kernels

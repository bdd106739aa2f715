#include <cmath>
#include <type_traits>

#include "kernels/device/cuda_common.h"
#include "kernels/update/adamw.h"

namespace plumb::kernels {
namespace {

// One element; the same expressions as the CPU reference.
template <class T>
__device__ __forceinline__ T Step(float& master, float& m, float& v, float grad, float keep,
                                  float correct1, float correct2, const AdamwOptions& o) {
  const float g = grad * o.grad_scale;
  m = o.beta1 * m + (1.0f - o.beta1) * g;
  v = o.beta2 * v + (1.0f - o.beta2) * g * g;
  master = master * keep - o.learning_rate * (m * correct1) / (sqrtf(v * correct2) + o.eps);
  return FromFloat<T>(master);
}

template <class T>
using Four = Few<4, T>;

// Four elements a thread where n allows; decay blocks are multiples of four.
template <bool Wide, class T, class G>
__global__ void Update(float* master, float* m, float* v, const G* grad, const uint8_t* decay_mask,
                       int64_t n, AdamwOptions o, float correct1, float correct2, T* param) {
  constexpr int64_t kStep = Wide ? 4 : 1;
  const float decayed = 1.0f - o.learning_rate * o.weight_decay;
  for (int64_t i = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * kStep; i < n;
       i += int64_t{gridDim.x} * blockDim.x * kStep) {
    const float keep = !decay_mask || decay_mask[i / kDecayBlock] ? decayed : 1.0f;
    if constexpr (Wide) {
      auto w4 = *reinterpret_cast<const Four<float>*>(master + i),
           m4 = *reinterpret_cast<const Four<float>*>(m + i);
      auto v4 = *reinterpret_cast<const Four<float>*>(v + i);
      const auto g4 = *reinterpret_cast<const Four<G>*>(grad + i);
      Four<T> p4;
#pragma unroll
      for (int u = 0; u < 4; ++u)
        p4.x[u] = Step<T>(w4.x[u], m4.x[u], v4.x[u], ToFloat(g4.x[u]), keep, correct1, correct2, o);
      *reinterpret_cast<Four<float>*>(master + i) = w4;
      *reinterpret_cast<Four<float>*>(m + i) = m4;
      *reinterpret_cast<Four<float>*>(v + i) = v4;
      if (param) *reinterpret_cast<Four<T>*>(param + i) = p4;
    } else {
      const T p = Step<T>(master[i], m[i], v[i], ToFloat(grad[i]), keep, correct1, correct2, o);
      if (param) param[i] = p;
    }
  }
}

// One warp sums piece p of kNormScratch. A lane takes eight elements at a time, of several turns at
// once; what is left of a piece before and behind whole eights goes one by one. The order depends
// on n alone: not on the type, nor on where `grad` begins.
template <bool Wide, class G>
__global__ void SquarePieces(const G* grad, int64_t n, double* scratch) {
  constexpr int kEach = 8, kTurns = 32 / sizeof(G) / 2;  // 128 bytes of a lane on their way
  constexpr int64_t kWarp = 32 * kEach;
  const int64_t p = int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32;
  const int64_t end = n * (p + 1) / kNormScratch, lane = threadIdx.x % 32;
  int64_t i = n * p / kNormScratch;
  double sum = 0;
  const auto add = [&](G x) {
    const auto g = static_cast<double>(ToFloat(x));
    sum += g * g;
  };
  const int64_t eights = (i + kEach - 1) / kEach * kEach, whole = eights < end ? eights : end;
  for (int64_t k = i + lane; k < whole; k += 32) add(grad[k]);
  i = whole;
  const auto turns = [&]<int N>(std::integral_constant<int, N>) {
    for (; i + N * kWarp <= end; i += N * kWarp) {
      Few<kEach, G> x[N];
#pragma unroll
      for (int t = 0; t < N; ++t) {
        const G* const from = grad + i + t * kWarp + lane * kEach;
        if constexpr (Wide) {
#pragma unroll
          for (int k = 0; k < kEach / Pack<G>::kSize; ++k)
            reinterpret_cast<Pack<G>*>(&x[t])[k] = LoadPack(from + k * Pack<G>::kSize);
        } else {
#pragma unroll
          for (int u = 0; u < kEach; ++u) x[t].x[u] = from[u];
        }
      }
#pragma unroll
      for (int t = 0; t < N; ++t) {
#pragma unroll
        for (int u = 0; u < kEach; ++u) add(x[t].x[u]);
      }
    }
  };
  turns(std::integral_constant<int, kTurns>{});
  turns(std::integral_constant<int, 1>{});
  for (int64_t k = i + lane; k < end; k += 32) add(grad[k]);
  sum = WarpSum(sum);
  if (lane == 0) scratch[p] = sum;
}

__global__ void SumPieces(const double* scratch, double* out) {
  double sum = 0;
  for (int64_t p = threadIdx.x; p < kNormScratch; p += blockDim.x) sum += scratch[p];
  sum = BlockSum(sum);
  if (threadIdx.x == 0) *out = sum;
}

}  // namespace

void AdamwUpdate::Cuda(const Launch& launch) const {
  if (n == 0) return;
  const auto step = static_cast<double>(options.step);
  const auto correct1 =
      static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(options.beta1), step)));
  const auto correct2 =
      static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(options.beta2), step)));
  ForDType(launch.dtype, [&]<class T>(T) {
    ForDType(grad_dtype, [&]<class G>(G) {
      const bool wide = n % 4 == 0 && Aligned16(master) && Aligned16(m) && Aligned16(v) &&
                        Aligned16(grad) && Aligned16(param);
      const auto kernel = wide ? Update<true, T, G> : Update<false, T, G>;
      kernel<<<Blocks(n, wide ? 1024 : 256), 256, 0, StreamOf(launch)>>>(
          master, m, v, static_cast<const G*>(grad), decay_mask, n, options, correct1, correct2,
          static_cast<T*>(param));
    });
  });
  CheckLaunch(kName);
}

void SumOfSquares::Cuda(const Launch& launch) const {
  ForDType(grad_dtype, [&]<class G>(G) {
    const auto kernel = Aligned16(grad) ? SquarePieces<true, G> : SquarePieces<false, G>;
    kernel<<<kNormScratch / 8, 256, 0, StreamOf(launch)>>>(static_cast<const G*>(grad), n, scratch);
  });
  CheckLaunch("SumOfSquares (pieces)");
  SumPieces<<<1, 1024, 0, StreamOf(launch)>>>(scratch, out);
  CheckLaunch(kName);
}

}  // namespace plumb::kernels

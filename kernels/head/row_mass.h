// The mass of a row of logits, sum over j of exp((x[j] - top) / temperature), in one order for all
// who need it.
//
// Purpose: the sampler records the log-prob that a token was drawn with, and the learner computes
// it again (token_logprob.h). Both are the logit's distance from the top less the logarithm of this
// mass, so they are equal bit for bit where the mass is; a sum in another order is another number.
//
// On the CPU: blocks of kMassBlock in ascending order, in double; of a block first every
// exponential and then their sum, so that no compiler fuses the one into the other.
//
// On a GPU: 1024 strands take four consecutive logits by turns. Each keeps a running sum against
// the highest logit that it has met, so that one pass over the row gives top and mass; the strands
// are then added in whole units, which is the same in any order. A block of fewer threads gives
// each of them several strands. Included by .cu files.
//
// Thread safety: pure functions; the GPU's are of a block, which calls them with all of its
// threads. Units: elements; masses of a GPU are whole multiples of 2^-43. Errors: none; a NaN shows
// in the CPU's mass and in a GPU's `bad`.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#include "kernels/device/cuda_common.h"
#endif

namespace plumb::kernels {

inline constexpr int64_t kMassBlock = 1024;

// e[j] = exp((x[j] - top) * scale), n of them.
void MassTerms(const float* x, int64_t n, float top, float scale, float* e);
// Their sum; the order of its lanes is the same for all callers.
float SumOfTerms(const float* e, int64_t n);

#ifdef __CUDACC__

using Mass = unsigned long long;  // the type CUDA's atomics take

inline constexpr int kStrands = 1024;
inline constexpr int kStrandLoads = 2;                 // in flight for a strand
inline constexpr double kMassUnits = 8796093022208.0;  // 2^43: rows of up to 2^20 tokens fit

// Each operation is one rounding, so that no kernel fuses what another does not.
template <bool Weighted>
struct Strand {
  float top = -INFINITY, sum = 0, weighted = 0;  // weighted: sum of e (x - top) / T

  // Measures against a higher maximum. Nothing was added while top is -inf.
  __device__ __forceinline__ void Raise(float higher, float scale) {
    if (higher <= top) return;
    if (top != -INFINITY) {
      const float shift = __fmul_rn(__fsub_rn(top, higher), scale), factor = expf(shift);
      if constexpr (Weighted) weighted = factor > 0 ? factor * (weighted + sum * shift) : 0.0f;
      sum = __fmul_rn(sum, factor);
    }
    top = higher;
  }
  // REQUIRES: x <= top or NaN (which stays in the sum), top finite.
  __device__ __forceinline__ void Add(float x, float scale) {
    const float z = __fmul_rn(__fsub_rn(x, top), scale), e = expf(z);
    sum = __fadd_rn(sum, e);
    if constexpr (Weighted) weighted += e > 0 ? e * z : 0.0f;
  }
  __device__ __forceinline__ Mass Units() const {
    return static_cast<Mass>(__float2ull_rn(sum * 0x1p43f));
  }
};

// Four logits from `i` on, -infinity past the end. Vector: rows are whole fours on 16 bytes.
template <bool Vector>
__device__ __forceinline__ Few<4, float> FourLogits(const float* x, int64_t i, int64_t vocab) {
  Few<4, float> four;
  if constexpr (Vector) {
    if (i < vocab) return *reinterpret_cast<const Few<4, float>*>(x + i);
  }
#pragma unroll
  for (int u = 0; u < 4; ++u) four.x[u] = !Vector && i + u < vocab ? x[i + u] : -INFINITY;
  return four;
}

// The calling thread's share of a row, strands threadIdx.x + s * blockDim.x; the block has
// kStrands / Own threads. four(i): logits i .. i + 3, -infinity for what does not count. Returns
// whether it met a NaN.
template <int Own, bool Weighted, class Four>
__device__ __forceinline__ bool AddStrands(const Four& four, int64_t vocab, float scale,
                                           Strand<Weighted> (&strands)[Own]) {
  bool bad = false;
  for (int64_t begin = int64_t{threadIdx.x} * 4; begin < vocab;
       begin += int64_t{kStrands} * 4 * kStrandLoads) {
    Few<4, float> v[Own][kStrandLoads];
#pragma unroll
    for (int b = 0; b < kStrandLoads; ++b) {
#pragma unroll
      for (int s = 0; s < Own; ++s)
        v[s][b] = four(begin + int64_t{b} * kStrands * 4 + int64_t{s} * blockDim.x * 4);
    }
#pragma unroll
    for (int s = 0; s < Own; ++s) {
      float highest = -INFINITY;
#pragma unroll
      for (int b = 0; b < kStrandLoads; ++b) {
#pragma unroll
        for (int u = 0; u < 4; ++u) {
          highest = fmaxf(highest, v[s][b].x[u]);
          bad |= v[s][b].x[u] != v[s][b].x[u];
        }
      }
      if (highest == -INFINITY) continue;
      strands[s].Raise(highest, scale);
#pragma unroll
      for (int b = 0; b < kStrandLoads; ++b) {
#pragma unroll
        for (int u = 0; u < 4; ++u) strands[s].Add(v[s][b].x[u], scale);
      }
    }
  }
  return bad;
}

// The highest logit of the row, on every thread; every strand is measured against it then.
template <int Own, bool Weighted>
__device__ __forceinline__ float RaiseStrands(float scale, Strand<Weighted> (&strands)[Own]) {
  float top = -INFINITY;
#pragma unroll
  for (int s = 0; s < Own; ++s) top = fmaxf(top, strands[s].top);
  top = BlockMax(top);
#pragma unroll
  for (int s = 0; s < Own; ++s) strands[s].Raise(top, scale);
  return top;
}

// On every thread.
template <int Own, bool Weighted>
__device__ __forceinline__ Mass SumStrands(const Strand<Weighted> (&strands)[Own]) {
  Mass mass = 0;
#pragma unroll
  for (int s = 0; s < Own; ++s) mass += strands[s].Units();
  return BlockSum(mass);
}

__device__ __forceinline__ double LogOfMass(Mass mass) {
  return log(static_cast<double>(mass) / kMassUnits);
}

// At most 0. `chosen`: -infinity where the token is none of the row's.
__device__ __forceinline__ float LogprobOf(float chosen, float top, float scale, double log_mass) {
  const double z = static_cast<double>(__fmul_rn(__fsub_rn(chosen, top), scale));
  return static_cast<float>(fmin(0.0, __dsub_rn(z, log_mass)));
}

#endif

}  // namespace plumb::kernels

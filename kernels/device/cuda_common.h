// What the CUDA kernels share: launch errors, 16-byte accesses, reductions over a block in a fixed
// order.
//
// Thread safety: pure functions. Included by .cu files only. Reductions add in an order that
// depends on the block's size alone, so a row's result does not depend on the batch it is in.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "common/base/dtype.h"
#include "kernels/device/cpu_common.h"
#include "kernels/device/cuda_check.h"
#include "kernels/device/launch.h"

namespace plumb::kernels {

inline cudaStream_t StreamOf(const Launch& launch) {
  return static_cast<cudaStream_t>(launch.stream.handle());
}

// After every launch.
inline void CheckLaunch(const char* kernel) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) CheckCuda(error, (std::string("to launch ") + kernel).c_str());
}

// Of the current device, which launches are made on: it begins a kernel while the one before it on
// the stream ends.
inline bool BeginsEarly() {
  static thread_local int known = -1, major = 0;
  int device = 0;
  CheckCuda(cudaGetDevice(&device), "to ask which GPU this is");
  if (device != known) {
    CheckCuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
              "to ask what a GPU can do");
    known = device;
  }
  return major >= 9;
}

// Launches a kernel whose blocks may be there before the kernel before it has ended: what begins
// with AwaitEarlier, in every thread, before it reads or writes what others see. Between small
// kernels that is a good part of their time.
template <class... Expected, class... Given>
void LaunchEarly(void (*kernel)(Expected...), dim3 grid, dim3 block, cudaStream_t stream,
                 Given... given) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = BeginsEarly() ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, given...);  // CheckLaunch says what it has refused
}

// All that was enqueued before has ended, and what it wrote is there.
__device__ __forceinline__ void AwaitEarlier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}

// Blocks for n units of work at `per_block` each; kernels walk the rest in strides.
inline unsigned Blocks(int64_t n, int64_t per_block) {
  const int64_t blocks = (n + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < 1 ? 1 : (blocks > 65536 ? 65536 : blocks));
}

inline bool Aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// 16 bytes of T.
template <class T>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / sizeof(T);
  T x[kSize];
};

// N elements of T that are read and written as one.
template <int N, class T>
struct alignas(N * sizeof(T)) Few {
  T x[N];
};

template <class T>
__device__ __forceinline__ Pack<T> LoadPack(const T* from) {
  Pack<T> p;
  *reinterpret_cast<uint4*>(&p) = *reinterpret_cast<const uint4*>(from);
  return p;
}

template <class T>
__device__ __forceinline__ void StorePack(T* to, const Pack<T>& p) {
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(&p);
}

template <class V>
__device__ __forceinline__ V WarpSum(V v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xFFFFFFFFu, v, offset);
  return v;
}

__device__ __forceinline__ float WarpMax(float v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    v = fmaxf(v, __shfl_xor_sync(0xFFFFFFFFu, v, offset));
  return v;
}

// The sum over the block, on every thread. REQUIRES: blockDim.x a multiple of 32, all threads call
// it.
template <class V>
__device__ V BlockSum(V v) {
  __shared__ V part[32];
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  v = WarpSum(v);
  __syncthreads();  // the last call's readers are done
  if (lane == 0) part[warp] = v;
  __syncthreads();
  return WarpSum(lane < static_cast<int>(blockDim.x / 32) ? part[lane] : V(0));
}

__device__ inline float BlockMax(float v) {
  __shared__ float part[32];
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  v = WarpMax(v);
  __syncthreads();
  if (lane == 0) part[warp] = v;
  __syncthreads();
  return WarpMax(lane < static_cast<int>(blockDim.x / 32) ? part[lane] : -INFINITY);
}

// What blocks of attention compute with. Each is one rounding, so that the compiler does not fuse
// in one kernel what it does not in another: generation and training promise the same bits.
struct RoundedOnce {
  static __device__ __forceinline__ float Max(float x, float y) { return fmaxf(x, y); }
  static __device__ __forceinline__ float Mul(float x, float y) { return __fmul_rn(x, y); }
  static __device__ __forceinline__ float Sub(float x, float y) { return __fsub_rn(x, y); }
  static __device__ __forceinline__ float Div(float x, float y) { return __fdiv_rn(x, y); }
  static __device__ __forceinline__ float MulAdd(float x, float y, float z) {
    return __fmaf_rn(x, y, z);
  }
  static __device__ __forceinline__ float Exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  static __device__ __forceinline__ unsigned PackPair(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
  }
};

}  // namespace plumb::kernels

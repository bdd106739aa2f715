#include "kernels/device/cuda_common.h"
#include "kernels/products/product_timing.h"

namespace plumb::kernels {
namespace {

template <class T>
__global__ void Fill(T* to, int64_t count, uint32_t seed) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t h = static_cast<uint32_t>(i) * 2654435761u + static_cast<uint32_t>(i >> 32) +
                 seed * 0x9E3779B9u;
    h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
    h = (h ^ (h >> 13)) * 0xC2B2AE35u;
    h ^= h >> 16;
    to[i] = FromFloat<T>(static_cast<float>(h >> 8) * (2.0f / (1 << 24)) - 1.0f);
  }
}

__global__ void AddBits(const uint16_t* y, int64_t count, unsigned long long* sum) {
  unsigned long long own = 0;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    unsigned long long h = (static_cast<unsigned long long>(i) << 16 | y[i]) + 1;
    h = (h ^ (h >> 33)) * 0xFF51AFD7ED558CCDull;
    h = (h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53ull;
    own += h ^ (h >> 33);
  }
  atomicAdd(sum, own);
}

__global__ void Spin(unsigned long long nanoseconds) {
  unsigned long long begin, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
  do {
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  } while (now - begin < nanoseconds);
}

}  // namespace

void FillForTiming(const Launch& launch, void* to, int64_t count, uint32_t seed) {
  ForDType(launch.dtype, [&]<class T>(T) {
    Fill<<<Blocks(count, 256), 256, 0, StreamOf(launch)>>>(static_cast<T*>(to), count, seed);
  });
  CheckLaunch("FillForTiming");
}

void AddBitsOf(const Launch& launch, const void* y, int64_t bytes, uint64_t* sum) {
  static_assert(sizeof(uint64_t) == sizeof(unsigned long long));
  AddBits<<<Blocks(bytes / 2, 2048), 256, 0, StreamOf(launch)>>>(
      static_cast<const uint16_t*>(y), bytes / 2, reinterpret_cast<unsigned long long*>(sum));
  CheckLaunch("AddBitsOf");
}

void KeepBusy(const Launch& launch, int64_t nanoseconds) {
  Spin<<<1, 1, 0, StreamOf(launch)>>>(static_cast<unsigned long long>(nanoseconds));
  CheckLaunch("KeepBusy");
}

}  // namespace plumb::kernels

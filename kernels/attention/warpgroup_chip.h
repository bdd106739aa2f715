// The operations of Hopper (compute capability 9.0) that blocks of attention are written against:
// products of a group of four warps, barriers that copies arrive at, and arithmetic of which each
// call is one rounding.
//
// Thread safety: of the block that calls. Ownership: none. Units: addresses are those of shared
// memory, in bytes. Errors: none; a device without these operations runs none of this
// (StartPromptAttention, PackedAttentionFits). Included by .cu files; others see nothing.
#pragma once

#ifdef __CUDACC__

#include <cstdint>

#include "common/base/dtype.h"
#include "kernels/device/cuda_common.h"

namespace plumb::kernels {

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PLUMB_HAS_HOPPER 1
#endif

#define PLUMB_4(x, i) "+f"(x[i]), "+f"(x[(i) + 1]), "+f"(x[(i) + 2]), "+f"(x[(i) + 3])
#define PLUMB_16(x, i) PLUMB_4(x, i), PLUMB_4(x, (i) + 4), PLUMB_4(x, (i) + 8), PLUMB_4(x, (i) + 12)
#define PLUMB_32(x, i) PLUMB_16(x, i), PLUMB_16(x, (i) + 16)

struct HopperChip : RoundedOnce {
  static constexpr unsigned kAll = 0xFFFFFFFFu;

  static __device__ __forceinline__ int Thread() { return static_cast<int>(threadIdx.x); }
  // Of four warps; the same for a warp's threads, and known to be.
  static __device__ __forceinline__ int Group() {
    return __shfl_sync(kAll, static_cast<int>(threadIdx.x / 128), 0);
  }
  static __device__ __forceinline__ void SyncBlock() { __syncthreads(); }
  // Among `count` threads that name the same number, which is not 0.
  static __device__ __forceinline__ void SyncSome(int number, int count) {
    asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(count) : "memory");
  }
  static __device__ __forceinline__ uint32_t Shuffle(uint32_t x, int lane) {
    return __shfl_sync(kAll, x, lane);
  }
  static __device__ __forceinline__ float ShuffleXor(float x, int mask) {
    return __shfl_xor_sync(kAll, x, mask);
  }
  static __device__ __forceinline__ unsigned ShuffleXor(unsigned x, int mask) {
    return __shfl_xor_sync(kAll, x, mask);
  }
  static __device__ __forceinline__ unsigned Ballot(bool x) { return __ballot_sync(kAll, x); }
  static __device__ __forceinline__ int LowestBit(unsigned x) { return __ffs(x) - 1; }

  // How many registers a thread of the group has from here on; all four warps say it.
  template <int Count>
  static __device__ __forceinline__ void GiveRegisters() {
#ifdef PLUMB_HAS_HOPPER
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
#endif
  }
  template <int Count>
  static __device__ __forceinline__ void TakeRegisters() {
#ifdef PLUMB_HAS_HOPPER
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
#endif
  }

  static __device__ __forceinline__ uint32_t Address(const void* at) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(at));
  }
  // 16 bytes, or 4, to shared memory; zeros, and nothing is read, unless `there`.
  static __device__ __forceinline__ void CopyAsync(unsigned char* to, const void* from,
                                                   bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(Address(to)), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
  }
  static __device__ __forceinline__ void CopyWordAsync(float* to, const float* from, bool there) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(Address(to)), "l"(from),
                 "r"(there ? 4 : 0)
                 : "memory");
  }
  // The tensor cores read shared memory another way than threads write it.
  static __device__ __forceinline__ void ShowCopies() {
#ifdef PLUMB_HAS_HOPPER
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
  }

  // A barrier of `count` arrivals a phase; phases have parity 0, 1, 0 ... Before the first has
  // ended, that of parity 1 counts as ended.
  static __device__ __forceinline__ void InitBarrier(uint64_t* barrier, int count) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(Address(barrier)), "r"(count)
                 : "memory");
  }
  static __device__ __forceinline__ void Arrive(uint64_t* barrier) {
    asm volatile(
        "{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}\n" ::"r"(Address(barrier))
        : "memory");
  }
  // Once the copies that this thread has begun are there.
  static __device__ __forceinline__ void ArriveWithCopies(uint64_t* barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(Address(barrier))
                 : "memory");
  }
  static __device__ __forceinline__ void Wait(uint64_t* barrier, unsigned parity) {
#ifdef PLUMB_HAS_HOPPER
    unsigned done = 0;
    do {
      asm volatile(
          "{\n.reg .pred done;\nmbarrier.try_wait.parity.shared.b64 done, [%1], %2;\n"
          "selp.u32 %0, 1, 0, done;\n}\n"
          : "=r"(done)
          : "r"(Address(barrier)), "r"(parity)
          : "memory");
    } while (done == 0);
#endif
  }

  // Between products and other uses of what they read or write in registers.
  template <int N>
  static __device__ __forceinline__ void EndProducts(float (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(x[i])::"memory");
  }
  template <int N>
  static __device__ __forceinline__ void EndProducts(unsigned (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+r"(x[i])::"memory");
  }
  static __device__ __forceinline__ void BeginProducts() {
#ifdef PLUMB_HAS_HOPPER
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
  }
  static __device__ __forceinline__ void CommitProducts() {
#ifdef PLUMB_HAS_HOPPER
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
  }
  template <int Left>
  static __device__ __forceinline__ void WaitProducts() {
#ifdef PLUMB_HAS_HOPPER
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
#endif
  }

  // sum[64 x 64] = a[64 x 16] b[64 x 16]^T of shared memory, added to what is there if `add`; terms
  // lie inner (products/warpgroup_tile.h).
  static __device__ __forceinline__ void MultiplyRows(float (&sum)[32], uint64_t a, uint64_t b,
                                                      bool add) {
#ifdef PLUMB_HAS_HOPPER
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, add, 1, 1, 0, 0;\n}\n"
        : PLUMB_32(sum, 0)
        : "l"(a), "l"(b), "r"(static_cast<int>(add)));
#endif
  }

  // sum[64 x 64] += a[64 x 16] b[16 x 64]: a in registers as mma.sync has it, terms of b outer.
  static __device__ __forceinline__ void MultiplyColumns(float (&sum)[32], const unsigned* a,
                                                         uint64_t b) {
#ifdef PLUMB_HAS_HOPPER
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;\n"
        : PLUMB_32(sum, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
  }
  // The same of 128 columns.
  static __device__ __forceinline__ void MultiplyColumns(float (&sum)[64], const unsigned* a,
                                                         uint64_t b) {
#ifdef PLUMB_HAS_HOPPER
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"
        " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"
        " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"
        : PLUMB_32(sum, 0), PLUMB_32(sum, 32)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
#endif
  }
  // c[16 x 8] += a[16 x 16] b[16 x 8] of one warp.
  static __device__ __forceinline__ void MultiplyAdd(float (&c)[4], const unsigned* a, unsigned b0,
                                                     unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
        "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }

  static __device__ __forceinline__ void LoadWords(const BFloat16* from, unsigned (&words)[4]) {
    const uint4 all = *reinterpret_cast<const uint4*>(from);
    words[0] = all.x, words[1] = all.y, words[2] = all.z, words[3] = all.w;
  }
  static __device__ __forceinline__ void StoreWords(BFloat16* to, const unsigned (&words)[4]) {
    *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
  }
  static __device__ __forceinline__ void LoadPair(const float* from, float (&pair)[2]) {
    const float2 both = *reinterpret_cast<const float2*>(from);
    pair[0] = both.x, pair[1] = both.y;
  }
  static __device__ __forceinline__ void LoadFour(const float* from, float (&four)[4]) {
    const float4 all = *reinterpret_cast<const float4*>(from);
    four[0] = all.x, four[1] = all.y, four[2] = all.z, four[3] = all.w;
  }
  static __device__ __forceinline__ void StoreFour(float* to, const float (&four)[4]) {
    *reinterpret_cast<float4*>(to) = make_float4(four[0], four[1], four[2], four[3]);
  }
};

#undef PLUMB_4
#undef PLUMB_16
#undef PLUMB_32

}  // namespace plumb::kernels

#endif  // __CUDACC__

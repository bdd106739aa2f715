#include "kernels/products/warpgroup_products.h"

#include <algorithm>
#include <limits>

#include "kernels/device/cuda_common.h"
#include "kernels/products/warpgroup_tile.h"

namespace plumb::kernels {
namespace {

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PLUMB_HAS_WARPGROUPS 1
#endif

#define PLUMB_SUMS_4(i) "+f"(sum[i]), "+f"(sum[(i) + 1]), "+f"(sum[(i) + 2]), "+f"(sum[(i) + 3])
#define PLUMB_SUMS_16(i) \
  PLUMB_SUMS_4(i), PLUMB_SUMS_4((i) + 4), PLUMB_SUMS_4((i) + 8), PLUMB_SUMS_4((i) + 12)
#define PLUMB_SUMS_32(i) PLUMB_SUMS_16(i), PLUMB_SUMS_16((i) + 16)

// The operations of a block, as Hopper has them.
struct Chip {
  static __device__ __forceinline__ int Thread() { return static_cast<int>(threadIdx.x); }
  // The same for a warp's threads, and known to be.
  static __device__ __forceinline__ int Group() {
    return __shfl_sync(0xFFFFFFFFu, static_cast<int>(threadIdx.x / 128), 0);
  }
  static __device__ __forceinline__ void SyncBlock() { __syncthreads(); }
  static __device__ __forceinline__ unsigned ShuffleXor(unsigned x, int mask) {
    return __shfl_xor_sync(0xFFFFFFFFu, x, mask);
  }
  static __device__ __forceinline__ uint32_t Address(const unsigned char* at) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(at));
  }

  // 16 bytes to shared memory; zeros, and nothing is read, unless `there`.
  static __device__ __forceinline__ void CopyAsync(unsigned char* to, const BFloat16* from,
                                                   bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(Address(to)), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
  }
  static __device__ __forceinline__ void CommitCopies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  template <int Left>
  static __device__ __forceinline__ void WaitCopies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
  }
  // The tensor cores read shared memory another way than threads write it.
  static __device__ __forceinline__ void ShowCopies() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }

  // Between products and other uses of their sums.
  template <int N>
  static __device__ __forceinline__ void EndProducts(float (&sum)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(sum[i])::"memory");
  }
  template <int N>
  static __device__ __forceinline__ void BeginProducts(float (&sum)[N]) {
    EndProducts(sum);
#ifdef PLUMB_HAS_WARPGROUPS
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
  }
  static __device__ __forceinline__ void CommitProducts() {
#ifdef PLUMB_HAS_WARPGROUPS
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
  }
  template <int Left>
  static __device__ __forceinline__ void WaitProducts() {
#ifdef PLUMB_HAS_WARPGROUPS
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
#endif
  }

  // sum = a[64 x 16] b[Columns x 16]^T, added to what is there if `add`.
  template <int Columns, bool AOuter, bool BOuter>
  static __device__ __forceinline__ void Multiply(float (&sum)[Columns / 2], uint64_t a, uint64_t b,
                                                  bool add) {
#ifdef PLUMB_HAS_WARPGROUPS
    if constexpr (Columns == 64) {
      asm volatile(
          "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
          "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
          "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
          " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
          "%32, %33, add, 1, 1, %35, %36;\n}\n"
          : PLUMB_SUMS_32(0)
          : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(int{AOuter}), "n"(int{BOuter}));
    } else if constexpr (Columns == 128) {
      asm volatile(
          "{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"
          "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
          "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
          " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"
          " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"
          " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
          "%64, %65, add, 1, 1, %67, %68;\n}\n"
          : PLUMB_SUMS_32(0), PLUMB_SUMS_32(32)
          : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(int{AOuter}), "n"(int{BOuter}));
    } else {
      static_assert(Columns == 256);
      asm volatile(
          "{\n.reg .pred add;\nsetp.ne.b32 add, %130, 0;\n"
          "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
          "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
          " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"
          " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"
          " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63,"
          " %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79,"
          " %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95,"
          " %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "
          "%111,"
          " %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, "
          "%126, %127}, "
          "%128, %129, add, 1, 1, %131, %132;\n}\n"
          : PLUMB_SUMS_32(0), PLUMB_SUMS_32(32), PLUMB_SUMS_32(64), PLUMB_SUMS_32(96)
          : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(int{AOuter}), "n"(int{BOuter}));
    }
#endif
  }

  static __device__ __forceinline__ unsigned PackPair(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
  }
  static __device__ __forceinline__ float FloatOf(unsigned bits) { return __uint_as_float(bits); }
  static __device__ __forceinline__ void StoreWords(BFloat16* to, const unsigned (&words)[4]) {
    *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
  }
  static __device__ __forceinline__ void LoadPair(const float* from, float (&pair)[2]) {
    const float2 both = *reinterpret_cast<const float2*>(from);
    pair[0] = both.x, pair[1] = both.y;
  }
  static __device__ __forceinline__ void StorePair(float* to, const float (&pair)[2]) {
    *reinterpret_cast<float2*>(to) = make_float2(pair[0], pair[1]);
  }
};

#undef PLUMB_SUMS_4
#undef PLUMB_SUMS_16
#undef PLUMB_SUMS_32

template <class Work>
using Block = WarpgroupTile<Chip, Work>;

// Small tiles lie two to a processor.
template <class Work>
inline constexpr int kBlocksBeside = Block<Work>::kBytes <= 110 * 1024 ? 2 : 1;

template <class Work>
__global__ void __launch_bounds__(kTileThreads, kBlocksBeside<Work>)
    Tiles(const __grid_constant__ Work work) {
  extern __shared__ unsigned char tile_memory[];
  const uint32_t past = Chip::Address(tile_memory) % 1024;
  Block<Work>::Run(work, static_cast<int32_t>(blockIdx.x), static_cast<int32_t>(gridDim.x),
                   tile_memory + (1024 - past) % 1024);
}

int Attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  CheckCuda(cudaGetDevice(&device), "to ask for the GPU of a product");
  CheckCuda(cudaDeviceGetAttribute(&value, attribute, device), "to ask a GPU for its processors");
  return value;
}

// most: tiles there can be.
template <class Work>
void Start(const Launch& launch, const Work& work, int64_t most) {
  constexpr int kBytes = Block<Work>::kBytes + 1024;
  CheckCuda(cudaFuncSetAttribute(Tiles<Work>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
            "to give a product of experts its shared memory");
  const int64_t blocks = int64_t{kBlocksBeside<Work>} * Attribute(cudaDevAttrMultiProcessorCount);
  Tiles<Work>
      <<<static_cast<unsigned>(std::min(blocks, most)), kTileThreads, kBytes, StreamOf(launch)>>>(
          work);
  CheckLaunch("a product of experts on warp groups");
}

constexpr int64_t kFewRows = 48;  // of an expert, on average

int64_t Parts(int64_t n, int64_t each) { return (n + each - 1) / each; }

// Whether 256 columns a tile waste no more than 128 and leave a tile for every processor.
bool Wide(int64_t columns, int64_t down) {
  return Parts(columns, 256) * 2 == Parts(columns, 128) &&
         down * Parts(columns, 256) >= Attribute(cudaDevAttrMultiProcessorCount);
}

bool Fits(const ExpertGroups& groups, int64_t n, int64_t k) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  return n > 0 && k > 0 && n % 8 == 0 && k % 8 == 0 && groups.experts > 0 &&
         groups.experts <= kMostTileExperts && n < kMost / 2 && k < kMost / 2 &&
         (groups.rows / 64 + groups.experts) * Parts(std::max(n, k), 128) < kMost &&
         groups.experts * Parts(n, 128) * Parts(k, 128) < kMost &&
         Attribute(cudaDevAttrComputeCapabilityMajor) == 9;
}

template <int Rows, int Columns, bool ByColumns>
void StartRows(const Launch& launch, const ExpertProduct& p) {
  const int64_t inputs = p.by_columns ? p.n : p.k, outputs = p.by_columns ? p.k : p.n;
  const RowsWork<Chip, Rows, Columns, ByColumns> work{.x = static_cast<const BFloat16*>(p.x),
                                                      .w = static_cast<const BFloat16*>(p.w),
                                                      .bias = static_cast<const BFloat16*>(p.bias),
                                                      .begin = p.groups.begin,
                                                      .experts = p.groups.experts,
                                                      .n = static_cast<int32_t>(p.n),
                                                      .k = static_cast<int32_t>(p.k),
                                                      .x_stride = p.x_stride ? p.x_stride : inputs,
                                                      .y_stride = p.y_stride ? p.y_stride : outputs,
                                                      .scale = p.scale,
                                                      .accumulate = p.accumulate,
                                                      .y = static_cast<BFloat16*>(p.y)};
  Start(launch, work,
        (p.groups.rows / Rows + std::min<int64_t>(p.groups.experts, p.groups.rows)) *
            Parts(outputs, Columns));
}

template <bool ByColumns>
void StartRows(const Launch& launch, const ExpertProduct& p) {
  const int64_t rows = p.groups.rows, experts = p.groups.experts;
  // Few rows read the matrices and little else: more blocks do that at once.
  if (rows / experts < kFewRows) StartRows<64, 128, ByColumns>(launch, p);
  else if (Wide(ByColumns ? p.k : p.n, rows / 128)) StartRows<128, 256, ByColumns>(launch, p);
  else StartRows<128, 128, ByColumns>(launch, p);
}

template <int Columns>
void StartWeights(const Launch& launch, const ExpertWeightProduct& p) {
  const WeightWork<Chip, 128, Columns> work{.dy = static_cast<const BFloat16*>(p.dy),
                                            .x = static_cast<const BFloat16*>(p.x),
                                            .begin = p.groups.begin,
                                            .experts = p.groups.experts,
                                            .n = static_cast<int32_t>(p.n),
                                            .k = static_cast<int32_t>(p.k),
                                            .dy_stride = p.dy_stride ? p.dy_stride : p.n,
                                            .x_stride = p.x_stride ? p.x_stride : p.k,
                                            .scale = p.scale,
                                            .dw = p.dw};
  Start(launch, work, p.groups.experts * Parts(p.n, 128) * Parts(p.k, Columns));
}

}  // namespace

bool WarpgroupProduct(const Launch& launch, const ExpertProduct& p) {
  if (launch.dtype != DType::kBFloat16 || !Fits(p.groups, p.n, p.k) || p.x_stride % 8 != 0 ||
      p.y_stride % 8 != 0 || !Aligned16(p.x) || !Aligned16(p.w) || !Aligned16(p.y))
    return false;
  if (p.by_columns) StartRows<true>(launch, p);
  else StartRows<false>(launch, p);
  return true;
}

bool WarpgroupProduct(const Launch& launch, const GatedExpertProduct& p) {
  // Tiles for few rows have gates and ups in threads of their own.
  if (launch.dtype != DType::kBFloat16 || p.ffn % 8 != 0 || !Fits(p.groups, 2 * p.ffn, p.k) ||
      p.groups.rows / p.groups.experts < kFewRows || !Aligned16(p.x) || !Aligned16(p.w) ||
      !Aligned16(p.gate_up) || !Aligned16(p.act))
    return false;
  ForActivation(p.activation, [&]<Activation A>(std::integral_constant<Activation, A>) {
    const GatedWork<Chip, A> work{.x = static_cast<const BFloat16*>(p.x),
                                  .token = p.token,
                                  .w = static_cast<const BFloat16*>(p.w),
                                  .begin = p.groups.begin,
                                  .experts = p.groups.experts,
                                  .ffn = static_cast<int32_t>(p.ffn),
                                  .k = static_cast<int32_t>(p.k),
                                  .gate_up = static_cast<BFloat16*>(p.gate_up),
                                  .act = static_cast<BFloat16*>(p.act)};
    Start(launch, work, (p.groups.rows / 128 + p.groups.experts) * Parts(p.ffn, 128));
  });
  return true;
}

bool WarpgroupProduct(const Launch& launch, const ExpertWeightProduct& p) {
  if (launch.dtype != DType::kBFloat16 || !Fits(p.groups, p.n, p.k) || p.dy_stride % 8 != 0 ||
      p.x_stride % 8 != 0 || !Aligned16(p.dy) || !Aligned16(p.x) || !Aligned16(p.dw))
    return false;
  if (Wide(p.k, p.groups.experts * Parts(p.n, 128))) StartWeights<256>(launch, p);
  else StartWeights<128>(launch, p);
  return true;
}

}  // namespace plumb::kernels

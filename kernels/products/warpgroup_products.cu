#include "kernels/products/warpgroup_products.h"

#include <algorithm>
#include <limits>

#include "kernels/device/cuda_common.h"
#include "kernels/products/warpgroup_work.h"

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
  static __device__ __forceinline__ int32_t Shuffle(int32_t x, int lane) {
    return __shfl_sync(0xFFFFFFFFu, x, lane);
  }
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

  // A barrier of 8 bytes: a turn of it is over once `count` have arrived.
  static __device__ __forceinline__ void InitBarrier(unsigned char* at, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(Address(at)), "r"(count)
                 : "memory");
  }
  // This thread arrives once the copies that it began have.
  static __device__ __forceinline__ void ArriveWhenCopied(unsigned char* at) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(Address(at))
                 : "memory");
  }
  // One of a warp's threads does, when all have come here.
  static __device__ __forceinline__ void ArriveWarp(unsigned char* at) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      asm volatile(
          "{\n.reg .b64 state;\nmbarrier.arrive.shared::cta.b64 state, [%0];\n}" ::"r"(Address(at))
          : "memory");
    }
  }
  // Until the turn of this parity is over; the one before the first counts as over.
  static __device__ __forceinline__ void WaitBarrier(unsigned char* at, uint32_t turn) {
    uint32_t over = 0;
    while (over == 0) {
      asm volatile(
          "{\n.reg .pred over;\nmbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
          "selp.b32 %0, 1, 0, over;\n}"
          : "=r"(over)
          : "r"(Address(at)), "r"(turn)
          : "memory");
    }
  }
  // Registers go from the threads that copy to those that multiply.
  static __device__ __forceinline__ void BeginCopying() {
#ifdef PLUMB_HAS_WARPGROUPS
    asm volatile("setmaxnreg.dec.sync.aligned.u32 72;");
#endif
  }
  static __device__ __forceinline__ void BeginMultiplying() {
#ifdef PLUMB_HAS_WARPGROUPS
    asm volatile("setmaxnreg.inc.sync.aligned.u32 216;");
#endif
  }
  static __device__ __forceinline__ void EndCopying() {
    asm volatile("cp.async.wait_all;" ::: "memory");
  }
  // The tensor cores read shared memory another way than threads write it.
  static __device__ __forceinline__ void ShowCopies() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }

  // Between products and other uses of their sums; not where products are on their way, which would
  // have to be waited for.
  template <int N>
  static __device__ __forceinline__ void EndProducts(float (&sum)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(sum[i])::"memory");
  }
  static __device__ __forceinline__ void BeginProducts() {
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
  static __device__ __forceinline__ unsigned BitsOf(float x) { return __float_as_uint(x); }
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
  static __device__ __forceinline__ void StorePair(float* to, const float (&pair)[2]) {
    *reinterpret_cast<float2*>(to) = make_float2(pair[0], pair[1]);
  }
};

#undef PLUMB_SUMS_4
#undef PLUMB_SUMS_16
#undef PLUMB_SUMS_32

template <class... Works>
using Block = WarpgroupBlock<Chip, Works...>;

// The block's own memory, from a multiple of 1,024 bytes on.
__device__ __forceinline__ unsigned char* TileMemory() {
  extern __shared__ unsigned char tile_memory[];
  return tile_memory + (1024 - Chip::Address(tile_memory) % 1024) % 1024;
}

template <class Work>
__global__ void __launch_bounds__(kTileThreads, 1) Tiles(const __grid_constant__ Work work) {
  Block<Work>::Run(static_cast<int32_t>(blockIdx.x), static_cast<int32_t>(gridDim.x), TileMemory(),
                   work);
}

template <class A, class B, class C>
__global__ void __launch_bounds__(kTileThreads, 1)
    Tiles3(const __grid_constant__ A a, const __grid_constant__ B b, const __grid_constant__ C c) {
  Block<A, B, C>::Run(static_cast<int32_t>(blockIdx.x), static_cast<int32_t>(gridDim.x),
                      TileMemory(), a, b, c);
}

int Attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  CheckCuda(cudaGetDevice(&device), "to ask for the GPU of a product");
  CheckCuda(cudaDeviceGetAttribute(&value, attribute, device), "to ask a GPU for its processors");
  return value;
}

int64_t Processors() { return Attribute(cudaDevAttrMultiProcessorCount); }

// most: tiles there can be.
template <class Kernel, class... Works>
void Start(const Launch& launch, Kernel kernel, int64_t most, const Works&... works) {
  constexpr int kBytes = Block<Works...>::kBytes + 1024;
  CheckCuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
            "to give a product of experts its shared memory");
  kernel<<<static_cast<unsigned>(std::min(Processors(), most)), kTileThreads, kBytes,
           StreamOf(launch)>>>(works...);
  CheckLaunch("a product of experts on warp groups");
}
template <class Work>
void Start(const Launch& launch, int64_t most, const Work& work) {
  Start(launch, Tiles<Work>, most, work);
}

constexpr int64_t kFewRows = 48;  // of an expert, on average

int64_t Parts(int64_t n, int64_t each) { return (n + each - 1) / each; }

// Tiles of experts' rows, about, and at most.
int64_t TilesDown(const ExpertGroups& groups) { return groups.rows / 128 + groups.experts / 2; }
int64_t MostTilesDown(const ExpertGroups& groups, int64_t rows) {
  return groups.rows / rows + std::min<int64_t>(groups.experts, groups.rows);
}

// Whether tiles of 256 columns take less time than those of 128: rounds of all processors times
// what a tile takes, in the time of a stage of the narrow ones. A wide stage reads less for what it
// multiplies; what a tile takes besides is as much as four stages of its own.
bool Wide(int64_t columns, int64_t down, int64_t terms) {
  if (columns <= 128) return false;
  const int64_t stages = Parts(terms, kStageTerms),
                wide = Parts(down * Parts(columns, 256), Processors()) * 17 * (stages + 4),
                narrow = Parts(down * Parts(columns, 128), Processors()) * 10 * (stages + 4);
  return wide <= narrow;
}

bool Fits(const ExpertGroups& groups, int64_t n, int64_t k) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  return n > 0 && k > 0 && n % 8 == 0 && k % 8 == 0 && groups.experts > 0 &&
         groups.experts <= kMostTileExperts && n < kMost / 2 && k < kMost / 2 &&
         (groups.rows / 64 + groups.experts) * Parts(std::max(n, k), 128) < kMost &&
         groups.experts * Parts(n, 128) * Parts(k, 128) < kMost &&
         Attribute(cudaDevAttrComputeCapabilityMajor) == 9;
}

bool FewRows(const ExpertGroups& groups) { return groups.rows / groups.experts < kFewRows; }

template <int Rows, int Columns, bool ByColumns>
RowsWork<Chip, Rows, Columns, ByColumns> RowsOf(const ExpertProduct& p) {
  const int64_t inputs = p.by_columns ? p.n : p.k, outputs = p.by_columns ? p.k : p.n;
  return {.x = static_cast<const BFloat16*>(p.x),
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
}

template <int Rows, int Columns, bool ByColumns>
void StartRows(const Launch& launch, const ExpertProduct& p) {
  Start(launch, MostTilesDown(p.groups, Rows) * Parts(p.by_columns ? p.k : p.n, Columns),
        RowsOf<Rows, Columns, ByColumns>(p));
}

template <bool ByColumns>
void StartRows(const Launch& launch, const ExpertProduct& p) {
  // Few rows read the matrices and little else: shorter tiles multiply less that is not there.
  if (FewRows(p.groups)) StartRows<64, 128, ByColumns>(launch, p);
  else if (Wide(ByColumns ? p.k : p.n, TilesDown(p.groups), ByColumns ? p.n : p.k))
    StartRows<128, 256, ByColumns>(launch, p);
  else StartRows<128, 128, ByColumns>(launch, p);
}

template <int Columns, RowOrder Dy = RowOrder::kEven, RowOrder X = RowOrder::kEven>
WeightWork<Chip, Columns, Dy, X> WeightsOf(const ExpertWeightProduct& p, const int32_t* token) {
  return {.dy = static_cast<const BFloat16*>(p.dy),
          .x = static_cast<const BFloat16*>(p.x),
          .token = token,
          .begin = p.groups.begin,
          .experts = p.groups.experts,
          .n = static_cast<int32_t>(p.n),
          .k = static_cast<int32_t>(p.k),
          .dy_stride = p.dy_stride ? p.dy_stride : p.n,
          .x_stride = p.x_stride ? p.x_stride : p.k,
          .scale = p.scale,
          .written = p.written,
          .dw = p.dw};
}

int64_t WeightTiles(const ExpertGroups& groups, int64_t n, int64_t k, int64_t columns) {
  return groups.experts * Parts(n, 128) * Parts(k, columns);
}

template <int Columns>
void StartWeights(const Launch& launch, const ExpertWeightProduct& p) {
  Start(launch, WeightTiles(p.groups, p.n, p.k, Columns), WeightsOf<Columns>(p, nullptr));
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
      FewRows(p.groups) || !Aligned16(p.x) || !Aligned16(p.w) || !Aligned16(p.gate_up) ||
      !Aligned16(p.act))
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
    Start(launch, MostTilesDown(p.groups, 128) * Parts(p.ffn, 128), work);
  });
  return true;
}

bool WarpgroupProduct(const Launch& launch, const ExpertWeightProduct& p) {
  if (launch.dtype != DType::kBFloat16 || !Fits(p.groups, p.n, p.k) || p.dy_stride % 8 != 0 ||
      p.x_stride % 8 != 0 || !Aligned16(p.dy) || !Aligned16(p.x) || !Aligned16(p.dw))
    return false;
  if (Wide(p.k, p.groups.experts * Parts(p.n, 128), p.groups.rows / p.groups.experts))
    StartWeights<256>(launch, p);
  else StartWeights<128>(launch, p);
  return true;
}

bool WarpgroupProduct(const Launch& launch, const GatedExpertBackward& p) {
  if (launch.dtype != DType::kBFloat16 || !Fits(p.groups, p.n, p.ffn) || FewRows(p.groups) ||
      !Aligned16(p.dout) || !Aligned16(p.w) || !Aligned16(p.gate_up) || !Aligned16(p.act))
    return false;
  ForActivation(p.activation, [&]<Activation A>(std::integral_constant<Activation, A>) {
    const GatedBackwardWork<Chip, A> work{.dout = static_cast<const BFloat16*>(p.dout),
                                          .token = p.token,
                                          .w = static_cast<const BFloat16*>(p.w),
                                          .begin = p.groups.begin,
                                          .experts = p.groups.experts,
                                          .n = static_cast<int32_t>(p.n),
                                          .ffn = static_cast<int32_t>(p.ffn),
                                          .slots = p.groups.rows,
                                          .weight = p.weight,
                                          .gate_up = static_cast<BFloat16*>(p.gate_up),
                                          .act = static_cast<BFloat16*>(p.act),
                                          .dweight = p.dweight};
    Start(launch, MostTilesDown(p.groups, 128) * GatedExpertBackward::Parts(p.ffn), work);
  });
  return true;
}

bool WarpgroupProduct(const Launch& launch, const GatedExpertGradients& p) {
  if (launch.dtype != DType::kBFloat16 || !Fits(p.groups, 2 * p.ffn, p.n) ||
      !Fits(p.groups, p.n, p.ffn) || FewRows(p.groups) || !Aligned16(p.dout) || !Aligned16(p.x) ||
      !Aligned16(p.w) || !Aligned16(p.dgate_up) || !Aligned16(p.act) || !Aligned16(p.dw_first) ||
      !Aligned16(p.dw_second) || !Aligned16(p.dx))
    return false;
  constexpr RowOrder kToken = RowOrder::kIndexed, kSlot = RowOrder::kEven;
  auto rows = RowsOf<128, 256, true>({.groups = p.groups,
                                      .x = p.dgate_up,
                                      .w = p.w,
                                      .n = 2 * p.ffn,
                                      .k = p.n,
                                      .by_columns = true,
                                      .y = p.dx});
  auto first = WeightsOf<256, kSlot, kToken>({.groups = p.groups,
                                              .dy = p.dgate_up,
                                              .x = p.x,
                                              .n = 2 * p.ffn,
                                              .k = p.n,
                                              .dw = p.dw_first,
                                              .written = p.first_written},
                                             p.token);
  auto second = WeightsOf<256, kToken, kSlot>({.groups = p.groups,
                                               .dy = p.dout,
                                               .x = p.act,
                                               .n = p.n,
                                               .k = p.ffn,
                                               .dw = p.dw_second,
                                               .written = p.second_written},
                                              p.token);
  Start(launch, Tiles3<decltype(rows), decltype(first), decltype(second)>,
        MostTilesDown(p.groups, 128) * Parts(p.n, 256) +
            WeightTiles(p.groups, 2 * p.ffn, p.n, 256) + WeightTiles(p.groups, p.n, p.ffn, 256),
        rows, first, second);
  return true;
}

}  // namespace plumb::kernels

#include "kernels/attention/tensor_attention.h"

#include "kernels/attention/attention_block.h"
#include "kernels/attention/prompt_attention.h"
#include "kernels/device/cuda_common.h"

namespace plumb::kernels {
namespace {

// The operations of a block, as a GPU of compute capability 8.0 and up has them. The blocks of
// LoadBlocks are 8 x 8: lane l gives the address of row l % 8 of block l / 8 and gets the elements
// 2 (l % 4) and the next of row l / 4 of each; turned, of column l / 4.
struct Chip : RoundedOnce {
  static __device__ __forceinline__ int Thread() { return static_cast<int>(threadIdx.x); }
  static __device__ __forceinline__ void SyncBlock() { __syncthreads(); }
  static __device__ __forceinline__ int32_t Shuffle(int32_t x, int lane) {
    return __shfl_sync(0xFFFFFFFFu, x, lane);
  }
  static __device__ __forceinline__ float ShuffleXor(float x, int mask) {
    return __shfl_xor_sync(0xFFFFFFFFu, x, mask);
  }

  static __device__ __forceinline__ unsigned Address(const BFloat16* at) {
    return static_cast<unsigned>(__cvta_generic_to_shared(at));
  }
  static __device__ __forceinline__ void LoadBlocks(const BFloat16* at, unsigned (&out)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(Address(at))
                 : "memory");
  }
  static __device__ __forceinline__ void LoadBlocksTurned(const BFloat16* at, unsigned (&out)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(Address(at))
                 : "memory");
  }
  // c[16 x 8] += a[16 x 16] b[16 x 8]
  static __device__ __forceinline__ void MultiplyAdd(float (&c)[4], const unsigned (&a)[4],
                                                     unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
        "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }

  // 16 bytes to shared memory, of which the first `bytes` are read and the others are zeros.
  static __device__ __forceinline__ void CopyAsync(BFloat16* to, const BFloat16* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(Address(to)), "l"(from),
                 "r"(bytes)
                 : "memory");
  }
  static __device__ __forceinline__ void CommitCopies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  template <int Left>
  static __device__ __forceinline__ void WaitCopies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
  }

  static __device__ __forceinline__ void StorePair(BFloat16* to, unsigned pair) {
    *reinterpret_cast<unsigned*>(to) = pair;
  }
};

template <int D, int Warps>
__global__ void __launch_bounds__(32 * Warps) Tiles(const __grid_constant__ AttentionWork work) {
  extern __shared__ uint4 shared_tiles[];
  // The last rows of a prompt see most: they begin first.
  AttentionBlock<Chip, D, Warps>::Run(
      work, static_cast<int32_t>(gridDim.x - 1 - blockIdx.x), static_cast<int32_t>(blockIdx.y),
      static_cast<int32_t>(blockIdx.z), reinterpret_cast<BFloat16*>(shared_tiles));
}

template <int D>
__global__ void __launch_bounds__(D / 2) Merge(const __grid_constant__ AttentionWork work) {
  MergeSplits<Chip, D>(work, work.begin + static_cast<int32_t>(blockIdx.x),
                       static_cast<int32_t>(blockIdx.y), static_cast<int32_t>(threadIdx.x));
}

template <int D, int Warps>
void StartTiles(const Launch& launch, const AttentionWork& work, int32_t kv_heads) {
  constexpr int kBytes = AttentionBlock<Chip, D, Warps>::kBytes;
  CheckCuda(
      cudaFuncSetAttribute(Tiles<D, Warps>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
      "to give AttentionPaged its shared memory");
  const int32_t rows = work.end - work.begin,
                blocks = work.is_shared ? rows : (rows + work.rows_a_block - 1) / work.rows_a_block;
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(kv_heads),
                  static_cast<unsigned>(work.pieces));
  Tiles<D, Warps><<<grid, 32 * Warps, kBytes, StreamOf(launch)>>>(work);
}

template <int D>
void Start(const Launch& launch, const AttentionPaged& k) {
  constexpr int kPromptWarps = 4;
  const PagedKv& kv = k.kv;
  AttentionWork work{.q = static_cast<const BFloat16*>(k.q),
                     .q_stride = k.q_stride,
                     .slot = k.rows.slot,
                     .position = k.rows.position,
                     .page_table = k.rows.page_table,
                     .page_table_stride = k.rows.page_table_stride,
                     .heads = k.heads,
                     .group = k.heads / kv.kv_heads,
                     .pages = static_cast<const BFloat16*>(kv.pages) + k.layer * kv.layer_stride(),
                     .page_stride = kv.page_stride(),
                     .head_stride = kv.head_stride(),
                     .kv_stride = kv.kv_stride(),
                     .page_tokens = kv.page_tokens,
                     .scale = k.scale * 1.4426950408889634f,
                     .window = k.window,
                     .out = static_cast<BFloat16*>(k.out),
                     .lse = k.lse,
                     .lse_stride = k.rows.rows};
  for (int32_t s = 0; s < 31; ++s) {
    if (kv.page_tokens == int32_t{1} << s) work.page_shift = s;
  }
  const int32_t rows_a_tile = 16 * kPromptWarps / work.group;
  if (k.rows.single > 0) {
    const TensorAttentionPlan plan = PlanTensorAttention(k);
    AttentionWork own = work;
    own.end = k.rows.single;
    auto* scratch = static_cast<float*>(k.scratch);
    if (scratch && k.rows.shared_with && plan.totals > 0) {
      own.shared_with = k.rows.shared_with;
      own.shared_tokens = k.rows.shared_tokens;
      own.totals = scratch;
      AttentionWork together = own;
      together.is_shared = true;
      together.rows_a_block = rows_a_tile;
      StartTiles<D, kPromptWarps>(launch, together, kv.kv_heads);
    }
    if (scratch && plan.pieces > 1) {
      own.partials = scratch + plan.totals;
      own.most_splits = plan.most_splits;
      own.pieces = plan.pieces;
    }
    StartTiles<D, 1>(launch, own, kv.kv_heads);
    if (own.partials) {
      Merge<D><<<dim3(static_cast<unsigned>(own.end), static_cast<unsigned>(k.heads)), D / 2, 0,
                 StreamOf(launch)>>>(own);
    }
  }
  if (k.rows.single < k.rows.rows) {
    work.begin = k.rows.single;
    work.end = k.rows.rows;
    if (PromptAttentionFits(D)) {  // the same bits, twice as fast
      StartPromptAttention(launch, work, D);
      return;
    }
    work.rows_a_block = rows_a_tile;
    StartTiles<D, kPromptWarps>(launch, work, kv.kv_heads);
  }
}

}  // namespace

void StartTensorAttention(const Launch& launch, const AttentionPaged& k) {
  switch (k.kv.head_dim) {
    case 64: Start<64>(launch, k); break;
    case 80: Start<80>(launch, k); break;
    case 96: Start<96>(launch, k); break;
    case 128: Start<128>(launch, k); break;
    case 256: Start<256>(launch, k); break;
    default: PLUMB_CHECK(false, "a head size that fits");
  }
}

}  // namespace plumb::kernels

#include "kernels/head/cluster_draw.h"

#include <cooperative_groups.h>
#include <cuda_pipeline.h>

#include "common/base/rng.h"
#include "kernels/device/cuda_common.h"
#include "kernels/head/row_mass.h"

namespace plumb::kernels {
namespace {

namespace cg = cooperative_groups;

// Mass that is drawn from is counted in units of 2^-44 of the most likely token's, as
// kernels/sampling.cu does it; the log-prob is taken of the strands' mass (row_mass.h), as it does,
// too.
constexpr int kThreads = 512, kWarps = kThreads / 32;
// The blocks of a cluster share out each turn of so many fours of logits; a warp's share of it is a
// group. A four of each turn is a strand.
constexpr int kTurn = kStrands, kGroups = kTurn / 32;

// What the other blocks of a cluster read of one.
struct Told {
  float top;         // NaN: there is one among the logits
  Mass mass, whole;  // that is drawn from, and of the strands
  int first;         // of the tokens that share the top
};

struct Draw {
  const float* logits;
  int64_t vocab;
  int turns;
  SamplingOptions options;
  const uint64_t* prompt;
  const uint32_t* sample;
  const int32_t* position;
  int32_t* token;
  float* logprob;
};

// Of a warp's lanes, each below 2^46.
__device__ __forceinline__ Mass SumOfGroup(Mass mass) {
  const unsigned low = __reduce_add_sync(0xFFFFFFFFu, static_cast<unsigned>(mass) & 0xFFFFFFu),
                 high = __reduce_add_sync(0xFFFFFFFFu, static_cast<unsigned>(mass >> 24));
  return (Mass{high} << 24) + low;
}

// Inclusive sum over the threads of the block in thread order.
__device__ Mass BlockScan(Mass v) {
  __shared__ Mass part[kWarps];
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const Mass below = __shfl_up_sync(0xFFFFFFFFu, v, offset);
    if (lane >= offset) v += below;
  }
  if (lane == 31) part[warp] = v;
  __syncthreads();
  for (int w = 0; w < warp; ++w) v += part[w];
  return v;
}

// Of a cluster's first block: which group of the row the goal lies in, in vocabulary order, and how
// far behind its beginning. On every thread. REQUIRES: goal below the mass of all.
struct Place {
  int group;
  Mass rest;
};
__device__ Place FindGroup(const cg::cluster_group& cluster, Mass* masses, int turns, int groups,
                           Mass goal) {
  __shared__ Place place;
  const int count = turns * kGroups, each = (count + kThreads - 1) / kThreads,
            begin = static_cast<int>(threadIdx.x) * each;
  const auto mass_of = [&](int i) {
    if (i >= count) return Mass{0};
    const int group = i % kGroups;
    return cluster.map_shared_rank(masses, group / groups)[i / kGroups * groups + group % groups];
  };
  Mass mine = 0;
  for (int i = begin; i < begin + each; ++i) mine += mass_of(i);
  const Mass upto = BlockScan(mine);
  if (upto > goal && upto - mine <= goal) {
    Mass before = upto - mine;
    int i = begin;
    for (Mass next = mass_of(i); before + next <= goal; next = mass_of(++i)) before += next;
    place = {i, goal - before};
  }
  __syncthreads();
  return place;
}

// The mass of the strand whose fours follow one another by `step`, added as AddStrands adds it.
__device__ Mass StrandOf(const float4* fours, int step, int turns, float top, float scale) {
  Strand<false> strand;
  for (int turn = 0; turn < turns; turn += kStrandLoads) {
    float x[kStrandLoads][4];
    float highest = -INFINITY;
#pragma unroll
    for (int b = 0; b < kStrandLoads; ++b) {
      const float4 four = turn + b < turns
                              ? fours[(turn + b) * step]
                              : make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
      x[b][0] = four.x;
      x[b][1] = four.y;
      x[b][2] = four.z;
      x[b][3] = four.w;
#pragma unroll
      for (int u = 0; u < 4; ++u) highest = fmaxf(highest, x[b][u]);
    }
    if (highest == -INFINITY) continue;
    strand.Raise(highest, scale);
#pragma unroll
    for (int b = 0; b < kStrandLoads; ++b) {
#pragma unroll
      for (int u = 0; u < 4; ++u) strand.Add(x[b][u], scale);
    }
  }
  strand.Raise(top, scale);
  return strand.Units();
}

// A cluster a row, which its blocks hold.
__global__ void __launch_bounds__(kThreads, 2) DrawRow(const __grid_constant__ Draw d) {
  extern __shared__ float4 held[];  // [turns][fours], then the masses of their groups
  __shared__ Told told;
  AwaitEarlier();
  const cg::cluster_group cluster = cg::this_cluster();
  const int blocks = static_cast<int>(cluster.num_blocks()),
            block = static_cast<int>(cluster.block_rank()), thread = static_cast<int>(threadIdx.x),
            lane = thread % 32;
  const int fours = kTurn / blocks, groups = fours / 32, all = d.turns * fours;
  Mass* const masses = reinterpret_cast<Mass*>(held + all);
  const int64_t r = blockIdx.x / static_cast<unsigned>(blocks);
  const float* row = d.logits + r * d.vocab;
  for (int i = thread; i < all; i += kThreads) {
    const int64_t at = (int64_t{i / fours} * kTurn + block * fours + i % fours) * 4;
    if (at < d.vocab) __pipeline_memcpy_async(held + i, row + at, sizeof(float4));
    else held[i] = make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
  }
  __pipeline_commit();
  if (thread == 0) told.first = INT32_MAX;
  __pipeline_wait_prior(0);  // of what it copied itself, which is what a thread looks at at first

  float top = -INFINITY;
  bool bad = false;
  for (int i = thread; i < all; i += kThreads) {
    const float4 x = held[i];
    top = fmaxf(fmaxf(top, fmaxf(x.x, x.y)), fmaxf(x.z, x.w));
    bad |= x.x != x.x || x.y != x.y || x.z != x.z || x.w != x.w;
  }
  top = BlockMax(top);
  bad = __syncthreads_or(bad) != 0;
  if (thread == 0) told.top = bad ? NAN : top;
  cluster.sync();
  const float theirs = lane < blocks ? cluster.map_shared_rank(&told, lane)->top : -INFINITY;
  bad = __any_sync(0xFFFFFFFFu, theirs != theirs) != 0;
  top = WarpMax(theirs);
  if (bad || top == -INFINITY || top == INFINITY) {
    if (block == 0 && thread == 0) {
      d.token[r] = -1;
      d.logprob[r] = 0;
    }
    cluster.sync();  // nobody ends while others read what it holds
    return;
  }

  const bool greedy = d.options.temperature == 0;
  const float scale = greedy ? 1.0f : 1.0f / d.options.temperature;
  const auto units = [&](float x) {
    return static_cast<Mass>(__float2ull_rn(expf((x - top) * scale) * 0x1p44f));
  };
  // Strands are sums in order, one a thread: where they are few, the other warps count meanwhile.
  const int warp = thread / 32, of_strands = min(kWarps, fours / 32);
  const bool apart = 2 * of_strands <= kWarps;
  Mass own = 0, whole = 0;
  int first = INT32_MAX;
  for (int f = thread; f < fours; f += kThreads)
    whole += StrandOf(held + f, fours, d.turns, top, scale);
  if (!apart || warp >= of_strands) {
    const int begin = apart ? warp - of_strands : warp, step = apart ? kWarps - of_strands : kWarps;
    for (int group = begin; group < all / 32; group += step) {
      const int i = group * 32 + lane;
      const float4 x = held[i];
      const Mass mass = SumOfGroup(units(x.x) + units(x.y) + units(x.z) + units(x.w));
      if (lane == 0) {
        masses[group] = mass;
        own += mass;
      }
      if (first == INT32_MAX && (x.x == top || x.y == top || x.z == top || x.w == top)) {
        first = ((i / fours) * kTurn + block * fours + i % fours) * 4 +
                (x.x == top ? 0 : (x.y == top ? 1 : (x.z == top ? 2 : 3)));
      }
    }
  }
  own = BlockSum(own);
  whole = BlockSum(whole);
  if (greedy && first != INT32_MAX) atomicMin(&told.first, first);
  if (thread == 0) {
    told.mass = own;
    told.whole = whole;
  }
  cluster.sync();
  if (block == 0) {
    Mass total = 0;
    whole = 0;
    for (int b = 0; b < blocks; ++b) {
      const Told* const other = cluster.map_shared_rank(&told, b);
      total += other->mass;
      whole += other->whole;
      first = b == 0 ? other->first : min(first, other->first);
    }
    const double log_mass = LogOfMass(whole);
    if (greedy) {
      if (thread == 0) {
        d.token[r] = first;
        d.logprob[r] = LogprobOf(top, top, scale, log_mass);
      }
    } else {
      const Random4 bits =
          RandomAt(d.options.seed, d.prompt[r], d.sample[r], static_cast<uint32_t>(d.position[r]));
      Mass goal = static_cast<Mass>(UniformOpen(bits.x[0], bits.x[1]) * static_cast<double>(total));
      if (goal >= total) goal = total - 1;
      const Place place = FindGroup(cluster, masses, d.turns, groups, goal);
      if (thread < 32) {
        const int turn = place.group / kGroups, group = place.group % kGroups;
        const float4 four = cluster.map_shared_rank(
            held, group / groups)[turn * fours + group % groups * 32 + lane];
        const float x[4] = {four.x, four.y, four.z, four.w};
        Mass upto = units(x[0]) + units(x[1]) + units(x[2]) + units(x[3]);
        const Mass mine = upto;
#pragma unroll
        for (int offset = 1; offset < 32; offset *= 2) {
          const Mass below = __shfl_up_sync(0xFFFFFFFFu, upto, offset);
          if (lane >= offset) upto += below;
        }
        if (upto > place.rest && upto - mine <= place.rest) {
          Mass mass = upto - mine;
          int u = -1;
          do mass += units(x[++u]);
          while (mass <= place.rest);
          d.token[r] = (turn * kTurn + group * 32 + lane) * 4 + u;
          d.logprob[r] = LogprobOf(x[u], top, scale, log_mass);
        }
      }
    }
  }
  cluster.sync();
}

// Bytes of a block's share: so many that two blocks find room on a multiprocessor, and at most.
constexpr int64_t kGoodShare = 104 << 10, kMostShare = 208 << 10;
constexpr int kMostBlocks = 8;  // of a cluster, on every GPU that has them
// Blocks that keep a large GPU at work; fewer rows than that have larger clusters.
constexpr int64_t kManyBlocks = 132;

}  // namespace

bool DrawByClusters(const Launch& launch, const SampleTokens& s) {
  const SamplingOptions& o = s.options;
  const bool filters =
      o.temperature != 0 && ((o.top_k > 0 && o.top_k < s.vocab) || o.top_p < 1.0f || o.min_p > 0);
  if (filters || s.kept || s.vocab % 4 != 0 || !Aligned16(s.logits) || !BeginsEarly()) return false;
  const int64_t turns = (s.vocab / 4 + kTurn - 1) / kTurn;
  const auto share_of = [&](int64_t blocks) {
    return turns * (kTurn / blocks * static_cast<int64_t>(sizeof(float4)) +
                    kGroups / blocks * static_cast<int64_t>(sizeof(Mass)));
  };
  int64_t blocks = 1;
  while (blocks < kMostBlocks &&
         (share_of(blocks) > kGoodShare || 2 * s.rows * blocks <= kManyBlocks))
    blocks *= 2;
  const int64_t bytes = share_of(blocks);
  if (bytes > kMostShare) return false;
  CheckCuda(cudaFuncSetAttribute(DrawRow, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(bytes)),
            "to give SampleTokens its shared memory");
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim.x = static_cast<unsigned>(blocks);
  attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(s.rows * blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = static_cast<size_t>(bytes);
  config.stream = StreamOf(launch);
  config.attrs = attributes;
  config.numAttrs = 2;
  cudaLaunchKernelEx(&config, DrawRow,
                     Draw{.logits = s.logits,
                          .vocab = s.vocab,
                          .turns = static_cast<int>(turns),
                          .options = o,
                          .prompt = s.prompt,
                          .sample = s.sample,
                          .position = s.position,
                          .token = s.token,
                          .logprob = s.logprob});
  CheckLaunch("SampleTokens (clusters)");
  return true;
}

}  // namespace plumb::kernels

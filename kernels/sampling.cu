#include "common/base/rng.h"
#include "kernels/device/cuda_common.h"
#include "kernels/head/row_mass.h"
#include "kernels/sampling.h"
#include "kernels/token_mask.h"

// One block a row. Probability mass that is drawn from is counted in integers, units of 2^-44 of
// the most likely token's: sums are then exact and the same in any order, which lets threads add
// with atomics and still give one result for one row. A token lighter than half a unit is never
// drawn. The log-prob is taken of the mass that a learner computes (head/row_mass.h).
namespace plumb::kernels {
namespace {

constexpr int kThreads = 1024;
static_assert(kThreads == kStrands);

__device__ __forceinline__ Mass Units(float p) {
  return static_cast<Mass>(__float2ull_rn(p * 0x1p44f));
}

// Inclusive sum over the threads of the block in thread order; *total: over all.
__device__ Mass BlockScan(Mass v, Mass* total) {
  __shared__ Mass part[32];
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const Mass below = __shfl_up_sync(0xFFFFFFFFu, v, offset);
    if (lane >= offset) v += below;
  }
  __syncthreads();
  if (lane == 31) part[warp] = v;
  __syncthreads();
  Mass sum = lane < kThreads / 32 ? part[lane] : 0;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const Mass below = __shfl_up_sync(0xFFFFFFFFu, sum, offset);
    if (lane >= offset) sum += below;
  }
  *total = __shfl_sync(0xFFFFFFFFu, sum, 31);
  const Mass before = __shfl_sync(0xFFFFFFFFu, sum, warp > 0 ? warp - 1 : 0);
  return v + (warp > 0 ? before : 0);
}

// A histogram of 2048 digits. Shared memory adds 32-bit integers natively and 64-bit ones by slow
// loops, so masses are kept in three limbs, in units of 2^-36: none overflows below kMaxVocab
// tokens.
constexpr int kDigits = 2048;
constexpr int64_t kMaxVocab = int64_t{1} << 20;
constexpr double kUnitsPerCoarse = 256.0;  // 2^-44 to 2^-36

template <bool ByMass>
struct Histogram {
  uint32_t limb[ByMass ? 3 : 1][kDigits];

  __device__ void Clear() {
    for (int b = static_cast<int>(threadIdx.x); b < kDigits; b += kThreads) {
      for (auto& l : limb) l[b] = 0;
    }
  }
  __device__ void Add(uint32_t digit, float p) {
    if constexpr (ByMass) {
      const auto units = static_cast<Mass>(__float2ull_rn(p * 0x1p36f));
      const uint32_t low = static_cast<uint32_t>(units) & 0xFFFu,
                     middle = static_cast<uint32_t>(units >> 12) & 0xFFFu;
      const auto high = static_cast<uint32_t>(units >> 24);
      if (low != 0) atomicAdd(&limb[0][digit], low);
      if (middle != 0) atomicAdd(&limb[1][digit], middle);
      if (high != 0) atomicAdd(&limb[2][digit], high);
    } else {
      atomicAdd(&limb[0][digit], 1u);
    }
  }
  __device__ Mass At(int digit) const {
    if constexpr (ByMass)
      return limb[0][digit] + (Mass{limb[1][digit]} << 12) + (Mass{limb[2][digit]} << 24);
    else return limb[0][digit];
  }
};

// The largest value v of p such that the values >= v count (ByMass: weigh) at least `goal`
// together. Positive floats order as their bits, so the value is found eleven bits at a time: a
// histogram of the next digit among the values that agree with the digits found, then a scan from
// the top.
template <bool ByMass>
__device__ float Boundary(const float* p, int64_t vocab, Mass goal) {
  __shared__ Histogram<ByMass> histogram;
  __shared__ uint32_t found;
  __shared__ Mass left;
  uint32_t prefix = 0, mask = 0;
  for (int shift = 21; shift >= -1; shift -= 11) {
    const int down = shift < 0 ? 0 : shift;  // digits of 11, 11 and 10 bits
    const uint32_t digit_mask = shift < 0 ? 0x3FFu : 0x7FFu;
    histogram.Clear();
    __syncthreads();
#pragma unroll 8
    for (int64_t j = threadIdx.x; j < vocab; j += kThreads) {
      const float value = p[j];
      const uint32_t bits = __float_as_uint(value);
      if ((bits & mask) == prefix) histogram.Add((bits >> down) & digit_mask, value);
    }
    __syncthreads();
    // Thread t looks at the digits 2047 - 2t and 2046 - 2t: from the top in thread order.
    const int high = kDigits - 1 - 2 * static_cast<int>(threadIdx.x);
    const Mass first = histogram.At(high), second = histogram.At(high - 1);
    Mass total;
    const Mass upto = BlockScan(first + second, &total), before = upto - first - second;
    // Rounding of the goal can ask for more than there is: then the lightest counts.
    const Mass wanted = goal < total ? goal : total;
    if (before < wanted && upto >= wanted) {
      const bool is_first = before + first >= wanted;
      found = static_cast<uint32_t>(is_first ? high : high - 1);
      left = wanted - before - (is_first ? 0 : first);
    }
    __syncthreads();
    prefix |= found << down;
    mask |= digit_mask << down;
    goal = left;
    __syncthreads();
  }
  return __uint_as_float(prefix);
}

// Mass of the values >= threshold.
__device__ Mass MassFrom(const float* p, int64_t vocab, float threshold) {
  Mass mass = 0;
  for (int64_t j = threadIdx.x; j < vocab; j += kThreads) {
    if (p[j] >= threshold) mass += Units(p[j]);
  }
  return BlockSum(mass);
}

// The first thread whose inclusive sum passes `goal` gets its own share's start; the answer is on
// every thread.
struct Place {
  int thread;
  Mass before;
};
__device__ Place Find(Mass mine, Mass goal) {
  __shared__ Place place;
  Mass total;
  const Mass upto = BlockScan(mine, &total);
  if (upto > goal && upto - mine <= goal) place = {static_cast<int>(threadIdx.x), upto - mine};
  __syncthreads();
  const Place found = place;
  __syncthreads();
  return found;
}

// The tokens of at least the threshold as bits, a warp a word. REQUIRES: p is there for all threads
// of the block.
__device__ void WriteKept(const float* p, int64_t vocab, float threshold, uint32_t* kept) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t words = (vocab + 31) / 32;
  for (int64_t w = threadIdx.x / 32; w < words; w += kThreads / 32) {
    const int64_t j = w * 32 + lane;
    const uint32_t bits = __ballot_sync(0xFFFFFFFFu, j < vocab && p[j] >= threshold);
    if (lane == 0) kept[w] = bits;
  }
}

template <bool Vector>
__global__ void __launch_bounds__(kThreads)
    Sample(const float* logits, int64_t vocab, SamplingOptions o, const uint64_t* prompt,
           const uint32_t* sample, const int32_t* position, int32_t* token, float* logprob,
           float* scratch, int64_t stride, uint32_t* kept_sets) {
  const int64_t r = blockIdx.x;
  const float* x = logits + r * vocab;
  float* p = scratch + r * stride;
  const int thread = static_cast<int>(threadIdx.x);

  const bool greedy = o.temperature == 0;
  const float scale = greedy ? 1.0f : 1.0f / o.temperature;
  Strand<false> strands[1];
  const bool bad = AddStrands<1>([&](int64_t i) { return FourLogits<Vector>(x, i, vocab); }, vocab,
                                 scale, strands);
  const float top = RaiseStrands<1>(scale, strands);
  if (__syncthreads_or(bad || top == -INFINITY || top == INFINITY)) {
    if (thread == 0) {
      token[r] = -1;
      logprob[r] = 0;
    }
    return;
  }
  Mass whole = SumStrands<1>(strands);  // what the log-prob is taken of
  Mass total = 0;
  int first = INT32_MAX;  // of the tokens that share the top
#pragma unroll 8
  for (int64_t j = thread; j < vocab; j += kThreads) {
    const float v = expf((x[j] - top) * scale);
    if (x[j] == top) first = min(first, static_cast<int>(j));
    p[j] = v;
    total += Units(v);
  }
  total = BlockSum(total);
  if (greedy) {
    __shared__ int chosen;
    if (thread == 0) chosen = INT32_MAX;
    __syncthreads();
    if (first != INT32_MAX) atomicMin(&chosen, first);
    __syncthreads();
    if (kept_sets) WriteKept(p, vocab, 0, kept_sets + r * ((vocab + 31) / 32));
    if (thread == 0) {
      token[r] = chosen;
      logprob[r] = LogprobOf(top, top, scale, LogOfMass(whole));
    }
    return;
  }
  __syncthreads();  // p is read by other threads from here on

  float threshold = o.min_p;
  Mass kept = total;
  if (o.top_k > 0 && o.top_k < vocab) {
    const float lowest = Boundary<false>(p, vocab, static_cast<Mass>(o.top_k));
    if (o.top_p < 1.0f) kept = MassFrom(p, vocab, lowest);
    threshold = fmaxf(threshold, lowest);
  }
  if (o.top_p < 1.0f) {
    const auto goal = static_cast<Mass>(
        ceil(static_cast<double>(o.top_p) * static_cast<double>(kept) / kUnitsPerCoarse));
    threshold = fmaxf(threshold, Boundary<true>(p, vocab, goal > 0 ? goal : 1));
  }
  if (threshold > 0) {
    total = MassFrom(p, vocab, threshold);
    // As the learner has it: what is not kept is -infinity.
    Strand<false> kept_strands[1];
    AddStrands<1>(
        [&](int64_t i) {
          Few<4, float> four = FourLogits<Vector>(x, i, vocab);
#pragma unroll
          for (int u = 0; u < 4; ++u) {
            if (i + u < vocab && !(p[i + u] >= threshold)) four.x[u] = -INFINITY;
          }
          return four;
        },
        vocab, scale, kept_strands);
    RaiseStrands<1>(scale, kept_strands);
    whole = SumStrands<1>(kept_strands);
  }
  if (kept_sets) WriteKept(p, vocab, threshold, kept_sets + r * ((vocab + 31) / 32));

  // Inverse transform in vocabulary order: which warp's stretch, then which thread's share of it,
  // then which token.
  const Random4 bits = RandomAt(o.seed, prompt[r], sample[r], static_cast<uint32_t>(position[r]));
  Mass goal = static_cast<Mass>(UniformOpen(bits.x[0], bits.x[1]) * static_cast<double>(total));
  if (goal >= total) goal = total - 1;
  const int64_t stretch = (vocab + 31) / 32;
  const int warp = thread / 32;
  Mass mine = 0;
  for (int64_t j = warp * stretch + thread % 32; j < min(vocab, (warp + 1) * stretch); j += 32) {
    if (p[j] >= threshold) mine += Units(p[j]);
  }
  mine = WarpSum(mine);
  const Place where = Find(thread % 32 == 0 ? mine : 0, goal);
  const int64_t begin = where.thread / 32 * stretch, end = min(vocab, begin + stretch);
  const int64_t share = (stretch + kThreads - 1) / kThreads;
  goal -= where.before;
  const int64_t from = min(end, begin + thread * share), to = min(end, from + share);
  mine = 0;
  for (int64_t j = from; j < to; ++j) {
    if (p[j] >= threshold) mine += Units(p[j]);
  }
  const Place holder = Find(mine, goal);
  if (thread != holder.thread) return;
  Mass mass = holder.before;
  for (int64_t j = from; j < to; ++j) {
    if (!(p[j] >= threshold)) continue;
    mass += Units(p[j]);
    if (mass <= goal) continue;
    token[r] = static_cast<int32_t>(j);
    logprob[r] = LogprobOf(x[j], top, scale, LogOfMass(whole));
    return;
  }
}

}  // namespace

void SampleTokens::Cuda(const Launch& launch) const {
  if (rows == 0) return;
  if (vocab >= kMaxVocab)
    throw Error(ErrorCode::kUnsupported,
                "SampleTokens on CUDA: vocabularies end below 2^20 tokens");
  const int64_t stride = SamplingScratch(1, vocab) / static_cast<int64_t>(sizeof(float));
  const auto kernel = vocab % 4 == 0 && Aligned16(logits) ? Sample<true> : Sample<false>;
  kernel<<<static_cast<unsigned>(rows), kThreads, 0, StreamOf(launch)>>>(
      logits, vocab, options, prompt, sample, position, token, logprob,
      static_cast<float*>(scratch), stride, kept);
  CheckLaunch(kName);
}

}  // namespace plumb::kernels

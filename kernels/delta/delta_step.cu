#include "kernels/delta/delta_step.h"
#include "kernels/device/cuda_common.h"

namespace plumb::kernels {
namespace {

constexpr int kColumns = 64;  // of a state a block, a group of kShare threads each
constexpr int kShare = 4;     // threads that share the rows of a column

// out[i] = x[i] length / |x|, by a warp.
template <class T>
__device__ void LoadVector(const T* x, int32_t d, float length, float* out) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  float squares = 0;
  for (int32_t i = lane; i < d; i += 32) squares += ToFloat(x[i]) * ToFloat(x[i]);
  const float scale = length / sqrtf(WarpSum(squares) + kDeltaNormEps);
  for (int32_t i = lane; i < d; i += 32) out[i] = ToFloat(x[i]) * scale;
}

// The sum over the threads of a column, which lie side by side.
__device__ float ShareSum(float v) {
#pragma unroll
  for (int offset = 1; offset < kShare; offset *= 2) v += __shfl_xor_sync(0xFFFFFFFFu, v, offset);
  return v;
}

// blockIdx.x: the first row of a slot, whose rows follow it; y: the head; z: columns of its state.
template <class T>
__global__ void __launch_bounds__(kColumns* kShare) Step(DeltaStep d) {
  extern __shared__ float vectors[];  // q, k
  const DeltaShape& s = d.shape;
  const int32_t first = static_cast<int32_t>(blockIdx.x), head = static_cast<int32_t>(blockIdx.y),
                key_head = head / (s.v_heads / s.k_heads), v_pitch = (s.v_dim + 15) / 16 * 16;
  const int part = static_cast<int>(threadIdx.x % kShare);
  const int32_t column = static_cast<int32_t>(blockIdx.z * kColumns + threadIdx.x / kShare);
  const bool mine = column < s.v_dim;
  const auto out = [&](int32_t r) {
    return static_cast<T*>(d.out) + r * s.value_width() + int64_t{head} * s.v_dim + column;
  };
  if (RepeatsFirst(d.rows, first)) return;
  if (first > 0 && d.rows.slot[first - 1] == d.rows.slot[first]) return;
  float *q = vectors, *k = q + s.k_dim;
  float* state = d.states.data + d.rows.slot[first] * d.states.stride + d.offset +
                 head * s.state() + (mine ? column : 0);
  for (int32_t r = first; r < d.rows.rows && d.rows.slot[r] == d.rows.slot[first]; ++r) {
    if (RepeatsFirst(d.rows, r)) break;
    const T* row = static_cast<const T*>(d.qkv) + r * s.width();
    __syncthreads();  // the last row's vectors have been read
    if (threadIdx.x < 32) {
      LoadVector(row + int64_t{key_head} * s.k_dim, s.k_dim,
                 1.0f / sqrtf(static_cast<float>(s.k_dim)), q);
    } else if (threadIdx.x < 64) {
      LoadVector(row + s.key_width() + int64_t{key_head} * s.k_dim, s.k_dim, 1.0f, k);
    }
    __syncthreads();
    const int64_t at = int64_t{r} * s.v_heads + head;
    const float decay = expf(d.g[at]), beta = d.beta[at];
    const bool fresh = d.rows.position[r] == 0;
    float seen = 0;
    for (int32_t i = part; !fresh && mine && i < s.k_dim; i += kShare)
      seen += state[int64_t{i} * v_pitch] * decay * k[i];
    seen = ShareSum(seen);
    const float v =
        mine ? ToFloat(row[2 * s.key_width() + int64_t{head} * s.v_dim + column]) : 0.0f;
    const float update = (v - seen) * beta;
    float sum = 0;
    for (int32_t i = part; mine && i < s.k_dim; i += kShare) {
      float& held = state[int64_t{i} * v_pitch];
      const float x = (fresh ? 0.0f : held * decay) + update * k[i];
      held = x;
      sum += x * q[i];
    }
    sum = ShareSum(sum);
    if (mine && part == 0)
      ForRowAndRepeats(d.rows, r, [&](int32_t to) { *out(to) = FromFloat<T>(sum); });
  }
}

}  // namespace

void DeltaStep::Cuda(const Launch& launch) const {
  if (rows.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(rows.rows), static_cast<unsigned>(shape.v_heads),
                  static_cast<unsigned>((shape.v_dim + kColumns - 1) / kColumns));
  ForDType(launch.dtype, [&]<class T>(T) {
    Step<T><<<grid, kColumns * kShare, static_cast<size_t>(2 * shape.k_dim) * sizeof(float),
              StreamOf(launch)>>>(*this);
  });
  CheckLaunch(kName);
}

}  // namespace plumb::kernels

#include "kernels/delta/short_conv.h"

#include <algorithm>

#include "kernels/delta/tiles.h"
#include "kernels/device/cpu_common.h"

namespace plumb::kernels {
namespace {

// Sixteen channels, or the last ones, of all tokens are one thread's.
struct Block {
  int64_t first;
  int32_t channels;
};

template <class Body>
void ForEachBlock(const ShortConvShape& s, int64_t rows, const Body& body) {
  const int64_t blocks = (s.channels + kLanes - 1) / kLanes;
#pragma omp parallel for schedule(static) if (rows * s.channels > kParallelElements)
  for (int64_t i = 0; i < blocks; ++i) {
    body(Block{i * kLanes,
               static_cast<int32_t>(std::min<int64_t>(kLanes, s.channels - i * kLanes))});
  }
}

// The taps of a block's channels, a vector a tap.
template <class T>
PLUMB_INLINE void LoadTaps(const ShortConvShape& s, const void* w, Block block, FloatLanes* taps) {
  for (int32_t k = 0; k < s.taps; ++k) {
    float lanes[kLanes] = {};
    for (int32_t c = 0; c < block.channels; ++c)
      lanes[c] = ToFloat(static_cast<const T*>(w)[(block.first + c) * s.taps + k]);
    taps[k] = Load(lanes);
  }
}

PLUMB_INLINE FloatLanes Sigmoid(FloatLanes x) {
  float lanes[kLanes];
  Store(lanes, x);
#pragma omp simd
  for (int32_t i = 0; i < kLanes; ++i) lanes[i] = 1.0f / (1.0f + FastExp(-lanes[i]));
  return Load(lanes);
}

template <class T>
PLUMB_INLINE void StoreTo(FloatLanes x, int32_t n, T* to) {
  float lanes[kLanes];
  Store(lanes, x);
  NarrowTo(lanes, n, to);
}

// The token before `t` in its sequence `b`; -1: none.
PLUMB_INLINE int32_t Before(const ShortConvShape& s, int32_t t, int32_t& b) {
  if (t > s.cu_seqlens[b]) return t - 1;
  b = s.parents ? s.parents[b] : -1;
  return b < 0 ? -1 : s.cu_seqlens[b + 1] - 1;
}

// Sums of the taps over token t of sequence b and what comes before it; `x` is where the block's
// channels of token 0 lie.
template <class T>
PLUMB_INLINE FloatLanes Convolve(const ShortConvShape& s, const T* x, Block block,
                                 const FloatLanes* taps, int32_t t, int32_t b) {
  FloatLanes sum = {};
  for (int32_t k = s.taps - 1; k >= 0; --k) {
    sum += taps[k] * LoadUpTo(x + t * s.x_stride, block.channels);
    if (k == 0) break;
    t = Before(s, t, b);
    if (t < 0) break;
  }
  return sum;
}

template <class T>
void Forward(const ShortConv& d) {
  const ShortConvShape& s = d.shape;
  ForEachBlock(s, s.tokens, [&](Block block) {
    FloatLanes taps[kMostTaps];
    LoadTaps<T>(s, d.w, block, taps);
    const T* x = static_cast<const T*>(d.x) + block.first;
    T* y = static_cast<T*>(d.y) + block.first;
    for (int32_t b = 0; b < s.sequences; ++b) {
      for (int32_t t = s.cu_seqlens[b]; t < s.cu_seqlens[b + 1]; ++t) {
        FloatLanes sum = Convolve(s, x, block, taps, t, b);
        if (s.silu) sum = sum * Sigmoid(sum);
        StoreTo(sum, block.channels, y + t * s.y_stride);
      }
    }
  });
}

template <class T>
void Backward(const ShortConvBackward& d) {
  const ShortConvShape& s = d.shape;
  ForEachBlock(s, s.tokens, [&](Block block) {
    thread_local AlignedFloats memory;
    float* dsum = memory.Grow(s.tokens * kLanes);  // the gradient in front of act
    FloatLanes taps[kMostTaps], dtaps[kMostTaps] = {};
    LoadTaps<T>(s, d.w, block, taps);
    const T* x = static_cast<const T*>(d.x) + block.first;
    const T* dy = static_cast<const T*>(d.dy) + block.first;
    T* dx = static_cast<T*>(d.dx) + block.first;
    for (int32_t b = 0; b < s.sequences; ++b) {
      for (int32_t t = s.cu_seqlens[b]; t < s.cu_seqlens[b + 1]; ++t) {
        FloatLanes g = LoadUpTo(dy + t * s.y_stride, block.channels);
        if (s.silu) {
          const FloatLanes sum = Convolve(s, x, block, taps, t, b), gate = Sigmoid(sum);
          g = g * gate * (sum * (Broadcast(1.0f) - gate) + 1.0f);
        }
        Store(dsum + int64_t{t} * kLanes, g);
        int32_t of = b;
        for (int32_t k = s.taps - 1, from = t; k >= 0 && from >= 0; --k) {
          dtaps[k] += g * LoadUpTo(x + from * s.x_stride, block.channels);
          from = Before(s, from, of);
        }
      }
    }
    for (int32_t b = 0; b < s.sequences; ++b) {
      const int32_t end = s.cu_seqlens[b + 1];
      for (int32_t t = s.cu_seqlens[b]; t < end; ++t) {
        FloatLanes sum = {};
        const int32_t own = std::min(s.taps, end - t);
        for (int32_t k = 0; k < own; ++k)
          sum += taps[s.taps - 1 - k] * Load(dsum + int64_t{t + k} * kLanes);
        // And in what goes on from here.
        for (int32_t next = b + 1;
             own < s.taps && s.parents && next < s.sequences && s.parents[next] == b; ++next) {
          const int32_t begin = s.cu_seqlens[next], length = s.cu_seqlens[next + 1] - begin;
          for (int32_t k = own; k < s.taps && k - own < length; ++k)
            sum += taps[s.taps - 1 - k] * Load(dsum + int64_t{begin + k - own} * kLanes);
        }
        StoreTo(sum, block.channels, dx + t * s.x_stride);
      }
    }
    if (!d.dw) return;
    for (int32_t k = 0; k < s.taps; ++k) {
      for (int32_t c = 0; c < block.channels; ++c)
        d.dw[(block.first + c) * s.taps + k] += dtaps[k][c];
    }
  });
}

template <class T>
void Step(const ShortConvStep& d) {
  const ShortConvShape& s = d.shape;
  ForEachBlock(s, d.rows.rows, [&](Block block) {
    FloatLanes taps[kMostTaps];
    LoadTaps<T>(s, d.w, block, taps);
    for (int32_t r = 0; r < d.rows.rows; ++r) {
      float* state = d.states.data + d.rows.slot[r] * d.states.stride + d.offset + block.first;
      const FloatLanes x =
          LoadUpTo(static_cast<const T*>(d.x) + r * s.x_stride + block.first, block.channels);
      const int32_t there = std::min(d.rows.position[r], s.taps - 1);
      // As Convolve begins and goes on; nothing here is fused (kernels/CMakeLists.txt).
      FloatLanes sum = {};
      sum += taps[s.taps - 1] * x;
      FloatLanes newer = x;
      // From the newest to the oldest, as in a packed pass; each moves on by one place.
      for (int32_t k = s.taps - 2; k >= 0; --k) {
        float* at = state + k * s.channels;
        const FloatLanes held =
            s.taps - 1 - k <= there ? LoadUpTo(at, block.channels) : FloatLanes{};
        sum += taps[k] * held;
        StoreTo(newer, block.channels, at);
        newer = held;
      }
      if (s.silu) sum = sum * Sigmoid(sum);
      StoreTo(sum, block.channels, static_cast<T*>(d.y) + r * s.y_stride + block.first);
    }
  });
}

}  // namespace

void ShortConv::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Forward<T>(*this); });
}

void ShortConvBackward::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Backward<T>(*this); });
}

void ShortConvStep::Cpu(const Launch& launch) const {
  ForDType(launch.dtype, [&]<class T>(T) { Step<T>(*this); });
}

}  // namespace plumb::kernels

// AdamW over one tensor whose state is kept small: moments of 8 bits, and weights of 16 without a
// copy in float32.
//
// A block of kMomentBlock elements shares a scale, its largest magnitude. An element is stored as
// its share of that, in a floating-point number of 8 bits whose largest value stands for 1:
//   m   sign, 3 bits of exponent, 4 of fraction
//   v   4 bits of exponent, 4 of fraction
// Neighbouring values lie at most 1/16 of the smaller apart, down to 2^-7 (m) and 2^-15 (v) of the
// scale; below that they lie evenly, about 2^-11 and 2^-19 of the scale apart. A number between two
// of them becomes the upper with the probability of its distance from the lower, so that what is
// stored is right in the mean (rounding to the nearest is not: with beta2 = 0.999 a moment changes
// by less than half a step and would stay where it is for good). Only v has no 0 for what is not 0:
// below its smallest value it is that value, because a moment of 0 under a first moment that is not
// would be a step of any size. One rounding is off by less than max(1/16 of the number, the
// smallest step); over the moment's memory the errors add up to a standard deviation of at most
// (1/32) / sqrt(1 - beta^2) of it, 0.07 for m and 0.10 for v with the defaults. The step that is
// made uses the moments before they are rounded.
// Weights without a master take their step in float32 and are rounded up or down in the same way:
// steps smaller than the distance of two weights are made in the mean.
// Random numbers: a function of (seed, set, step, index of the element), on any number of
// threads and on both devices. On CUDA products and sums of a step may be rounded once where the
// CPU rounds twice, or the other way: a moment before it is rounded, and a scale, differ by a few
// units in the last place, so a stored code differs where its draw lies between the two, by one.
// Thread safety, alignment, errors: kernels/device/launch.h.
#pragma once

#include "kernels/device/launch.h"
#include "kernels/update/adamw.h"

namespace plumb::kernels {

inline constexpr int64_t kMomentBlock = 256;
constexpr int64_t MomentBlocks(int64_t n) { return (n + kMomentBlock - 1) / kMomentBlock; }

// One moment of n elements; either all of `exact` or the other two.
struct MomentState {
  float* exact = nullptr;    // [n]
  uint8_t* codes = nullptr;  // [n]
  float* scales = nullptr;   // [MomentBlocks(n)]
};

struct AdamwCompact {
  static constexpr const char* kName = "AdamwCompact (moments in int8, weights without masters)";
  // T[n], read and rounded at random where `master` is missing; else it receives the rounded
  // master, or is nullptr where T is float and the parameters are the master.
  void* param = nullptr;
  float* master = nullptr;  // [n]
  MomentState m, v;
  const void* grad = nullptr;  // [n] of grad_dtype
  DType grad_dtype = DType::kFloat32;
  bool decay = true;
  int64_t n = 0;
  AdamwOptions options;
  // The address of the draws; first: the tensor's place among the elements of its set, even.
  uint64_t seed = 0;
  uint32_t set = 0, draw_step = 0;
  int64_t first = 0;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// Of a set of tensors, one of them: where it begins in each of the set's buffers.
struct alignas(16) CompactTensor {
  int64_t at = 0;           // elements; even
  int64_t first_block = 0;  // of its moments, among those of the set
  int64_t n = 0;
  int64_t decay = 1;  // 0: none
};

// AdamwCompact of every tensor of a set, to the same bits, in one launch: most tensors are too
// small to be worth one.
struct AdamwCompactSet {
  static constexpr const char* kName = AdamwCompact::kName;
  // Of the whole set, from its beginning: its n and decay are not looked at, and `first` is the
  // place of the beginning, 0.
  AdamwCompact all;
  // [count], ascending, in the memory of the device; first_block without gaps, up to `blocks`.
  const CompactTensor* tensors = nullptr;
  int64_t count = 0, blocks = 0;
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// What a stored moment says: out[n]. `negative`: of m.
struct DecodeMoment {
  static constexpr const char* kName = "DecodeMoment (moments in int8)";
  MomentState from;
  bool negative = false;
  int64_t n = 0;
  float* out = nullptr;
  void Cpu(const Launch& launch) const;
};

}  // namespace plumb::kernels

// What timing products on a GPU needs of kernels: values to multiply, a busy stream, and a number
// that stands for the bits of a result. Only in a build with CUDA.
//
// Thread safety, errors: kernels/device/launch.h; all are enqueued on the launch's stream.
#pragma once

#include <cstdint>

#include "kernels/device/launch.h"

namespace plumb::kernels {

// T[count] in [-1, 1), by seed and place.
void FillForTiming(const Launch& launch, void* to, int64_t count, uint32_t seed);
// Adds to *sum (of the device) what changes when any bit of the first `bytes` of y, or its place,
// does; in no order. An even number of bytes.
void AddBitsOf(const Launch& launch, const void* y, int64_t bytes, uint64_t* sum);
// Keeps the stream busy, so that what is enqueued behind it follows without gaps.
void KeepBusy(const Launch& launch, int64_t nanoseconds);

}  // namespace plumb::kernels

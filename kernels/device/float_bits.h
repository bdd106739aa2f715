// The bits of a float as a number, and back, on either device.
//
// Purpose: codes of few bits are made of them (update/moment_codes.h, quantised/kv_codes.h).
// Thread safety: pure functions. Errors: none.
#pragma once

#include <bit>
#include <cstdint>

#include "common/base/dtype.h"

namespace plumb::kernels {

PLUMB_HOST_DEVICE inline uint32_t BitsOf(float x) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(x);
#else
  return std::bit_cast<uint32_t>(x);
#endif
}

PLUMB_HOST_DEVICE inline float FloatOf(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}

}  // namespace plumb::kernels

// Sums and products of sizes that come from outside. Thread safety: pure. Errors: kCorruption naming `what`.
#pragma once

#include <cstdint>
#include <string>

#include "common/error.h"

namespace plumb {

inline uint64_t CheckedAdd(uint64_t a, uint64_t b, const std::string& what) {
  uint64_t out = 0;
  if (__builtin_add_overflow(a, b, &out)) throw Error(ErrorCode::kCorruption, what + " is too large");
  return out;
}

inline uint64_t CheckedMul(uint64_t a, uint64_t b, const std::string& what) {
  uint64_t out = 0;
  if (__builtin_mul_overflow(a, b, &out)) throw Error(ErrorCode::kCorruption, what + " is too large");
  return out;
}

}  // namespace plumb

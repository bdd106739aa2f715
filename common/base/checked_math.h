// Sums and products of sizes that come from a file or a peer: overflow is an Error(kCorruption),
// never a small number.
// Thread safety: pure functions.
#pragma once

#include <concepts>
#include <string>
#include <type_traits>

#include "common/base/error.h"

namespace plumb {

// `what` names the quantity in the error, e.g. "bytes of tensor 'wq'".
template <std::integral T>
T CheckedAdd(T a, std::type_identity_t<T> b, const char* what = "size") {
  T out;
  if (__builtin_add_overflow(a, b, &out)) {
    throw Error(ErrorCode::kCorruption,
                std::string(what) + " overflows: " + std::to_string(a) + " + " + std::to_string(b));
  }
  return out;
}

template <std::integral T>
T CheckedMul(T a, std::type_identity_t<T> b, const char* what = "size") {
  T out;
  if (__builtin_mul_overflow(a, b, &out)) {
    throw Error(ErrorCode::kCorruption,
                std::string(what) + " overflows: " + std::to_string(a) + " * " + std::to_string(b));
  }
  return out;
}

}  // namespace plumb

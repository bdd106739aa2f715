// The error of a CUDA call, thrown. Included where PLUMB_CUDA is set. Thread safety: pure function.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "common/base/error.h"

namespace plumb::kernels {

// What failed in a kernel enqueued before shows at a later call, whichever that is.
inline void CheckCuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // said here, and not again at the next launch
  const auto code = error == cudaErrorMemoryAllocation ? ErrorCode::kUnavailable : ErrorCode::kIo;
  throw Error(code, std::string("CUDA refused ") + what + ": " + cudaGetErrorString(error));
}

}  // namespace plumb::kernels

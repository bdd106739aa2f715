// How a kernel is called.
//
// Purpose: kernels take raw pointers, sizes and a Launch that says where they run and on which element type. Every
// kernel x is x.h (this contract), x_cpu.cc (the CPU reference, compiled into the product, and the dispatcher) and x.cu.
// Thread safety: kernels keep no state; calls on distinct outputs may run concurrently. On the CPU a kernel returns
// when done and uses OpenMP over rows, each row always computed by the same sequence of operations (results do not
// depend on the number of rows or threads). On CUDA it is enqueued on `stream` and returns at once; no allocation, no
// host synchronisation, so every launch can be captured in a graph.
// Errors: kUnsupported when device is kCuda and this build has no CUDA; launch failures throw kInternal-like kIo.
// Element types: T is float or BFloat16 (Launch::dtype); arithmetic inside is fp32. Pointers marked T are `void*`.
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace plumb {

// Do not change the values of existing entries.
enum class Device : uint8_t { kCpu = 0, kCuda = 1 };

namespace kernels {

struct Launch {
  Device device = Device::kCpu;
  DType dtype = DType::kFloat32;  // T
  void* stream = nullptr;         // cudaStream_t; nullptr: the legacy default stream. Unused on the CPU.
};

// True when this build has CUDA kernels and a device answers.
bool CudaAvailable();

}  // namespace kernels
}  // namespace plumb

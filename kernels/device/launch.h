// How a kernel is called.
//
// Purpose: a kernel is a struct of its arguments with its implementations as members: `Cpu` in
// x_cpu.cc (compiled into every build; the reference of the other) and `Cuda` in x.cu. Arguments
// are raw pointers and sizes with names, so a call reads like a sentence, and one declaration keeps
// both implementations in step:
//
//   Call(launch, RmsNorm{.x = x, .w = w, .rows = n, .hidden = h, .eps = 1e-5f, .y = y});
//
// Thread safety: kernels keep no state; calls on distinct outputs may run concurrently. On the CPU
// a kernel returns when done and uses OpenMP over rows, each row always computed by the same
// sequence of operations (results do not depend on the number of rows or threads). On CUDA it is
// enqueued on Launch::stream and returns at once; no allocation, no host synchronisation, so every
// launch can be captured in a graph.
// Ownership: none; buffers belong to the caller and lie in the memory of the stream's device.
// Alignment: any that the element type has. CUDA kernels are faster where pointers and rows start
// on 16 bytes.
// Errors: kUnsupported on a GPU when this build has no CUDA kernel for it; a launch that CUDA
// refuses: kIo.
// Element types: T is float or BFloat16 (Launch::dtype); arithmetic inside is fp32. Pointers marked
// T are `void*`.
#pragma once

#include <string>

#include "common/base/dtype.h"
#include "common/base/error.h"
#include "kernels/device/stream.h"

namespace plumb::kernels {

struct Launch {
  Stream stream = Device::kCpu;
  DType dtype = DType::kFloat32;  // T

  Device device() const { return stream.device(); }
};

[[noreturn]] inline void NoCuda(const char* kernel) {
  throw Error(
      ErrorCode::kUnsupported,
      std::string(kernel) +
          ": this build has no CUDA kernel for it; use the cuda preset, or run.device = \"cpu\"");
}

template <class K>
concept Kernel = requires(const K& kernel, const Launch& launch) {
  kernel.Cpu(launch);
  K::kName;
};

// Kernels without a CUDA implementation have no such member: there LibTorch does it, in
// policy_model.
template <class K>
concept CudaKernel = Kernel<K> && requires(const K& kernel, const Launch& launch) {
  kernel.Cuda(launch);
};

template <Kernel K>
void Call(const Launch& launch, const K& kernel) {
  if (launch.device().is_cpu()) {
    kernel.Cpu(launch);
    return;
  }
#ifdef PLUMB_CUDA
  if constexpr (CudaKernel<K>) {
    const OnDevice here(launch.device());
    kernel.Cuda(launch);
    return;
  }
#endif
  NoCuda(K::kName);
}

}  // namespace plumb::kernels

#include "kernels/device/device_memory.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "common/base/error.h"
#include "kernels/device/launch.h"
#ifdef PLUMB_CUDA
#include "kernels/device/cuda_check.h"
#endif

namespace plumb::kernels {

void Copy(const Stream& stream, void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  if (stream.device().is_cpu()) {
    std::memcpy(to, from, bytes);
    return;
  }
#ifdef PLUMB_CUDA
  CheckCuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault,
                            static_cast<cudaStream_t>(stream.handle())),
            "a copy");
#else
  NoCuda("Copy");
#endif
}

void Zero(const Stream& stream, void* data, size_t bytes) {
  if (bytes == 0) return;
  if (stream.device().is_cpu()) {
    std::memset(data, 0, bytes);
    return;
  }
#ifdef PLUMB_CUDA
  const OnDevice here(stream.device());
  CheckCuda(cudaMemsetAsync(data, 0, bytes, static_cast<cudaStream_t>(stream.handle())),
            "to zero memory");
#else
  NoCuda("Zero");
#endif
}

void CopyAndWait(const Stream& stream, void* to, const void* from, size_t bytes) {
  Copy(stream, to, from, bytes);
  stream.Synchronize();
}

HostMemory MakeHostMemory(const Stream& stream, size_t bytes) {
  void* made = nullptr;
#ifdef PLUMB_CUDA
  if (stream.device().is_cuda()) {
    const OnDevice here(stream.device());
    CheckCuda(cudaHostAlloc(&made, bytes + 1, cudaHostAllocPortable),
              "page-locked memory of the host");
    std::memset(made, 0, bytes);
    return {static_cast<std::byte*>(made), [](void* memory) { cudaFreeHost(memory); }};
  }
#endif
  PLUMB_CHECK(stream.device().is_cpu());
  made = std::calloc(bytes + 1, 1);  // one byte more: calloc(0) may be nullptr
  if (made == nullptr) throw std::bad_alloc();
  return {static_cast<std::byte*>(made), &std::free};
}

namespace {

struct CardBytes {
  int64_t free = 0, total = 0;  // both 0 where there is no such card
};

CardBytes BytesOfCard([[maybe_unused]] Device device) {
#ifdef PLUMB_CUDA
  if (device.is_cuda() && device.ordinal < CudaDevices()) {
    const OnDevice here(device);
    size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) == cudaSuccess)
      return {static_cast<int64_t>(free), static_cast<int64_t>(total)};
    cudaGetLastError();  // a missing device must not surface at the next launch
  }
#endif
  return {};
}

}  // namespace

int64_t DeviceBytesInUse(Device device) {
  const CardBytes card = BytesOfCard(device);
  return card.total - card.free;
}

int64_t DeviceBytesFree(Device device) { return BytesOfCard(device).free; }

}  // namespace plumb::kernels

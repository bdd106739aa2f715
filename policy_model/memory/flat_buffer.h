// One run of memory on a device: parameters, gradients, moments, activations.
//
// Thread safety: readers may share a const object; writers need it alone. Ownership: a FlatBuffer
// owns its memory and borrows the stream it was made on, which it is zeroed and copied on; who
// works on it elsewhere waits for that stream first. Its memory is the device's, or (InHostMemory)
// the host's beside a device.
// Errors: kUnsupported for memory that would have to be taken while a step is captured in a graph;
// kIo where memory ends, with how much was asked for (policy_model/memory/out_of_memory.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "common/base/dtype.h"
#include "kernels/device/stream.h"

namespace plumb::policy_model {

// `elements` of `dtype` on the stream's device, 4 KiB aligned, zeroed.
class FlatBuffer {
 public:
  FlatBuffer() = default;
  FlatBuffer(const Stream& stream, DType dtype, int64_t elements);
  // Only its type and size: a plan of what would be there. data() is nullptr.
  static FlatBuffer WithoutMemory(const Stream& stream, DType dtype, int64_t elements);
  // In memory of the host that the stream's device copies from and to while both work
  // (kernels/device/device_memory.h); data() is an address of the host.
  static FlatBuffer InHostMemory(const Stream& stream, DType dtype, int64_t elements);
  ~FlatBuffer();
  FlatBuffer(FlatBuffer&& other) noexcept;
  FlatBuffer& operator=(FlatBuffer&& other) noexcept;

  const Stream& stream() const { return stream_; }
  Device device() const { return stream_.device(); }
  bool in_host_memory() const { return in_host_memory_; }
  DType dtype() const { return dtype_; }
  int64_t elements() const { return elements_; }
  size_t bytes() const { return static_cast<size_t>(elements_) * ElementSize(dtype_); }
  void* data() { return data_; }
  const void* data() const { return data_; }
  float* f32() { return static_cast<float*>(data_); }  // REQUIRES: dtype() == kFloat32
  const float* f32() const { return static_cast<const float*>(data_); }
  // Address of element `offset`.
  void* at(int64_t offset) {
    return static_cast<std::byte*>(data_) + static_cast<size_t>(offset) * ElementSize(dtype_);
  }
  const void* at(int64_t offset) const {
    return static_cast<const std::byte*>(data_) + static_cast<size_t>(offset) * ElementSize(dtype_);
  }
  void Zero();
  // To and from host memory, from element `first` on; waits for the stream. REQUIRES: whole
  // elements, within the buffer.
  void CopyToHost(std::span<std::byte> out, int64_t first = 0) const;
  void CopyFromHost(std::span<const std::byte> in, int64_t first = 0);

 private:
  Stream stream_ = Device::kCpu;
  DType dtype_ = DType::kFloat32;
  bool in_host_memory_ = false;
  int64_t elements_ = 0;
  void* data_ = nullptr;
  std::shared_ptr<void> owner_;
};

// What LibTorch's allocator keeps of a GPU's memory and nobody has any more goes back to the card;
// waits for the card. Nothing on the CPU. For who takes another size than before, once: a buffer
// that grew would leave its old memory to nobody.
void GiveBackUnused(const Stream& stream);

// Converts n elements between float and another type, in host memory.
void ConvertFloat(std::span<const float> in, DType dtype, void* out);
void ConvertToFloat(const void* in, DType dtype, std::span<float> out);

}  // namespace plumb::policy_model

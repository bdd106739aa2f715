#include "policy_model/flat_buffer.h"

#include <ATen/ATen.h>

#include <cstring>
#include <utility>

#include "common/error.h"

namespace plumb::policy_model {
namespace {

at::ScalarType TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return at::kFloat;
    case DType::kBFloat16: return at::kBFloat16;
    case DType::kFloat16: return at::kHalf;
    case DType::kInt32: return at::kInt;
    case DType::kInt64: return at::kLong;
  }
  return at::kFloat;
}

at::Tensor Bytes(const void* data, size_t bytes, Device device) {
  return at::from_blob(const_cast<void*>(data), {static_cast<int64_t>(bytes)},
                       at::TensorOptions().dtype(at::kByte).device(device == Device::kCuda ? at::kCUDA : at::kCPU));
}

at::Tensor OnHost(const void* data, int64_t n, DType dtype) {
  return at::from_blob(const_cast<void*>(data), {n}, at::TensorOptions().dtype(TypeOf(dtype)).device(at::kCPU));
}

}  // namespace

FlatBuffer::FlatBuffer(Device device, DType dtype, int64_t elements) : device_(device), dtype_(dtype), elements_(elements) {
  if (device == Device::kCuda && !kernels::CudaAvailable()) {
    throw Error(ErrorCode::kUnsupported, "this build has no CUDA or no GPU answers: use the CPU, and see plumb doctor");
  }
  const c10::InferenceMode guard;
  const auto options = at::TensorOptions().dtype(at::kByte).device(device == Device::kCuda ? at::kCUDA : at::kCPU);
  // 4 KiB alignment: over-allocate and shift.
  auto tensor = std::make_shared<at::Tensor>(at::zeros({static_cast<int64_t>(bytes()) + 4096}, options));
  const auto address = reinterpret_cast<uintptr_t>(tensor->data_ptr());
  data_ = reinterpret_cast<void*>((address + 4095) / 4096 * 4096);
  owner_ = std::move(tensor);
}

FlatBuffer::~FlatBuffer() = default;

FlatBuffer::FlatBuffer(FlatBuffer&& other) noexcept { *this = std::move(other); }

FlatBuffer& FlatBuffer::operator=(FlatBuffer&& other) noexcept {
  device_ = other.device_;
  dtype_ = other.dtype_;
  elements_ = std::exchange(other.elements_, 0);
  data_ = std::exchange(other.data_, nullptr);
  owner_ = std::move(other.owner_);
  return *this;
}

void FlatBuffer::Zero() {
  if (device_ == Device::kCpu) {
    std::memset(data_, 0, bytes());
    return;
  }
  const c10::InferenceMode guard;
  Bytes(data_, bytes(), device_).zero_();
}

void FlatBuffer::CopyToHost(std::span<std::byte> out, int64_t first) const {
  PLUMB_CHECK(static_cast<size_t>(first) * ElementSize(dtype_) + out.size() <= bytes());
  if (out.empty()) return;
  if (device_ == Device::kCpu) {
    std::memcpy(out.data(), at(first), out.size());
    return;
  }
  const c10::InferenceMode guard;
  Bytes(out.data(), out.size(), Device::kCpu).copy_(Bytes(at(first), out.size(), device_));
}

void FlatBuffer::CopyFromHost(std::span<const std::byte> in, int64_t first) {
  PLUMB_CHECK(static_cast<size_t>(first) * ElementSize(dtype_) + in.size() <= bytes());
  if (in.empty()) return;
  if (device_ == Device::kCpu) {
    std::memcpy(at(first), in.data(), in.size());
    return;
  }
  const c10::InferenceMode guard;
  Bytes(at(first), in.size(), device_).copy_(Bytes(in.data(), in.size(), Device::kCpu));
}

void ConvertFloat(std::span<const float> in, DType dtype, void* out) {
  const c10::InferenceMode guard;
  const auto n = static_cast<int64_t>(in.size());
  OnHost(out, n, dtype).copy_(OnHost(in.data(), n, DType::kFloat32));
}

void ConvertToFloat(const void* in, DType dtype, std::span<float> out) {
  const c10::InferenceMode guard;
  const auto n = static_cast<int64_t>(out.size());
  OnHost(out.data(), n, DType::kFloat32).copy_(OnHost(in, n, dtype));
}

}  // namespace plumb::policy_model

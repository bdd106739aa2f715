#include "policy_model/memory/flat_buffer.h"

#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <sys/mman.h>

#include <cstring>
#include <utility>

#include "common/base/error.h"
#include "kernels/device/device_memory.h"
#include "policy_model/memory/out_of_memory.h"
#include "policy_model/memory/torch_stream.h"

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

at::Tensor OnHost(const void* data, int64_t n, DType dtype) {
  return at::from_blob(const_cast<void*>(data), {n},
                       at::TensorOptions().dtype(TypeOf(dtype)).device(at::kCPU));
}

// A step reads every weight once: with entries of 4 KiB the address translation costs as much as
// the data does (docs/benchmarks.md). Advice only, before the first byte is written.
void AskForHugePages(void* data, size_t bytes) {
  constexpr uintptr_t kPage = 4096;
  const auto begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage,
             end = (reinterpret_cast<uintptr_t>(data) + bytes) / kPage * kPage;
  if (bytes >= (size_t{4} << 20))
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

}  // namespace

FlatBuffer::FlatBuffer(const Stream& stream, DType dtype, int64_t elements)
    : stream_(stream), dtype_(dtype), elements_(elements) {
  if (stream.capturing()) {
    throw Error(
        ErrorCode::kUnsupported,
        "a step that takes memory cannot be captured: run it once before, at the same sizes");
  }
  const c10::InferenceMode guard;
  const OnStream on(stream);
  const auto options = at::TensorOptions().dtype(at::kByte).device(TorchDevice(device()));
  std::shared_ptr<at::Tensor> tensor;
  try {
    // 4 KiB alignment: over-allocate and shift.
    tensor =
        std::make_shared<at::Tensor>(at::empty({static_cast<int64_t>(bytes()) + 4096}, options));
    if (device().is_cpu()) AskForHugePages(tensor->data_ptr(), tensor->nbytes());
    tensor->zero_();
  } catch (...) {
    RethrowOutOfMemory(device(), static_cast<int64_t>(bytes()));
  }
  const auto address = reinterpret_cast<uintptr_t>(tensor->data_ptr());
  data_ = reinterpret_cast<void*>((address + 4095) / 4096 * 4096);
  owner_ = std::move(tensor);
}

FlatBuffer FlatBuffer::WithoutMemory(const Stream& stream, DType dtype, int64_t elements) {
  FlatBuffer out;
  out.stream_ = stream;
  out.dtype_ = dtype;
  out.elements_ = elements;
  return out;
}

FlatBuffer FlatBuffer::InHostMemory(const Stream& stream, DType dtype, int64_t elements) {
  FlatBuffer out = WithoutMemory(stream, dtype, elements);
  out.in_host_memory_ = true;
  std::shared_ptr<std::byte> memory = kernels::MakeHostMemory(stream, out.bytes() + 4096);
  const auto address = reinterpret_cast<uintptr_t>(memory.get());
  out.data_ = reinterpret_cast<void*>((address + 4095) / 4096 * 4096);
  out.owner_ = std::move(memory);
  return out;
}

FlatBuffer::~FlatBuffer() = default;

FlatBuffer::FlatBuffer(FlatBuffer&& other) noexcept { *this = std::move(other); }

FlatBuffer& FlatBuffer::operator=(FlatBuffer&& other) noexcept {
  stream_ = other.stream_;
  dtype_ = other.dtype_;
  elements_ = std::exchange(other.elements_, 0);
  in_host_memory_ = other.in_host_memory_;
  data_ = std::exchange(other.data_, nullptr);
  owner_ = std::move(other.owner_);
  return *this;
}

void FlatBuffer::Zero() {
  if (!in_host_memory_) return kernels::Zero(stream_, data_, bytes());
  stream_.Synchronize();
  std::memset(data_, 0, bytes());
}

void FlatBuffer::CopyToHost(std::span<std::byte> out, int64_t first) const {
  PLUMB_CHECK(static_cast<size_t>(first) * ElementSize(dtype_) + out.size() <= bytes());
  if (!in_host_memory_) return kernels::CopyAndWait(stream_, out.data(), at(first), out.size());
  stream_.Synchronize();
  if (!out.empty()) std::memcpy(out.data(), at(first), out.size());
}

void FlatBuffer::CopyFromHost(std::span<const std::byte> in, int64_t first) {
  PLUMB_CHECK(static_cast<size_t>(first) * ElementSize(dtype_) + in.size() <= bytes());
  if (!in_host_memory_) return kernels::CopyAndWait(stream_, at(first), in.data(), in.size());
  stream_.Synchronize();
  if (!in.empty()) std::memcpy(at(first), in.data(), in.size());
}

void GiveBackUnused(const Stream& stream) {
  if (stream.device().is_cpu()) return;
  at::getDeviceAllocator(TorchDevice(stream.device()).type())->emptyCache();
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

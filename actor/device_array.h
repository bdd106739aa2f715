// An array that host and device both see: on the CPU one and the same memory, on a device a pair
// with explicit copies.
//
// Copies are enqueued on the stream and not waited for: what the host wrote before Upload, and what
// it reads after Download, is its own again once the stream was waited for.
// Thread safety: that of the stream. Ownership: owns both sides. Allocation: only in the
// constructor.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/device/device_memory.h"
#include "policy_model/memory/flat_buffer.h"

namespace plumb::actor {

template <class T>
class DeviceArray {
 public:
  DeviceArray(const Stream& stream, size_t n)
      : stream_(stream),
        size_((n * sizeof(T) + kWord - 1) / kWord * kWord / sizeof(T)),
        host_(kernels::MakeHostMemory(stream, size_ * sizeof(T))) {
    if (stream.device().is_cuda()) {
      memory_ = policy_model::FlatBuffer(stream, DType::kInt32,
                                         static_cast<int64_t>(size_ * sizeof(T) / sizeof(int32_t)));
    }
  }

  T* host() { return reinterpret_cast<T*>(host_.get()); }
  T& operator[](size_t i) { return host()[i]; }
  // What kernels get.
  T* device() { return stream_.device().is_cpu() ? host() : static_cast<T*>(memory_.data()); }
  // Of all elements, or of the first n.
  void Upload() { Upload(size_); }
  void Upload(size_t n) { Move(device(), host(), n); }
  void Download() { Download(size_); }
  void Download(size_t n) { Move(host(), device(), n); }
  size_t size() const { return size_; }  // rounded up to whole words

 private:
  void Move(T* to, const T* from, size_t n) {
    if (to != from) kernels::Copy(stream_, to, from, n * sizeof(T));
  }

  static constexpr size_t kWord = 8;  // a multiple of every element, so that no tail is left out
  const Stream stream_;
  const size_t size_;
  kernels::HostMemory host_;
  policy_model::FlatBuffer memory_;  // not on the CPU
};

}  // namespace plumb::actor

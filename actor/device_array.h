// An array that host and device both see: on the CPU one and the same memory, on a device a pair with explicit copies.
//
// Thread safety: none. Ownership: owns both sides. Allocation: only in the constructor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "policy_model/weights.h"

namespace plumb::actor {

template <class T>
class DeviceArray {
 public:
  DeviceArray(Device device, size_t n)
      : host_((n * sizeof(T) + kWord - 1) / kWord * kWord / sizeof(T)), on_device_(device != Device::kCpu) {
    if (on_device_) {
      memory_ = policy_model::FlatBuffer(device, DType::kInt32, static_cast<int64_t>(host_.size() * sizeof(T) / sizeof(int32_t)));
    }
  }

  T* host() { return host_.data(); }
  T& operator[](size_t i) { return host_[i]; }
  // What kernels get.
  T* device() { return on_device_ ? static_cast<T*>(memory_.data()) : host_.data(); }
  // Nothing to do on the CPU; else copies all of it and waits.
  void Upload() {
    if (on_device_) memory_.CopyFromHost(std::as_bytes(std::span<const T>(host_)));
  }
  void Download() {
    if (on_device_) memory_.CopyToHost(std::as_writable_bytes(std::span<T>(host_)));
  }
  // The first n elements only.
  void Download(size_t n) {
    if (on_device_) memory_.CopyToHost(std::as_writable_bytes(std::span<T>(host_).first(n)));
  }
  size_t size() const { return host_.size(); }  // rounded up to whole words

 private:
  static constexpr size_t kWord = 8;  // a multiple of every element, so that no tail is left out
  std::vector<T> host_;
  bool on_device_;
  policy_model::FlatBuffer memory_;
};

}  // namespace plumb::actor

// Scratch memory of a Transformer: named regions laid end to end in one buffer that only grows.
//
// Thread safety: one thread. Ownership: owns the buffer; views are valid until the next Plan that grows it.
#pragma once

#include <cstdint>

#include "policy_model/weights.h"

namespace plumb::policy_model {

class Arena {
 public:
  explicit Arena(Device device) : device_(device) {}

  // Starts a plan; Take hands out offsets; Commit makes the memory.
  void Begin() { used_ = 0; }
  int64_t Take(int64_t bytes) {
    const int64_t at = used_;
    used_ += (bytes + 255) / 256 * 256;
    return at;
  }
  void Commit() {
    if (used_ > static_cast<int64_t>(buffer_.bytes())) {
      buffer_ = FlatBuffer();  // old memory goes first
      buffer_ = FlatBuffer(device_, DType::kFloat32, (used_ + used_ / 8) / 4 + 1);
    }
  }
  void* At(int64_t offset) { return static_cast<std::byte*>(buffer_.data()) + offset; }
  int64_t bytes() const { return static_cast<int64_t>(buffer_.bytes()); }

 private:
  Device device_;
  FlatBuffer buffer_;
  int64_t used_ = 0;
};

}  // namespace plumb::policy_model

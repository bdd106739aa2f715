// Scratch memory of a Transformer: named regions laid end to end in one buffer that only grows.
//
// Begin, Reserve regions, Commit; then At gives their addresses. What lives one after the other may
// share memory: Mark before the first, Rewind to it before each further one; the arena is as long
// as the longest of them.
// Thread safety: one thread. Ownership: owns the buffer; views are valid until the next Commit that
// grows it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "policy_model/memory/flat_buffer.h"

namespace plumb::policy_model {

class Arena {
 public:
  explicit Arena(const Stream& stream) : stream_(stream) {}
  // Only counts: for who wants to know how long it would be. At must not be called.
  static Arena WithoutMemory(const Stream& stream) {
    Arena arena(stream);
    arena.backed_ = false;
    return arena;
  }

  void Begin() { used_ = longest_ = 0; }
  int64_t Reserve(int64_t bytes) {
    const int64_t at = used_;
    used_ += (bytes + 255) / 256 * 256;
    longest_ = std::max(longest_, used_);
    return at;
  }
  int64_t Mark() const { return used_; }
  void Rewind(int64_t mark) { used_ = mark; }
  void Commit() {
    if (longest_ > static_cast<int64_t>(buffer_.bytes())) {
      const bool grows = buffer_.bytes() > 0;
      buffer_ = FlatBuffer();  // old memory goes first
      if (backed_ && grows) GiveBackUnused(stream_);
      const int64_t floats = (longest_ + longest_ / 8) / 4 + 1;
      buffer_ = backed_ ? FlatBuffer(stream_, DType::kFloat32, floats)
                        : FlatBuffer::WithoutMemory(stream_, DType::kFloat32, floats);
    }
  }
  void* At(int64_t offset) { return static_cast<std::byte*>(buffer_.data()) + offset; }
  float* Floats(int64_t offset) { return static_cast<float*>(At(offset)); }
  int64_t bytes() const { return static_cast<int64_t>(buffer_.bytes()); }

 private:
  Stream stream_;
  FlatBuffer buffer_;
  bool backed_ = true;
  int64_t used_ = 0, longest_ = 0;
};

}  // namespace plumb::policy_model

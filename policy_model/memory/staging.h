// Small host arrays on their way to the device: indices, targets, gradients of a call.
//
// Begin, Add each array, Commit; then At gives the addresses that kernels take. On the CPU the
// arrays are used where they lie: they have to stay alive until the next Begin. On a device all of
// them travel in one copy.
// Thread safety: one thread. Ownership: owns the device's side only. Allocation: only when a call
// needs more than any before.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "policy_model/memory/flat_buffer.h"

namespace plumb::policy_model {

class Staging {
 public:
  explicit Staging(const Stream& stream) : stream_(stream) {}

  void Begin();
  // Arrays of 4-byte elements; returns the array's number.
  int Add(std::span<const int32_t> values) { return AddWords(values.data(), values.size()); }
  int Add(std::span<const float> values) { return AddWords(values.data(), values.size()); }
  void Commit();

  const int32_t* Ints(int number) const { return static_cast<const int32_t*>(At(number)); }
  const float* Floats(int number) const { return static_cast<const float*>(At(number)); }

 private:
  int AddWords(const void* data, size_t words);
  const void* At(int number) const { return places_[static_cast<size_t>(number)]; }

  Stream stream_;
  std::vector<const void*> places_;  // host addresses until Commit
  std::vector<size_t> begins_;       // in words, of the device's copy
  std::vector<int32_t> host_;
  FlatBuffer memory_;
};

}  // namespace plumb::policy_model

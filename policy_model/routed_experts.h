// The experts that tokens are told to take and have taken, between the host, which records them,
// and a GPU, which chooses.
//
// Purpose: on the CPU both are arrays that the stages of experts read and write in place
// (layers/routing.h). On a GPU what a pass is told lies there before it begins, and what a step of
// generation has taken comes back with what was drawn: the copy is part of the step, so that it can
// be recorded, and is there when the step's stream has been waited for.
// Thread safety, ownership: of the transformer's. Errors: kernels/device/device_memory.h.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/device/device_memory.h"
#include "policy_model/layers/routing.h"
#include "policy_model/memory/flat_buffer.h"

namespace plumb::policy_model {

class RoutedExperts {
 public:
  explicit RoutedExperts(const Stream& stream)
      : stream_(stream), taken_(kernels::MakeHostMemory(stream, 0)) {}

  // Before a pass of `rows` tokens. `told`: [rows, layers with experts, K], or empty.
  void Begin(Routing& routing, std::span<const int32_t> told, int64_t rows, int64_t per_token);
  // A step's own, on a GPU: where its stages write what they take, and, behind them, the copy.
  void BeginStep(Routing& routing, void* there) const;
  void EndStep(const Routing& routing);
  // What the last pass took. On a GPU: of steps only, and in front of what is left of longer ones,
  // because a step that is replayed does not say how many rows it has.
  std::span<const int32_t> taken(const Routing& routing) const;

 private:
  const Stream stream_;
  FlatBuffer told_;  // on a GPU
  kernels::HostMemory taken_;
  size_t room_ = 0,
         there_ = 0;  // numbers that taken_ has room for, and those of the last pass begun
};

}  // namespace plumb::policy_model

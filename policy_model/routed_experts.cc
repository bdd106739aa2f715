#include "policy_model/routed_experts.h"

#include <algorithm>

namespace plumb::policy_model {

void RoutedExperts::Begin(Routing& routing, std::span<const int32_t> told, int64_t rows,
                          int64_t per_token) {
  const bool on_cpu = stream_.device().is_cpu();
  const int32_t* there = nullptr;
  if (!on_cpu && !told.empty()) {
    const auto n = static_cast<int64_t>(told.size());
    if (told_.elements() < n) told_ = FlatBuffer(stream_, DType::kInt32, n);
    told_.CopyFromHost(std::as_bytes(told));
    there = static_cast<const int32_t*>(told_.data());
  }
  routing.Begin(told, rows, per_token, on_cpu, there);
  there_ = on_cpu ? 0 : routing.Choices(rows, per_token);
}

void RoutedExperts::BeginStep(Routing& routing, void* there) const {
  if (stream_.device().is_cuda() && there_ > 0) routing.taken_there = static_cast<int32_t*>(there);
}

void RoutedExperts::EndStep(const Routing& routing) {
  if (!routing.taken_there) return;
  if (room_ < there_) {
    // Twice as much, because a recorded step goes on writing to where this lies.
    room_ = std::max(there_, 2 * room_);
    taken_ = kernels::MakeHostMemory(stream_, room_ * sizeof(int32_t));
  }
  kernels::Copy(stream_, taken_.get(), routing.taken_there, there_ * sizeof(int32_t));
}

std::span<const int32_t> RoutedExperts::taken(const Routing& routing) const {
  if (stream_.device().is_cpu()) return routing.taken;
  return {reinterpret_cast<const int32_t*>(taken_.get()), room_};
}

}  // namespace plumb::policy_model

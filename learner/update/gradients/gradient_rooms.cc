#include "learner/update/gradients/gradient_rooms.h"

#include <algorithm>

#include "common/base/error.h"
#include "kernels/update/narrow_gradients.h"

namespace plumb::learner {

using policy_model::FlatBuffer;

int64_t GradientRoomElements(const std::vector<int64_t>& ends, bool tied) {
  const int64_t head = ends.front(),
                embedding = ends.size() < 2 ? 0 : ends.back() - ends[ends.size() - 2];
  int64_t largest = std::max(head + (tied ? embedding : 0), embedding);
  for (size_t i = 1; i + 1 < ends.size(); ++i) largest = std::max(largest, ends[i] - ends[i - 1]);
  return largest;
}

GradientRooms::GradientRooms(Optimizer::SetState& state, bool tied)
    : state_(state),
      tied_(tied),
      ends_(state.BucketPlaces()),
      room_(state.grad.stream(), DType::kFloat32,
            std::max<int64_t>(1, GradientRoomElements(ends_, tied))) {
  PLUMB_CHECK(ends_.size() > 2 && !state.set->adapter && state.grad.dtype() == DType::kBFloat16,
              "a base of layers whose gradients are bfloat16");
}

void GradientRooms::BeginUpdate(uint64_t key) {
  key_ = key;
  joined_ = 0;
}

void GradientRooms::Turn(std::initializer_list<size_t> buckets) {
  const Stream& stream = room_.stream();
  for (const Open& of : open_) {
    kernels::Call({.stream = stream},
                  kernels::NarrowGradients{.room = room_.f32() + of.at,
                                           .sum = static_cast<BFloat16*>(state_.grad.at(of.begin)),
                                           .n = of.end - of.begin,
                                           .seed = key_,
                                           .draw = joined_++,
                                           .first = of.begin});
  }
  open_.clear();
  int64_t at = 0;
  for (const size_t bucket : buckets) {
    const int64_t begin = bucket == 0 ? 0 : ends_[bucket - 1];
    open_.push_back({.begin = begin, .end = ends_[bucket], .at = at});
    at += ends_[bucket] - begin;
  }
  PLUMB_CHECK(at <= room_.elements());
}

void GradientRooms::Begin(Way way) {
  if (way == Way::kForward) return;
  if (!open_.empty()) {  // a pass before ended with an exception
    open_.clear();
    room_.Zero();
  }
  if (tied_) Turn({0, last_bucket()});
  else Turn({0});
}

void GradientRooms::Enter(Way way, int64_t layer) {
  if (way == Way::kBackward) Turn({last_bucket() - 1 - static_cast<size_t>(layer)});
}

void GradientRooms::Leave(Way way, int64_t layer) {
  if (way != Way::kBackward) return;
  if (layer == 0) Turn({last_bucket()});
  else Turn({});
}

void GradientRooms::End(Way way) {
  if (way == Way::kBackward) Turn({});
}

const void* GradientRooms::Weight(int64_t offset) const { return state_.set->flat.at(offset); }

float* GradientRooms::Gradient(int64_t offset) const {
  const int64_t place = policy_model::PlaceOf(state_.runs, offset);
  if (place < 0) return nullptr;
  for (const Open& of : open_) {
    if (place >= of.begin && place < of.end)
      return const_cast<float*>(room_.f32()) + of.at + (place - of.begin);
  }
  PLUMB_CHECK(false, "a pass writes gradients of a layer that it is not in");
  return nullptr;
}

}  // namespace plumb::learner

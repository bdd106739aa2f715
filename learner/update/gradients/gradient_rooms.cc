#include "learner/update/gradients/gradient_rooms.h"

#include <algorithm>
#include <iterator>

#include "common/base/error.h"
#include "kernels/device/device_memory.h"
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
  backwards_ = 0;
}

void GradientRooms::Turn(std::initializer_list<size_t> buckets) {
  for (const Touched& tensor : touched_) {
    kernels::Call(
        {.stream = room_.stream()},
        kernels::NarrowGradients{.room = room_.f32() + tensor.at,
                                 .sum = static_cast<BFloat16*>(state_.grad.at(tensor.place)),
                                 .n = tensor.elements,
                                 .seed = key_,
                                 .draw = joined_,
                                 .first = tensor.place});
  }
  ++joined_;
  touched_.clear();
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
  touched_.clear();  // of a pass that ended with an exception
  ++backwards_;
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

std::optional<GradientRooms::Touched> GradientRooms::Find(int64_t offset) const {
  const auto& entries = state_.set->table->entries();
  const auto behind = std::upper_bound(entries.begin(), entries.end(), offset,
                                       [](int64_t element, const policy_model::TensorEntry& entry) {
                                         return element < entry.offset;
                                       });
  PLUMB_CHECK(behind != entries.begin());
  const policy_model::TensorEntry& entry = *std::prev(behind);
  const int64_t place = state_.PlaceOf(entry);
  if (place < 0) return std::nullopt;
  for (const Open& of : open_) {
    if (place >= of.begin && place < of.end)
      return Touched{.place = place, .elements = entry.elements, .at = of.at + (place - of.begin)};
  }
  PLUMB_CHECK(false, "a pass writes gradients of a layer that it is not in");
  return std::nullopt;
}

bool GradientRooms::IsTouched(const Touched& tensor) const {
  return std::any_of(touched_.begin(), touched_.end(),
                     [&](const Touched& other) { return other.place == tensor.place; });
}

bool GradientRooms::TakeEmpty(int64_t offset, int64_t elements) const {
  const std::optional<Touched> tensor = Find(offset);
  if (!tensor || tensor->elements != elements || IsTouched(*tensor) ||
      tensor->place != policy_model::PlaceOf(state_.runs, offset))
    return false;
  touched_.push_back(*tensor);
  return true;
}

BFloat16* GradientRooms::TakeNarrow(int64_t offset, int64_t elements) const {
  if (room_.device().is_cpu() || backwards_ > 1 || state_.set->flat.dtype() != DType::kBFloat16)
    return nullptr;
  const std::optional<Touched> tensor = Find(offset);
  if (!tensor || tensor->elements != elements || IsTouched(*tensor) ||
      tensor->place != policy_model::PlaceOf(state_.runs, offset))
    return nullptr;
  return static_cast<BFloat16*>(state_.grad.at(tensor->place));
}

float* GradientRooms::Gradient(int64_t offset) const {
  const std::optional<Touched> tensor = Find(offset);
  if (!tensor) return nullptr;
  float* const begin = room_.f32() + tensor->at;
  if (!IsTouched(*tensor)) {
    kernels::Zero(room_.stream(), begin, static_cast<size_t>(tensor->elements) * sizeof(float));
    touched_.push_back(*tensor);
  }
  return begin + (policy_model::PlaceOf(state_.runs, offset) - tensor->place);
}

}  // namespace plumb::learner

#include "learner/update/gradients/fresh_gradients.h"

#include <algorithm>
#include <iterator>
#include <span>

#include "common/base/error.h"
#include "kernels/device/device_memory.h"
#include "kernels/update/zero_ranges.h"

namespace plumb::learner {

namespace {

// Elements up to which a tensor is zeroed with the others like it: norms and biases.
constexpr int64_t kSmall = int64_t{1} << 16;

}  // namespace

FreshGradients::FreshGradients(Optimizer::SetState& state) : state_(state) {
  PLUMB_CHECK(!state.set->adapter && state.grad.dtype() == DType::kFloat32 && !state.grad_in_parts,
              "a base whose gradients are whole and float32");
  std::vector<kernels::ZeroRange> small;
  for (const policy_model::TensorEntry& entry : state.set->table->entries()) {
    const int64_t place = state.PlaceOf(entry);
    places_.push_back(place);
    is_small_.push_back(place >= 0 && entry.elements <= kSmall ? 1 : 0);
    if (is_small_.back() != 0) small.push_back({.at = place, .n = entry.elements});
  }
  fresh_.assign(places_.size(), 0);
  small_count_ = std::ssize(small);
  if (small.empty()) return;
  constexpr auto kWords = static_cast<int64_t>(sizeof(kernels::ZeroRange) / sizeof(int64_t));
  small_ = policy_model::FlatBuffer(state.grad.stream(), DType::kInt64, small_count_ * kWords);
  small_.CopyFromHost(std::as_bytes(std::span<const kernels::ZeroRange>(small)));
}

void FreshGradients::BeginUpdate() {
  left_ = 0;
  for (size_t i = 0; i < fresh_.size(); ++i) {
    fresh_[i] = places_[i] >= 0 && is_small_[i] == 0 ? 1 : 0;
    left_ += fresh_[i];
  }
  kernels::Call({.stream = state_.grad.stream()},
                kernels::ZeroRanges{.data = state_.grad.f32(),
                                    .ranges = static_cast<const kernels::ZeroRange*>(small_.data()),
                                    .count = small_count_});
}

void FreshGradients::Settle() {
  if (left_ == 0) return;
  for (size_t i = 0; i < fresh_.size(); ++i) {
    if (fresh_[i] != 0) Gradient(state_.set->table->entries()[i].offset);
  }
}

size_t FreshGradients::Find(int64_t offset) const {
  const auto& entries = state_.set->table->entries();
  const auto behind = std::upper_bound(entries.begin(), entries.end(), offset,
                                       [](int64_t element, const policy_model::TensorEntry& entry) {
                                         return element < entry.offset;
                                       });
  PLUMB_CHECK(behind != entries.begin());
  return static_cast<size_t>(std::prev(behind) - entries.begin());
}

const void* FreshGradients::Weight(int64_t offset) const { return state_.set->flat.at(offset); }

float* FreshGradients::Gradient(int64_t offset) const {
  const size_t i = Find(offset);
  if (places_[i] < 0) return nullptr;
  const policy_model::TensorEntry& entry = state_.set->table->entries()[i];
  float* const begin = state_.grad.f32() + places_[i];
  if (fresh_[i] != 0) {
    kernels::Zero(state_.grad.stream(), begin, static_cast<size_t>(entry.elements) * sizeof(float));
    fresh_[i] = 0;
    --left_;
  }
  return begin + (offset - entry.offset);
}

bool FreshGradients::TakeEmpty(int64_t offset, int64_t elements) const {
  const size_t i = Find(offset);
  const policy_model::TensorEntry& entry = state_.set->table->entries()[i];
  if (fresh_[i] == 0 || entry.offset != offset || entry.elements != elements) return false;
  fresh_[i] = 0;
  --left_;
  return true;
}

}  // namespace plumb::learner

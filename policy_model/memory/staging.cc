#include "policy_model/memory/staging.h"

#include <cstring>

#include "common/base/error.h"

namespace plumb::policy_model {
namespace {

constexpr size_t kAlignWords = 64;  // 256 bytes: whatever a kernel reads as a vector is aligned

}  // namespace

void Staging::Begin() {
  places_.clear();
  begins_.clear();
  host_.clear();
}

int Staging::AddWords(const void* data, size_t words) {
  places_.push_back(data);
  if (stream_.device().is_cuda()) {
    begins_.push_back(host_.size());
    host_.resize((host_.size() + words + kAlignWords - 1) / kAlignWords * kAlignWords);
    if (words > 0) std::memcpy(host_.data() + begins_.back(), data, words * sizeof(int32_t));
  }
  return static_cast<int>(places_.size()) - 1;
}

void Staging::Commit() {
  if (stream_.device().is_cpu()) return;
  const size_t room = static_cast<size_t>(memory_.elements());
  if (host_.size() > room) {
    memory_ = FlatBuffer();
    memory_ = FlatBuffer(stream_, DType::kInt32,
                         static_cast<int64_t>(host_.size() + host_.size() / 4 + kAlignWords));
  }
  memory_.CopyFromHost(std::as_bytes(std::span<const int32_t>(host_)));
  for (size_t i = 0; i < places_.size(); ++i) {
    places_[i] = memory_.at(static_cast<int64_t>(begins_[i]));
  }
}

}  // namespace plumb::policy_model

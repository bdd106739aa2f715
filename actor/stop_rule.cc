#include "actor/stop_rule.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"

namespace plumb::actor {
namespace {
constexpr size_t kUsualTokenBytes = 256;  // longer tokens make the buffers grow once
}  // namespace

StopStrings::StopStrings(std::vector<std::string> strings, int32_t slots)
    : strings_(std::move(strings)) {
  for (const std::string& s : strings_) {
    if (s.empty())
      throw Error(ErrorCode::kInvalidArgument, "a stop string is empty", "rollout.stop");
    keep_ = std::max(keep_, s.size() - 1);
  }
  if (strings_.empty()) return;
  tails_.resize(static_cast<size_t>(slots));
  for (std::string& tail : tails_) tail.reserve(keep_);
  window_.reserve(keep_ + kUsualTokenBytes);
}

void StopStrings::Reset(int32_t slot) {
  if (active()) tails_[static_cast<size_t>(slot)].clear();
}

bool StopStrings::Append(int32_t slot, std::string_view bytes) {
  if (!active()) return false;
  std::string& tail = tails_[static_cast<size_t>(slot)];
  window_.assign(tail);
  window_.append(bytes);
  for (const std::string& s : strings_) {
    // An occurrence that ends before the new bytes was found when they were written.
    const size_t from = tail.size() + 1 > s.size() ? tail.size() + 1 - s.size() : 0;
    if (window_.find(s, from) != std::string::npos) return true;
  }
  const size_t kept = std::min(keep_, window_.size());
  tail.assign(window_, window_.size() - kept, kept);
  return false;
}

}  // namespace plumb::actor

#include "common/base/metrics/missing_steps.h"

#include <algorithm>

namespace plumb {

void MissingSteps::Step(int64_t step) {
  if (step < 0) return;
  if (step < next_) {
    while (!holes_.empty() && holes_.back().second >= step) {
      auto& [first, last] = holes_.back();
      const int64_t kept = std::max(first, step);
      count_ -= last - kept + 1;
      if (first >= step) {
        holes_.pop_back();
      } else {
        last = step - 1;
        break;
      }
    }
  } else if (step > next_) {
    holes_.emplace_back(next_, step - 1);
    count_ += step - next_;
  }
  next_ = step + 1;
}

std::string MissingSteps::Text(size_t most_holes) const {
  std::string text;
  int64_t said = 0;
  for (size_t i = 0; i < std::min(most_holes, holes_.size()); ++i) {
    const auto [first, last] = holes_[i];
    said += last - first + 1;
    text += (i > 0 ? ", " : "") + std::to_string(first);
    if (last > first) text += (last == first + 1 ? ", " : " to ") + std::to_string(last);
  }
  if (said < count_) text += " and " + std::to_string(count_ - said) + " more";
  return text;
}

}  // namespace plumb

#include "replay/table/remover.h"

#include <algorithm>
#include <string>

#include "common/base/error.h"

namespace plumb::replay {

Remover::Remover(const RemoverOptions& options) : options_(options) {
  const auto refuse = [](const std::string& why) {
    throw Error(ErrorCode::kInvalidArgument, "remover: " + why);
  };
  if (options_.max_steps < 1) refuse("max_steps has to be at least 1");
  if (options_.max_times_sampled < 0) refuse("max_times_sampled must not be negative");
  if (options_.max_groups < 0) refuse("max_groups must not be negative");
}

int64_t Remover::FirstStep(int64_t step) const {
  return std::max<int64_t>(0, step - options_.max_steps);
}

std::vector<SampleItem> Remover::Apply(std::vector<SampleItem> items) const {
  if (options_.max_times_sampled > 0) {
    std::erase_if(items, [&](const SampleItem& item) {
      return item.times_sampled >= options_.max_times_sampled;
    });
  }
  const auto most = static_cast<size_t>(options_.max_groups);
  if (most == 0 || items.size() <= most) return items;
  const size_t excess = items.size() - most;
  if (options_.evict == configs::Evict::kLowestPriority) {  // of equal ones the oldest
    std::stable_sort(items.begin(), items.end(), [](const SampleItem& a, const SampleItem& b) {
      return a.priority < b.priority;
    });
  }
  items.erase(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(excess));
  std::sort(items.begin(), items.end(),
            [](const SampleItem& a, const SampleItem& b) { return a.key < b.key; });
  return items;
}

}  // namespace plumb::replay

#include "run/roles/cluster/relay_tree.h"

#include <algorithm>

namespace plumb::run {
namespace {

bool TakeOut(std::vector<std::string>& names, const std::string& name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) return false;
  *found = names.back();
  names.pop_back();
  return true;
}

}  // namespace

void RelayTree::Put(const std::string& name, bool hands_on) {
  std::vector<std::string>& kind = hands_on ? on_ : leaves_;
  if (std::find(kind.begin(), kind.end(), name) != kind.end()) return;
  Take(name);
  kind.push_back(name);
}

void RelayTree::Take(const std::string& name) {
  if (!TakeOut(on_, name)) TakeOut(leaves_, name);
}

size_t RelayTree::PlaceOf(const std::string& name) const {
  if (const auto found = std::find(on_.begin(), on_.end(), name); found != on_.end())
    return static_cast<size_t>(found - on_.begin());
  const auto found = std::find(leaves_.begin(), leaves_.end(), name);
  if (found == leaves_.end()) return kHead;
  return on_.size() + static_cast<size_t>(found - leaves_.begin());
}

size_t RelayTree::Parent(size_t place) const {
  if (place < fanout_) return kHead;
  const size_t parent = place / fanout_ - 1;
  return parent < on_.size() ? parent : kHead;
}

std::vector<std::string> RelayTree::Above(const std::string& name) const {
  std::vector<std::string> above;
  const size_t place = PlaceOf(name);
  if (place == kHead) return above;
  for (size_t at = Parent(place); at != kHead; at = Parent(at)) above.push_back(on_[at]);
  return above;
}

size_t RelayTree::Below(const std::string& name) const {
  if (!HandsOn(name)) return 0;
  const size_t first = (PlaceOf(name) + 1) * fanout_;
  return std::min(fanout_, size() - std::min(first, size()));
}

bool RelayTree::HandsOn(const std::string& name) const {
  return std::find(on_.begin(), on_.end(), name) != on_.end();
}

}  // namespace plumb::run

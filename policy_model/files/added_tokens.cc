#include "policy_model/files/added_tokens.h"

namespace plumb::policy_model {

void AddedTokens::Add(std::string_view content, int32_t id) {
  starts_[static_cast<unsigned char>(content[0])] = true;
  size_t node = 0;
  for (char c : content) {
    const auto [it, is_new] = nodes_[node].next.try_emplace(c, static_cast<int32_t>(nodes_.size()));
    node = static_cast<size_t>(it->second);
    if (is_new) nodes_.emplace_back();
  }
  nodes_[node].id = id;
}

size_t AddedTokens::Match(std::string_view text, int32_t& id) const {
  size_t node = 0, best = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto it = nodes_[node].next.find(text[i]);
    if (it == nodes_[node].next.end()) break;
    node = static_cast<size_t>(it->second);
    if (nodes_[node].id >= 0) {
      id = nodes_[node].id;
      best = i + 1;
    }
  }
  return best;
}

}  // namespace plumb::policy_model

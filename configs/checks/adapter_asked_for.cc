#include "configs/checks/adapter_asked_for.h"

#include <utility>

namespace plumb::configs {

std::string AdapterNotAskedFor(const Loaded& loaded) {
  const PolicyConfig& policy = loaded.config.policy;
  if (policy.adapter != Adapter::kNone) return "";
  const auto origin = [&](const std::string& option) {
    const auto found = loaded.origins.find("policy." + option);
    return found == loaded.origins.end() || found->second == "default" ? "" : found->second;
  };
  const std::string adapter = origin("adapter");
  const PolicyConfig usual;
  for (const auto& [option, differs] : {std::pair("rank", policy.rank != usual.rank),
                                        {"alpha", policy.alpha != usual.alpha},
                                        {"targets", policy.targets != usual.targets}}) {
    const std::string given = origin(option);
    if (given.empty()) continue;
    const bool later = given.starts_with("--set") && !adapter.starts_with("--set");
    if (!differs && !adapter.empty() && !later) continue;
    return std::string("policy.") + option +
           " is of an adapter: policy.adapter = \"lora\"; without one all weights train";
  }
  return "";
}

}  // namespace plumb::configs

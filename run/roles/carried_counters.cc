#include "run/roles/carried_counters.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <string_view>

#include "run/session/row_counts.h"

namespace plumb::run {
namespace {

// Metrics that roles report and count anew in each life. The store's are always among the counters.
bool IsReported(std::string_view metric) {
  for (const char* room : {"actor/", "rollout/", "rpc/", "reward/failed/", "reward/disabled/"}) {
    if (metric.starts_with(room)) return true;
  }
  for (const char* name : {"reward/groups", "reward/retries", "reward/penalised", "reward/aborted",
                           "reward/non_finite"}) {
    if (metric == name) return true;
  }
  return false;
}

}  // namespace

std::string CounterMetric(const std::string& name) {
  return name.find('/') != std::string::npos ? name : "replay/" + name;
}

bool IsTotal(const std::string& counter) {
  return counter != "held" && counter != "waiting" && counter != "queue" &&
         !counter.starts_with(kRows);
}

void CarriedCounters::Begin(const std::map<std::string, double>& last,
                            const std::map<std::string, int64_t>& now) {
  before_.clear();
  highest_.clear();
  const auto take = [&](const std::string& name, const std::string& metric) {
    const auto then = last.find(metric);
    if (then == last.end() || !std::isfinite(then->second)) return;
    const auto found = now.find(name);
    const int64_t missing = std::llround(then->second) - (found == now.end() ? 0 : found->second);
    if (missing > 0) before_[name] = missing;
  };
  for (const auto& [metric, value] : last) {
    if (IsReported(metric)) take(metric, metric);
  }
  for (const auto& [name, value] : now) {
    if (IsTotal(name)) take(name, CounterMetric(name));
  }
}

void CarriedCounters::Apply(std::map<std::string, int64_t>& counters) {
  for (const auto& [name, count] : before_) counters.try_emplace(name, 0);
  for (const auto& [name, highest] : highest_) counters.try_emplace(name, 0);
  for (auto& [name, count] : counters) {
    if (!IsTotal(name)) continue;
    if (const auto before = before_.find(name); before != before_.end()) count += before->second;
    int64_t& highest = highest_[name];
    count = highest = std::max(highest, count);
  }
}

}  // namespace plumb::run

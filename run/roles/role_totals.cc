#include "run/roles/role_totals.h"

#include <algorithm>
#include <cmath>

namespace plumb::run {
namespace {

constexpr char kGenerate[] = "actor/generate_us", kTokens[] = "actor/generated_tokens",
               kReward[] = "reward/score_us";

int64_t Take(std::map<std::string, int64_t>& counters, const char* name) {
  const auto found = counters.find(name);
  if (found == counters.end()) return 0;
  const int64_t value = found->second;
  counters.erase(found);
  return value;
}

int64_t Microseconds(double seconds) { return std::llround(seconds * 1e6); }

}  // namespace

std::map<std::string, int64_t> ToCounters(const RoleTotals& totals) {
  return {{kGenerate, Microseconds(totals.generate_s)},
          {kTokens, totals.generated_tokens},
          {kReward, Microseconds(totals.reward_s)}};
}

RoleTotals TakeRoleTotals(std::map<std::string, int64_t>& counters) {
  RoleTotals totals;
  totals.generate_s = static_cast<double>(Take(counters, kGenerate)) / 1e6;
  totals.reward_s = static_cast<double>(Take(counters, kReward)) / 1e6;
  totals.generated_tokens = Take(counters, kTokens);
  return totals;
}

void RoleTimes::AddStep(const RoleTotals& now, std::map<std::string, double>& metrics) {
  const double generate = std::max(0.0, now.generate_s - before_.generate_s);
  const auto tokens =
      static_cast<double>(std::max<int64_t>(0, now.generated_tokens - before_.generated_tokens));
  metrics["time/generate"] = generate;
  metrics["time/reward"] = std::max(0.0, now.reward_s - before_.reward_s);
  metrics["perf/decode_tokens_per_s"] = generate > 0 ? tokens / generate : 0;
  before_ = now;
}

}  // namespace plumb::run

#include "run/models/answer_stats.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/error.h"

namespace plumb::run {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

}  // namespace

Estimate EstimateOf(std::span<const double> values) {
  Estimate e{.mean = kNaN, .error = kNaN, .n = static_cast<int64_t>(values.size())};
  if (values.empty()) return e;
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double v : values) sum += v;
  e.mean = sum / n;
  for (const double v : values) squares += (v - e.mean) * (v - e.mean);
  if (values.size() > 1) e.error = std::sqrt(squares / (n - 1) / n);
  return e;
}

Estimate RatioOf(std::span<const double> sums, std::span<const double> sizes) {
  PLUMB_CHECK(sums.size() == sizes.size());
  Estimate e{.mean = kNaN, .error = kNaN, .n = static_cast<int64_t>(sums.size())};
  double sum = 0, size = 0, squares = 0;
  for (size_t i = 0; i < sums.size(); ++i) sum += sums[i], size += sizes[i];
  if (size == 0) return e;
  e.mean = sum / size;
  for (size_t i = 0; i < sums.size(); ++i) {
    const double off = sums[i] - e.mean * sizes[i];
    squares += off * off;
  }
  const auto n = static_cast<double>(sums.size());
  if (sums.size() > 1) e.error = std::sqrt(squares * n / (n - 1)) / size;
  return e;
}

double PassAtK(int64_t n, int64_t c, int64_t k) {
  PLUMB_CHECK(0 <= c && c <= n && 1 <= k && k <= n);
  if (n - c < k) return 1;
  double none = 1;  // C(n-c, k) / C(n, k), as a product that cannot overflow
  for (int64_t i = n - c + 1; i <= n; ++i)
    none *= 1 - static_cast<double>(k) / static_cast<double>(i);
  return 1 - none;
}

int64_t MajorityOf(std::span<const std::string> answers,
                   const std::function<bool(const std::string&, const std::string&)>& same) {
  std::vector<std::pair<size_t, int64_t>> kinds;  // first of each, and how many say it
  for (size_t i = 0; i < answers.size(); ++i) {
    if (answers[i].empty()) continue;
    const auto known = std::find_if(kinds.begin(), kinds.end(), [&](const auto& kind) {
      return same(answers[kind.first], answers[i]);
    });
    if (known != kinds.end()) ++known->second;
    else kinds.emplace_back(i, 1);
  }
  const auto most = std::max_element(
      kinds.begin(), kinds.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == kinds.end() ? -1 : static_cast<int64_t>(most->first);
}

}  // namespace plumb::run

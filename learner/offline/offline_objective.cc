#include "learner/offline/offline_objective.h"

#include <numeric>
#include <utility>

#include "common/base/error.h"
#include "common/base/rng.h"

namespace plumb::learner {

int64_t ScoredTokens(std::span<const uint8_t> mask) {
  int64_t n = 0;
  for (size_t i = 1; i < mask.size(); ++i) n += mask[i] != 0;
  return n;
}

void AddUpdateMetrics(const Optimizer& optimizer, const UpdateResult& update, double learning_rate,
                      double tokens, int64_t shared, std::map<std::string, double>& metrics) {
  metrics["optim/grad_norm"] = update.grad_norm;
  metrics["optim/lr"] = learning_rate;
  metrics["optim/skipped"] = static_cast<double>(optimizer.skipped());
  metrics["perf/train_tokens"] = tokens;
  metrics["perf/shared_tokens"] = static_cast<double>(shared);
}

std::vector<uint32_t> OfflineBatch(int64_t n, const configs::BatchRamp& batch, int64_t step,
                                   uint64_t seed, bool shuffle, uint64_t stream) {
  PLUMB_CHECK(n >= 1 && batch.batch() >= 1 && step >= 0);
  std::vector<uint32_t> rows, order(static_cast<size_t>(n));
  int64_t ordered = -1;  // epoch of `order`
  for (int64_t at = batch.Before(step); at < batch.Before(step + 1); ++at) {
    const int64_t epoch = at / n;
    if (epoch != ordered) {
      std::iota(order.begin(), order.end(), 0u);
      if (shuffle) {
        RandomStream random(seed, (stream << 32) + static_cast<uint64_t>(epoch));
        for (size_t k = order.size() - 1; k > 0; --k)
          std::swap(order[k], order[random.NextBelow(static_cast<uint32_t>(k + 1))]);
      }
      ordered = epoch;
    }
    rows.push_back(order[static_cast<size_t>(at % n)]);
  }
  return rows;
}

}  // namespace plumb::learner

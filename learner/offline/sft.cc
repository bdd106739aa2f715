#include "learner/offline/sft.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "learner/update/schedule.h"

namespace plumb::learner {
namespace {

constexpr uint64_t kShuffleStream = 0x5F7;
constexpr double kNewLow = 0.98;  // of the lowest held-out loss before

std::vector<SequenceView> Views(std::span<const Demonstration> data) {
  std::vector<SequenceView> views;
  views.reserve(data.size());
  for (const auto& d : data) views.push_back({d.tokens, d.loss_mask});
  return views;
}

int64_t ScoredTokens(std::span<const SequenceView> views) {
  int64_t n = 0;
  for (const auto& v : views) {
    for (size_t i = 1; i < v.mask.size(); ++i) n += v.mask[i] != 0;
  }
  return n;
}

}  // namespace

double DemonstrationLoss(TrainStep& train, const policy_model::Weights& weights,
                         std::span<const Demonstration> data) {
  double sum = 0;
  int64_t n = 0;
  for (const auto& sequence : train.Score(weights, Views(data), 1.0f)) {
    for (float lp : sequence) sum -= lp;
    n += static_cast<int64_t>(sequence.size());
  }
  return n ? sum / static_cast<double>(n) : 0.0;
}

SftResult RunSft(TrainStep& train, policy_model::Weights& weights, Optimizer& optimizer,
                 const configs::SftConfig& options, uint64_t seed,
                 std::span<const Demonstration> train_data, std::span<const Demonstration> heldout,
                 const std::function<bool(const SftStep&, const SftResult&)>& on_step,
                 const SftResult& done) {
  const auto n = static_cast<int64_t>(train_data.size());
  if (options.batch > n) {
    throw Error(ErrorCode::kInvalidArgument, "sft.batch is " + std::to_string(options.batch) +
                                                 " but there are only " + std::to_string(n) +
                                                 " demonstrations; lower sft.batch or add data");
  }
  const LrOptions lr{.schedule = options.lr_schedule,
                     .peak = options.learning_rate,
                     .warmup_fraction = options.warmup_fraction,
                     .min_fraction = options.min_lr_fraction,
                     .steps = options.steps};
  const std::vector<SequenceView> all = Views(train_data);
  std::vector<uint32_t> order(static_cast<size_t>(n));
  std::vector<SequenceView> batch;
  SftResult result = done;
  result.stopped = false;
  const auto wanted = [&] {
    return result.steps < options.steps &&
           (options.patience <= 0 || result.without_new_low < options.patience);
  };
  while (wanted()) {
    const int64_t step = result.steps;
    batch.clear();
    for (int64_t i = 0; i < options.batch; ++i) {
      const int64_t at = step * options.batch + i;
      const int64_t epoch = at / n;
      if (i == 0 || at % n == 0) {  // the permutation is a function of (seed, epoch)
        std::iota(order.begin(), order.end(), 0u);
        RandomStream random(seed, (kShuffleStream << 32) + static_cast<uint64_t>(epoch));
        for (size_t k = order.size() - 1; k > 0; --k)
          std::swap(order[k], order[random.NextBelow(static_cast<uint32_t>(k + 1))]);
      }
      batch.push_back(all[order[static_cast<size_t>(at % n)]]);
    }
    const int64_t scored = ScoredTokens(batch);
    if (scored == 0)
      throw Error(ErrorCode::kInvalidArgument, "a batch of demonstrations has no token to learn");
    double loss = 0;
    const auto scale = static_cast<float>(1.0 / static_cast<double>(scored));
    optimizer.ZeroGrad();
    train.Accumulate(
        weights, batch, 1.0f,
        [&](const ScoredToken& token) {
          loss -= token.logprob;
          return TrainStep::Gradient{-scale, 0.0f};
        },
        optimizer.gradients());
    loss /= static_cast<double>(scored);
    SftStep report{.step = step, .loss = loss, .learning_rate = LearningRate(lr, step)};
    report.grad_norm = optimizer.Update(report.learning_rate, loss, options.weight_decay).grad_norm;
    for (const auto& view : batch) report.tokens += static_cast<int64_t>(view.tokens.size());
    result.tokens += report.tokens;
    result.steps = step + 1;
    const bool measure = !heldout.empty() && options.eval_every > 0 &&
                         ((step + 1) % options.eval_every == 0 || step + 1 == options.steps);
    if (measure) {
      report.heldout_loss = DemonstrationLoss(train, weights, heldout);
      if (std::isinf(result.lowest)) result.heldout_first = report.heldout_loss;
      result.without_new_low =
          report.heldout_loss < kNewLow * result.lowest ? 0 : result.without_new_low + 1;
      result.lowest = std::min(result.lowest, report.heldout_loss);
      result.heldout_last = report.heldout_loss;
      result.flat = result.without_new_low > 0;
    }
    if (!on_step(report, result) && wanted()) {
      result.stopped = true;
      break;
    }
  }
  return result;
}

}  // namespace plumb::learner

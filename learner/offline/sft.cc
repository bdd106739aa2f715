#include "learner/offline/sft.h"

#include <algorithm>
#include <cmath>

#include "common/base/error.h"
#include "learner/offline/sft_objective.h"
#include "learner/update/schedule.h"

namespace plumb::learner {
namespace {

constexpr uint64_t kShuffleStream = 0x5F7;
constexpr double kNewLow = 0.98;  // of the lowest held-out loss before

}  // namespace

void CheckWarmStartBatch(const configs::SftConfig& options, int64_t rows) {
  if (options.batch <= rows) return;
  throw Error(ErrorCode::kInvalidArgument, "sft.batch is " + std::to_string(options.batch) +
                                               " but there are only " + std::to_string(rows) +
                                               " demonstrations; lower sft.batch or add data");
}

SftResult RunSft(TrainStep& train, policy_model::Weights& weights, Optimizer& optimizer,
                 const configs::SftConfig& options, uint64_t seed,
                 std::span<const Demonstration> train_data, std::span<const Demonstration> heldout,
                 const std::function<bool(const SftStep&, const SftResult&)>& on_step,
                 const SftResult& done) {
  const auto n = static_cast<int64_t>(train_data.size());
  CheckWarmStartBatch(options, n);
  const LrOptions lr{.schedule = options.lr_schedule,
                     .peak = options.learning_rate,
                     .warmup_fraction = options.warmup_fraction,
                     .min_fraction = options.min_lr_fraction,
                     .steps = options.steps};
  SftObjective objective(train, weights, optimizer, train_data, heldout, options.weight_decay);
  SftResult result = done;
  result.stopped = false;
  const auto wanted = [&] {
    return result.steps < options.steps &&
           (options.patience <= 0 || result.without_new_low < options.patience);
  };
  while (wanted()) {
    const int64_t step = result.steps;
    SftStep report{.step = step, .learning_rate = LearningRate(lr, step)};
    auto metrics = objective.Train(
        OfflineBatch(n, options.batch, step, seed, /*shuffle=*/true, kShuffleStream),
        report.learning_rate, step);
    report.loss = metrics["sft/loss"];
    report.grad_norm = metrics["optim/grad_norm"];
    report.tokens = static_cast<int64_t>(metrics["perf/train_tokens"]);
    result.tokens += report.tokens;
    result.steps = step + 1;
    const bool measure = !heldout.empty() && options.eval_every > 0 &&
                         ((step + 1) % options.eval_every == 0 || step + 1 == options.steps);
    if (measure) {
      report.heldout_loss = objective.Evaluate().loss;
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

#include "learner/loop/data_batches.h"

#include <cmath>
#include <utility>

namespace plumb::learner {
namespace {

constexpr uint64_t kDataStream = 0xda7a;  // its rows are drawn apart from the warm start's

}  // namespace

DataBatches::DataBatches(std::unique_ptr<Algorithm> student, const configs::Config& config,
                         TrainStep& train, policy_model::Weights& weights, Optimizer& optimizer,
                         Distiller& distiller, std::span<const Demonstration> data)
    : student_(std::move(student)),
      share_(config.distill.student_share),
      batch_(config.sft.batch),
      seed_(config.run.seed),
      datasets_(data.size()),
      objective_(train, weights, optimizer, distiller, data, datasets_, {}) {}

int64_t DataBatches::Before(double student_share, int64_t step) {
  const double of_a_step = (1 - student_share) / student_share;
  // 0.25 is three batches a step, whichever way its last bit goes.
  return static_cast<int64_t>(std::floor(static_cast<double>(step) * of_a_step + 1e-9));
}

std::map<std::string, double> DataBatches::Train(std::span<const TrajectoryGroup> groups,
                                                 double learning_rate, int64_t step) {
  std::map<std::string, double> metrics = student_->Train(groups, learning_rate, step);
  const int64_t first = Before(share_, step), n = Before(share_, step + 1) - first;
  metrics["distill/data_batches"] = static_cast<double>(n);
  for (int64_t number = first; number < first + n; ++number) {
    const auto rows =
        OfflineBatch(objective_.size(), batch_, number, seed_, /*shuffle=*/true, kDataStream);
    const std::map<std::string, double> of_batch = objective_.Train(rows, learning_rate, number);
    for (const char* sum : {"perf/train_tokens", "perf/shared_tokens", "sft/tokens"})
      metrics[sum] += of_batch.at(sum);
    metrics["sft/loss"] += of_batch.at("sft/loss") / static_cast<double>(n);
    metrics["distill/data_kl"] += of_batch.at("distill/kl") / static_cast<double>(n);
    metrics["optim/skipped"] = of_batch.at("optim/skipped");
  }
  return metrics;
}

}  // namespace plumb::learner

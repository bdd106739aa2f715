#include "learner/update/checkpoint_size.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/size_text.h"
#include "learner/update/optimizer_file.h"

namespace plumb::learner {
namespace {

int64_t WeightBytes(const policy_model::Weights& weights) {
  int64_t bytes = 0;
  for (const auto& set : weights.sets()) {
    if (!set->trained) continue;
    for (const auto& entry : set->table->entries())
      bytes += entry.elements * static_cast<int64_t>(ElementSize(set->flat.dtype()));
  }
  return bytes;
}

}  // namespace

int64_t CheckpointBytes(const policy_model::Weights& weights, Optimizer& optimizer,
                        std::span<const NamedModel> models, SavedParts parts) {
  const auto of = [&](const policy_model::Weights& model, Optimizer& its) {
    return WeightBytes(model) + (parts.optimizer ? OptimizerBytes(its, parts.moments) : 0);
  };
  int64_t bytes = of(weights, optimizer);
  for (const NamedModel& model : models) bytes += of(*model.weights, *model.optimizer);
  return bytes;
}

int64_t FreeBytes(const std::string& folder) {
  std::error_code error;
  const auto space = std::filesystem::space(folder, error);
  if (error) ThrowFileError(error.value(), "cannot ask for the free room of", folder);
  constexpr auto kMost = static_cast<uintmax_t>(INT64_MAX);
  return static_cast<int64_t>(std::min(space.available, kMost));
}

int64_t SavePlan::Needed() const {
  const int64_t older = std::min(between, keep);  // beside the largest that is written
  const int64_t written = between > older ? each : last;
  const int64_t bests = 2 * best;  // the old one beside the new one
  if (apart == 1) return std::max<int64_t>(0, older - kept) * each + written + bests;
  // Of those that are kept for being the newest, and the one that a resume begins with.
  const int64_t full = std::min((between + apart - 1) / apart, (older + apart - 1) / apart + 1);
  return std::max<int64_t>(0, full - kept) * each +
         std::max<int64_t>(0, std::min(older, between - full)) * light + written + bests;
}

void CheckFits(const SavePlan& plan, int64_t free, const std::string& folder) {
  if (plan.first() <= free) return;
  throw Error(
      ErrorCode::kNoSpace,
      "a checkpoint takes " + SizeText(plan.first()) + " and " + SizeText(free) +
          " are free: make room and go on with --resume, or train into another folder (--out)",
      folder);
}

}  // namespace plumb::learner

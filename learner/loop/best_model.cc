#include "learner/loop/best_model.h"

#include <cmath>
#include <filesystem>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/file.h"

namespace plumb::learner {
namespace {

constexpr char kEvaluation[] = "/evaluation.json";
constexpr size_t kMaxBytes = 1 << 20;

// The higher the better, the first number first.
std::pair<double, double> Rank(const EvalResult& e) {
  if (e.perplexity) return {-e.loss.value_or(NAN), 0};
  return {e.accuracy, e.reward};
}

}  // namespace

std::string BestModelFolder(const std::string& checkpoints) {
  return (std::filesystem::path(checkpoints).parent_path() / "best").string();
}

BestModel::BestModel(std::string folder, const Checkpoints& checkpoints)
    : folder_(std::move(folder)), checkpoints_(checkpoints) {
  FileSystem& files = RealFileSystem();
  const std::string beside = folder_ + ".new";
  if (!files.Exists(folder_) && files.Exists(beside + kEvaluation)) files.Rename(beside, folder_);
  if (files.Exists(beside)) files.RemoveAll(beside);  // the run comes to it again
  if (!files.Exists(folder_ + kEvaluation)) return;
  kept_ = ReadEvaluation(files.ReadFile(folder_ + kEvaluation, kMaxBytes), folder_ + kEvaluation);
}

bool BestModel::Beaten(const EvalResult& result) const {
  const auto [first, second] = Rank(result);
  if (!result.measured() || !std::isfinite(first) || !std::isfinite(second)) return false;
  return !kept_ || Rank(*kept_) < Rank(result);
}

void BestModel::Offer(const EvalResult& result, const policy_model::Weights& weights) {
  if (!Beaten(result)) return;
  FileSystem& files = RealFileSystem();
  const std::string beside = folder_ + ".new";
  if (files.Exists(beside)) files.RemoveAll(beside);
  checkpoints_.WriteModel(weights, beside);
  CRASH_POINT("best_model_written");
  files.WriteFileAtomic(beside + kEvaluation, WriteEvaluation(result));
  if (files.Exists(folder_)) files.RemoveAll(folder_);
  CRASH_POINT("best_model_removed");
  files.Rename(beside, folder_);
  files.SyncDirectory(std::filesystem::path(folder_).parent_path().string());
  kept_ = result;
}

}  // namespace plumb::learner

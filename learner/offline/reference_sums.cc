#include "learner/offline/reference_sums.h"

#include <nlohmann/json.hpp>
#include <numeric>

#include "common/base/error.h"
#include "common/record/preference.h"

namespace plumb::learner {

ReferenceSums::ReferenceSums(ReferencePolicy& reference, LogprobCache* cache)
    : reference_(reference), cache_(cache), digest_(reference.ComputeDigest()) {}

std::vector<double> ReferenceSums::Of(std::span<const SequenceView> views) {
  std::vector<std::vector<float>> logprobs(views.size());
  std::vector<Digest> names(views.size());
  std::vector<size_t> missing;
  for (size_t i = 0; i < views.size(); ++i) {
    if (cache_ != nullptr) {
      names[i] = SequenceDigest(views[i].tokens, views[i].mask);
      if (auto found = cache_->Get(digest_, names[i])) {
        logprobs[i] = std::move(*found);
        continue;
      }
    }
    missing.push_back(i);
  }
  if (!missing.empty()) {
    // All of the batch, though some may be known: sums depend in their last bits on what is packed
    // together, and a run that lost some entries has to find the same ones again.
    auto computed = reference_.Score(views, 1.0f);
    forwards_ += static_cast<int64_t>(views.size());
    for (const size_t i : missing) {
      logprobs[i] = std::move(computed[i]);
      if (cache_ != nullptr) cache_->Put(digest_, names[i], logprobs[i]);
    }
  }
  std::vector<double> sums;
  sums.reserve(views.size());
  for (const auto& values : logprobs)
    sums.push_back(std::accumulate(values.begin(), values.end(), 0.0));
  return sums;
}

std::string ReferenceStateJson(const Digest& digest) {
  return nlohmann::json{{"reference", digest}}.dump();
}

void CheckReferenceState(const std::string& json, const Digest& digest) {
  Digest then;
  try {
    then = nlohmann::json::parse(json).value("reference", Digest());
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorCode::kCorruption,
                std::string("the checkpoint's state of the reference cannot be read: ") + e.what());
  }
  if (then == digest) return;
  throw Error(ErrorCode::kConflict, "the run compares with the reference " + then +
                                        ", the model it started from is now " + digest +
                                        ": bring the old model folder back, or start a new run");
}

}  // namespace plumb::learner

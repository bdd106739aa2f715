#include "reward/models/reward_model.h"

#include <algorithm>
#include <cmath>

#include "common/base/file.h"
#include "common/base/mutex.h"
#include "policy_model/families/model_config.h"
#include "policy_model/memory/weights.h"
#include "policy_model/packing.h"
#include "policy_model/transformer.h"
#include "reward/models/model_part.h"
#include "reward/models/perplexity.h"

namespace plumb::reward {
namespace {

policy_model::ModelShape CheckedShape(const configs::RewardPartConfig& part,
                                      const Tokenizer& policy) {
  policy_model::ModelShape shape = ReadModelPart(part, "a reward model");
  if (!shape.scalar_head) {
    RefusePart(part,
               "has no scalar head (config.json names no ...ForSequenceClassification): it is no "
               "reward model");
  }
  CheckTokenizer(part, policy);
  return shape;
}

class RewardModel : public RewardFunction {
 public:
  RewardModel(const configs::RewardPartConfig& part, const ModelPartOptions& options,
              const policy_model::ModelShape& shape)
      : name_(part.name),
        options_(options),
        stream_(options.device),
        weights_(shape, stream_, DtypeOf(part, options.dtype)),
        transformer_(weights_.shape(), stream_, weights_.flat().dtype()) {
    weights_.Load(part.path);
    digest_ = "reward_model:" + weights_.ComputeDigest();
  }

  const std::string& name() const override { return name_; }
  const std::string& digest() const override { return digest_; }

  std::vector<PartScore> Score(const TrajectoryGroup& group, Deadline deadline) override {
    std::vector<PartScore> out(group.trajectories.size());
    std::vector<size_t> readable;  // index into the group
    for (size_t i = 0; i < out.size(); ++i) {
      const Problem problem = WhyUnreadable(group.trajectories[i].tokens, weights_.shape());
      if (problem) {
        out[i] = PartScore::Failed(Failure::kReported, *problem);
        continue;
      }
      readable.push_back(i);
    }
    MutexLock lock(mu_);
    plan_.Clear();
    // From the first token on, so that nothing is shared: an answer scores the same served alone
    // and among its group.
    for (const size_t i : readable) plan_.Add(group.trajectories[i].tokens, 0);
    size_t begin = 0;
    for (const int32_t end : plan_.Split(options_.batch_tokens)) {
      const size_t stop = static_cast<size_t>(end);
      if (std::chrono::steady_clock::now() >= deadline) {
        for (; begin < readable.size(); ++begin) {
          out[readable[begin]] =
              PartScore::Failed(Failure::kTimeout, "the deadline passed before its forward pass");
        }
        break;
      }
      batch_.Clear();
      for (size_t k = begin; k < stop; ++k) {
        const auto& tokens = group.trajectories[readable[k]].tokens;
        const int32_t last = weights_.shape().ScoredPosition(tokens);
        batch_.AppendRows(tokens, std::span(&last, 1));
      }
      values_.resize(stop - begin);
      transformer_.ForwardValues(weights_, batch_, /*keep=*/false, values_);
      for (size_t k = begin; k < stop; ++k) {
        const float value = values_[k - begin];
        out[readable[k]] =
            std::isfinite(value)
                ? PartScore::Of(value)
                : PartScore::Failed(Failure::kNotFinite, "the model's score is not finite");
      }
      begin = stop;
    }
    return out;
  }

 private:
  const std::string name_;
  const ModelPartOptions options_;
  std::string digest_;
  const OwnedStream stream_;
  policy_model::Weights weights_;
  Mutex mu_;
  policy_model::Transformer transformer_ PLUMB_GUARDED_BY(mu_);
  policy_model::PackPlan plan_ PLUMB_GUARDED_BY(mu_);
  policy_model::PackedBatch batch_ PLUMB_GUARDED_BY(mu_);
  std::vector<float> values_ PLUMB_GUARDED_BY(mu_);
};

}  // namespace

std::unique_ptr<RewardFunction> MakeRewardModel(const configs::RewardPartConfig& part,
                                                const Tokenizer& policy) {
  const ModelPartOptions options = ReadModelPartOptions(part);
  return MakeModelPart<RewardModel>(part, options, CheckedShape(part, policy));
}

HostOptions WithModelParts(const Tokenizer& policy, HostOptions options) {
  options.vocabulary = VocabularyDigest(policy);
  options.decode = [&policy](std::span<const int32_t> tokens, bool skip_special) {
    return policy.Decode(tokens, skip_special);
  };
  options.model_part = [&policy](const configs::RewardPartConfig& part) {
    return part.kind == "perplexity" ? MakePerplexity(part, policy) : MakeRewardModel(part, policy);
  };
  return options;
}

}  // namespace plumb::reward

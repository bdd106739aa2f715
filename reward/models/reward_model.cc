#include "reward/models/reward_model.h"

#include <cmath>

#include "policy_model/families/model_config.h"
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

class RewardModel : public ModelPart {
 public:
  RewardModel(const configs::RewardPartConfig& part, const ModelPartOptions& options,
              const policy_model::ModelShape& shape)
      : ModelPart(part, options, shape) {
    digest_ = "reward_model:" + digest_;
  }

 private:
  void Pass(std::span<const Trajectory* const> answers, std::span<PartScore* const> scores) override
      PLUMB_REQUIRES(mu_) {
    for (const Trajectory* t : answers) {
      const int32_t last = weights_.shape().ScoredPosition(t->tokens);
      batch_.AppendRows(t->tokens, std::span(&last, 1));
    }
    values_.resize(answers.size());
    transformer_.ForwardValues(weights_, batch_, /*keep=*/false, values_);
    for (size_t k = 0; k < answers.size(); ++k) {
      *scores[k] = std::isfinite(values_[k])
                       ? PartScore::Of(values_[k])
                       : PartScore::Failed(Failure::kNotFinite, "the model's score is not finite");
    }
  }

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

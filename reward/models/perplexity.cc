#include "reward/models/perplexity.h"

#include <algorithm>
#include <cmath>

#include "reward/models/model_part.h"
#include "reward/part/file_digest.h"

namespace plumb::reward {
namespace {

class Perplexity : public ModelPart {
 public:
  Perplexity(const configs::RewardPartConfig& part, const ModelPartOptions& options,
             const policy_model::ModelShape& shape)
      : ModelPart(part, options, shape) {
    const std::string bounds = std::to_string(options.low) + "/" + std::to_string(options.high);
    digest_ = "perplexity/1:" + digest_ + ":" + TextSha256(bounds).substr(0, 8);
  }

 private:
  // The answer's first token that has one before it.
  static size_t ScoredFrom(const Trajectory& t) {
    return std::max<size_t>(1, static_cast<size_t>(t.prompt_length()));
  }

  Problem Unreadable(const Trajectory& t) const override {
    if (Problem problem = ModelPart::Unreadable(t)) return problem;
    // The first token of a sequence has nothing before it and no probability.
    if (ScoredFrom(t) >= t.tokens.size()) return "the answer has no token to score";
    return std::nullopt;
  }

  void Pass(std::span<const Trajectory* const> answers, std::span<PartScore* const> scores) override
      PLUMB_REQUIRES(mu_) {
    for (const Trajectory* t : answers) {
      mask_.assign(t->tokens.size(), 0);
      std::fill(mask_.begin() + static_cast<ptrdiff_t>(ScoredFrom(*t)), mask_.end(), uint8_t{1});
      batch_.Append(t->tokens, mask_);
    }
    logprobs_.resize(batch_.targets.size());
    transformer_.Forward(weights_, batch_, {.temperature = 1.0f, .entropy = false},
                         /*keep=*/false, logprobs_, {});
    size_t at = 0;
    for (size_t k = 0; k < answers.size(); ++k) {
      const size_t count = answers[k]->tokens.size() - ScoredFrom(*answers[k]);
      double nll = 0;
      for (size_t i = 0; i < count; ++i) nll -= logprobs_[at++];
      nll /= static_cast<double>(count);
      if (!std::isfinite(nll)) {
        *scores[k] =
            PartScore::Failed(Failure::kNotFinite, "the model's log-probabilities are not finite");
        continue;
      }
      *scores[k] = PartScore::Of(PerplexityScore(nll, options_.low, options_.high));
      scores[k]->details = {{"ppl", std::exp(std::min(nll, 700.0))}};
    }
  }

  std::vector<uint8_t> mask_ PLUMB_GUARDED_BY(mu_);
  std::vector<float> logprobs_ PLUMB_GUARDED_BY(mu_);
};

}  // namespace

double PerplexityScore(double nll, double low, double high) {
  return std::clamp((std::log(high) - nll) / (std::log(high) - std::log(low)), 0.0, 1.0);
}

std::unique_ptr<RewardFunction> MakePerplexity(const configs::RewardPartConfig& part,
                                               const Tokenizer& policy) {
  const ModelPartOptions options = ReadModelPartOptions(part, /*perplexity=*/true);
  policy_model::ModelShape shape = ReadModelPart(part, "a language model");
  if (shape.scalar_head)
    RefusePart(part,
               "has a scalar head (config.json says ...ForSequenceClassification): it is no "
               "language model");
  CheckTokenizer(part, policy);
  shape.unused_tokens = policy.IdsWithoutToken(shape.vocab, shape.eos_tokens);
  return MakeModelPart<Perplexity>(part, options, shape);
}

}  // namespace plumb::reward

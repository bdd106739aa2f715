#include "reward/models/perplexity.h"

#include <algorithm>
#include <cmath>

#include "common/base/mutex.h"
#include "policy_model/memory/weights.h"
#include "policy_model/packing.h"
#include "policy_model/transformer.h"
#include "reward/models/model_part.h"
#include "reward/part/file_digest.h"

namespace plumb::reward {
namespace {

class Perplexity : public RewardFunction {
 public:
  Perplexity(const configs::RewardPartConfig& part, const ModelPartOptions& options,
             const policy_model::ModelShape& shape)
      : name_(part.name),
        options_(options),
        stream_(options.device),
        weights_(shape, stream_, DtypeOf(part, options.dtype)),
        transformer_(weights_.shape(), stream_, weights_.flat().dtype()) {
    weights_.Load(part.path);
    const std::string bounds = std::to_string(options.low) + "/" + std::to_string(options.high);
    digest_ = "perplexity/1:" + weights_.ComputeDigest() + ":" + TextSha256(bounds).substr(0, 8);
  }

  const std::string& name() const override { return name_; }
  const std::string& digest() const override { return digest_; }

  std::vector<PartScore> Score(const TrajectoryGroup& group, Deadline deadline) override {
    std::vector<PartScore> out(group.trajectories.size());
    std::vector<size_t> readable;  // index into the group
    for (size_t i = 0; i < out.size(); ++i) {
      const Trajectory& t = group.trajectories[i];
      Problem problem = WhyUnreadable(t.tokens, weights_.shape());
      // The first token of a sequence has nothing before it and no probability.
      if (!problem && ScoredFrom(t) >= t.tokens.size())
        problem = "the answer has no token to score";
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
        const Trajectory& t = group.trajectories[readable[k]];
        mask_.assign(t.tokens.size(), 0);
        std::fill(mask_.begin() + static_cast<ptrdiff_t>(ScoredFrom(t)), mask_.end(), uint8_t{1});
        batch_.Append(t.tokens, mask_);
      }
      logprobs_.resize(batch_.targets.size());
      transformer_.Forward(weights_, batch_, {.temperature = 1.0f, .entropy = false},
                           /*keep=*/false, logprobs_, {});
      size_t at = 0;
      for (size_t k = begin; k < stop; ++k) {
        const Trajectory& t = group.trajectories[readable[k]];
        const size_t count = t.tokens.size() - ScoredFrom(t);
        double nll = 0;
        for (size_t i = 0; i < count; ++i) nll -= logprobs_[at++];
        nll /= static_cast<double>(count);
        if (!std::isfinite(nll)) {
          out[readable[k]] = PartScore::Failed(Failure::kNotFinite,
                                               "the model's log-probabilities are not finite");
          continue;
        }
        out[readable[k]] = PartScore::Of(PerplexityScore(nll, options_.low, options_.high));
        out[readable[k]].details = {{"ppl", std::exp(std::min(nll, 700.0))}};
      }
      begin = stop;
    }
    return out;
  }

 private:
  // The answer's first token that has one before it.
  static size_t ScoredFrom(const Trajectory& t) {
    return std::max<size_t>(1, static_cast<size_t>(t.prompt_length()));
  }

  const std::string name_;
  const ModelPartOptions options_;
  std::string digest_;
  const OwnedStream stream_;
  policy_model::Weights weights_;
  Mutex mu_;
  policy_model::Transformer transformer_ PLUMB_GUARDED_BY(mu_);
  policy_model::PackPlan plan_ PLUMB_GUARDED_BY(mu_);
  policy_model::PackedBatch batch_ PLUMB_GUARDED_BY(mu_);
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

// What parts that score with a model have in common: options, checks, the tokens that a model can
// read, and the walk of a group through its forward passes.
//
// Thread safety: pure functions; ModelPart::Score() from any thread, calls wait for each other.
// Ownership: a ModelPart owns its weights. Errors: Error naming the part, as each says; kinds as of
// reward/models/reward_model.h.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/device.h"
#include "common/base/dtype.h"
#include "common/base/error.h"
#include "common/base/mutex.h"
#include "common/base/problem.h"
#include "common/text/tokenizer/tokenizer.h"
#include "configs/config.h"
#include "policy_model/families/model_config.h"
#include "policy_model/memory/weights.h"
#include "policy_model/packing.h"
#include "policy_model/transformer.h"
#include "reward/part/reward.h"

namespace plumb::reward {

[[noreturn]] void RefusePart(const configs::RewardPartConfig& part, const std::string& message,
                             ErrorCode code = ErrorCode::kInvalidArgument);

struct ModelPartOptions {
  std::string dtype;  // empty: the folder's
  Device device;
  int64_t batch_tokens = 8192;
  double low = 10, high = 1000;  // perplexity
};
// `part.args`; low and high are taken when `perplexity`.
ModelPartOptions ReadModelPartOptions(const configs::RewardPartConfig& part,
                                      bool perplexity = false);

// path, workers and config.json of the part; `what` it should be is for messages.
policy_model::ModelShape ReadModelPart(const configs::RewardPartConfig& part,
                                       const std::string& what);

// A part that scores each answer by one forward pass of its model, several answers at once. A
// sequence that cannot be read fails alone; the deadline is looked at between passes.
class ModelPart : public RewardFunction {
 public:
  const std::string& name() const override { return name_; }
  const std::string& digest() const override { return digest_; }
  std::vector<PartScore> Score(const TrajectoryGroup& group, Deadline deadline) override;

 protected:
  // Reads the weights of `part`.
  ModelPart(const configs::RewardPartConfig& part, const ModelPartOptions& options,
            const policy_model::ModelShape& shape);

  // Why it gets no score; nothing where it can be scored.
  virtual Problem Unreadable(const Trajectory& trajectory) const;
  // One after the other; `answers` and their scores have the same order.
  virtual void Pass(std::span<const Trajectory* const> answers, std::span<PartScore* const> scores)
      PLUMB_REQUIRES(mu_) = 0;

  const ModelPartOptions options_;
  const OwnedStream stream_;
  policy_model::Weights weights_;
  std::string digest_;  // of the weights; what else the scores hang on is added by the kind
  Mutex mu_;
  policy_model::Transformer transformer_ PLUMB_GUARDED_BY(mu_);
  policy_model::PackedBatch batch_ PLUMB_GUARDED_BY(mu_);  // of the pass

 private:
  const std::string name_;
  policy_model::PackPlan plan_ PLUMB_GUARDED_BY(mu_);
};

template <class Model>
std::unique_ptr<RewardFunction> MakeModelPart(const configs::RewardPartConfig& part,
                                              const ModelPartOptions& options,
                                              const policy_model::ModelShape& shape) {
  try {
    return std::make_unique<Model>(part, options, shape);
  } catch (const Error& error) {  // a device that is not there names no part
    if (options.device.is_cuda() && error.code() == ErrorCode::kUnsupported)
      RefusePart(part, "device " + error.message(), error.code());
    throw;
  }
}

// `dtype`, or what config.json names; bfloat16 when it names nothing we compute in.
DType DtypeOf(const configs::RewardPartConfig& part, const std::string& dtype);

// "sha256:" of every token's bytes in the order of their ids: equal where the same ids are the same
// text.
std::string VocabularyDigest(const Tokenizer& tokenizer);

// The part's tokenizer has the same bytes under every id as the policy's, or an error that names
// the first difference.
void CheckTokenizer(const configs::RewardPartConfig& part, const Tokenizer& policy);

// Empty: a model of this shape can read them.
Problem WhyUnreadable(const std::vector<int32_t>& tokens, const policy_model::ModelShape& shape);

}  // namespace plumb::reward

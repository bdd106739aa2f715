// What parts that score with a model have in common: options, checks and the tokens that a model
// can read.
//
// Thread safety: pure functions. Errors: Error naming the part, as each says; kinds as of
// reward/models/reward_model.h.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/base/device.h"
#include "common/base/dtype.h"
#include "common/base/error.h"
#include "common/base/problem.h"
#include "common/text/tokenizer/tokenizer.h"
#include "configs/config.h"
#include "policy_model/families/model_config.h"
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

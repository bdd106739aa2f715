// Log-probs of tokens that somebody else wrote: what /token_logprobs of a server answers.
//
// Purpose: a teacher for other runs (docs/distillation.md), a judge of texts. A request names token
// sequences; of each token behind the first the reply has its log-prob, and the ids and log-probs
// of the `top` likeliest tokens at its place. Sequences are scored in packed passes beside the
// batch that is being answered, one request at a time.
// Thread safety: all. Ownership: borrows the models. Errors: ApiError 400 naming the field.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/mutex.h"
#include "learner/distill/teacher.h"
#include "run/serve/api_error.h"
#include "run/serve/served_models.h"

namespace plumb::run {

struct ScoreRequest {
  static constexpr int64_t kMostTop = 1024, kMostTokens = 1 << 17;
  std::string model;  // "": the first
  std::vector<std::vector<int32_t>> tokens;
  int64_t top = 0;
  double temperature = 1, top_temperature = 1;  // of logprobs; of the likeliest
};
ScoreRequest ReadScoreRequest(std::string_view body);

class TokenScorer {
 public:
  TokenScorer(const ServedModels& models, int64_t threads);
  ~TokenScorer();

  // The reply: {"sequences": [{"logprobs", "top", "top_logprobs"}]}. `model`: its index.
  std::string Score(const ScoreRequest& request, size_t model);

 private:
  struct Pass;
  const ServedModels& models_;
  const int64_t threads_;
  Mutex mu_;
  std::unique_ptr<Pass> pass_ PLUMB_GUARDED_BY(mu_);  // made by the first request
};

}  // namespace plumb::run

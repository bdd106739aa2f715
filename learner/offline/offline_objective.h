// What training without actors optimises: preference losses, reward models, demonstrations.
//
// Purpose: the offline loop (epochs, order, checkpoints, evaluation) knows no loss, as the
// learner's loop knows no algorithm. An objective owns or borrows its examples, split into a
// training and a held-out part, and makes one update on the training rows that it is given.
// Thread safety: one thread. Ownership: an objective borrows the policy and its optimizer, and owns
// the rest.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/record/trajectory.h"
#include "configs/batch_ramp.h"
#include "learner/update/checkpoint.h"
#include "learner/update/optimizer.h"
#include "learner/update/train_step.h"

namespace plumb::learner {

struct OfflineEval {
  double loss = 0;      // mean over the held-out examples
  double accuracy = 0;  // share of them that are ranked (or judged) right
  double margin = 0;    // mean reward of chosen minus rejected
  // exp(loss) where the loss is in nats a token: then nothing is ranked, and the two above say
  // nothing
  std::optional<double> perplexity = {};
  int64_t examples = 0;
  // The two whose difference `margin` is; empty where one of them has no examples.
  std::optional<double> chosen = {}, rejected = {};
};

class OfflineObjective {
 public:
  virtual ~OfflineObjective() = default;

  // Training examples; rows are 0..size()-1.
  virtual int64_t size() const = 0;
  // One update on these rows, in this order. `step` is 0-based; equal state and equal arguments
  // give equal bits. Returns metrics under the names of docs/metrics.md, "perf/train_tokens" and
  // "optim/..." among them.
  virtual std::map<std::string, double> Train(std::span<const uint32_t> rows, double learning_rate,
                                              int64_t step) = 0;
  // The held-out part under the present weights; changes nothing. examples == 0: there is none.
  virtual OfflineEval Evaluate() = 0;
  // There is something to evaluate on.
  virtual bool holds_out() const = 0;

  // As learner::Algorithm: what is trained or kept besides the policy.
  virtual std::vector<NamedModel> Models() { return {}; }
  virtual std::string StateJson() const { return "{}"; }
  virtual void RestoreState(const std::string& /*json*/) {}
};

inline SequenceView ViewOf(const Demonstration& d) { return {d.tokens, d.loss_mask}; }

// Tokens that are scored: nothing predicts the first one.
int64_t ScoredTokens(std::span<const uint8_t> mask);

// What every objective returns of its update. `tokens` went through the model, `shared` needed no
// second pass.
void AddUpdateMetrics(const Optimizer& optimizer, const UpdateResult& update, double learning_rate,
                      double tokens, int64_t shared, std::map<std::string, double>& metrics);

// Rows of a batch: step `step` takes the positions of its number, behind those of the steps before
// (configs/batch_ramp.h), of the endless row of epochs, each epoch a permutation of 0..n-1 that is
// a function of (seed, stream, epoch) alone; so the step is the whole cursor. `stream`: of a phase
// that draws apart. REQUIRES: n >= 1.
inline constexpr uint64_t kOfflineStream = 0x0FF1;
std::vector<uint32_t> OfflineBatch(int64_t n, const configs::BatchRamp& batch, int64_t step,
                                   uint64_t seed, bool shuffle, uint64_t stream = kOfflineStream);

}  // namespace plumb::learner

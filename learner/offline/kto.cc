#include "learner/offline/kto.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "common/base/error.h"
#include "common/base/rng.h"

namespace plumb::learner {
namespace {

constexpr uint64_t kOrderStream = uint64_t{0x4B70} << 48;

double Sum(std::span<const float> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// Where the completion begins: the first scored token.
std::ptrdiff_t CompletionBegin(const Demonstration& d) {
  return std::find_if(d.loss_mask.begin() + 1, d.loss_mask.end(),
                      [](uint8_t m) { return m != 0; }) -
         d.loss_mask.begin();
}

void CheckRows(std::span<const LabelledCompletion> rows) {
  for (const LabelledCompletion& row : rows) {
    const Demonstration& d = row.completion;
    if (d.tokens.size() == d.loss_mask.size() && ScoredTokens(d.loss_mask) > 0) continue;
    throw Error(ErrorCode::kInvalidArgument, "a completion has no token to learn from",
                row.dataset + " row " + std::to_string(row.row));
  }
}

}  // namespace

KtoObjective::KtoObjective(TrainStep& train, policy_model::Weights& weights, Optimizer& optimizer,
                           ReferencePolicy& reference, LogprobCache* cache,
                           const KtoOptions& options, std::vector<LabelledCompletion> rows,
                           std::vector<LabelledCompletion> heldout)
    : train_(train),
      weights_(weights),
      optimizer_(optimizer),
      reference_(reference, cache),
      options_(options),
      rows_(std::move(rows)),
      heldout_(std::move(heldout)) {
  if (options_.batch < 2) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "KTO needs preference.batch of at least 2: its reference point is estimated from the "
        "completions of other rows of the batch");
  }
  CheckRows(rows_);
  CheckRows(heldout_);
  if (options_.shuffle) {
    RandomStream random(options_.seed, kOrderStream);
    for (size_t i = rows_.size(); i > 1; --i)
      std::swap(rows_[i - 1], rows_[random.NextBelow(static_cast<uint32_t>(i))]);
  }
  left_out_ = size() % options_.batch;
  rows_.resize(rows_.size() - static_cast<size_t>(left_out_));
}

std::vector<Demonstration> KtoObjective::Mismatched(
    std::span<const LabelledCompletion* const> batch, int64_t max_tokens) {
  std::vector<Demonstration> out;
  for (size_t i = 0; i < batch.size(); ++i) {
    const Demonstration &own = batch[i]->completion,
                        &other = batch[(i + batch.size() - 1) % batch.size()]->completion;
    const auto prompt = CompletionBegin(own), begin = CompletionBegin(other);
    Demonstration d;
    d.tokens.assign(own.tokens.begin(), own.tokens.begin() + prompt);
    d.tokens.insert(d.tokens.end(), other.tokens.begin() + begin, other.tokens.end());
    d.loss_mask.assign(own.loss_mask.begin(), own.loss_mask.begin() + prompt);
    d.loss_mask.insert(d.loss_mask.end(), other.loss_mask.begin() + begin, other.loss_mask.end());
    const auto most =
        std::max<size_t>(static_cast<size_t>(max_tokens), static_cast<size_t>(prompt) + 1);
    if (d.tokens.size() > most) {
      d.tokens.resize(most);
      d.loss_mask.resize(most);
    }
    out.push_back(std::move(d));
  }
  return out;
}

KtoObjective::Batch KtoObjective::BatchOf(std::span<const LabelledCompletion* const> rows) {
  const size_t n = rows.size();
  Batch batch{.mismatched = Mismatched(rows, options_.max_tokens)};
  for (const LabelledCompletion* row : rows) batch.views.push_back(ViewOf(row->completion));
  for (const Demonstration& d : batch.mismatched) batch.views.push_back(ViewOf(d));
  batch.reference = reference_.Of(batch.views);
  if (n < 2) return batch;  // the last held-out row alone: it has no other's completion
  const auto policy = train_.Score(weights_, std::span(batch.views).subspan(n), 1.0f);
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += Sum(policy[i]) - batch.reference[n + i];
  batch.kl = KtoBaseline(sum / static_cast<double>(n));
  return batch;
}

void KtoObjective::Kinds::Add(const KtoLoss<double>& loss, bool good, double bar) {
  reward[good] += loss.reward;
  ++count[good];
  right += (loss.reward > bar) == good;
}

std::optional<double> KtoObjective::Kinds::Reward(bool good) const {
  if (count[good] == 0) return std::nullopt;
  return reward[good] / static_cast<double>(count[good]);
}

KtoLoss<double> KtoObjective::LossOf(double logprob, double reference, double kl, bool good) const {
  return KtoCompletionLoss<double>(logprob, reference, kl, good, options_.beta,
                                   good ? options_.desirable_weight : options_.undesirable_weight);
}

std::map<std::string, double> KtoObjective::Train(std::span<const uint32_t> rows,
                                                  double learning_rate, int64_t /*step*/) {
  std::vector<const LabelledCompletion*> examples;
  for (const uint32_t row : rows) examples.push_back(&rows_[row]);
  const size_t n = examples.size();
  const Batch batch = BatchOf(examples);
  const double scale = 1.0 / static_cast<double>(n);
  double loss = 0;
  Kinds kinds;
  optimizer_.ZeroGrad();
  train_.AccumulateSequences(
      weights_, std::span(batch.views).first(n), 1.0f,
      [&](std::span<const ScoredToken> tokens, std::span<TrainStep::Gradient> gradients) {
        const auto i = static_cast<size_t>(tokens.front().sequence);
        double logprob = 0;
        for (const ScoredToken& t : tokens) logprob += t.logprob;
        const bool good = examples[i]->desirable;
        const auto l = LossOf(logprob, batch.reference[i], batch.kl, good);
        for (auto& gradient : gradients)
          gradient.logprob = static_cast<float>(scale * l.derivative);
        loss += scale * l.value;
        kinds.Add(l, good, options_.beta * batch.kl);
      },
      optimizer_.gradients());
  const UpdateResult update = optimizer_.Update(learning_rate, loss);
  double tokens = 0;
  for (const SequenceView& view : batch.views) tokens += static_cast<double>(view.tokens.size());
  const auto chosen = kinds.Reward(true), rejected = kinds.Reward(false);
  std::map<std::string, double> metrics = {
      {"dpo/loss", loss},
      {"dpo/accuracy", static_cast<double>(kinds.right) * scale},
      {"dpo/margin", chosen && rejected ? *chosen - *rejected : 0},
      {"dpo/reward_chosen", chosen.value_or(0)},
      {"dpo/reward_rejected", rejected.value_or(0)},
      {"kto/kl", batch.kl},
      {"kto/desirable", static_cast<double>(kinds.count[1]) * scale},
      {"dpo/reference_forwards", static_cast<double>(reference_forwards())}};
  AddUpdateMetrics(optimizer_, update, learning_rate, tokens, train_.TakeSharedTokens(), metrics);
  return metrics;
}

OfflineEval KtoObjective::Evaluate() {
  OfflineEval out;
  // fixed: it decides the estimate
  const size_t at_once = static_cast<size_t>(std::max<int64_t>(options_.batch, 16));
  Kinds kinds;
  for (size_t begin = 0; begin < heldout_.size(); begin += at_once) {
    std::vector<const LabelledCompletion*> examples;
    for (size_t i = begin; i < std::min(begin + at_once, heldout_.size()); ++i)
      examples.push_back(&heldout_[i]);
    const Batch batch = BatchOf(examples);
    const auto policy = train_.Score(weights_, std::span(batch.views).first(examples.size()), 1.0f);
    for (size_t i = 0; i < examples.size(); ++i) {
      const bool good = examples[i]->desirable;
      const auto l = LossOf(Sum(policy[i]), batch.reference[i], batch.kl, good);
      out.loss += l.value;
      kinds.Add(l, good, options_.beta * batch.kl);
      ++out.examples;
    }
  }
  if (out.examples == 0) return out;
  out.loss /= static_cast<double>(out.examples);
  out.accuracy = static_cast<double>(kinds.right) / static_cast<double>(out.examples);
  out.chosen = kinds.Reward(true), out.rejected = kinds.Reward(false);
  if (out.chosen && out.rejected) out.margin = *out.chosen - *out.rejected;
  return out;
}

}  // namespace plumb::learner

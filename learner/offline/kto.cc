#include "learner/offline/kto.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "learner/offline/preference_loss.h"

namespace plumb::learner {
namespace {

constexpr uint64_t kOrderStream = uint64_t{0x4B70} << 48;

double Sum(std::span<const float> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// The first token is never scored: nothing precedes it.
bool HasScored(const Demonstration& d) {
  return d.tokens.size() == d.loss_mask.size() && d.tokens.size() > 1 &&
         std::any_of(d.loss_mask.begin() + 1, d.loss_mask.end(), [](uint8_t m) { return m != 0; });
}

// Where the completion begins: the first scored token.
std::ptrdiff_t CompletionBegin(const Demonstration& d) {
  return std::find_if(d.loss_mask.begin() + 1, d.loss_mask.end(),
                      [](uint8_t m) { return m != 0; }) -
         d.loss_mask.begin();
}

void CheckRows(std::span<const LabelledCompletion> rows) {
  for (const LabelledCompletion& row : rows) {
    if (HasScored(row.completion)) continue;
    throw Error(ErrorCode::kInvalidArgument, "a completion has no token to learn from",
                row.dataset + " row " + std::to_string(row.row));
  }
}

SequenceView View(const Demonstration& d) { return {d.tokens, d.loss_mask}; }

// Views of the batch's completions, then of its mismatched sequences.
std::vector<SequenceView> Views(std::span<const LabelledCompletion* const> batch,
                                std::span<const Demonstration> mismatched) {
  std::vector<SequenceView> views;
  for (const LabelledCompletion* row : batch) views.push_back(View(row->completion));
  for (const Demonstration& d : mismatched) views.push_back(View(d));
  return views;
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

double KtoObjective::Baseline(std::span<const SequenceView> mismatched,
                              std::span<const double> reference) {
  if (mismatched.size() < 2) return 0;  // the last held-out row alone: it has no other's completion
  const auto policy = train_.Score(weights_, mismatched, 1.0f);
  double sum = 0;
  for (size_t i = 0; i < policy.size(); ++i) sum += Sum(policy[i]) - reference[i];
  return KtoBaseline(sum / static_cast<double>(policy.size()));
}

std::map<std::string, double> KtoObjective::Train(std::span<const uint32_t> rows,
                                                  double learning_rate, int64_t /*step*/) {
  std::vector<const LabelledCompletion*> batch;
  for (const uint32_t row : rows) batch.push_back(&rows_[row]);
  const std::vector<Demonstration> mismatched = Mismatched(batch, options_.max_tokens);
  const std::vector<SequenceView> views = Views(batch, mismatched);
  const std::vector<double> reference = reference_.Of(views);
  const size_t n = batch.size();
  const double kl = Baseline(std::span(views).subspan(n), std::span(reference).subspan(n));
  const double scale = 1.0 / static_cast<double>(n);
  double loss = 0, reward[2] = {0, 0};
  int64_t count[2] = {0, 0}, right = 0;
  optimizer_.ZeroGrad();
  train_.AccumulateSequences(
      weights_, std::span(views).first(n), 1.0f,
      [&](std::span<const ScoredToken> tokens, std::span<TrainStep::Gradient> gradients) {
        const auto i = static_cast<size_t>(tokens.front().sequence);
        double logprob = 0;
        for (const ScoredToken& t : tokens) logprob += t.logprob;
        const bool good = batch[i]->desirable;
        const auto l = KtoCompletionLoss<double>(
            logprob, reference[i], kl, good, options_.beta,
            good ? options_.desirable_weight : options_.undesirable_weight);
        for (auto& gradient : gradients)
          gradient.logprob = static_cast<float>(scale * l.derivative);
        loss += scale * l.value;
        reward[good] += l.reward;
        ++count[good];
        right += (l.reward > options_.beta * kl) == good;
      },
      optimizer_.gradients());
  const UpdateResult update = optimizer_.Update(learning_rate, loss);
  double tokens = 0;
  for (const SequenceView& view : views) tokens += static_cast<double>(view.tokens.size());
  const double chosen = count[1] > 0 ? reward[1] / static_cast<double>(count[1]) : 0;
  const double rejected = count[0] > 0 ? reward[0] / static_cast<double>(count[0]) : 0;
  return {{"dpo/loss", loss},
          {"dpo/accuracy", static_cast<double>(right) * scale},
          {"dpo/margin", count[0] > 0 && count[1] > 0 ? chosen - rejected : 0},
          {"dpo/reward_chosen", chosen},
          {"dpo/reward_rejected", rejected},
          {"kto/kl", kl},
          {"kto/desirable", static_cast<double>(count[1]) * scale},
          {"dpo/reference_forwards", static_cast<double>(reference_forwards())},
          {"optim/grad_norm", update.grad_norm},
          {"optim/lr", learning_rate},
          {"optim/skipped", static_cast<double>(optimizer_.skipped())},
          {"perf/train_tokens", tokens},
          {"perf/shared_tokens", static_cast<double>(train_.TakeSharedTokens())}};
}

OfflineEval KtoObjective::Evaluate() {
  OfflineEval out;
  // fixed: it decides the estimate
  const size_t at_once = static_cast<size_t>(std::max<int64_t>(options_.batch, 16));
  double reward[2] = {0, 0};
  int64_t count[2] = {0, 0};
  for (size_t begin = 0; begin < heldout_.size(); begin += at_once) {
    std::vector<const LabelledCompletion*> batch;
    for (size_t i = begin; i < std::min(begin + at_once, heldout_.size()); ++i)
      batch.push_back(&heldout_[i]);
    const std::vector<Demonstration> mismatched = Mismatched(batch, options_.max_tokens);
    const std::vector<SequenceView> views = Views(batch, mismatched);
    const std::vector<double> reference = reference_.Of(views);
    const size_t n = batch.size();
    const double kl = Baseline(std::span(views).subspan(n), std::span(reference).subspan(n));
    const auto policy = train_.Score(weights_, std::span(views).first(n), 1.0f);
    for (size_t i = 0; i < n; ++i) {
      const bool good = batch[i]->desirable;
      const auto l =
          KtoCompletionLoss<double>(Sum(policy[i]), reference[i], kl, good, options_.beta,
                                    good ? options_.desirable_weight : options_.undesirable_weight);
      out.loss += l.value;
      out.accuracy += (l.reward > options_.beta * kl) == good ? 1 : 0;
      reward[good] += l.reward;
      ++count[good];
      ++out.examples;
    }
  }
  if (out.examples == 0) return out;
  out.loss /= static_cast<double>(out.examples);
  out.accuracy /= static_cast<double>(out.examples);
  if (count[1] > 0) out.chosen = reward[1] / static_cast<double>(count[1]);
  if (count[0] > 0) out.rejected = reward[0] / static_cast<double>(count[0]);
  if (out.chosen && out.rejected) out.margin = *out.chosen - *out.rejected;
  return out;
}

std::vector<LabelledCompletion> Unpaired(std::span<const PreferencePair> pairs) {
  std::vector<LabelledCompletion> out;
  for (const PreferencePair& pair : pairs) {
    out.push_back(
        {.dataset = pair.dataset, .row = pair.row, .completion = pair.chosen, .desirable = true});
    out.push_back({.dataset = pair.dataset,
                   .row = pair.row,
                   .completion = pair.rejected,
                   .desirable = false});
  }
  return out;
}

}  // namespace plumb::learner

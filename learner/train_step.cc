#include "learner/train_step.h"

#include "common/error.h"

namespace plumb::learner {

using policy_model::ScoreOptions;
using policy_model::SplitByTokens;

namespace {

std::vector<int32_t> Lengths(std::span<const SequenceView> sequences) {
  std::vector<int32_t> lengths;
  lengths.reserve(sequences.size());
  for (const auto& s : sequences) lengths.push_back(static_cast<int32_t>(s.tokens.size()));
  return lengths;
}

}  // namespace

TrainStep::TrainStep(policy_model::Transformer& transformer, int64_t micro_batch_tokens)
    : transformer_(transformer), micro_batch_tokens_(micro_batch_tokens) {}

void TrainStep::Pack(std::span<const SequenceView> sequences, int32_t first, int32_t last) {
  batch_.Clear();
  scored_.clear();
  for (int32_t s = first; s < last; ++s) {
    const SequenceView& sequence = sequences[static_cast<size_t>(s)];
    batch_.Append(sequence.tokens, sequence.mask);
    for (size_t i = 1; i < sequence.tokens.size(); ++i) {
      if (sequence.mask[i]) scored_.push_back({.sequence = s, .token = static_cast<int32_t>(i)});
    }
  }
  PLUMB_CHECK(scored_.size() == batch_.rows.size());
  logprob_.resize(scored_.size());
  entropy_.resize(scored_.size());
}

std::vector<std::vector<float>> TrainStep::Score(const policy_model::Weights& weights,
                                                 std::span<const SequenceView> sequences, float temperature) {
  std::vector<std::vector<float>> out(sequences.size());
  int32_t first = 0;
  for (int32_t last : SplitByTokens(Lengths(sequences), micro_batch_tokens_)) {
    Pack(sequences, first, last);
    if (!scored_.empty()) {
      transformer_.Forward(weights, batch_, {.temperature = temperature, .entropy = false}, false, logprob_, {});
    }
    for (size_t i = 0; i < scored_.size(); ++i) out[static_cast<size_t>(scored_[i].sequence)].push_back(logprob_[i]);
    first = last;
  }
  return out;
}

void TrainStep::Accumulate(const policy_model::Weights& weights, std::span<const SequenceView> sequences,
                           float temperature, const TokenLoss& loss, policy_model::FlatBuffer& grad) {
  int32_t first = 0;
  for (int32_t last : SplitByTokens(Lengths(sequences), micro_batch_tokens_)) {
    Pack(sequences, first, last);
    first = last;
    if (scored_.empty()) continue;
    transformer_.Forward(weights, batch_, {.temperature = temperature, .entropy = true}, true, logprob_, entropy_);
    g_logprob_.resize(scored_.size());
    g_entropy_.resize(scored_.size());
    bool any_entropy = false;
    for (size_t i = 0; i < scored_.size(); ++i) {
      scored_[i].logprob = logprob_[i];
      scored_[i].entropy = entropy_[i];
      const Gradient g = loss(scored_[i]);
      g_logprob_[i] = g.logprob;
      g_entropy_[i] = g.entropy;
      any_entropy = any_entropy || g.entropy != 0;
    }
    transformer_.Backward(weights, batch_, g_logprob_,
                          any_entropy ? std::span<const float>(g_entropy_) : std::span<const float>(), grad);
  }
}

}  // namespace plumb::learner

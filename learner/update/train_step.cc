#include "learner/update/train_step.h"

#include "common/base/error.h"
#include "common/base/rng.h"

namespace plumb::learner {

using policy_model::ScoreOptions;

namespace {

constexpr uint64_t kMicroBatchStream = 0xd40b;

uint64_t DropoutKey(const policy_model::Gradients& grad, uint32_t micro_batch) {
  const Random4 bits = RandomAt(grad.dropout_key, kMicroBatchStream, micro_batch, 0);
  return (uint64_t{bits.x[0]} << 32) | bits.x[1];
}

}  // namespace

TrainStep::TrainStep(policy_model::Transformer& transformer, int64_t micro_batch_tokens)
    : transformer_(transformer), micro_batch_tokens_(micro_batch_tokens) {}

const std::vector<int32_t>& TrainStep::Split(std::span<const SequenceView> sequences,
                                             int32_t together) {
  plan_.Clear();
  for (const SequenceView& sequence : sequences) plan_.Add(sequence.tokens, sequence.mask);
  return plan_.Split(micro_batch_tokens_, together);
}

void TrainStep::SetShare(std::span<const SequenceView> sequences, int32_t first, int32_t last) {
  const auto tokens = [&](size_t begin, size_t end) {
    double n = 0;
    for (size_t s = begin; s < end; ++s) n += static_cast<double>(sequences[s].tokens.size());
    return n;
  };
  transformer_.SetRoutingShare(tokens(static_cast<size_t>(first), static_cast<size_t>(last)) /
                               tokens(0, sequences.size()));
}

int64_t TrainStep::Pack(const policy_model::Weights& weights,
                        std::span<const SequenceView> sequences, int32_t first, int32_t last) {
  batch_.Clear();
  batch_.task_tokens = weights.task_tokens() > 0;
  scored_.clear();
  int64_t tokens = 0;
  for (int32_t s = first; s < last; ++s) {
    const SequenceView& sequence = sequences[static_cast<size_t>(s)];
    tokens += static_cast<int64_t>(sequence.tokens.size()) - batch_.Passed(sequence.tokens);
    batch_.Append(sequence.tokens, sequence.mask, plan_.Shared(s, first, last, batch_),
                  sequence.kept);
    for (size_t i = 1; i < sequence.tokens.size(); ++i) {
      if (sequence.mask[i]) scored_.push_back({.sequence = s, .token = static_cast<int32_t>(i)});
    }
  }
  PLUMB_CHECK(scored_.size() == batch_.rows.size());
  for (auto* buffer : {&logprob_, &entropy_, &value_, &g_logprob_, &g_entropy_, &g_value_})
    buffer->resize(scored_.size());
  return tokens - batch_.size();
}

std::vector<std::vector<float>> TrainStep::Score(const policy_model::Weights& weights,
                                                 std::span<const SequenceView> sequences,
                                                 float temperature) {
  std::vector<std::vector<float>> out(sequences.size());
  int32_t first = 0;
  for (int32_t last : Split(sequences)) {
    Pack(weights, sequences, first, last);
    if (!scored_.empty()) {
      transformer_.Forward(weights, batch_, {.temperature = temperature, .entropy = false}, false,
                           logprob_, {});
    }
    for (size_t i = 0; i < scored_.size(); ++i)
      out[static_cast<size_t>(scored_[i].sequence)].push_back(logprob_[i]);
    first = last;
  }
  return out;
}

std::vector<std::vector<float>> TrainStep::Values(const policy_model::Weights& weights,
                                                  std::span<const SequenceView> sequences) {
  std::vector<std::vector<float>> out(sequences.size());
  int32_t first = 0;
  for (int32_t last : Split(sequences)) {
    Pack(weights, sequences, first, last);
    if (!scored_.empty()) transformer_.ForwardValues(weights, batch_, false, value_);
    for (size_t i = 0; i < scored_.size(); ++i)
      out[static_cast<size_t>(scored_[i].sequence)].push_back(value_[i]);
    first = last;
  }
  return out;
}

std::vector<std::vector<float>> TrainStep::HeadValues(const policy_model::Weights& weights,
                                                      const policy_model::Weights& head,
                                                      std::span<const SequenceView> sequences) {
  std::vector<std::vector<float>> out(sequences.size());
  int32_t first = 0;
  for (int32_t last : Split(sequences)) {
    Pack(weights, sequences, first, last);
    if (!scored_.empty()) {
      transformer_.Forward(weights, batch_, {.entropy = false}, false, logprob_, {});
      transformer_.HeadValues(head, value_);
    }
    for (size_t i = 0; i < scored_.size(); ++i)
      out[static_cast<size_t>(scored_[i].sequence)].push_back(value_[i]);
    first = last;
  }
  return out;
}

void TrainStep::Accumulate(const policy_model::Weights& weights,
                           std::span<const SequenceView> sequences, float temperature,
                           const TokenLoss& loss, const policy_model::Gradients& grad,
                           const SharedHead* shared) {
  AccumulateSequences(
      weights, sequences, temperature,
      [&](std::span<const ScoredToken> tokens, std::span<Gradient> gradients) {
        for (size_t i = 0; i < tokens.size(); ++i) gradients[i] = loss(tokens[i]);
      },
      grad, shared);
}

void TrainStep::AccumulateSequences(const policy_model::Weights& weights,
                                    std::span<const SequenceView> sequences, float temperature,
                                    const SequenceLoss& loss, const policy_model::Gradients& grad,
                                    const SharedHead* shared) {
  AccumulateTogether(weights, sequences, 1, /*entropy=*/true, temperature, loss, grad, shared);
}

void TrainStep::AccumulatePairs(const policy_model::Weights& weights,
                                std::span<const SequenceView> sequences, float temperature,
                                const SequenceLoss& loss, const policy_model::Gradients& grad) {
  AccumulateTogether(weights, sequences, 2, /*entropy=*/false, temperature, loss, grad, nullptr);
}

void TrainStep::AccumulateTogether(const policy_model::Weights& weights,
                                   std::span<const SequenceView> sequences, int32_t together,
                                   bool entropy, float temperature, const SequenceLoss& loss,
                                   const policy_model::Gradients& grad, const SharedHead* shared) {
  int32_t first = 0;
  uint32_t micro_batch = 0;
  for (int32_t last : Split(sequences, together)) {
    const int64_t spared = Pack(weights, sequences, first, last);
    SetShare(sequences, first, last);
    first = last;
    if (scored_.empty()) continue;
    shared_tokens_ += spared;
    transformer_.Forward(weights, batch_,
                         {.temperature = temperature,
                          .entropy = entropy,
                          .dropout = DropoutKey(grad, micro_batch++)},
                         true, logprob_, entropy ? std::span<float>(entropy_) : std::span<float>());
    if (shared) transformer_.HeadValues(*shared->head, value_);
    for (size_t i = 0; i < scored_.size(); ++i) {
      scored_[i].logprob = logprob_[i];
      if (entropy) scored_[i].entropy = entropy_[i];
      if (shared) scored_[i].value = value_[i];
    }
    gradients_.assign(scored_.size(), {});
    for (size_t begin = 0, end = 0; begin < scored_.size(); begin = end) {
      while (end < scored_.size() &&
             scored_[end].sequence / together == scored_[begin].sequence / together)
        ++end;
      loss(std::span<const ScoredToken>(scored_).subspan(begin, end - begin),
           std::span(gradients_).subspan(begin, end - begin));
    }
    bool any_entropy = false;
    for (size_t i = 0; i < scored_.size(); ++i) {
      g_logprob_[i] = gradients_[i].logprob;
      g_entropy_[i] = gradients_[i].entropy;
      g_value_[i] = gradients_[i].value;
      any_entropy = any_entropy || gradients_[i].entropy != 0;
    }
    const std::span<const float> g_entropy =
        any_entropy ? std::span<const float>(g_entropy_) : std::span<const float>();
    if (shared) {
      const policy_model::Transformer::SharedHead head{
          .head = shared->head, .g_values = g_value_, .grad = shared->grad};
      transformer_.Backward(weights, batch_, g_logprob_, g_entropy, grad, &head);
    } else {
      transformer_.Backward(weights, batch_, g_logprob_, g_entropy, grad);
    }
  }
}

void TrainStep::AccumulateValues(const policy_model::Weights& weights,
                                 std::span<const SequenceView> sequences, const TokenLoss& loss,
                                 const policy_model::Gradients& grad) {
  int32_t first = 0;
  for (int32_t last : Split(sequences)) {
    const int64_t spared = Pack(weights, sequences, first, last);
    SetShare(sequences, first, last);
    first = last;
    if (scored_.empty()) continue;
    shared_tokens_ += spared;
    transformer_.ForwardValues(weights, batch_, true, value_);
    for (size_t i = 0; i < scored_.size(); ++i) {
      scored_[i].value = value_[i];
      g_value_[i] = loss(scored_[i]).value;
    }
    transformer_.BackwardValues(weights, batch_, g_value_, grad);
  }
}

}  // namespace plumb::learner

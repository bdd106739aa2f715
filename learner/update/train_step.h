// Forward, loss, backward over packed micro-batches; gradients accumulate until the optimizer takes
// them.
//
// Purpose: what every algorithm shares. An algorithm says which sequences and, for each scored
// token, what the loss' derivative is; packing, chunking and buffers are here. What neighbouring
// sequences of a micro-batch begin with (the prompt of a group's answers, of a pair) goes through
// the model once.
// Adapters with a dropout drop in the Accumulate passes and in no other, by grad's key and the
// number of the micro-batch: the same update of the same sequences drops the same.
// Experts that were recorded are taken again by the passes of the policy, those of a shared head
// included. A reference and a critic of its own have other weights: their routers choose.
// Errors: kConflict for recorded experts of another model.
// Of a loss the passes compute grad.loss_scale times the gradient, which Optimizer::Update divides
// again.
// Ranks: every rank is given all sequences, computes every so manyth micro-batch, and learns what
// the others found of theirs before the loss is asked: a loss sees all tokens in the same order on
// every rank, and what it sums up is that of the whole batch, to the bit. Gradients are each rank's
// own share; Optimizer::Update adds them up. Of a pipeline (UsePipeline) every stage is given all
// of them, too; the last one asks the loss between a micro-batch's forward and its backward, the
// others once all are done, with the same numbers in the same order. Thread safety: one thread.
// Allocation: none of ours in Accumulate after a pass of the same size.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "common/record/trajectory.h"
#include "learner/ranks/ranks.h"
#include "learner/update/optimizer.h"
#include "learner/update/stages/pipeline.h"
#include "policy_model/packing.h"
#include "policy_model/transformer.h"

namespace plumb::learner {

// Borrowed tokens of one sequence; mask[i] != 0 where token i is scored. [S] each. kept:
// Trajectory::kept, the sets that log-probs and entropies are over; empty: over every token.
// experts: Trajectory::experts, to which passes of the policy send the tokens again; nullptr: its
// routers choose.
struct SequenceView {
  std::span<const int32_t> tokens;
  std::span<const uint8_t> mask;
  std::span<const uint8_t> kept = {};
  const ExpertChoices* experts = nullptr;
};
// Everything that was recorded of an answer; borrowed.
SequenceView ViewOf(const Trajectory& trajectory);

// One scored token of a micro-batch: token `token` of sequence `sequence` (index into the list
// given to the pass).
struct ScoredToken {
  int32_t sequence = 0;
  int32_t token = 0;
  float logprob = 0;
  float entropy = 0;
  float value = 0;  // of a critic, where there is one
  // [RowMeasure::width] of a measure, where one looks on; of the call that shows it.
  const float* measured = nullptr;
};

// Looks on at passes and says numbers of each scored token, the first of which may have a gradient:
// how far a policy is from a teacher (learner/distill). Begin is told the tokens of a pass, then it
// is a guest of it; Take comes behind its forward, Weigh in front of its backward.
class RowMeasure : public policy_model::PassGuest {
 public:
  virtual size_t width() const = 0;
  // In the order of the rows; `token` counts the scored tokens of its sequence here.
  virtual void Begin(std::span<const ScoredToken> rows) = 0;
  virtual void Take(std::span<float> out) = 0;  // [rows * width]
  // The loss' derivative by the first number of each row.
  virtual void Weigh(std::span<const float> gradient) = 0;
};

class TrainStep {
 public:
  // `ranks`: borrowed; nullptr: there is one.
  TrainStep(policy_model::Transformer& transformer, int64_t micro_batch_tokens,
            Ranks* ranks = nullptr);
  TrainStep(const TrainStep&) = delete;
  TrainStep& operator=(const TrainStep&) = delete;
  Ranks* ranks() const { return ranks_; }
  // Before the first pass of weights that `optimizer` trains: where ranks keep a part of them each,
  // passes find the rest there. Both are borrowed.
  void UsePartsOf(const policy_model::Weights& weights, const Optimizer& optimizer) {
    transformer().SetParts(&weights.base(), optimizer.parts());
  }

  // From now on weights are a stage of a model and passes those of all its stages at once; nullptr:
  // they are not. Values, shared heads and measures are not there then. Borrowed.
  void UsePipeline(Pipeline* pipeline, bool recompute);

  // Log-probs of every scored token under `weights`, without gradients: out[sequence] in token
  // order. `replay`: through the experts that were recorded.
  std::vector<std::vector<float>> Score(const policy_model::Weights& weights,
                                        std::span<const SequenceView> sequences, float temperature,
                                        bool replay = true);

  // Log-probs of every scored token under `weights` and behind each the numbers of `measure`,
  // without gradients: out[sequence][(1 + width) * scored token]. Routers choose the experts.
  std::vector<std::vector<float>> Measure(const policy_model::Weights& weights,
                                          std::span<const SequenceView> sequences,
                                          float temperature, RowMeasure& measure);

  // Both of Score, of the policy.
  struct Scores {
    std::vector<std::vector<float>> logprobs, entropies;
  };
  Scores ScoreEntropies(const policy_model::Weights& weights,
                        std::span<const SequenceView> sequences, float temperature);

  // Values of the states before every scored token, without gradients. Values: `weights` is a model
  // with a scalar head;
  // HeadValues: `head` shares the trunk of `weights`.
  std::vector<std::vector<float>> Values(const policy_model::Weights& weights,
                                         std::span<const SequenceView> sequences);
  std::vector<std::vector<float>> HeadValues(const policy_model::Weights& weights,
                                             const policy_model::Weights& head,
                                             std::span<const SequenceView> sequences);

  // Derivatives of the summed loss by what is known of one scored token.
  struct Gradient {
    float logprob = 0;
    float entropy = 0;
    float value = 0;
    float measured = 0;  // by the first number of a RowMeasure
  };
  using TokenLoss = std::function<Gradient(const ScoredToken&)>;

  // A scalar head on the policy's trunk: ScoredToken::value and Gradient::value are its.
  struct SharedHead {
    const policy_model::Weights* head = nullptr;
    policy_model::FlatBuffer* grad = nullptr;
  };

  // Forward and backward of all sequences in token-budgeted micro-batches; adds into `grad` (and
  // into the head's).
  void Accumulate(const policy_model::Weights& weights, std::span<const SequenceView> sequences,
                  float temperature, const TokenLoss& loss, const policy_model::Gradients& grad,
                  const SharedHead* shared = nullptr, RowMeasure* measure = nullptr);
  // The same for a loss that needs a whole sequence at once: it sees the scored tokens of one
  // sequence in order and writes the gradient of each. Sequences without scored tokens are not
  // shown.
  using SequenceLoss = std::function<void(std::span<const ScoredToken>, std::span<Gradient>)>;
  void AccumulateSequences(const policy_model::Weights& weights,
                           std::span<const SequenceView> sequences, float temperature,
                           const SequenceLoss& loss, const policy_model::Gradients& grad,
                           const SharedHead* shared = nullptr, RowMeasure* measure = nullptr);
  // The same for a loss that compares sequences 2k and 2k + 1: it sees the scored tokens of both in
  // order; a micro-batch never parts them. Entropies are not computed.
  void AccumulatePairs(const policy_model::Weights& weights,
                       std::span<const SequenceView> sequences, float temperature,
                       const SequenceLoss& loss, const policy_model::Gradients& grad);
  // For a model with a scalar head: only ScoredToken::value and Gradient::value are used.
  void AccumulateValues(const policy_model::Weights& weights,
                        std::span<const SequenceView> sequences, const TokenLoss& loss,
                        const policy_model::Gradients& grad);

  // Tokens of the Accumulate passes since the last call that were not computed again, because a
  // neighbour begins with them, too. Of all ranks, which all ask.
  int64_t TakeSharedTokens();

 private:
  // Sequences [first, last) that go through the model at once, and how many of their tokens are
  // scored: at least one.
  struct MicroBatch {
    int32_t first = 0, last = 0;
    size_t rows = 0;
  };
  // This rank computes it.
  bool Own(const MicroBatch& of) const {
    return !ranks_ || (&of - micro_batches_.data()) % ranks_->size() == ranks_->rank();
  }
  // Fills micro_batches_.
  void Split(std::span<const SequenceView> sequences, bool replay, int32_t together = 1);
  // The micro-batches in rounds of one a rank. pack(micro-batch) lays this rank's down, then
  // compute(number, micro-batch, results) fills `width` numbers for each of its rows;
  // use(micro-batch, results) sees those of every rank, in order; then, where a backward follows,
  // finish(micro-batch) of this rank's. A rank without a micro-batch in a round goes through the
  // weights' parts, and other ranks' rows, with the others. `grad`: of the backward; nullptr: none
  // follows.
  enum class Passes { kForward, kBoth };
  template <class Lay, class Compute, class Use, class Finish>
  void InRounds(const policy_model::Weights& weights, const policy_model::Gradients* grad,
                size_t width, const Lay& pack, const Compute& compute, const Use& use,
                const Finish& finish);
  // The same as stages of a pipeline; ranks that have the same one take turns at micro-batches.
  template <class Lay, class Compute, class Use, class Finish>
  void InStages(Passes passes, size_t width, const Lay& pack, const Compute& compute,
                const Use& use, const Finish& finish);
  // The results of a round, which begins with micro-batch `begin`, of all ranks in gathered_.
  void GatherRound(size_t begin, size_t width);
  // A forward of slot_'s batch, whose results are there where rows are scored.
  void ForwardHere(const policy_model::Weights& weights, policy_model::ScoreOptions options,
                   bool keep, std::span<float> logprob, std::span<float> entropy);
  // Whether rows are scored here.
  bool scores() const { return !pipeline_ || pipeline_->last(); }
  policy_model::Transformer& transformer() const { return *slot_->transformer; }
  policy_model::PackedBatch& batch() { return slot_->batch; }
  // Numbers of every scored token, which `forward` computes: out[sequence] in token order.
  template <class Forward>
  std::vector<std::vector<float>> EachToken(const policy_model::Weights& weights,
                                            std::span<const SequenceView> sequences, bool replay,
                                            const Forward& forward);
  // `loss` sees `together` consecutive sequences at a time.
  void AccumulateTogether(const policy_model::Weights& weights,
                          std::span<const SequenceView> sequences, int32_t together, bool entropy,
                          float temperature, const SequenceLoss& loss,
                          const policy_model::Gradients& grad, const SharedHead* shared,
                          RowMeasure* measure);
  // Begins it with the tokens of scored_.
  void BeginMeasure(RowMeasure& measure);
  // Of the routers' losses, a micro-batch takes the share of its tokens.
  void SetShare(std::span<const SequenceView> sequences, const MicroBatch& of);
  // Packs the sequences of a micro-batch of the last Split into slot_'s batch, as `weights` compute
  // them; returns how many tokens it spared.
  int64_t Pack(const policy_model::Weights& weights, std::span<const SequenceView> sequences,
               bool replay, const MicroBatch& of);
  void CheckForm(const SequenceView& sequence) const;
  // Lists its scored tokens in scored_.
  void List(std::span<const SequenceView> sequences, const MicroBatch& of);

  PassSlot own_slot_;
  PassSlot* slot_ = &own_slot_;  // of the micro-batch at hand
  Pipeline* pipeline_ = nullptr;
  int64_t micro_batch_tokens_;
  Ranks* const ranks_;
  int64_t shared_tokens_ = 0;
  policy_model::PackPlan plan_;
  std::vector<MicroBatch> micro_batches_;
  std::vector<ScoredToken> scored_;
  std::vector<Gradient> gradients_;
  std::vector<float> own_, gathered_;  // results of a round
  std::vector<float> all_;             // of all rounds, of a pipeline
  std::vector<size_t> sizes_;          // of the ranks' parts of it
  std::vector<ScoredToken> numbered_;  // for a measure
  std::vector<float> g_logprob_, g_entropy_, g_value_, g_measured_;
};

}  // namespace plumb::learner

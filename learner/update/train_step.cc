#include "learner/update/train_step.h"

#include <algorithm>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "policy_model/families/experts/expert_form.h"

namespace plumb::learner {

using policy_model::ScoreOptions;

namespace {

constexpr uint64_t kMicroBatchStream = 0xd40b;

uint64_t DropoutKey(const policy_model::Gradients& grad, uint32_t micro_batch) {
  const Random4 bits = RandomAt(grad.dropout_key, kMicroBatchStream, micro_batch, 0);
  return (uint64_t{bits.x[0]} << 32) | bits.x[1];
}

}  // namespace

SequenceView ViewOf(const Trajectory& t) {
  return {t.tokens, t.loss_mask, t.kept, t.experts.there() ? &t.experts : nullptr};
}

TrainStep::TrainStep(policy_model::Transformer& transformer, int64_t micro_batch_tokens,
                     Ranks* ranks)
    : own_slot_{.transformer = &transformer},
      micro_batch_tokens_(micro_batch_tokens),
      ranks_(ranks) {}

void TrainStep::UsePipeline(Pipeline* pipeline, bool recompute) {
  pipeline_ = pipeline;
  slot_ = &own_slot_;
  if (pipeline) pipeline->Use(*own_slot_.transformer, recompute);
}

int64_t TrainStep::TakeSharedTokens() {
  const int64_t own = std::exchange(shared_tokens_, 0);
  return ranks_ ? static_cast<int64_t>(ranks_->Sum(static_cast<double>(own))) : own;
}

void TrainStep::Split(std::span<const SequenceView> sequences, bool replay, int32_t together) {
  plan_.Clear();
  for (const SequenceView& sequence : sequences) {
    if (replay && sequence.experts) CheckForm(sequence);
    plan_.Add(sequence.tokens, sequence.mask, replay ? sequence.experts : nullptr);
  }
  micro_batches_.clear();
  int32_t first = 0;
  for (const int32_t last :
       plan_.SplitInTurns(micro_batch_tokens_, ranks_ ? ranks_->size() : 1, together)) {
    MicroBatch made{.first = std::exchange(first, last), .last = last};
    for (int32_t s = made.first; s < last; ++s) {
      const SequenceView& sequence = sequences[static_cast<size_t>(s)];
      for (size_t i = 1; i < sequence.tokens.size(); ++i) made.rows += sequence.mask[i] != 0;
    }
    if (made.rows > 0) micro_batches_.push_back(made);
  }
}

void TrainStep::GatherRound(size_t begin, size_t width) {
  const auto ranks = static_cast<size_t>(ranks_->size());
  const size_t end = std::min(begin + ranks, micro_batches_.size());
  sizes_.assign(ranks, 0);
  for (size_t i = begin; i < end; ++i) sizes_[i - begin] = width * micro_batches_[i].rows;
  ranks_->Gather(std::span<const float>(own_), sizes_, gathered_);
}

template <class Lay, class Compute, class Use, class Finish>
void TrainStep::InRounds(const policy_model::Weights& weights, const policy_model::Gradients* grad,
                         size_t width, const Lay& pack, const Compute& compute, const Use& use,
                         const Finish& finish) {
  if (pipeline_)
    return InStages(grad != nullptr ? Passes::kBoth : Passes::kForward, width, pack, compute, use,
                    finish);
  using Way = policy_model::PassParts::Way;
  const auto ranks = static_cast<size_t>(ranks_ ? ranks_->size() : 1),
             rank = static_cast<size_t>(ranks_ ? ranks_->rank() : 0);
  for (size_t begin = 0; begin < micro_batches_.size(); begin += ranks) {
    const size_t end = std::min(begin + ranks, micro_batches_.size()), own = begin + rank;
    own_.resize(own < end ? width * micro_batches_[own].rows : 0);
    if (own < end) {
      pack(micro_batches_[own]);
      compute(own, micro_batches_[own], std::span(own_));
    } else {
      transformer().PassBy(weights, Way::kForward, grad != nullptr);
    }
    std::span<const float> results = own_;
    if (ranks_) {
      GatherRound(begin, width);
      results = gathered_;
    }
    for (size_t i = begin; i < end; ++i) {
      const size_t n = width * micro_batches_[i].rows;
      use(micro_batches_[i], results.first(n));
      results = results.subspan(n);
    }
    if (!grad) continue;
    if (own < end) finish(micro_batches_[own]);
    else transformer().PassBy(weights, Way::kBackward, true, *grad);
  }
}

template <class Lay, class Compute, class Use, class Finish>
void TrainStep::InStages(Passes passes, size_t width, const Lay& pack, const Compute& compute,
                         const Use& use, const Finish& finish) {
  const auto ranks = static_cast<size_t>(ranks_ ? ranks_->size() : 1),
             rank = static_cast<size_t>(ranks_ ? ranks_->rank() : 0);
  const size_t many = micro_batches_.size(), rounds = (many + ranks - 1) / ranks,
               own = many > rank ? (many - rank - 1) / ranks + 1 : 0;
  size_t numbers = 0;
  for (const MicroBatch& of : micro_batches_) numbers += width * of.rows;
  all_.clear();
  // Of the last stage: the results of a round, which every rank that has it sees at once.
  const auto take_round = [&](size_t round) {
    if (ranks_) GatherRound(round * ranks, width);
    const std::vector<float>& results = ranks_ ? gathered_ : own_;
    all_.insert(all_.end(), results.begin(), results.end());
    const float* at = results.data();
    for (size_t i = round * ranks; i < std::min(many, (round + 1) * ranks); ++i) {
      const size_t n = width * micro_batches_[i].rows;
      use(micro_batches_[i], std::span(at, n));
      at += n;
    }
  };
  const auto of = [&](size_t round) -> const MicroBatch& {
    return micro_batches_[round * ranks + rank];
  };
  Pipeline::Parts parts;
  parts.pack = [&](PassSlot& slot, size_t round) {
    slot_ = &slot;
    pack(of(round));
  };
  parts.forward = [&](PassSlot& slot, size_t round) {
    slot_ = &slot;
    own_.resize(scores() ? width * of(round).rows : 0);
    compute(round * ranks + rank, of(round), std::span(own_));
    if (scores()) take_round(round);
  };
  if (passes == Passes::kBoth) {
    parts.backward = [&](PassSlot& slot, size_t round) {
      slot_ = &slot;
      finish(of(round));
    };
  }
  pipeline_->Run(own, parts);
  slot_ = &pipeline_->slot(0);
  own_.clear();
  for (size_t round = own; scores() && round < rounds; ++round) take_round(round);
  all_.resize(numbers);
  pipeline_->ShareLast(all_);
  if (scores()) return;
  const float* at = all_.data();
  for (const MicroBatch& each : micro_batches_) {
    const size_t n = width * each.rows;
    use(each, std::span(at, n));
    at += n;
  }
}

void TrainStep::ForwardHere(const policy_model::Weights& weights,
                            policy_model::ScoreOptions options, bool keep, std::span<float> logprob,
                            std::span<float> entropy) {
  if (pipeline_) {
    PLUMB_CHECK(!options.guest, "measures are not there in a pipeline");
    options.guest = &slot_->ends;
  }
  transformer().Forward(weights, batch(), options, keep, logprob, entropy);
}

void TrainStep::CheckForm(const SequenceView& sequence) const {
  const ExpertForm of_model = policy_model::ExpertFormOf(transformer().shape()),
                   recorded = sequence.experts->form;
  if (recorded == of_model) return;
  const auto text = [](const ExpertForm& f) {
    return std::to_string(f.per_token) + " of " + std::to_string(f.experts) + " experts in " +
           std::to_string(f.layers) + " layers";
  };
  throw Error(ErrorCode::kConflict,
              "an answer was recorded with " + text(recorded) + ", the model has " +
                  text(of_model) + ": it was generated by another model",
              "rollout.replay_experts");
}

void TrainStep::SetShare(std::span<const SequenceView> sequences, const MicroBatch& of) {
  const auto tokens = [&](size_t begin, size_t end) {
    double n = 0;
    for (size_t s = begin; s < end; ++s) n += static_cast<double>(sequences[s].tokens.size());
    return n;
  };
  transformer().SetRoutingShare(
      tokens(static_cast<size_t>(of.first), static_cast<size_t>(of.last)) /
      tokens(0, sequences.size()));
}

int64_t TrainStep::Pack(const policy_model::Weights& weights,
                        std::span<const SequenceView> sequences, bool replay,
                        const MicroBatch& of) {
  batch().Clear();
  batch().task_tokens = weights.task_tokens() > 0;
  int64_t tokens = 0;
  for (int32_t s = of.first; s < of.last; ++s) {
    const SequenceView& sequence = sequences[static_cast<size_t>(s)];
    tokens += static_cast<int64_t>(sequence.tokens.size()) - batch().Passed(sequence.tokens);
    batch().Append(sequence.tokens, sequence.mask, plan_.Shared(s, of.first, of.last, batch()),
                   sequence.kept, replay ? sequence.experts : nullptr);
  }
  PLUMB_CHECK(of.rows == batch().rows.size());
  return tokens - batch().size();
}

void TrainStep::List(std::span<const SequenceView> sequences, const MicroBatch& of) {
  scored_.clear();
  for (int32_t s = of.first; s < of.last; ++s) {
    const SequenceView& sequence = sequences[static_cast<size_t>(s)];
    for (size_t i = 1; i < sequence.tokens.size(); ++i) {
      if (sequence.mask[i]) scored_.push_back({.sequence = s, .token = static_cast<int32_t>(i)});
    }
  }
}

template <class Forward>
std::vector<std::vector<float>> TrainStep::EachToken(const policy_model::Weights& weights,
                                                     std::span<const SequenceView> sequences,
                                                     bool replay, const Forward& forward) {
  std::vector<std::vector<float>> out(sequences.size());
  Split(sequences, replay);
  InRounds(
      weights, nullptr, 1, [&](const MicroBatch& of) { Pack(weights, sequences, replay, of); },
      [&](size_t, const MicroBatch&, std::span<float> results) { forward(results); },
      [&](const MicroBatch& of, std::span<const float> results) {
        List(sequences, of);
        for (size_t i = 0; i < scored_.size(); ++i)
          out[static_cast<size_t>(scored_[i].sequence)].push_back(results[i]);
      },
      [](const MicroBatch&) {});
  return out;
}

std::vector<std::vector<float>> TrainStep::Score(const policy_model::Weights& weights,
                                                 std::span<const SequenceView> sequences,
                                                 float temperature, bool replay) {
  return EachToken(weights, sequences, replay, [&](std::span<float> logprobs) {
    ForwardHere(weights, {.temperature = temperature, .entropy = false}, false, logprobs, {});
  });
}

void TrainStep::BeginMeasure(RowMeasure& measure) {
  numbered_ = scored_;
  int32_t at = 0;
  for (size_t i = 0; i < numbered_.size(); ++i) {
    at = i > 0 && numbered_[i].sequence == numbered_[i - 1].sequence ? at + 1 : 0;
    numbered_[i].token = at;
  }
  measure.Begin(numbered_);
}

std::vector<std::vector<float>> TrainStep::Measure(const policy_model::Weights& weights,
                                                   std::span<const SequenceView> sequences,
                                                   float temperature, RowMeasure& measure) {
  const size_t width = measure.width();
  std::vector<std::vector<float>> out(sequences.size());
  Split(sequences, false);
  InRounds(
      weights, nullptr, 1 + width,
      [&](const MicroBatch& of) { Pack(weights, sequences, false, of); },
      [&](size_t, const MicroBatch& of, std::span<float> results) {
        List(sequences, of);
        BeginMeasure(measure);
        ForwardHere(weights, {.temperature = temperature, .entropy = false, .guest = &measure},
                    false, results.first(of.rows), {});
        measure.Take(results.subspan(of.rows));
      },
      [&](const MicroBatch& of, std::span<const float> results) {
        List(sequences, of);
        for (size_t i = 0; i < of.rows; ++i) {
          std::vector<float>& to = out[static_cast<size_t>(scored_[i].sequence)];
          to.push_back(results[i]);
          const auto numbers = results.subspan(of.rows + i * width, width);
          to.insert(to.end(), numbers.begin(), numbers.end());
        }
      },
      [](const MicroBatch&) {});
  return out;
}

TrainStep::Scores TrainStep::ScoreEntropies(const policy_model::Weights& weights,
                                            std::span<const SequenceView> sequences,
                                            float temperature) {
  Scores out;
  out.logprobs.resize(sequences.size());
  out.entropies.resize(sequences.size());
  Split(sequences, true);
  InRounds(
      weights, nullptr, 2, [&](const MicroBatch& of) { Pack(weights, sequences, true, of); },
      [&](size_t, const MicroBatch&, std::span<float> results) {
        const size_t rows = results.size() / 2;
        ForwardHere(weights, {.temperature = temperature, .entropy = true}, false,
                    results.first(rows), results.last(rows));
      },
      [&](const MicroBatch& of, std::span<const float> results) {
        List(sequences, of);
        for (size_t i = 0; i < of.rows; ++i) {
          const auto sequence = static_cast<size_t>(scored_[i].sequence);
          out.logprobs[sequence].push_back(results[i]);
          out.entropies[sequence].push_back(results[of.rows + i]);
        }
      },
      [](const MicroBatch&) {});
  return out;
}

std::vector<std::vector<float>> TrainStep::Values(const policy_model::Weights& weights,
                                                  std::span<const SequenceView> sequences) {
  return EachToken(weights, sequences, false, [&](std::span<float> values) {
    transformer().ForwardValues(weights, batch(), false, values);
  });
}

std::vector<std::vector<float>> TrainStep::HeadValues(const policy_model::Weights& weights,
                                                      const policy_model::Weights& head,
                                                      std::span<const SequenceView> sequences) {
  std::vector<float> logprobs;
  return EachToken(weights, sequences, true, [&](std::span<float> values) {
    logprobs.resize(values.size());
    ForwardHere(weights, {.entropy = false}, false, logprobs, {});
    transformer().HeadValues(head, values);
  });
}

void TrainStep::Accumulate(const policy_model::Weights& weights,
                           std::span<const SequenceView> sequences, float temperature,
                           const TokenLoss& loss, const policy_model::Gradients& grad,
                           const SharedHead* shared, RowMeasure* measure) {
  AccumulateSequences(
      weights, sequences, temperature,
      [&](std::span<const ScoredToken> tokens, std::span<Gradient> gradients) {
        for (size_t i = 0; i < tokens.size(); ++i) gradients[i] = loss(tokens[i]);
      },
      grad, shared, measure);
}

void TrainStep::AccumulateSequences(const policy_model::Weights& weights,
                                    std::span<const SequenceView> sequences, float temperature,
                                    const SequenceLoss& loss, const policy_model::Gradients& grad,
                                    const SharedHead* shared, RowMeasure* measure) {
  AccumulateTogether(weights, sequences, 1, /*entropy=*/true, temperature, loss, grad, shared,
                     measure);
}

void TrainStep::AccumulatePairs(const policy_model::Weights& weights,
                                std::span<const SequenceView> sequences, float temperature,
                                const SequenceLoss& loss, const policy_model::Gradients& grad) {
  AccumulateTogether(weights, sequences, 2, /*entropy=*/false, temperature, loss, grad, nullptr,
                     nullptr);
}

void TrainStep::AccumulateTogether(const policy_model::Weights& weights,
                                   std::span<const SequenceView> sequences, int32_t together,
                                   bool entropy, float temperature, const SequenceLoss& loss,
                                   const policy_model::Gradients& grad, const SharedHead* shared,
                                   RowMeasure* measure) {
  Split(sequences, true, together);
  bool any_entropy = false;
  // Of each kind all rows, one kind behind the other; a measure's last.
  const size_t kinds = 1 + (entropy ? 1 : 0) + (shared ? 1 : 0),
               measured = measure ? measure->width() : 0, width = kinds + measured;
  InRounds(
      weights, &grad, width,
      [&](const MicroBatch& of) { shared_tokens_ += Pack(weights, sequences, true, of); },
      [&](size_t number, const MicroBatch& of, std::span<float> results) {
        const size_t rows = results.size() / width;  // 0 where another stage scores them
        SetShare(sequences, of);
        if (measure) {
          List(sequences, of);
          BeginMeasure(*measure);
        }
        ForwardHere(weights,
                    {.temperature = temperature,
                     .entropy = entropy,
                     .dropout = DropoutKey(grad, static_cast<uint32_t>(number)),
                     .guest = measure},
                    true, results.first(rows),
                    entropy ? results.subspan(rows, rows) : std::span<float>());
        if (shared)
          transformer().HeadValues(*shared->head, results.subspan((kinds - 1) * of.rows, of.rows));
        if (measure) measure->Take(results.subspan(kinds * of.rows));
      },
      [&](const MicroBatch& of, std::span<const float> results) {
        List(sequences, of);
        for (size_t i = 0; i < of.rows; ++i) {
          scored_[i].logprob = results[i];
          if (entropy) scored_[i].entropy = results[of.rows + i];
          if (shared) scored_[i].value = results[(kinds - 1) * of.rows + i];
          if (measure) scored_[i].measured = &results[kinds * of.rows + i * measured];
        }
        gradients_.assign(of.rows, {});
        for (size_t begin = 0, end = 0; begin < of.rows; begin = end) {
          while (end < of.rows &&
                 scored_[end].sequence / together == scored_[begin].sequence / together)
            ++end;
          loss(std::span<const ScoredToken>(scored_).subspan(begin, end - begin),
               std::span(gradients_).subspan(begin, end - begin));
        }
        if (!Own(of)) return;
        any_entropy = false;
        for (auto* buffer : {&g_logprob_, &g_entropy_, &g_value_, &g_measured_})
          buffer->resize(of.rows);
        for (size_t i = 0; i < of.rows; ++i) {
          g_logprob_[i] = grad.loss_scale * gradients_[i].logprob;
          g_entropy_[i] = grad.loss_scale * gradients_[i].entropy;
          g_value_[i] = grad.loss_scale * gradients_[i].value;
          g_measured_[i] = grad.loss_scale * gradients_[i].measured;
          any_entropy = any_entropy || gradients_[i].entropy != 0;
        }
      },
      [&](const MicroBatch&) {
        if (!scores()) return transformer().Backward(weights, batch(), {}, {}, grad);
        const std::span<const float> g_entropy =
            any_entropy ? std::span<const float>(g_entropy_) : std::span<const float>();
        if (measure) measure->Weigh(g_measured_);
        if (shared) {
          const policy_model::Transformer::SharedHead head{
              .head = shared->head, .g_values = g_value_, .grad = shared->grad};
          transformer().Backward(weights, batch(), g_logprob_, g_entropy, grad, &head);
        } else {
          transformer().Backward(weights, batch(), g_logprob_, g_entropy, grad);
        }
      });
}

void TrainStep::AccumulateValues(const policy_model::Weights& weights,
                                 std::span<const SequenceView> sequences, const TokenLoss& loss,
                                 const policy_model::Gradients& grad) {
  Split(sequences, false);
  InRounds(
      weights, &grad, 1,
      [&](const MicroBatch& of) { shared_tokens_ += Pack(weights, sequences, false, of); },
      [&](size_t, const MicroBatch& of, std::span<float> values) {
        SetShare(sequences, of);
        transformer().ForwardValues(weights, batch(), true, values);
      },
      [&](const MicroBatch& of, std::span<const float> values) {
        List(sequences, of);
        if (Own(of)) g_value_.resize(of.rows);
        for (size_t i = 0; i < of.rows; ++i) {
          scored_[i].value = values[i];
          const float gradient = loss(scored_[i]).value;
          if (Own(of)) g_value_[i] = grad.loss_scale * gradient;
        }
      },
      [&](const MicroBatch&) { transformer().BackwardValues(weights, batch(), g_value_, grad); });
}

}  // namespace plumb::learner

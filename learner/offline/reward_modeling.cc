#include "learner/offline/reward_modeling.h"

#include <algorithm>
#include <cmath>

#include "common/base/error.h"

namespace plumb::learner {
namespace {

void CheckPair(const PreferencePair& pair, int64_t max_positions) {
  for (const Demonstration* d : {&pair.chosen, &pair.rejected}) {
    const auto length = static_cast<int64_t>(d->tokens.size());
    if (length > 0 && length <= max_positions) continue;
    throw Error(ErrorCode::kInvalidArgument,
                length == 0 ? std::string("an answer of the pair has no tokens")
                            : "an answer with its prompt has " + std::to_string(length) +
                                  " tokens, the model reads " + std::to_string(max_positions) +
                                  ": leave out pairs that are longer",
                pair.dataset + " row " + std::to_string(pair.row));
  }
}

// 1, 1/2 or 0: a model that gives every answer the same score ranks like a coin.
double Ranked(const ScoredPair<float>& pair) {
  return pair.chosen > pair.rejected ? 1.0 : pair.chosen == pair.rejected ? 0.5 : 0.0;
}

}  // namespace

RewardModeling::RewardModeling(policy_model::Transformer& transformer,
                               policy_model::Weights& weights, Optimizer& optimizer,
                               int64_t micro_batch_tokens, double centering)
    : transformer_(transformer),
      weights_(weights),
      optimizer_(optimizer),
      micro_batch_tokens_(micro_batch_tokens),
      centering_(centering) {
  if (!weights.shape().scalar_head) {
    throw Error(ErrorCode::kInvalidArgument,
                "a reward model needs a scalar head: start it from the policy's trunk",
                "reward modeling");
  }
  if (!(centering >= 0) || !std::isfinite(centering)) {
    throw Error(ErrorCode::kInvalidArgument,
                "the centering coefficient has to be 0 (off) or positive", "reward modeling");
  }
}

ScoredPair<float> RewardModeling::PairAt(const PreferencePair& pair, size_t i) const {
  return {.chosen = values_[2 * i],
          .rejected = values_[2 * i + 1],
          .margin = pair.has_margin ? static_cast<float>(pair.margin) : 0.0f};
}

void RewardModeling::Pack(Batch pairs, int32_t first, int32_t last) {
  batch_.Clear();
  int64_t tokens = 0;
  for (int32_t s = first; s < last; ++s) {
    const PreferencePair& pair = *pairs[static_cast<size_t>(s / 2)];
    const Demonstration& d = s % 2 == 0 ? pair.chosen : pair.rejected;
    const int32_t at = weights_.shape().ScoredPosition(d.tokens);
    batch_.AppendRows(d.tokens, std::span(&at, 1), plan_.Shared(s, first, last, batch_));
    tokens += static_cast<int64_t>(d.tokens.size());
  }
  shared_tokens_ += tokens - batch_.size();
}

void RewardModeling::ForEachMicroBatch(Batch pairs, bool keep,
                                       const std::function<void(Batch, bool own)>& use,
                                       const std::function<void()>& finish) {
  using Way = policy_model::PassParts::Way;
  plan_.Clear();
  for (const PreferencePair* pair : pairs) {
    CheckPair(*pair, weights_.shape().max_positions);
    for (const Demonstration* d : {&pair->chosen, &pair->rejected})
      plan_.Add(d->tokens, weights_.shape().ScoredPosition(d->tokens));
  }
  Ranks* const ranks = optimizer_.ranks();
  const auto size = static_cast<size_t>(ranks ? ranks->size() : 1),
             rank = static_cast<size_t>(ranks ? ranks->rank() : 0);
  const auto& ends =
      plan_.SplitInTurns(micro_batch_tokens_, static_cast<int32_t>(size), /*together=*/2);
  const auto first_of = [&](size_t i) { return i == 0 ? 0 : ends[i - 1]; };
  std::vector<size_t> sizes;
  std::vector<float> all;
  for (size_t begin = 0; begin < ends.size(); begin += size) {
    const size_t end = std::min(begin + size, ends.size()), own = begin + rank;
    own_values_.clear();
    if (own < end) {
      Pack(pairs, first_of(own), ends[own]);
      own_values_.resize(static_cast<size_t>(ends[own] - first_of(own)));
      transformer_.ForwardValues(weights_, batch_, keep, own_values_);
    } else {
      transformer_.PassBy(weights_, Way::kForward);
    }
    sizes.assign(size, 0);
    for (size_t i = begin; i < end; ++i)
      sizes[i - begin] = static_cast<size_t>(ends[i] - first_of(i));
    if (ranks) ranks->Gather(std::span<const float>(own_values_), sizes, all);
    else all = own_values_;
    auto at = all.begin();
    for (size_t i = begin; i < end; ++i) {
      values_.assign(at, at + static_cast<std::ptrdiff_t>(sizes[i - begin]));
      at += static_cast<std::ptrdiff_t>(sizes[i - begin]);
      use(pairs.subspan(static_cast<size_t>(first_of(i) / 2), values_.size() / 2), i == own);
    }
    if (own < end) finish();
    else if (keep) transformer_.PassBy(weights_, Way::kBackward);
  }
}

std::vector<ScoredPair<float>> RewardModeling::Score(Batch pairs) {
  std::vector<ScoredPair<float>> out;
  out.reserve(pairs.size());
  ForEachMicroBatch(
      pairs, false,
      [&](Batch part, bool) {
        for (size_t i = 0; i < part.size(); ++i) out.push_back(PairAt(*part[i], i));
      },
      [] {});
  return out;
}

double RewardModeling::Accumulate(Batch pairs, const policy_model::Gradients& grad) {
  if (pairs.empty())
    throw Error(ErrorCode::kInvalidArgument, "there is no pair to learn from", "reward modeling");
  const double scale = 1.0 / static_cast<double>(pairs.size());
  double loss = 0;
  scored_.clear();
  ForEachMicroBatch(
      pairs, true,
      [&](Batch part, bool own) {
        if (own) g_values_.resize(values_.size());
        for (size_t i = 0; i < part.size(); ++i) {
          const ScoredPair<float> pair = PairAt(*part[i], i);
          const auto l =
              RewardModelLoss<double>({.chosen = double{pair.chosen},
                                       .rejected = double{pair.rejected},
                                       .margin = part[i]->has_margin ? part[i]->margin : 0.0},
                                      centering_);
          if (own) {
            g_values_[2 * i] = grad.loss_scale * static_cast<float>(scale * l.d_chosen);
            g_values_[2 * i + 1] = grad.loss_scale * static_cast<float>(scale * l.d_rejected);
          }
          loss += scale * l.value;
          scored_.push_back(pair);
        }
      },
      [&] { transformer_.BackwardValues(weights_, batch_, g_values_, grad); });
  return loss;
}

std::map<std::string, double> RewardModeling::Train(Batch pairs, double learning_rate) {
  optimizer_.ZeroGrad();
  shared_tokens_ = 0;
  const double loss = Accumulate(pairs, optimizer_.gradients());
  const double scale = 1.0 / static_cast<double>(pairs.size());
  double accuracy = 0, chosen = 0, rejected = 0, tokens = 0;
  for (const ScoredPair<float>& pair : scored_) {
    accuracy += scale * Ranked(pair);
    chosen += scale * double{pair.chosen};
    rejected += scale * double{pair.rejected};
  }
  for (const PreferencePair* pair : pairs) {
    tokens += static_cast<double>(pair->chosen.tokens.size() + pair->rejected.tokens.size());
  }
  const UpdateResult update = optimizer_.Update(learning_rate, loss);
  if (Ranks* ranks = optimizer_.ranks())
    shared_tokens_ = static_cast<int64_t>(ranks->Sum(static_cast<double>(shared_tokens_)));
  return {{"rm/loss", loss},
          {"rm/accuracy", accuracy},
          {"rm/margin", chosen - rejected},
          {"rm/reward_chosen", chosen},
          {"rm/reward_rejected", rejected},
          {"optim/grad_norm", update.grad_norm},
          {"optim/lr", learning_rate},
          {"optim/skipped", static_cast<double>(optimizer_.skipped())},
          {"perf/train_tokens", tokens},
          {"perf/shared_tokens", static_cast<double>(shared_tokens_)}};
}

RewardModelEval RewardModeling::Evaluate(Batch pairs) {
  if (pairs.empty())
    throw Error(ErrorCode::kInvalidArgument, "there is no pair to evaluate on", "reward modeling");
  RewardModelEval eval{.pairs = static_cast<int64_t>(pairs.size())};
  const double n = static_cast<double>(pairs.size());
  for (const ScoredPair<float>& pair : Score(pairs)) {
    eval.loss += RewardModelLoss<double>({.chosen = double{pair.chosen},
                                          .rejected = double{pair.rejected},
                                          .margin = double{pair.margin}},
                                         centering_)
                     .value /
                 n;
    eval.accuracy += Ranked(pair) / n;
    eval.chosen_mean += double{pair.chosen} / n;
    eval.rejected_mean += double{pair.rejected} / n;
  }
  eval.accuracy_stderr = std::sqrt(std::max(0.0, eval.accuracy * (1 - eval.accuracy)) / n);
  return eval;
}

}  // namespace plumb::learner

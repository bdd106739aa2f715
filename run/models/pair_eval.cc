#include "run/models/pair_eval.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <numeric>

#include "common/base/error.h"
#include "common/base/files/scratch_folder.h"
#include "common/base/wilson_interval.h"
#include "learner/offline/offline_objective.h"
#include "learner/offline/preference_loss.h"
#include "learner/update/train_step.h"
#include "policy_model/packing.h"
#include "policy_model/transformer.h"
#include "reward/models/model_part.h"
#include "run/session/preference_data.h"
#include "run/session/row_counts.h"

namespace plumb::run {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr size_t kPairsAtOnce = 32;

PreferenceData ReadPairs(const PairEvalOptions& options) {
  configs::Config config;
  config.algorithm.name = configs::AlgorithmName::kDpo;
  config.model.path = FindModel(options.model).base;
  config.data.train = options.pairs;
  config.data.map = options.map;
  config.data.limit = options.limit;
  config.run.threads = options.options.threads;
  config.preference.heldout = 0;
  config.preference.max_tokens = std::numeric_limits<int64_t>::max();  // the model's positions
  const auto session = Session::WithoutRun(config, /*scalar_head=*/true);
  // Pairs go through a store, as in training; this one is nobody's.
  const ScratchFolder scratch(TemporaryFolder() / "plumb-pairs");
  const auto store = replay::Store::Open(scratch.path() + "/store");
  PreferenceData data = LoadPreferences(*session, *store, /*skip_untokenizable=*/true);
  for (std::string& note : data.notes) {  // in the words of a run, which this is not
    constexpr std::string_view kOfARun = " to train on, 0 held out";
    if (const size_t at = note.find(kOfARun); at != std::string::npos)
      note.replace(at, kOfARun.size(), " to compare");
  }
  return data;
}

class PairScorer {
 public:
  PairScorer(const policy_model::Weights& weights, DType dtype, int64_t batch_tokens)
      : weights_(weights),
        transformer_(weights.shape(), weights.stream(), dtype),
        train_(transformer_, batch_tokens),
        batch_tokens_(batch_tokens) {}

  // Chosen, rejected, chosen, ...
  std::vector<double> Of(std::span<const PreferencePair> pairs) {
    std::vector<double> out = weights_.shape().scalar_head ? Scores(pairs) : Sums(pairs);
    for (size_t i = 0; i < out.size(); ++i) {
      if (std::isfinite(out[i])) continue;
      throw Error(ErrorCode::kNonFinite, "the model's value of an answer is not finite",
                  "row " + std::to_string(pairs[i / 2].row));
    }
    return out;
  }

 private:
  std::vector<double> Sums(std::span<const PreferencePair> pairs) {
    std::vector<learner::SequenceView> views;
    for (const PreferencePair& pair : pairs) {
      for (const Demonstration* d : {&pair.chosen, &pair.rejected})
        views.push_back(learner::ViewOf(*d));
    }
    std::vector<double> sums;
    for (const auto& logprobs : train_.Score(weights_, views, 1.0f))
      sums.push_back(std::accumulate(logprobs.begin(), logprobs.end(), 0.0));
    return sums;
  }
  std::vector<double> Scores(std::span<const PreferencePair> pairs) {
    std::vector<const std::vector<int32_t>*> sequences;
    policy_model::PackPlan plan;
    for (const PreferencePair& pair : pairs) {
      for (const Demonstration* d : {&pair.chosen, &pair.rejected}) {
        sequences.push_back(&d->tokens);
        plan.Add(d->tokens, 0);  // shares nothing: a score is that of the answer alone
      }
    }
    std::vector<double> out;
    policy_model::PackedBatch batch;
    std::vector<float> values;
    size_t begin = 0;
    for (const int32_t end : plan.Split(batch_tokens_)) {
      batch.Clear();
      for (size_t s = begin; s < static_cast<size_t>(end); ++s) {
        const int32_t last = weights_.shape().ScoredPosition(*sequences[s]);
        batch.AppendRows(*sequences[s], std::span(&last, 1));
      }
      values.resize(static_cast<size_t>(end) - begin);
      transformer_.ForwardValues(weights_, batch, /*keep=*/false, values);
      out.insert(out.end(), values.begin(), values.end());
      begin = static_cast<size_t>(end);
    }
    return out;
  }

  const policy_model::Weights& weights_;
  policy_model::Transformer transformer_;
  learner::TrainStep train_;
  const int64_t batch_tokens_;
};

// The values of one model for all pairs, put where `take` says; false: stopped.
template <class Take>
bool ForEachPair(const policy_model::Weights& weights, DType dtype, int64_t batch_tokens,
                 std::span<const PreferencePair> pairs, const std::function<bool(size_t)>& go_on,
                 const Take& take) {
  PairScorer scorer(weights, dtype, batch_tokens);
  for (size_t begin = 0; begin < pairs.size(); begin += kPairsAtOnce) {
    if (!go_on(begin)) return false;
    const size_t count = std::min(kPairsAtOnce, pairs.size() - begin);
    const std::vector<double> values = scorer.Of(pairs.subspan(begin, count));
    for (size_t i = 0; i < count; ++i) take(begin + i, values[2 * i], values[2 * i + 1]);
  }
  return true;
}

OrderedJson JsonOf(const Estimate& e) {
  return {{"mean", e.mean}, {"standard_error", e.error}, {"interval_95", {e.low(), e.high()}}};
}

struct Numbers {
  Estimate accuracy, margin, chosen, rejected;
  Estimate by_token;                              // accuracy by the mean a token
  Estimate chosen_per_token, rejected_per_token;  // means of sequences' means
  Estimate loss;
};

Numbers NumbersOf(const PairEvalReport& r) {
  std::vector<double> right, margin, chosen, rejected, by_token, chosen_mean, rejected_mean, loss;
  for (const PairValues& p : r.pairs) {
    const double a = r.RewardOf(p, true), b = r.RewardOf(p, false);
    right.push_back(learner::RankedRight(a, b));
    margin.push_back(a - b);
    chosen.push_back(r.reward_model ? a : p.chosen);
    rejected.push_back(r.reward_model ? b : p.rejected);
    chosen_mean.push_back(p.chosen / static_cast<double>(p.chosen_tokens));
    rejected_mean.push_back(p.rejected / static_cast<double>(p.rejected_tokens));
    by_token.push_back(learner::RankedRight(chosen_mean.back(), rejected_mean.back()));
    loss.push_back(learner::Softplus(-(a - b)));
  }
  return {.accuracy = EstimateOf(right),
          .margin = EstimateOf(margin),
          .chosen = EstimateOf(chosen),
          .rejected = EstimateOf(rejected),
          .by_token = EstimateOf(by_token),
          .chosen_per_token = EstimateOf(chosen_mean),
          .rejected_per_token = EstimateOf(rejected_mean),
          .loss = EstimateOf(loss)};
}

}  // namespace

double PairEvalReport::RewardOf(const PairValues& p, bool chosen) const {
  const double value = chosen ? p.chosen : p.rejected;
  return reference ? beta * (value - (chosen ? p.ref_chosen : p.ref_rejected)) : value;
}

OrderedJson PairEvalReport::Line(const PairValues& p) const {
  OrderedJson line = {{"row", p.row}};
  if (reward_model) {
    line["score_chosen"] = p.chosen;
    line["score_rejected"] = p.rejected;
    return line;
  }
  line["logprob_chosen"] = p.chosen;
  line["logprob_rejected"] = p.rejected;
  line["tokens_chosen"] = p.chosen_tokens;
  line["tokens_rejected"] = p.rejected_tokens;
  if (reference) {
    line["reference_chosen"] = p.ref_chosen;
    line["reference_rejected"] = p.ref_rejected;
    line["reward_chosen"] = RewardOf(p, true);
    line["reward_rejected"] = RewardOf(p, false);
  }
  return line;
}

OrderedJson PairEvalReport::Json() const {
  const Numbers n = NumbersOf(*this);
  const auto [low, high] = WilsonInterval(n.accuracy.mean, static_cast<double>(pairs.size()));
  OrderedJson out = {{"pairs", pairs.size()},
                     {"by", reward_model ? "reward model"
                            : reference  ? "implicit reward"
                                         : "log-prob"},
                     {"accuracy", n.accuracy.mean},
                     {"interval_95", {low, high}},
                     {"margin", JsonOf(n.margin)}};
  if (reward_model) {
    out["score_chosen"] = n.chosen.mean;
    out["score_rejected"] = n.rejected.mean;
    out["loss"] = n.loss.mean;
    return out;
  }
  out["logprob_chosen"] = n.chosen.mean;
  out["logprob_rejected"] = n.rejected.mean;
  out["logprob_chosen_per_token"] = n.chosen_per_token.mean;
  out["logprob_rejected_per_token"] = n.rejected_per_token.mean;
  out["accuracy_per_token"] = n.by_token.mean;
  if (reference) {
    out["beta"] = beta;
    out["dpo_loss"] = n.loss.mean;
  }
  return out;
}

std::string PairEvalReport::Text() const {
  const Numbers n = NumbersOf(*this);
  const auto [low, high] = WilsonInterval(n.accuracy.mean, static_cast<double>(pairs.size()));
  char text[512];
  std::snprintf(text, sizeof text,
                "accuracy %.4f (95 %%: %.4f to %.4f) of %zu pairs, by %s; ties count half\n"
                "margin %.4f",
                n.accuracy.mean, low, high, pairs.size(),
                reward_model ? "the reward model's score"
                : reference  ? "DPO's implicit reward"
                             : "the answers' summed log-probs",
                n.margin.mean);
  std::string out = text;
  if (n.margin.n > 1) {
    std::snprintf(text, sizeof text, " +- %.4f (standard error)", n.margin.error);
    out += text;
  }
  out += "\n";
  if (reward_model) {
    std::snprintf(text, sizeof text, "score: chosen %.4f, rejected %.4f; Bradley-Terry loss %.4f\n",
                  n.chosen.mean, n.rejected.mean, n.loss.mean);
    return out + text;
  }
  if (reference) {
    std::snprintf(text, sizeof text, "beta %g, DPO loss %.4f (0.6931: nothing learned)\n", beta,
                  n.loss.mean);
    out += text;
  }
  std::snprintf(text, sizeof text,
                "log-prob: chosen %.3f (%.4f a token), rejected %.3f (%.4f a token); accuracy by "
                "the mean a token %.4f\n",
                n.chosen.mean, n.chosen_per_token.mean, n.rejected.mean, n.rejected_per_token.mean,
                n.by_token.mean);
  return out + text;
}

PairEvalReport EvaluatePairs(const PairEvalOptions& options,
                             const std::function<bool(int64_t done, int64_t all)>& progress) {
  ModelOptions how = options.options;
  how.scalar_head = true;
  const ModelFolder model = LoadModel(options.model, how);
  RefuseTaskTokens(model);
  PairEvalReport report{.reward_model = model.shape.scalar_head,
                        .reference = !options.reference.empty(),
                        .beta = options.beta};
  if (report.reward_model && report.reference) {
    throw Error(ErrorCode::kInvalidArgument,
                "a reward model scores by itself: leave the reference out", "--reference");
  }
  PreferenceData data = ReadPairs(options);
  report.notes = std::move(data.notes);
  const OrderedJson rows = RowsJson(data.rows).at("pairs");
  if (rows.at("used") != rows.at("read")) {
    report.left_out =
        RowLine(data.rows) +
        (data.first_left_out.empty() ? "" : ", the first left out: " + data.first_left_out);
  }
  const std::span<const PreferencePair> pairs = data.train;
  report.pairs.resize(pairs.size());
  for (size_t i = 0; i < pairs.size(); ++i) {
    report.pairs[i].row = pairs[i].row;
    report.pairs[i].chosen_tokens = learner::ScoredTokens(pairs[i].chosen.loss_mask);
    report.pairs[i].rejected_tokens = learner::ScoredTokens(pairs[i].rejected.loss_mask);
  }
  const auto all = static_cast<int64_t>(pairs.size()) * (report.reference ? 4 : 2);
  int64_t done = 0;
  const auto go_on = [&](size_t) {
    const bool goes_on = progress(done, all);
    done += 2 * static_cast<int64_t>(kPairsAtOnce);
    return goes_on;
  };
  bool whole = ForEachPair(*model.weights, model.dtype, options.batch_tokens, pairs, go_on,
                           [&](size_t i, double chosen, double rejected) {
                             report.pairs[i].chosen = chosen;
                             report.pairs[i].rejected = rejected;
                           });
  if (whole && report.reference) {
    const auto take = [&](size_t i, double chosen, double rejected) {
      report.pairs[i].ref_chosen = chosen;
      report.pairs[i].ref_rejected = rejected;
    };
    done = 2 * static_cast<int64_t>(pairs.size());
    if (FindModel(options.reference).model == model.base && model.base != model.path) {
      // an adapter against what it stands on: the same memory without it
      const policy_model::Weights base = model.weights->WithoutAdapters();
      whole = ForEachPair(base, model.dtype, options.batch_tokens, pairs, go_on, take);
    } else {
      ModelOptions of_reference = options.options;
      if (!FindModel(options.reference).is_adapter()) of_reference.task.clear();
      const ModelFolder reference = LoadModel(options.reference, of_reference);
      if (reward::VocabularyDigest(*reference.tokenizer) !=
          reward::VocabularyDigest(*model.tokenizer)) {
        throw Error(ErrorCode::kInvalidArgument,
                    "has another vocabulary than " + options.model +
                        ": log-probs of other tokens cannot be compared",
                    options.reference);
      }
      whole = ForEachPair(*reference.weights, reference.dtype, options.batch_tokens, pairs, go_on,
                          take);
    }
  }
  report.stopped = !whole;
  return report;
}

}  // namespace plumb::run

// What ranks that compute one model together find in an update, and the tests that hold each way of
// sharing it out to what one rank finds.
//
// A way gives a `Rank`, made of (ranks, their number in a group, shape, dtype, zero, recompute),
// with `whole`, `share` (nullptr: one rank), `train`, `optimizer`, `weights()` and Accumulate();
// and `UpdateAs(rank, ranks, updates)`.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "learner/update/checkpoint.h"
#include "learner/update/optimizer.h"
#include "learner/update/train_step.h"
#include "tests/learner/rank_threads.h"
#include "tests/learner/tiny_learner.h"

namespace plumb::learner {

struct Seen {
  double loss = 0, norm = 0;
  std::vector<float> results;   // log-probs and entropies
  std::vector<float> gradient;  // whole, without padding
  std::vector<float> weights;   // whole, after the updates
  std::map<std::string, double> load;
};

inline std::vector<float> Floats(const policy_model::FlatBuffer& flat, int64_t offset, int64_t n) {
  std::vector<std::byte> bytes(static_cast<size_t>(n) * ElementSize(flat.dtype()));
  flat.CopyToHost(bytes, offset);
  std::vector<float> out(static_cast<size_t>(n));
  policy_model::ConvertToFloat(bytes.data(), flat.dtype(), out);
  return out;
}

inline void Append(std::vector<float>& to, const std::vector<float>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

inline std::vector<float> AllOf(const policy_model::Weights& weights) {
  std::vector<float> out;
  for (const auto& entry : weights.table().entries())
    Append(out, Floats(weights.flat(), entry.offset, entry.elements));
  return out;
}

// Of tensors that every rank has a part of.
template <class Rank>
std::vector<float> JoinedGradient(Rank& rank) {
  std::vector<float> gradient;
  auto& state = rank.optimizer->sets().front();
  const auto& entries = rank.weights().table().entries();
  for (size_t i = 0; i < entries.size() && !state.grad_in_parts; ++i) {
    const std::vector<float> own = Floats(state.grad, entries[i].offset, entries[i].elements);
    if (!rank.share) {
      Append(gradient, own);
      continue;
    }
    std::vector<float> all(static_cast<size_t>(rank.share->WholeEntry(i).elements));
    rank.share->Join(i, sizeof(float), std::as_bytes(std::span(own)),
                     std::as_writable_bytes(std::span(all)));
    Append(gradient, all);
  }
  return gradient;
}

// The gradient of a loss on demonstrations.
inline double AccumulateLoss(TrainStep& train, policy_model::Weights& weights, Optimizer& optimizer,
                             std::vector<float>* results, int demonstrations = 9,
                             uint64_t seed = 5) {
  const auto data = RandomDemonstrations(demonstrations, seed);
  std::vector<SequenceView> views;
  for (const auto& d : data) views.push_back({d.tokens, d.loss_mask});
  double loss = 0;
  optimizer.ZeroGrad();
  train.Accumulate(
      weights, views, 0.9f,
      [&](const ScoredToken& t) {
        loss -= t.logprob + 0.01f * t.entropy;
        if (results) results->insert(results->end(), {t.logprob, t.entropy});
        return TrainStep::Gradient{-1.0f / 64, -0.01f / 64};
      },
      optimizer.gradients());
  return loss;
}

inline double Apart(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double norm = 0, difference = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    norm += std::pow(static_cast<double>(a[i]), 2);
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / norm);
}

inline void ExpectSame(const Seen& one, const Seen& seen, const std::string& what) {
  EXPECT_NEAR(seen.loss, one.loss, 1e-6 * std::abs(one.loss)) << what;
  EXPECT_NEAR(seen.norm, one.norm, 1e-5 * one.norm) << what;
  EXPECT_LT(Apart(one.results, seen.results), 1e-6) << what;
  if (!seen.gradient.empty()) {
    EXPECT_LT(Apart(one.gradient, seen.gradient), 1e-5) << what;
  }
  EXPECT_LT(Apart(one.weights, seen.weights), 1e-5) << what;
}

// A checkpoint of whole tensors, written by rank 0 of all.
template <class Rank>
void SaveWhole(Rank& rank, Ranks* ranks, const std::string& to) {
  rank.optimizer->GatherWeights();
  CheckpointState state{.step = 1,
                        .policy = {.version = 1, .digest = rank.whole.ComputeDigest()},
                        .counters = rank.optimizer->counters(),
                        .moment_steps = rank.optimizer->moment_steps(),
                        .moments = true};
  if (ranks && !ranks->first()) Checkpoints::Give(state, *rank.optimizer);
  else Checkpoints(to, 1, "").Save(state, rank.whole, *rank.optimizer);
  if (ranks) ranks->Barrier();
}

template <class Rank>
void LoadWhole(Rank& rank, const std::string& from, int64_t updates) {
  if (rank.share) rank.share->Gather();
  Checkpoints checkpoints(from, 1, "");
  checkpoints.Load(*checkpoints.FindNewest(), rank.whole, *rank.optimizer);
  if (rank.share) rank.share->Spread();
  EXPECT_EQ(rank.optimizer->updates(), updates);
}

// What an optimizer of these options says to a share; "": it takes it.
template <class Share>
std::string WhyNoOptimizer(Share& share, const configs::OptimizerConfig& options) {
  try {
    Optimizer optimizer(share.weights(), options, {}, {.share = &share});
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

template <class Rank>
Seen OfOneRank(const policy_model::ModelShape& shape, DType dtype = DType::kFloat32) {
  Seen one;
  AsRanks(1, [&](Ranks*) {
    Rank rank(nullptr, 1, shape, dtype);
    one = UpdateAs(rank, nullptr, 2);
  });
  return one;
}

template <class Rank>
void ExpectTwoAndFourRanksFindWhatOneFinds(const policy_model::ModelShape& shape,
                                           const std::string& name) {
  const Seen one = OfOneRank<Rank>(shape);
  for (const int size : {2, 4}) {
    std::vector<Seen> all(static_cast<size_t>(size));
    AsRanks(size, [&](Ranks* ranks) {
      Rank rank(ranks, size, shape, DType::kFloat32, 0, /*recompute=*/size == 4);
      all[static_cast<size_t>(ranks->rank())] = UpdateAs(rank, ranks, 2);
      rank.optimizer->CheckShare("the weights");
    });
    for (const Seen& seen : all) {
      ExpectSame(one, seen, name + " " + std::to_string(size));
      // To the bit on all ranks, which therefore decide alike.
      EXPECT_EQ(seen.loss, all[0].loss);
      EXPECT_EQ(seen.norm, all[0].norm);
      EXPECT_EQ(seen.results, all[0].results);
      EXPECT_EQ(seen.weights, all[0].weights);
    }
  }
}

// Two groups of two, under each `zero`.
template <class Rank>
void ExpectGroupsThatShareOutBatchesFindWhatOneFinds(const policy_model::ModelShape& shape,
                                                     const std::vector<int64_t>& zeros) {
  const Seen one = OfOneRank<Rank>(shape);
  for (const int64_t zero : zeros) {
    std::vector<Seen> all(4);
    AsRanks(4, [&](Ranks* ranks) {
      Rank rank(ranks, 2, shape, DType::kFloat32, zero);
      rank.optimizer->SpreadWeights();
      Seen& seen = all[static_cast<size_t>(ranks->rank())];
      seen = UpdateAs(rank, ranks, 2);
      if (zero > 0) seen.gradient.clear();  // each has the sums of its part
    });
    for (const Seen& seen : all) {
      ExpectSame(one, seen, "zero " + std::to_string(zero));
      EXPECT_EQ(seen.loss, all[0].loss);
      EXPECT_EQ(seen.norm, all[0].norm);
      EXPECT_EQ(seen.weights, all[0].weights);
    }
  }
}

template <class Rank>
void ExpectBFloat16IsNear(const policy_model::ModelShape& shape) {
  const Seen one = OfOneRank<Rank>(shape, DType::kBFloat16);
  Seen two;
  AsRanks(2, [&](Ranks* ranks) {
    Rank rank(ranks, 2, shape, DType::kBFloat16);
    const Seen seen = UpdateAs(rank, ranks, 2);
    if (ranks->first()) two = seen;
  });
  EXPECT_NEAR(two.loss, one.loss, 5e-3 * std::abs(one.loss));
  EXPECT_LT(Apart(one.gradient, two.gradient), 5e-2);
}

// What one rank cannot update none does: rank 1 finds no number in the gradient of `at(rank)`.
template <class Rank, class At>
void ExpectAnUpdateThatOneCannotMakeIsMadeByNone(Rank& rank, Ranks* ranks, At at) {
  const double loss = rank.Accumulate();
  const std::string before = rank.weights().ComputeDigest();
  if (ranks->rank() == 1)
    rank.optimizer->grad().f32()[at(rank)] = std::numeric_limits<float>::quiet_NaN();
  const UpdateResult update = rank.optimizer->Update(1e-3, loss);
  EXPECT_FALSE(update.applied);
  EXPECT_EQ(update.why_skipped, "the gradient is not finite");
  EXPECT_EQ(rank.weights().ComputeDigest(), before);
}

// What two groups of two ranks wrote one rank goes on with, and the other way.
template <class Rank>
void ExpectCheckpointsThatKnowNothingOfRanks(const policy_model::ModelShape& shape, DType dtype) {
  const testing::TempFolder folder;
  std::vector<float> one, two, again;
  const auto update = [](Rank& rank) {
    rank.optimizer->Update(1e-3, rank.Accumulate());
    rank.optimizer->GatherWeights();
    return Floats(rank.whole.flat(), 0, rank.whole.flat().elements());
  };
  AsRanks(4, [&](Ranks* ranks) {
    Rank rank(ranks, 2, shape, dtype, 1);
    UpdateAs(rank, ranks, 1);
    SaveWhole(rank, ranks, folder / "two");
    rank.share->Spread();
    const std::vector<float> after = update(rank);
    if (ranks->first()) two = after;
  });
  AsRanks(1, [&](Ranks*) {
    Rank rank(nullptr, 1, shape, dtype);
    LoadWhole(rank, folder / "two", 1);
    SaveWhole(rank, nullptr, folder / "one");
    one = update(rank);
  });
  EXPECT_LT(Apart(one, two), dtype == DType::kFloat32 ? 1e-5 : 1e-2);
  // Back again, from a file of lower halves where the weights are bfloat16: the same bits.
  AsRanks(4, [&](Ranks* ranks) {
    Rank rank(ranks, 2, shape, dtype, 1);
    LoadWhole(rank, folder / "one", 1);
    const std::vector<float> after = update(rank);
    if (ranks->first()) again = after;
  });
  EXPECT_EQ(again, two);
}

}  // namespace plumb::learner

// Loss of a reward model for one preference pair, with its derivatives by the two scores.
//
// Purpose: a template over the scalar, checked in double against TRL's own code
// (tests/golden/reward_model.py). With the scores c and r of the chosen and the rejected answer,
// softplus(x) = log(1 + e^x) and z = c - r - margin:
//   softplus(-z)         Bradley-Terry, -log sigmoid(z): Ouyang et al. 2022, eq. 1; with a margin:
//                        Touvron et al., "Llama 2", 2023, eq. 2
//   + k (c + r)^2        centering: Eisenstein et al., "Helping or Herding?", 2023. The first term
//                        fixes scores only up to a constant; this one keeps their mean near 0.
// A batch's loss is the mean over its pairs. Thread safety: pure functions.
#pragma once

#include "learner/offline/preference_loss.h"

namespace plumb::learner {

template <class S>
struct ScoredPair {
  S chosen = 0, rejected = 0;  // the model's scores of the two whole sequences
  S margin = 0;                // how much better chosen is, in units of the score
};

template <class S>
struct RewardModelLossValue {
  S value = 0;
  S d_chosen = 0, d_rejected = 0;
};

// `centering`: k above, at least 0; 0 leaves the term out.
template <class S>
RewardModelLossValue<S> RewardModelLoss(const ScoredPair<S>& pair, S centering = S(0)) {
  const S z = pair.chosen - pair.rejected - pair.margin;
  const S slope = -Sigmoid(-z);  // d softplus(-z) / dz
  const S sum = pair.chosen + pair.rejected;
  const S pull = 2 * centering * sum;
  return {.value = Softplus(-z) + centering * sum * sum,
          .d_chosen = slope + pull,
          .d_rejected = -slope + pull};
}

}  // namespace plumb::learner

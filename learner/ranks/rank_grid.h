// Which of a run's ranks compute one model together, and which of them share out batches.
//
//   tp = 2, dp = 2      tensor groups   {0, 1} {2, 3}     neighbours: they talk most
//                       data groups     {0, 2} {1, 3}
//   pp = 2, dp = 2      pipelines       {0, 2} {1, 3}     far apart: they talk least
//                       data groups     {0, 1} {2, 3}
// Ranks of a tensor group have a share of the model each (learner/update/shares/model_share.h) and
// make the same passes; those of a data group have the same share and take turns at micro-batches.
// Thread safety: of its groups. Ownership: owns the groups, borrows the ranks. Errors:
// kInvalidArgument where tp does not divide the ranks, or those of one machine, where it is known
// how many they are.
#pragma once

#include <memory>

#include "learner/ranks/ranks.h"

namespace plumb::learner {

class RankGrid {
 public:
  // `all`: nullptr: there is one rank. `here`: how many of them are on this rank's machine;
  // 1: perhaps nobody has said.
  RankGrid(Ranks* all, int tp, int here, int pp = 1);

  Ranks* all() const { return all_; }
  // nullptr: of one rank each.
  Ranks* data() const { return tensor_ || stages_ ? data_.get() : all_; }
  Ranks* tensor() const { return tensor_.get(); }
  Ranks* stages() const { return stages_.get(); }

 private:
  Ranks* const all_;
  std::unique_ptr<Ranks> data_, tensor_, stages_;
};

}  // namespace plumb::learner

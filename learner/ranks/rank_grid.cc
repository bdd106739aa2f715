#include "learner/ranks/rank_grid.h"

#include <string>
#include <vector>

#include "common/base/error.h"

namespace plumb::learner {

RankGrid::RankGrid(Ranks* all, int tp, int here, int pp) : all_(all) {
  const int size = all ? all->size() : 1;
  if (pp > 1) {
    if (size % pp != 0 || tp > 1) {
      throw Error(ErrorCode::kInvalidArgument,
                  "asks for pp=" + std::to_string(pp) + " of " + std::to_string(size) +
                      " ranks, which it has to divide, without tp",
                  "run.parallel");
    }
    const int columns = size / pp, stage = all->rank() / columns, column = all->rank() % columns;
    std::vector<int> together, alike;
    for (int rank = column; rank < size; rank += columns) together.push_back(rank);
    for (int i = 0; i < columns; ++i) alike.push_back(stage * columns + i);
    stages_ = all->Among(together);
    if (columns > 1) data_ = all->Among(alike);
    return;
  }
  if (tp == 1) return;
  if (size % tp != 0 || (here > 1 && here < size && here % tp != 0)) {
    throw Error(ErrorCode::kInvalidArgument,
                "asks for tp=" + std::to_string(tp) + " of " + std::to_string(size) + " ranks, " +
                    std::to_string(here) +
                    " on a machine: those that compute one model together are neighbours on one "
                    "machine, so tp has to divide both",
                "run.parallel");
  }
  const int first = all->rank() / tp * tp, place = all->rank() % tp;
  std::vector<int> together, alike;
  for (int rank = first; rank < first + tp; ++rank) together.push_back(rank);
  for (int rank = place; rank < size; rank += tp) alike.push_back(rank);
  tensor_ = all->Among(together);
  if (alike.size() > 1) data_ = all->Among(alike);
}

}  // namespace plumb::learner

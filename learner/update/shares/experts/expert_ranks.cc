#include "learner/update/shares/experts/expert_ranks.h"

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"

namespace plumb::learner {

ExpertRanks::ExpertRanks(Ranks* all, int ep, int here) {
  if (ep == 1) return;
  const int size = all ? all->size() : 1;
  if (size % ep != 0 || (here > 1 && here < size && here % ep != 0)) {
    throw Error(ErrorCode::kInvalidArgument,
                "asks for ep=" + std::to_string(ep) + " of " + std::to_string(size) + " ranks, " +
                    std::to_string(here) +
                    " on a machine: those that share out experts are neighbours on one machine, so "
                    "ep has to divide both",
                "run.parallel");
  }
  const int first = all->rank() / ep * ep, place = all->rank() % ep;
  std::vector<int> together, alike;
  for (int rank = first; rank < first + ep; ++rank) together.push_back(rank);
  for (int rank = place; rank < size; rank += ep) alike.push_back(rank);
  group_ = all->Among(together);
  if (alike.size() > 1) alike_ = all->Among(alike);
}

void ExpertRanks::Exchange(std::span<const std::byte> out, std::span<const int64_t> to,
                           std::span<std::byte> in, std::span<const int64_t> from) {
  const auto begin = std::chrono::steady_clock::now();
  group_->Exchange(out, to, in, from);
  for (int peer = 0; peer < size(); ++peer)
    traffic_.bytes += peer == rank() ? 0 : to[static_cast<size_t>(peer)];
  traffic_.seconds +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

ExpertRanks::Traffic ExpertRanks::Take() { return std::exchange(traffic_, {}); }

Sharing SharingOf(const configs::Config& config, Ranks* ranks, ModelShare* share,
                  const ExpertRanks& experts) {
  Sharing out = SharingOf(config, ranks, share);
  out.experts = {.apart = experts.there() || config.experts.sync_every > 1,
                 .ranks = experts.there() ? experts.alike() : ranks,
                 .sync_every = config.experts.sync_every};
  return out;
}

}  // namespace plumb::learner

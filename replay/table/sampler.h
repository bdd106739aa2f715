// Which items of a table are drawn: the part of a table that can be exchanged.
//
// Purpose: a sampler is a pure function of (items, how many, seed, cursor): nothing is remembered,
// so a resumed run draws what the unbroken one drew. Items are prompts (rows of a dataset) or
// stored groups. Each draw is without replacement: an item is drawn once a call at most, and fewer
// come back than asked for where there are not so many.
//   fifo         the least drawn first, among those the oldest (lowest key)
//   uniform      every subset of the asked size is as likely
//   prioritised  one item is drawn with probability priority^alpha / sum; more one after another
//                without replacement (Schaul et al., "Prioritized experience replay", 2016, with
//                the order of Efraimidis and Spirakis, 2006)
//   group        groups of items (SampleItem::group) uniformly, each with all its items, the last
//                one cut
//   stratified   as equal shares of each stratum as possible; what a stratum lacks goes to the
//                others
//   curriculum   uniformly among the easiest share of the items; the share grows from `easiest` to
//                1 over the run
//   difficulty   by what the stored rewards say: weight p (1 - p) of the success rate p = (solved +
//                1) / (tried + 2), the variance of a reward that is 0 or 1, hence what a group's
//                advantage is made of; at least `floor` of the most
// Randomness has an address: (seed, item, cursor). An item's draw does not depend on the order or
// number of the others.
// Thread safety: const. Complexity: O(n log n) of the number of items.
// Errors: construction throws kInvalidArgument for options out of range.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "configs/choices.h"

namespace plumb::replay {

using configs::SamplerKind;

struct SampleItem {
  uint64_t key = 0;     // unique among the items; older is lower
  double priority = 1;  // >= 0
  uint64_t group = 0;
  uint64_t stratum = 0;
  double difficulty = 0;  // any scale; lower is easier
  double solved = 0;      // successes among `tried`, for difficulty
  double tried = 0;
  int64_t times_sampled = 0;
};

struct SampleCursor {
  uint64_t draw = 0;    // number of this draw, e.g. the train step
  double progress = 0;  // of the run, 0 .. 1
};

struct SamplerOptions {
  SamplerKind kind = SamplerKind::kUniform;
  uint64_t seed = 1;
  double alpha = 1;       // prioritised: 0 is uniform
  double easiest = 0.25;  // curriculum: share of the items that the first draw chooses from
  double ramp = 0.5;      // curriculum: part of the run after which all are in
  // difficulty: weight of what is always or never solved, as a share of the most
  double floor = 0.1;
};

class Sampler {
 public:
  virtual ~Sampler() = default;
  // Positions in `items`, in the order drawn, all different; min(n, items.size()) of them (fewer
  // where weights are 0).
  virtual std::vector<size_t> Sample(std::span<const SampleItem> items, size_t n,
                                     const SampleCursor& cursor) const = 0;
};

std::unique_ptr<Sampler> MakeSampler(const SamplerOptions& options);

}  // namespace plumb::replay

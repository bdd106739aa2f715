#include "replay/table/sampler.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "common/base/error.h"
#include "common/base/rng.h"

namespace plumb::replay {
namespace {

constexpr uint32_t kItemStream = 0x5A3Bu, kGroupStream = 0x5A3Cu;

double UniformAt(uint64_t seed, uint64_t key, uint32_t stream, uint64_t draw) {
  const Random4 r = RandomAt(seed ^ (draw >> 32), key, stream, static_cast<uint32_t>(draw));
  return UniformOpen(r.x[0], r.x[1]);
}

// Positions ordered by an exponential clock of rate `weight` each: the first n are a weighted draw
// without replacement.
template <class Weight>
std::vector<size_t> Weighted(std::span<const SampleItem> items, std::span<const size_t> from,
                             size_t n, uint64_t seed, uint64_t draw, const Weight& weight) {
  std::vector<std::pair<double, size_t>> clocks;
  clocks.reserve(from.size());
  for (const size_t i : from) {
    const double w = weight(items[i]);
    if (w > 0)
      clocks.emplace_back(-std::log(UniformAt(seed, items[i].key, kItemStream, draw)) / w, i);
  }
  const auto by_time = [&](const auto& a, const auto& b) {
    return a.first != b.first ? a.first < b.first : items[a.second].key < items[b.second].key;
  };
  n = std::min(n, clocks.size());
  std::partial_sort(clocks.begin(), clocks.begin() + static_cast<std::ptrdiff_t>(n), clocks.end(),
                    by_time);
  std::vector<size_t> out;
  for (size_t k = 0; k < n; ++k) out.push_back(clocks[k].second);
  return out;
}

std::vector<size_t> All(std::span<const SampleItem> items) {
  std::vector<size_t> all(items.size());
  std::iota(all.begin(), all.end(), size_t{0});
  return all;
}

double One(const SampleItem&) { return 1; }

class Fifo : public Sampler {
 public:
  std::vector<size_t> Sample(std::span<const SampleItem> items, size_t n,
                             const SampleCursor&) const override {
    std::vector<size_t> order = All(items);
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return items[a].times_sampled != items[b].times_sampled
                 ? items[a].times_sampled < items[b].times_sampled
                 : items[a].key < items[b].key;
    });
    order.resize(std::min(n, order.size()));
    return order;
  }
};

class Seeded : public Sampler {
 public:
  explicit Seeded(uint64_t seed) : seed_(seed) {}

 protected:
  const uint64_t seed_;
};

class Uniform : public Seeded {
 public:
  using Seeded::Seeded;
  std::vector<size_t> Sample(std::span<const SampleItem> items, size_t n,
                             const SampleCursor& cursor) const override {
    return Weighted(items, All(items), n, seed_, cursor.draw, One);
  }
};

class Prioritised : public Seeded {
 public:
  Prioritised(uint64_t seed, double alpha) : Seeded(seed), alpha_(alpha) {}
  std::vector<size_t> Sample(std::span<const SampleItem> items, size_t n,
                             const SampleCursor& cursor) const override {
    return Weighted(items, All(items), n, seed_, cursor.draw, [&](const SampleItem& item) {
      return item.priority > 0 ? std::pow(item.priority, alpha_) : 0.0;
    });
  }

 private:
  const double alpha_;
};

class Groups : public Seeded {
 public:
  using Seeded::Seeded;
  std::vector<size_t> Sample(std::span<const SampleItem> items, size_t n,
                             const SampleCursor& cursor) const override {
    std::map<uint64_t, std::vector<size_t>> members;
    for (size_t i = 0; i < items.size(); ++i) members[items[i].group].push_back(i);
    std::vector<std::pair<double, uint64_t>> order;
    for (const auto& [group, list] : members)
      order.emplace_back(UniformAt(seed_, group, kGroupStream, cursor.draw), group);
    std::sort(order.begin(), order.end());
    std::vector<size_t> out;
    for (const auto& [clock, group] : order) {
      auto& list = members[group];
      std::sort(list.begin(), list.end(),
                [&](size_t a, size_t b) { return items[a].key < items[b].key; });
      for (const size_t i : list) {
        if (out.size() == n) return out;
        out.push_back(i);
      }
    }
    return out;
  }
};

class Stratified : public Seeded {
 public:
  using Seeded::Seeded;
  std::vector<size_t> Sample(std::span<const SampleItem> items, size_t n,
                             const SampleCursor& cursor) const override {
    std::map<uint64_t, std::vector<size_t>> strata;
    for (size_t i = 0; i < items.size(); ++i) strata[items[i].stratum].push_back(i);
    std::vector<std::vector<size_t>> drawn;  // each stratum in an order of its own
    for (const auto& [stratum, list] : strata)
      drawn.push_back(Weighted(items, list, list.size(), seed_, cursor.draw, One));
    // Round by round one of each; the first of a round moves on with the cursor, so that a rest
    // falls to each in turn.
    std::vector<size_t> out;
    const size_t wanted = std::min(n, items.size());
    for (size_t round = 0; out.size() < wanted; ++round) {
      for (size_t k = 0; k < drawn.size() && out.size() < wanted; ++k) {
        const auto& list =
            drawn[(k + static_cast<size_t>(cursor.draw % drawn.size())) % drawn.size()];
        if (round < list.size()) out.push_back(list[round]);
      }
    }
    return out;
  }
};

class Curriculum : public Seeded {
 public:
  Curriculum(uint64_t seed, double easiest, double ramp)
      : Seeded(seed), easiest_(easiest), ramp_(ramp) {}
  std::vector<size_t> Sample(std::span<const SampleItem> items, size_t n,
                             const SampleCursor& cursor) const override {
    std::vector<size_t> order = All(items);
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return items[a].difficulty != items[b].difficulty ? items[a].difficulty < items[b].difficulty
                                                        : items[a].key < items[b].key;
    });
    const double part = ramp_ > 0 ? std::clamp(cursor.progress / ramp_, 0.0, 1.0) : 1.0;
    const double share = easiest_ + (1 - easiest_) * part;
    const auto in =
        static_cast<size_t>(std::ceil(share * static_cast<double>(order.size()) - 1e-9));
    order.resize(std::min(order.size(), std::max(in, n)));  // never fewer than are asked for
    return Weighted(items, order, n, seed_, cursor.draw, One);
  }

 private:
  const double easiest_, ramp_;
};

class Difficulty : public Seeded {
 public:
  Difficulty(uint64_t seed, double floor) : Seeded(seed), floor_(floor) {}
  std::vector<size_t> Sample(std::span<const SampleItem> items, size_t n,
                             const SampleCursor& cursor) const override {
    return Weighted(items, All(items), n, seed_, cursor.draw, [&](const SampleItem& item) {
      const double p = (item.solved + 1) / (item.tried + 2);
      return std::max(4 * p * (1 - p), floor_);
    });
  }

 private:
  const double floor_;
};

}  // namespace

std::unique_ptr<Sampler> MakeSampler(const SamplerOptions& o) {
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::kInvalidArgument, "sampler '" + NameOf(o.kind) + "': " + why);
  };
  if (!(o.alpha >= 0) || !std::isfinite(o.alpha)) refuse("alpha has to be a number >= 0");
  if (!(o.easiest > 0 && o.easiest <= 1)) refuse("easiest has to lie in (0, 1]");
  if (!(o.ramp >= 0 && o.ramp <= 1)) refuse("ramp has to lie in [0, 1]");
  if (!(o.floor >= 0 && o.floor <= 1)) refuse("floor has to lie in [0, 1]");
  switch (o.kind) {
    case SamplerKind::kFifo: return std::make_unique<Fifo>();
    case SamplerKind::kUniform: return std::make_unique<Uniform>(o.seed);
    case SamplerKind::kPrioritised: return std::make_unique<Prioritised>(o.seed, o.alpha);
    case SamplerKind::kGroup: return std::make_unique<Groups>(o.seed);
    case SamplerKind::kStratified: return std::make_unique<Stratified>(o.seed);
    case SamplerKind::kCurriculum: return std::make_unique<Curriculum>(o.seed, o.easiest, o.ramp);
    case SamplerKind::kDifficulty: return std::make_unique<Difficulty>(o.seed, o.floor);
  }
  return nullptr;
}

}  // namespace plumb::replay

// replay/table/sampler.h: each sampler's distribution or property, and that a draw is a function of
// seed, cursor and items.
#include "replay/table/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "common/base/error.h"

namespace plumb::replay {
namespace {

std::vector<SampleItem> Items(size_t n) {
  std::vector<SampleItem> items(n);
  for (size_t i = 0; i < n; ++i) items[i].key = 100 + 7 * i;
  return items;
}

std::unique_ptr<Sampler> Make(const std::string& name, SamplerOptions options = {}) {
  options.kind = configs::FromName<SamplerKind>(name).value();
  return MakeSampler(options);
}

// How often each item is the one that is drawn.
std::vector<double> Shares(const Sampler& sampler, const std::vector<SampleItem>& items, size_t n,
                           uint64_t draws, double progress = 0) {
  std::vector<double> shares(items.size());
  for (uint64_t draw = 0; draw < draws; ++draw) {
    for (const size_t i : sampler.Sample(items, n, {.draw = draw, .progress = progress}))
      shares[i] += 1.0 / static_cast<double>(draws);
  }
  return shares;
}

// Five standard errors of a share that is p on average.
double Tolerance(double p, uint64_t draws) {
  return 5 * std::sqrt(p * (1 - p) / static_cast<double>(draws));
}

TEST(Sampler, EveryOneDrawsWithoutReplacementFromSeedAndCursor) {
  auto items = Items(23);
  for (size_t i = 0; i < items.size(); ++i) {
    items[i].group = i / 4;
    items[i].stratum = i % 3;
    items[i].priority = 1 + static_cast<double>(i);
    items[i].difficulty = static_cast<double>(i);
  }
  for (const std::string_view listed : configs::kNames<SamplerKind>) {
    const std::string name(listed);
    const auto sampler = Make(name, {.seed = 9});
    for (uint64_t draw = 0; draw < 50; ++draw) {
      const auto drawn = sampler->Sample(items, 10, {.draw = draw, .progress = 0.2});
      EXPECT_EQ(drawn.size(), 10u) << name;
      EXPECT_EQ(std::set<size_t>(drawn.begin(), drawn.end()).size(), 10u) << name;
      EXPECT_EQ(Make(name, {.seed = 9})->Sample(items, 10, {.draw = draw, .progress = 0.2}), drawn)
          << name;
      // The order in which a table lists its items does not matter.
      auto reversed = items;
      std::reverse(reversed.begin(), reversed.end());
      std::vector<uint64_t> a, b;
      for (const size_t i : drawn) a.push_back(items[i].key);
      for (const size_t i : sampler->Sample(reversed, 10, {.draw = draw, .progress = 0.2}))
        b.push_back(reversed[i].key);
      EXPECT_EQ(a, b) << name;
    }
    EXPECT_EQ(sampler->Sample(items, 99, {}).size(), 23u) << name;
    EXPECT_TRUE(sampler->Sample({}, 3, {}).empty()) << name;
    if (name == "fifo") continue;
    EXPECT_NE(sampler->Sample(items, 10, {.draw = 1, .progress = 1}),
              sampler->Sample(items, 10, {.draw = 2, .progress = 1}))
        << name;
    // one draw of few groups may be the same by chance
    const auto several = [&](const Sampler& by) {
      std::vector<std::vector<size_t>> draws;
      for (uint64_t draw = 0; draw < 8; ++draw)
        draws.push_back(by.Sample(items, 10, {.draw = draw, .progress = 1}));
      return draws;
    };
    EXPECT_NE(several(*sampler), several(*Make(name, {.seed = 10}))) << name;
  }
}

TEST(Sampler, FifoTakesTheLeastDrawnThenTheOldest) {
  auto items = Items(4);
  items[0].times_sampled = 2;
  items[1].times_sampled = 1;
  EXPECT_EQ(Make("fifo")->Sample(items, 3, {}), (std::vector<size_t>{2, 3, 1}));
}

TEST(Sampler, UniformDrawsEachEquallyOften) {
  const auto items = Items(10);
  constexpr uint64_t kDraws = 20'000;
  for (const double share : Shares(*Make("uniform"), items, 3, kDraws))
    EXPECT_NEAR(share, 0.3, Tolerance(0.3, kDraws));
}

TEST(Sampler, PrioritisedFollowsThePriorities) {
  auto items = Items(4);
  const std::vector<double> priorities = {0, 1, 2, 5};
  for (size_t i = 0; i < 4; ++i) items[i].priority = priorities[i];
  constexpr uint64_t kDraws = 20'000;
  for (const double alpha : {1.0, 2.0, 0.5}) {
    double sum = 0;
    for (const double p : priorities) sum += p > 0 ? std::pow(p, alpha) : 0;
    const auto shares = Shares(*Make("prioritised", {.alpha = alpha}), items, 1, kDraws);
    EXPECT_EQ(shares[0], 0);
    for (size_t i = 1; i < 4; ++i) {
      const double p = std::pow(priorities[i], alpha) / sum;
      EXPECT_NEAR(shares[i], p, Tolerance(p, kDraws)) << alpha;
    }
  }
  // The second of two, without replacement: P(1 and 2) = P(1) P(2 | not 1) + P(2) P(1 | not 2) =
  // 1/8 2/7 + 2/8 1/6.
  const auto sampler = Make("prioritised");
  double both = 0;
  for (uint64_t draw = 0; draw < kDraws; ++draw) {
    auto drawn = sampler->Sample(items, 2, {.draw = draw});
    std::sort(drawn.begin(), drawn.end());
    both += drawn == std::vector<size_t>{1, 2} ? 1.0 / kDraws : 0;
  }
  const double expected = 1.0 / 8 * 2 / 7 + 2.0 / 8 * 1 / 6;
  EXPECT_NEAR(both, expected, Tolerance(expected, kDraws));
  EXPECT_EQ(sampler->Sample(items, 4, {}).size(), 3u);  // what has no weight is never drawn
}

TEST(Sampler, GroupsComeWholeAndEachEquallyOften) {
  auto items = Items(12);
  for (size_t i = 0; i < 12; ++i) items[i].group = i < 6 ? 0 : i < 9 ? 1 : 2;  // 6, 3 and 3 items
  constexpr uint64_t kDraws = 6'000;
  std::map<uint64_t, double> first;
  const auto sampler = Make("group");
  for (uint64_t draw = 0; draw < kDraws; ++draw) {
    const auto drawn = sampler->Sample(items, 6, {.draw = draw});
    std::map<uint64_t, int> members;
    for (const size_t i : drawn) ++members[items[i].group];
    if (members.contains(0) && members.size() == 1) {
      EXPECT_EQ(members[0], 6);
    }
    first[items[drawn[0]].group] += 1.0 / kDraws;
    for (size_t k = 1; k < drawn.size(); ++k) {  // one group after the other, each in its order
      if (items[drawn[k]].group == items[drawn[k - 1]].group) {
        EXPECT_EQ(drawn[k], drawn[k - 1] + 1);
      }
    }
  }
  for (const auto& [group, share] : first)
    EXPECT_NEAR(share, 1.0 / 3, Tolerance(1.0 / 3, kDraws)) << group;
}

TEST(Sampler, StrataGetEqualSharesWhateverTheirSize) {
  auto items = Items(100);
  // 90, 8 and 2 items
  for (size_t i = 0; i < 100; ++i) items[i].stratum = i < 90 ? 0 : i < 98 ? 1 : 2;
  const auto sampler = Make("stratified");
  std::map<uint64_t, int> rest;
  for (uint64_t draw = 0; draw < 300; ++draw) {
    std::map<uint64_t, int> count;
    for (const size_t i : sampler->Sample(items, 6, {.draw = draw})) ++count[items[i].stratum];
    EXPECT_EQ(count[0], 2);
    EXPECT_EQ(count[1], 2);
    EXPECT_EQ(count[2], 2);
    std::map<uint64_t, int> more;
    for (const size_t i : sampler->Sample(items, 4, {.draw = draw})) ++more[items[i].stratum];
    for (const auto& [stratum, n] : more) rest[stratum] += n == 2;
    std::map<uint64_t, int> many;
    for (const size_t i : sampler->Sample(items, 30, {.draw = draw})) ++many[items[i].stratum];
    EXPECT_EQ(many[2], 2);  // it has no more: the others fill in
    EXPECT_EQ(many[1], 8);
    EXPECT_EQ(many[0], 20);
  }
  // what does not divide goes to each in turn
  for (const auto& [stratum, n] : rest) EXPECT_EQ(n, 100) << stratum;
  const auto shares = Shares(*sampler, items, 6, 20'000);
  for (size_t i = 0; i < 90; ++i) EXPECT_NEAR(shares[i], 2.0 / 90, Tolerance(2.0 / 90, 20'000));
}

TEST(Sampler, TheCurriculumOpensWithTheRun) {
  auto items = Items(100);
  for (size_t i = 0; i < 100; ++i) items[i].difficulty = static_cast<double>((i * 37) % 100);
  const auto sampler = Make("curriculum", {.easiest = 0.2, .ramp = 0.5});
  const auto hardest = [&](double progress) {
    double most = 0;
    for (uint64_t draw = 0; draw < 400; ++draw) {
      for (const size_t i : sampler->Sample(items, 5, {.draw = draw, .progress = progress}))
        most = std::max(most, items[i].difficulty);
    }
    return most;
  };
  EXPECT_EQ(hardest(0), 19);     // 20 % of 100 items
  EXPECT_EQ(hardest(0.25), 59);  // 0.2 + 0.8 / 2
  EXPECT_EQ(hardest(0.5), 99);
  EXPECT_EQ(hardest(1), 99);
  const auto shares = Shares(*sampler, items, 5, 20'000);
  for (size_t i = 0; i < 100; ++i) {
    const double p = items[i].difficulty < 20 ? 0.25 : 0;
    EXPECT_NEAR(shares[i], p, p > 0 ? Tolerance(p, 20'000) : 0);
  }
  EXPECT_EQ(sampler->Sample(items, 50, {}).size(), 50u);  // more than the share: the easiest fifty
}

TEST(Sampler, DifficultyPrefersWhatIsSometimesSolved) {
  auto items = Items(3);
  items[0].solved = 8, items[0].tried = 8;   // always: p = 0.9
  items[1].solved = 4, items[1].tried = 8;   // half: 0.5
  items[2].solved = 0, items[2].tried = 98;  // never: 0.01, held up by the floor
  constexpr uint64_t kDraws = 20'000;
  const auto shares = Shares(*Make("difficulty", {.floor = 0.1}), items, 1, kDraws);
  const double sum = 0.36 + 1 + 0.1;
  EXPECT_NEAR(shares[0], 0.36 / sum, Tolerance(0.36 / sum, kDraws));
  EXPECT_NEAR(shares[1], 1 / sum, Tolerance(1 / sum, kDraws));
  EXPECT_NEAR(shares[2], 0.1 / sum, Tolerance(0.1 / sum, kDraws));
  // What nobody has tried counts as half solved.
  items[0] = {.key = 1};
  EXPECT_NEAR(Shares(*Make("difficulty", {.floor = 0.1}), items, 1, kDraws)[0], 1 / 2.1,
              Tolerance(1 / 2.1, kDraws));
}

TEST(Sampler, WrongOptionsAreNamed) {
  const auto thrown = [](const SamplerOptions& options) {
    try {
      MakeSampler(options);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(thrown({.kind = SamplerKind::kPrioritised, .alpha = -1}).find("alpha"),
            std::string::npos);
  EXPECT_NE(thrown({.kind = SamplerKind::kCurriculum, .easiest = 0}).find("easiest"),
            std::string::npos);
}

}  // namespace
}  // namespace plumb::replay

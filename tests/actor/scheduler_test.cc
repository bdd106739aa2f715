#include "actor/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "common/base/rng.h"

namespace plumb::actor {
namespace {

policy_model::ModelShape Shape() {
  policy_model::ModelShape s;
  s.layers = 1, s.hidden = 8, s.heads = 1, s.kv_heads = 1, s.head_dim = 8, s.ffn = 8, s.vocab = 50;
  s.max_positions = 200;
  return s;
}

// `kinds`: each bit says which of two tokens six places in a row have, so that prompts with the
// same low bits begin alike.
std::unique_ptr<Group> MakeGroup(uint64_t id, int32_t prompt, int32_t samples, int32_t limit,
                                 uint32_t kinds = 0) {
  auto g = std::make_unique<Group>();
  g->request.id = id;
  for (int32_t i = 0; i < prompt; ++i)
    g->request.tokens.push_back(1 +
                                static_cast<int32_t>(uint64_t{kinds} >> std::min(i / 6, 63) & 1));
  g->request.num_samples = samples;
  g->request.limit = limit;
  g->result.samples.resize(static_cast<size_t>(samples));
  return g;
}

// The second pool of a model of which some layers slide.
struct Sliding {
  int32_t window = 0;  // 0: there is none
  int32_t pages = 1;
};

// A model that only remembers who wrote what: cell (kind of layers, page, offset) -> (group, sample
// or -1 for the prompt, position); where prefixes are shared, (all tokens up to there, -1,
// position), and under which weights.
class Machine {
 public:
  // `share`: prompts and answers are known to those that begin like them.
  Machine(int32_t max_batch, int32_t prefill_tokens, int32_t page_tokens, int32_t num_pages,
          uint64_t seed, int32_t window = 0, bool share = false, Sliding sliding = {})
      : pages_(Shape(), Device::kCpu, DType::kFloat32, page_tokens, num_pages),
        sliding_(Shape(), Device::kCpu, DType::kFloat32, page_tokens, sliding.pages),
        scheduler_({.max_batch = max_batch,
                    .prefill_tokens = prefill_tokens,
                    .max_positions = 200,
                    .window = window,
                    .sliding_window = sliding.window,
                    .share_prefixes = share},
                   &pages_, sliding.window > 0 ? &sliding_ : nullptr),
        windows_{window > 0 ? window : 200, sliding.window},
        prefill_tokens_(prefill_tokens),
        max_batch_(max_batch),
        share_(share),
        random_(seed, 0) {}

  Scheduler& scheduler() { return scheduler_; }
  KvPages& pages() { return pages_; }
  KvPages& sliding() { return sliding_; }
  size_t finished_groups() const { return finished_groups_; }
  int64_t prefilled() const { return prefilled_; }
  int64_t recomputed() const { return recomputed_; }
  int64_t twice() const { return twice_; }  // of them, under the same weights
  int32_t most_held() const { return most_held_; }
  int32_t most_sliding() const { return most_sliding_; }
  int64_t step() const { return step_; }
  void Submit(std::unique_ptr<Group> g) {
    epoch_of_[g->request.id] = epoch_;
    scheduler_.Submit(std::move(g));
  }
  void ChangeWeights(bool recompute = false) {
    scheduler_.ForgetPrefixes();
    ++epoch_;
    if (!recompute) return;
    std::vector<int32_t> positions(static_cast<size_t>(max_batch_));
    for (const auto& [slot, position] : position_) positions[static_cast<size_t>(slot)] = position;
    scheduler_.Recompute(positions);
    for (auto& [id, epoch] : epoch_of_) epoch = epoch_;
  }
  void Cancel(uint64_t id) {
    if (Group* g = scheduler_.Find(id); g != nullptr) scheduler_.Take(g, step_);
    pages_.Retire(step_);
  }

  // False: nothing to do.
  bool Step() {
    const StepPlan& plan = scheduler_.Plan(step_);
    if (plan.empty()) return false;
    EXPECT_LE(plan.decode.size(), static_cast<size_t>(max_batch_));
    // Samples of a group are one behind another, so that they can be computed together.
    std::set<const Group*> passed;
    for (size_t r = 0; r < plan.decode.size(); ++r) {
      const Group* group = scheduler_.group_of(plan.decode[r]);
      if (r > 0 && scheduler_.group_of(plan.decode[r - 1]) == group) continue;
      EXPECT_TRUE(passed.insert(group).second) << "row " << r;
    }
    for (const StepPlan::Start& start : plan.starts) {
      position_[start.slot] = static_cast<int32_t>(start.group->request.tokens.size()) - 1;
    }
    for (size_t k = 0; k < scheduler_.kinds(); ++k) {
      const StepPlan::Copies& copies = plan.copies[k];
      for (size_t i = 0; i < copies.from.size(); ++i) {
        for (int32_t o = 0; o < pages_.page_tokens(); ++o) {
          const auto from = cells_.find({k, copies.from[i], o});
          if (from != cells_.end()) cells_[{k, copies.to[i], o}] = from->second;
          weights_of_[{copies.to[i], o}] = weights_of_[{copies.from[i], o}];
        }
      }
    }
    // All writes of a step come before its reads.
    int32_t chunk = 0;
    for (const RecomputeQueue::Chunk& c : plan.recomputed) {
      const int32_t sample = c.slot < 0 ? -1 : scheduler_.sample_index(c.slot);
      for (int32_t i = c.begin; i < c.end; ++i) {
        twice_ += weights_of_[{Page(0, c.row, i), i % pages_.page_tokens()}] == epoch_;
        Write(c.row, i, *c.group, sample);
      }
      chunk += c.end - c.begin;
    }
    recomputed_ += chunk;
    for (const StepPlan::Prefill& p : plan.prefills) {
      for (int32_t i = p.begin; i < p.end; ++i) Write(p.row, i, *p.group, -1);
      chunk += p.end - p.begin;
    }
    EXPECT_LE(chunk, prefill_tokens_);
    for (const StepPlan::Prefill& p : plan.prefills) {
      for (int32_t i = p.begin; i < p.end; ++i) CheckReads(p.row, i, *p.group, -1);
      prefilled_ += p.end - p.begin;
    }
    for (const RecomputeQueue::Chunk& c : plan.recomputed) {
      const int32_t sample = c.slot < 0 ? -1 : scheduler_.sample_index(c.slot);
      for (int32_t i = c.begin; i < c.end; ++i) CheckReads(c.row, i, *c.group, sample);
    }
    for (const int32_t slot : plan.decode) {
      Write(slot, position_[slot], *scheduler_.group_of(slot), scheduler_.sample_index(slot));
    }
    for (const int32_t slot : plan.decode) {
      CheckReads(slot, position_[slot], *scheduler_.group_of(slot), scheduler_.sample_index(slot));
    }
    most_held_ = std::max(most_held_, pages_.held_pages());
    most_sliding_ = std::max(most_sliding_, sliding_.held_pages());
    scheduler_.Commit();
    // End at the limit, or early by chance.
    const std::vector<int32_t> slots = plan.decode;
    for (const int32_t slot : slots) {
      Group* g = scheduler_.group_of(slot);
      const int32_t drawn = ++position_[slot] - static_cast<int32_t>(g->request.tokens.size()) + 1;
      if (drawn < g->request.limit && random_.NextBelow(20) != 0) continue;
      if (share_) {
        std::vector<int32_t> tokens;
        for (int32_t i = 0; i < position_[slot]; ++i)
          tokens.push_back(Token(*g, scheduler_.sample_index(slot), i));
        scheduler_.ShareAnswer(slot, tokens, step_);
      }
      scheduler_.Finish(slot, step_);
      if (g->finished == g->request.num_samples) {
        scheduler_.Remove(g);
        ++finished_groups_;
      }
    }
    pages_.Retire(step_);
    sliding_.Retire(step_++);
    return true;
  }

 private:
  using Writer = std::tuple<uint64_t, int32_t, int32_t>;

  int32_t Page(size_t kind, int32_t row, int32_t position) {
    return scheduler_.page_table(kind)[static_cast<size_t>(row * scheduler_.page_table_stride() +
                                                           position / pages_.page_tokens())];
  }

  // Of a sequence; answers of two samples of three are the same.
  static int32_t Token(const Group& g, int32_t sample, int32_t i) {
    if (i < std::ssize(g.request.tokens)) return g.request.tokens[static_cast<size_t>(i)];
    return 1 + (sample % 3 == 2 ? i % 2 : 0);
  }

  // What stands at a place of a sequence, when nothing tells who wrote it.
  static uint64_t Content(const Group& g, int32_t sample, int32_t position) {
    uint64_t hash = static_cast<uint64_t>(g.request.task + 1);
    for (int32_t i = 0; i <= position; ++i)
      hash = (hash ^ static_cast<uint64_t>(Token(g, sample, i))) * 0x100000001b3u + 7;
    return hash;
  }

  void Write(int32_t row, int32_t position, const Group& g, int32_t sample) {
    const uint64_t group = share_ ? Content(g, sample, position) : g.request.id;
    for (size_t k = 0; k < scheduler_.kinds(); ++k) {
      const int32_t page = Page(k, row, position);
      const KvPages& pages = k == 0 ? pages_ : sliding_;
      EXPECT_GT(pages.references(page), 0) << "written after it was freed";
      if (sample >= 0) {
        EXPECT_EQ(pages.references(page), 1) << "a sample writes to a shared page";
      }
      cells_[{k, page, position % pages.page_tokens()}] = {group, share_ ? -1 : sample, position};
      weights_of_[{page, position % pages.page_tokens()}] = epoch_;
    }
  }

  void CheckReads(int32_t row, int32_t position, const Group& g, int32_t sample) {
    for (size_t k = 0; k < scheduler_.kinds(); ++k) CheckReadsOf(k, row, position, g, sample);
  }

  void CheckReadsOf(size_t k, int32_t row, int32_t position, const Group& g, int32_t sample) {
    const int32_t prompt = static_cast<int32_t>(g.request.tokens.size());
    for (int32_t i = std::max(0, position - windows_[k] + 1); i <= position; ++i) {
      const Writer& wrote = cells_[{k, Page(k, row, i), i % pages_.page_tokens()}];
      if (share_) {  // whoever wrote it, it is the same, and by no weights before its time
        ASSERT_EQ(wrote, (Writer{Content(g, sample, i), -1, i})) << "row " << row;
        const auto by = weights_of_[{Page(k, row, i), i % pages_.page_tokens()}];
        ASSERT_GE(by, epoch_of_[g.request.id])
            << "row " << row << " at " << position << " sees " << i;
        continue;
      }
      const Writer expected{g.request.id, i < prompt - 1 ? -1 : sample, i};
      ASSERT_EQ(wrote, expected) << "row " << row << " at " << position << " sees " << i
                                 << " of kind " << k;
    }
  }

  KvPages pages_, sliding_;
  Scheduler scheduler_;
  const int32_t windows_[kPageKinds];
  const int32_t prefill_tokens_;
  const int32_t max_batch_;
  const bool share_;
  RandomStream random_;
  std::map<std::tuple<size_t, int32_t, int32_t>, Writer> cells_;
  std::map<std::pair<int32_t, int32_t>, int64_t> weights_of_;  // of a cell, where there is one kind
  std::map<uint64_t, int64_t> epoch_of_;                       // weights when a group was submitted
  std::map<int32_t, int32_t> position_;
  int64_t step_ = 0, epoch_ = 0;
  size_t finished_groups_ = 0;
  int64_t prefilled_ = 0, recomputed_ = 0, twice_ = 0;
  int32_t most_held_ = 0, most_sliding_ = 0;
};

TEST(Scheduler, RandomAdmissionsReadWhatTheyWroteAndLeakNothing) {
  for (uint64_t seed = 0; seed < 180; ++seed) {
    RandomStream random(seed, 1);
    const int32_t page_tokens = 1 + static_cast<int32_t>(random.NextBelow(9));
    const int32_t max_batch = 1 + static_cast<int32_t>(random.NextBelow(9));
    const int32_t prefill = 1 + static_cast<int32_t>(random.NextBelow(40));
    const int32_t num_pages = 4 + static_cast<int32_t>(random.NextBelow(60));
    const int32_t width = 1 + static_cast<int32_t>(random.NextBelow(25));
    // All layers see all, all slide, or some do.
    const int32_t window = seed >= 60 && seed < 120 ? width : 0;
    const Sliding sliding = {seed < 120 ? 0 : width,
                             4 + static_cast<int32_t>(random.NextBelow(60))};
    Machine machine(max_batch, prefill, page_tokens, num_pages, seed, window, false, sliding);
    size_t accepted = 0, refused = 0;
    int64_t prompt_tokens = 0;
    for (int i = 0; i < 25; ++i) {
      auto g = MakeGroup(static_cast<uint64_t>(i), 1 + static_cast<int32_t>(random.NextBelow(30)),
                         1 + static_cast<int32_t>(random.NextBelow(5)),
                         1 + static_cast<int32_t>(random.NextBelow(20)));
      if (!machine.scheduler().Refusal(g->request)) {
        prompt_tokens += g->prefill_target();
        machine.scheduler().Submit(std::move(g));
        ++accepted;
      } else {
        ++refused;
      }
      for (uint32_t s = random.NextBelow(6); s > 0; --s) machine.Step();
    }
    int steps = 0;
    while (machine.Step()) ASSERT_LT(++steps, 20000) << "seed " << seed;
    EXPECT_TRUE(machine.scheduler().idle())
        << "seed " << seed << ": stuck with " << accepted - machine.finished_groups();
    EXPECT_EQ(machine.finished_groups(), accepted) << "seed " << seed;
    EXPECT_EQ(machine.pages().free_pages(), num_pages) << "seed " << seed;
    EXPECT_EQ(machine.sliding().free_pages(), sliding.pages) << "seed " << seed;
    EXPECT_EQ(machine.prefilled(), prompt_tokens)
        << "every prompt is prefilled exactly once, seed " << seed;
    EXPECT_EQ(machine.scheduler().unstarted(), 0);
    if (HasFatalFailure()) return;
  }
}

// What is known is computed once, stands in nobody's way however small the pool, and comes from no
// other weights than those since the request came.
TEST(Scheduler, PrefixesAreSharedInAnyOrderAndLeakNothing) {
  uint64_t reused = 0, computed = 0;
  for (uint64_t seed = 0; seed < 150; ++seed) {
    RandomStream random(seed, 2);
    const int32_t page_tokens = 1 + static_cast<int32_t>(random.NextBelow(9));
    const int32_t num_pages = 4 + static_cast<int32_t>(random.NextBelow(seed % 2 == 0 ? 20 : 150));
    const int32_t max_batch = 1 + static_cast<int32_t>(random.NextBelow(9));
    Machine machine(max_batch, 1 + static_cast<int32_t>(random.NextBelow(40)), page_tokens,
                    num_pages, seed, /*window=*/0, /*share=*/true);
    size_t accepted = 0, cancelled = 0;
    int64_t prompt_tokens = 0;
    const bool undisturbed = seed % 3 != 0;  // nobody leaves before the end
    for (int i = 0; i < 40; ++i) {
      auto g =
          MakeGroup(static_cast<uint64_t>(i), 1 + static_cast<int32_t>(random.NextBelow(40)),
                    1 + static_cast<int32_t>(random.NextBelow(4)),
                    1 + static_cast<int32_t>(random.NextBelow(20)), random.NextBelow(64) & 0x35);
      g->request.task = static_cast<int32_t>(random.NextBelow(8)) / 7 - 1;
      if (!machine.scheduler().Refusal(g->request)) {
        prompt_tokens += g->prefill_target();
        machine.Submit(std::move(g));
        ++accepted;
      }
      for (uint32_t s = random.NextBelow(20); s > 0; --s) machine.Step();
      if (random.NextBelow(12) == 0) machine.ChangeWeights();
      if (undisturbed || random.NextBelow(4) != 0) continue;
      const uint64_t id = random.NextBelow(static_cast<uint32_t>(i) + 1);
      cancelled += machine.scheduler().Find(id) != nullptr;
      machine.Cancel(id);
    }
    int steps = 0;
    while (machine.Step()) ASSERT_LT(++steps, 20000) << "seed " << seed;
    EXPECT_TRUE(machine.scheduler().idle()) << "seed " << seed << ": stuck";
    EXPECT_EQ(machine.finished_groups() + cancelled, accepted) << "seed " << seed;
    if (undisturbed) {
      EXPECT_EQ(machine.prefilled() + static_cast<int64_t>(machine.scheduler().reused_tokens()),
                prompt_tokens)
          << "computed or known, seed " << seed;
    }
    EXPECT_EQ(machine.pages().free_pages() + machine.scheduler().idle_pages(), num_pages)
        << "seed " << seed;
    machine.ChangeWeights();
    EXPECT_EQ(machine.scheduler().idle_pages(), 0);
    EXPECT_EQ(machine.pages().free_pages(), num_pages) << "seed " << seed;
    reused += machine.scheduler().reused_tokens();
    computed += static_cast<uint64_t>(machine.prefilled());
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(4 * reused, computed) << "hardly anything was known";
}

// Nobody reads what earlier weights left behind, and nothing is computed again twice.
TEST(Scheduler, WhatIsInWorkIsComputedAgainUnderNewWeightsInPlace) {
  int64_t recomputed = 0;
  for (uint64_t seed = 0; seed < 150; ++seed) {
    RandomStream random(seed, 4);
    const int32_t page_tokens = 1 + static_cast<int32_t>(random.NextBelow(9));
    const int32_t num_pages = 14 + static_cast<int32_t>(random.NextBelow(150));
    Machine machine(1 + static_cast<int32_t>(random.NextBelow(9)),
                    1 + static_cast<int32_t>(random.NextBelow(40)), page_tokens, num_pages, seed,
                    /*window=*/0, /*share=*/true);
    const bool undisturbed = seed % 3 != 0;  // nobody leaves before the end
    for (int i = 0; i < 40; ++i) {
      auto g =
          MakeGroup(static_cast<uint64_t>(i), 1 + static_cast<int32_t>(random.NextBelow(40)),
                    1 + static_cast<int32_t>(random.NextBelow(4)),
                    1 + static_cast<int32_t>(random.NextBelow(20)), random.NextBelow(64) & 0x35);
      if (!machine.scheduler().Refusal(g->request)) machine.Submit(std::move(g));
      for (uint32_t s = random.NextBelow(12); s > 0; --s) machine.Step();
      if (random.NextBelow(4) == 0) machine.ChangeWeights(/*recompute=*/true);
      if (undisturbed || random.NextBelow(4) != 0) continue;
      machine.Cancel(random.NextBelow(static_cast<uint32_t>(i) + 1));
    }
    int steps = 0;
    while (machine.Step()) ASSERT_LT(++steps, 20000) << "seed " << seed;
    EXPECT_TRUE(machine.scheduler().idle()) << "seed " << seed << ": stuck";
    machine.ChangeWeights();
    EXPECT_EQ(machine.pages().free_pages(), num_pages) << "seed " << seed;
    EXPECT_TRUE(!undisturbed || machine.twice() == 0) << machine.twice() << ", seed " << seed;
    recomputed += machine.recomputed();
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(recomputed, 10000);
}

TEST(Scheduler, WhatAWaitingGroupKnowsIsNotHeldForIt) {
  Machine machine(1, 100, 4, 100, 0, /*window=*/0, /*share=*/true);
  machine.Submit(MakeGroup(0, 21, 1, 1));
  while (machine.Step()) {
  }
  EXPECT_EQ(machine.scheduler().idle_pages(), 5) << "20 tokens and what was drawn from the last";
  EXPECT_EQ(machine.pages().free_pages(), 95);
  machine.Submit(MakeGroup(1, 30, 1, 4));
  machine.Submit(MakeGroup(2, 30, 1, 4));
  machine.scheduler().Plan(machine.step());
  EXPECT_EQ(machine.scheduler().reused_tokens(), 20u);
  EXPECT_EQ(machine.scheduler().idle_pages(), 0);
  EXPECT_EQ(machine.scheduler().TakeAll(machine.step()).size(), 2u);
  machine.pages().Retire(machine.step());
  EXPECT_EQ(machine.pages().free_pages() + machine.scheduler().idle_pages(), 100);
}

TEST(Scheduler, APromptThatBeginsLikeOneInWorkWaitsForIt) {
  Machine machine(4, 100, 4, 100, 0, /*window=*/0, /*share=*/true);
  machine.Submit(MakeGroup(0, 31, 1, 4));
  machine.Submit(MakeGroup(1, 35, 1, 4));            // all of it but a page
  machine.Submit(MakeGroup(2, 31, 1, 4, 0b111110));  // a page of seven: not worth it
  machine.Submit(MakeGroup(3, 31, 1, 4));
  machine.Submit(MakeGroup(4, 31, 1, 4));
  machine.scheduler().Find(4)->request.task = 3;  // of another task
  ASSERT_TRUE(machine.Step());
  // Four samples' prompts are in work, the fifth group waits for a slot.
  EXPECT_EQ(machine.prefilled(), 30 + 30);
  ASSERT_TRUE(machine.Step());
  EXPECT_EQ(machine.prefilled(), 60 + (34 - 28) + (30 - 28) + 30)
      << "another task has nothing of it";
  EXPECT_EQ(machine.scheduler().reused_tokens(), 56u);
  while (machine.Step()) {
  }
  EXPECT_EQ(machine.finished_groups(), 5u);
  EXPECT_EQ(machine.prefilled(), 68 + 30);
}

TEST(Scheduler, FullPromptPagesAreSharedAndTheLastSampleTakesThePartialOne) {
  Machine machine(4, 100, 4, 100, 0);
  // prefill 10 tokens: 2 full pages and one of 2 tokens
  machine.scheduler().Submit(MakeGroup(0, 11, 3, 4));
  KvPages& pages = machine.pages();
  machine.scheduler().Plan(0);
  EXPECT_EQ(pages.held_pages(), 3);
  machine.scheduler().Commit();
  const StepPlan& plan = machine.scheduler().Plan(1);
  EXPECT_EQ(plan.starts.size(), 3u);
  EXPECT_EQ(plan.copies[0].from.size(), 2u);
  EXPECT_TRUE(plan.copies[1].from.empty());
  // 11 + 4 - 1 = 14 slots = 4 pages a sample, 2 of them shared.
  EXPECT_EQ(pages.held_pages(), 2 + 3 * 2);
  const auto& table = machine.scheduler().page_table();
  const size_t stride = static_cast<size_t>(machine.scheduler().page_table_stride());
  std::set<int32_t> third;
  for (const StepPlan::Start& s : plan.starts) {
    const size_t row = static_cast<size_t>(s.slot) * stride;
    EXPECT_EQ(pages.references(table[row]), 3);
    EXPECT_EQ(pages.references(table[row + 2]), 1);
    third.insert(table[row + 2]);
  }
  EXPECT_EQ(third.size(), 3u);
}

TEST(Scheduler, PageBudgetIsExact) {
  // 9 prompt tokens + 8 new: 16 KV slots = 4 pages of 4; prefill 8 tokens = 2 full pages, nothing
  // partial.
  for (const int32_t samples : {1, 5}) {
    KvPages enough(Shape(), Device::kCpu, DType::kFloat32, 4, 4);
    KvPages short_by_one(Shape(), Device::kCpu, DType::kFloat32, 4, 3);
    const auto g = MakeGroup(0, 9, samples, 8);
    EXPECT_EQ(Scheduler({8, 100, 200}, &enough).Refusal(g->request), std::nullopt);
    EXPECT_NE(Scheduler({8, 100, 200}, &short_by_one)
                  .Refusal(g->request)
                  .value_or("")
                  .find("needs 4 KV pages"),
              std::string::npos);
  }
  // A partial prompt page: the original of the copies needs a page of its own, unless there is one
  // sample only.
  KvPages four(Shape(), Device::kCpu, DType::kFloat32, 4, 4);
  EXPECT_EQ(Scheduler({8, 100, 200}, &four).Refusal(MakeGroup(0, 10, 1, 7)->request), std::nullopt);
  EXPECT_NE(Scheduler({8, 100, 200}, &four).Refusal(MakeGroup(0, 10, 2, 7)->request), std::nullopt);
}

TEST(Scheduler, TheTightestPoolsRunToTheEnd) {
  for (const int32_t window : {0, 1, 2, 6, 9}) {
    for (const int32_t samples : {1, 2, 5}) {
      for (const int32_t prompt : {1, 2, 4, 5, 8, 9, 10, 31}) {
        int32_t num_pages = 1;
        for (;; ++num_pages) {
          KvPages pages(Shape(), Device::kCpu, DType::kFloat32, 4, num_pages);
          if (!Scheduler({3, 7, 200, window}, &pages)
                   .Refusal(MakeGroup(0, prompt, samples, 7)->request))
            break;
        }
        Machine machine(3, 7, 4, num_pages, 5, window);
        for (uint64_t i = 0; i < 4; ++i)
          machine.scheduler().Submit(MakeGroup(i, prompt, samples, 7));
        int steps = 0;
        while (machine.Step()) ASSERT_LT(++steps, 5000);
        EXPECT_EQ(machine.finished_groups(), 4u)
            << prompt << " x " << samples << " in " << num_pages << ", window " << window;
        EXPECT_EQ(machine.pages().free_pages(), num_pages);
      }
    }
  }
}

// A prompt of 100 tokens and answers of 90: 48 pages of 4 where all is kept.
TEST(Scheduler, ASlidingModelHoldsItsWindowHoweverLongItGoesOn) {
  Machine all(2, 8, 4, 200, 1), sliding(2, 8, 4, 200, 1, 10);
  for (Machine* machine : {&all, &sliding}) {
    machine->scheduler().Submit(MakeGroup(0, 100, 2, 90));
    while (machine->Step()) {
    }
    EXPECT_EQ(machine->finished_groups(), 1u);
    EXPECT_EQ(machine->pages().free_pages(), 200);
  }
  EXPECT_GE(all.most_held(), 25) << "the prompt alone";
  // Two full pages of the prompt's last window and the partial one, and four of each answer.
  EXPECT_LE(sliding.most_held(), 3 + 2 * 4);
  EXPECT_EQ(Scheduler::MostPages({2, 8, 200, 10}, 4), 2 * (2 * 4 + 5));
  EXPECT_EQ(Scheduler::MostPages({2, 8, 200}, 4), 2 * 100);
}

// The same with layers that see everything beside those that slide.
TEST(Scheduler, OnlySlidingLayersGivePagesBackWhereLayersMix) {
  Machine machine(2, 8, 4, 200, 1, 0, false, {10, 200});
  machine.scheduler().Submit(MakeGroup(0, 100, 2, 90));
  while (machine.Step()) {
  }
  EXPECT_EQ(machine.finished_groups(), 1u);
  EXPECT_EQ(machine.pages().free_pages(), 200);
  EXPECT_EQ(machine.sliding().free_pages(), 200);
  EXPECT_GE(machine.most_held(), 25) << "the prompt alone";
  EXPECT_LE(machine.most_sliding(), 3 + 2 * 4);
}

TEST(Scheduler, TheTightestPairOfPoolsRunsToTheEnd) {
  const auto refused = [](const Sliding& sliding, int32_t pages, const GenerateRequest& r) {
    KvPages all(Shape(), Device::kCpu, DType::kFloat32, 4, pages),
        own(Shape(), Device::kCpu, DType::kFloat32, 4, sliding.pages);
    return Scheduler({3, 7, 200, 0, sliding.window}, &all, &own).Refusal(r);
  };
  for (const int32_t window : {1, 6, 9}) {
    for (const int32_t samples : {1, 2, 5}) {
      for (const int32_t prompt : {1, 5, 9, 31}) {
        const GenerateRequest r = MakeGroup(0, prompt, samples, 7)->request;
        int32_t pages = 1;
        Sliding sliding = {window, 100};
        while (refused(sliding, pages, r)) ++pages;
        sliding.pages = 1;
        while (refused(sliding, pages, r)) ++sliding.pages;
        Machine machine(3, 7, 4, pages, 5, 0, false, sliding);
        for (uint64_t i = 0; i < 4; ++i)
          machine.scheduler().Submit(MakeGroup(i, prompt, samples, 7));
        int steps = 0;
        while (machine.Step()) ASSERT_LT(++steps, 5000);
        EXPECT_EQ(machine.finished_groups(), 4u)
            << prompt << " x " << samples << " in " << pages << " and " << sliding.pages;
        if (sliding.pages > 1) {
          --sliding.pages;
          EXPECT_NE(refused(sliding, pages, r).value_or("").find("the pool of sliding layers has"),
                    std::string::npos);
        }
      }
    }
  }
}

TEST(Scheduler, RefusesWhatCanNeverRun) {
  KvPages pages(Shape(), Device::kCpu, DType::kFloat32, 4, 1000);
  Scheduler scheduler({2, 10, 200}, &pages);
  EXPECT_NE(scheduler.Refusal(MakeGroup(0, 0, 1, 5)->request).value_or("").find("no tokens"),
            std::string::npos);
  EXPECT_EQ(scheduler.Refusal(MakeGroup(0, 195, 1, 5)->request), std::nullopt);
  EXPECT_NE(scheduler.Refusal(MakeGroup(0, 196, 1, 5)->request).value_or("").find("max_positions"),
            std::string::npos);
}

TEST(Scheduler, TakeAllReleasesEverythingAtAnyMoment) {
  for (int stop = 0; stop < 12; ++stop) {
    Machine machine(3, 5, 4, 40, 3);
    for (uint64_t i = 0; i < 6; ++i) machine.scheduler().Submit(MakeGroup(i, 7, 2, 9));
    for (int s = 0; s < stop; ++s) machine.Step();
    const size_t left = machine.scheduler().TakeAll(100).size();
    EXPECT_EQ(left + machine.finished_groups(), 6u);
    machine.pages().Retire(100);
    EXPECT_EQ(machine.pages().free_pages(), 40) << "after " << stop << " steps";
    EXPECT_TRUE(machine.scheduler().idle());
  }
}

}  // namespace
}  // namespace plumb::actor

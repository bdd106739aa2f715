#include "actor/scheduler.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"

namespace plumb::actor {
namespace {

PageTableSize SizeOf(const SchedulerOptions& o, int32_t window) {
  return {o.max_batch, o.prefill_tokens, o.max_positions, window, o.append_tokens};
}

std::vector<PageTable> TablesOf(const SchedulerOptions& o, KvPages* pages, PrefixTree* tree,
                                KvPages* sliding) {
  PLUMB_CHECK(tree == nullptr || (o.window == 0 && sliding == nullptr),
              "first pages that make room for others");
  std::vector<PageTable> tables;
  tables.emplace_back(0, SizeOf(o, o.window), pages, tree);
  if (sliding != nullptr) {
    PLUMB_CHECK(o.sliding_window > 0 && sliding->page_tokens() == pages->page_tokens());
    tables.emplace_back(1, SizeOf(o, o.sliding_window), sliding);
  }
  return tables;
}

}  // namespace

int64_t Scheduler::MostPages(const SchedulerOptions& o, int32_t page_tokens) {
  return PageTable::MostPages(SizeOf(o, o.window), page_tokens);
}

Scheduler::Scheduler(const SchedulerOptions& options, KvPages* pages, KvPages* sliding)
    : options_(options),
      at_once_(options.at_once > 0 ? options.at_once : options.max_batch),
      tree_(options.share_prefixes ? std::make_unique<PrefixTree>(pages) : nullptr),
      tables_(TablesOf(options, pages, tree_.get(), sliding)),
      recompute_(&tables_.front(), options.max_batch, options.states) {
  PLUMB_CHECK(at_once_ <= options.max_batch, "more at once than there are slots");
  const auto slots = static_cast<size_t>(options.max_batch);
  slots_.resize(slots);
  for (int32_t s = at_once_ - 1; s >= 0; --s) {
    free_slots_.push_back(s);
    free_prompt_rows_.push_back(options.max_batch + s);
  }
  waiting_.reserve(slots);
  plan_.starts.reserve(slots);
  for (StepPlan::Copies& copies : plan_.copies) {
    copies.from.reserve(slots);
    copies.to.reserve(slots);
  }
  plan_.decode.reserve(slots);
  plan_.prefills.reserve(slots);
  plan_.appends.reserve(slots);
  plan_.recomputed.reserve(3 * slots);
  plan_.moves.reserve(slots);
  feeds_.reserve(slots);
}

Problem Scheduler::Refusal(const GenerateRequest& request) const {
  const int64_t prompt = static_cast<int64_t>(request.tokens.size());
  if (prompt == 0) return "the prompt has no tokens";
  const int64_t length = prompt + request.limit;
  if (length > options_.max_positions) {
    return "prompt of " + std::to_string(prompt) + " tokens + " + std::to_string(request.limit) +
           " new ones is longer than the model's max_positions = " +
           std::to_string(options_.max_positions) +
           "; lower data.max_prompt_tokens or rollout.max_new_tokens";
  }
  for (const PageTable& table : tables_) {
    const int64_t needed = table.MinimumPages(request);
    if (needed <= table.pages().num_pages()) continue;
    const bool apart = &table != &tables_.front();
    return "prompt of " + std::to_string(prompt) + " tokens + " + std::to_string(request.limit) +
           " new ones needs " + std::to_string(needed) + " KV pages of " +
           std::to_string(table.pages().page_tokens()) + " tokens and the pool " +
           (apart ? "of sliding layers " : "") + "has " +
           std::to_string(table.pages().num_pages()) + "; raise rollout.kv_budget_mb";
  }
  return std::nullopt;
}

void Scheduler::Submit(std::unique_ptr<Group> group) {
  PLUMB_CHECK(!Refusal(group->request) && group->request.limit >= 1 &&
              group->request.num_samples >= 1);
  const KvPages& pages = tables_.front().pages();
  const int32_t target = group->prefill_target();
  group->full_pages = target / pages.page_tokens();
  for (size_t k = 0; k < tables_.size(); ++k)
    group->prompt[k].pages.reserve(static_cast<size_t>(pages.PagesFor(target)));
  unstarted_ += group->request.num_samples;
  queue_.push_back(group.get());
  groups_.push_back(std::move(group));
}

void Scheduler::ReleasePrompt(Group* g, int64_t step) {
  for (PageTable& table : tables_) table.ReleasePrompt(g, step);
  if (g->prompt_row >= 0) free_prompt_rows_.push_back(g->prompt_row);
  g->prompt_row = -1;
}

void Scheduler::StartOne(Group* g, int64_t step) {
  const int32_t slot = free_slots_.back();
  free_slots_.pop_back();
  for (size_t k = 0; k < tables_.size(); ++k)
    tables_[k].Start(g, slot, &plan_.copies[k].from, &plan_.copies[k].to);
  slots_[static_cast<size_t>(slot)] = Slot{g, g->started};
  plan_.starts.push_back({slot, g, g->started, g->prompt_row});
  const auto& openings = g->request.openings;
  const size_t opening = openings.empty() ? 0 : openings[static_cast<size_t>(g->started)].size();
  Resume(slot, static_cast<int32_t>(opening));
  ++g->started;
  --unstarted_;
  --waiting_samples_;
  if (g->all_started()) ReleasePrompt(g, step);  // its full pages live on in the samples
}

bool Scheduler::StartSamples(int64_t step) {
  while (!waiting_.empty() && waiting_.front()->prefill_done()) {
    Group* g = waiting_.front();
    for (PageTable& table : tables_) {
      if (g->started == 0) table.DropUnseen(g, step);
    }
    while (!g->all_started()) {
      if (free_slots_.empty()) return true;
      if (!std::all_of(tables_.begin(), tables_.end(),
                       [g](const PageTable& table) { return table.CanStart(*g); }))
        return false;
      StartOne(g, step);
    }
    waiting_.erase(waiting_.begin());
  }
  return true;
}

void Scheduler::Admit(int64_t step) {
  while (!queue_.empty() && waiting_samples_ < at_once_ && !free_prompt_rows_.empty()) {
    Group* g = queue_.front();
    const uint64_t reused_before = reused_tokens_;
    TakeKnown(g, step);
    if (!std::all_of(tables_.begin(), tables_.end(),
                     [&](const PageTable& table) { return table.CanAdmit(*g, waiting_); })) {
      ReleasePrompt(g, step);  // what waits holds nothing
      g->prefilled = 0;
      reused_tokens_ = reused_before;
      return;
    }
    queue_.pop_front();
    waiting_samples_ += g->request.num_samples;
    g->prompt_row = free_prompt_rows_.back();
    free_prompt_rows_.pop_back();
    for (PageTable& table : tables_) table.Admit(g);
    waiting_.push_back(g);
  }
}

void Scheduler::TakeKnown(Group* g, int64_t step) {
  if (!tree_) return;
  if (g->prefilled == 0) g->epoch = epoch_;
  if (g->epoch != epoch_) return;
  const int32_t page = tables_.front().pages().page_tokens(), from = g->prefilled / page,
                end = tables_.front().TakeKnown(g, from, step);
  if (end == from) return;
  reused_tokens_ += static_cast<uint64_t>(end * page - g->prefilled);
  g->prefilled = end * page;
}

bool Scheduler::WaitsForAnother(const Group& g) const {
  if (!tree_ || g.epoch != epoch_) return false;
  const int32_t page = tables_.front().pages().page_tokens();
  for (const StepPlan::Prefill& p : plan_.prefills) {
    if (p.group->epoch != epoch_ || p.group->request.task != g.request.task) continue;
    const auto &mine = g.request.tokens, &its = p.group->request.tokens;
    const auto most = static_cast<ptrdiff_t>(std::min(g.full_pages, p.group->full_pages)) * page;
    const auto same = std::mismatch(mine.begin(), mine.begin() + most, its.begin()).first;
    const auto shared = static_cast<int32_t>(same - mine.begin()) / page * page - g.prefilled;
    if (shared > 0 && 2 * shared >= g.prefill_target() - g.prefilled) return true;
  }
  return false;
}

void Scheduler::ShareAnswer(int32_t slot, std::span<const int32_t> tokens, int64_t step) {
  const Group* g = group_of(slot);
  if (!tree_ || g->epoch != epoch_) return;
  tables_.front().ShareAnswer(*g, slot, tokens, step);
}

void Scheduler::ForgetPrefixes() {
  if (!tree_) return;
  tree_->Clear();
  ++epoch_;
}

void Scheduler::Recompute(std::span<const int32_t> positions) {
  std::vector<uint8_t> draws(slots_.size());
  for (size_t s = 0; s < slots_.size(); ++s) draws[s] = recompute_.Draws(static_cast<int32_t>(s));
  for (const int32_t slot : plan_.decode) draws[static_cast<size_t>(slot)] = 1;
  plan_.decode.clear();
  recompute_.Clear();
  for (size_t s = 0; s < slots_.size(); ++s) {
    Group* const g = slots_[s].group;
    if (g == nullptr) continue;
    const auto slot = static_cast<int32_t>(s);
    const int32_t target = g->prefill_target();
    if (target > 0 && !g->recomputes)
      recompute_.AddPrompt(g, g->prompt_row >= 0 ? g->prompt_row : slot, target);
    int32_t end = positions[s];
    for (const Feed& feed : feeds_) {
      if (feed.slot == slot && feed.done < feed.rows) end += feed.done;
    }
    recompute_.AddSample(g, slot, end, draws[s] != 0);
  }
  for (Group* g : waiting_) {
    if (g->prefilled > 0 && !g->recomputes) recompute_.AddPrompt(g, g->prompt_row, g->prefilled);
  }
}

void Scheduler::Pause(int32_t slot) {
  if (recompute_.Draws(slot)) return recompute_.SetDraws(slot, false);
  const auto at = std::find(plan_.decode.begin(), plan_.decode.end(), slot);
  PLUMB_CHECK(at != plan_.decode.end(), "slot " + std::to_string(slot) + " does not run");
  *at = plan_.decode.back();
  plan_.decode.pop_back();
}

void Scheduler::Resume(int32_t slot, int32_t rows) {
  if (rows > 0) feeds_.push_back({slot, 0, rows});
  else if (recompute_.Holds(slot)) recompute_.SetDraws(slot, true);
  else plan_.decode.push_back(slot);
}

void Scheduler::PlanAppends(int32_t* budget) {
  const bool slides = std::any_of(tables_.begin(), tables_.end(),
                                  [](const PageTable& table) { return table.slides(); });
  for (const Feed& feed : feeds_) {
    if (*budget == 0) break;
    if (recompute_.Holds(feed.slot)) continue;  // what stands before it comes first
    int32_t count = std::min(*budget, feed.rows - feed.done);
    if (slides) count = std::min(count, options_.append_tokens);
    plan_.appends.push_back({feed.slot, feed.done, feed.done + count});
    *budget -= count;
  }
}

const StepPlan& Scheduler::Plan(int64_t step) {
  plan_.starts.clear();
  for (StepPlan::Copies& copies : plan_.copies) {
    copies.from.clear();
    copies.to.clear();
  }
  plan_.prefills.clear();
  plan_.appends.clear();
  plan_.recomputed.clear();
  plan_.moves.clear();
  planned_step_ = step;
  std::erase_if(feeds_, [&](const Feed& feed) {  // computed: they draw again
    if (feed.done < feed.rows) return false;
    Resume(feed.slot, 0);
    return true;
  });
  recompute_.Settle({plan_.copies[0].from, plan_.copies[0].to, plan_.moves}, &plan_.decode);
  for (Group* g : waiting_) {
    if (!g->prefill_done()) TakeKnown(g, step);  // what others have computed meanwhile
  }
  // New prompts must not take the pages that samples of earlier ones are waiting for.
  if (StartSamples(step)) {
    Admit(step);
    StartSamples(step);  // prompts of one token need no prefill
  }
  const auto before = [&](int32_t a, int32_t b) {
    const uint64_t of_a = group_of(a)->request.id, of_b = group_of(b)->request.id;
    return of_a != of_b ? of_a < of_b : a < b;
  };
  if (!std::is_sorted(plan_.decode.begin(), plan_.decode.end(), before))
    std::sort(plan_.decode.begin(), plan_.decode.end(), before);
  int32_t budget = options_.prefill_tokens;
  recompute_.Plan(&budget, &plan_.recomputed);
  PlanAppends(&budget);
  for (Group* g : waiting_) {
    if (budget == 0) break;
    if (g->prefill_done() || g->recomputes || WaitsForAnother(*g)) continue;
    const int32_t count = std::min(budget, g->prefill_target() - g->prefilled);
    plan_.prefills.push_back({g, g->prompt_row, g->prefilled, g->prefilled + count});
    budget -= count;
  }
  return plan_;
}

void Scheduler::Commit() {
  for (const StepPlan::Prefill& p : plan_.prefills) {
    p.group->prefilled = p.end;
    if (!tree_ || p.group->epoch != epoch_) continue;
    const int32_t page = tables_.front().pages().page_tokens();
    tables_.front().SharePrompt(p.group, p.begin / page, p.end / page, planned_step_);
  }
  recompute_.Commit();
  auto feed = feeds_.begin();  // in the same order
  for (const StepPlan::Append& a : plan_.appends) {
    while (feed->slot != a.slot) ++feed;
    feed->done = a.end;
  }
}

void Scheduler::Finish(int32_t slot, int64_t step) {
  Slot& s = slots_[static_cast<size_t>(slot)];
  PLUMB_CHECK(s.group != nullptr, "slot " + std::to_string(slot) + " is empty");
  for (PageTable& table : tables_) table.Finish(slot, step);
  ++s.group->finished;
  s = Slot{};
  free_slots_.push_back(slot);
  recompute_.Drop(slot);
  std::erase_if(feeds_, [slot](const Feed& feed) { return feed.slot == slot; });
  if (std::find(plan_.decode.begin(), plan_.decode.end(), slot) != plan_.decode.end()) Pause(slot);
}

std::unique_ptr<Group> Scheduler::Remove(Group* group) {
  PLUMB_CHECK(group->finished == group->request.num_samples);
  const auto at =
      std::find_if(groups_.begin(), groups_.end(), [&](const auto& g) { return g.get() == group; });
  PLUMB_CHECK(at != groups_.end());
  std::unique_ptr<Group> taken = std::move(*at);
  groups_.erase(at);
  return taken;
}

Group* Scheduler::Find(uint64_t id) const {
  const auto at = std::find_if(groups_.begin(), groups_.end(),
                               [id](const auto& g) { return g->request.id == id; });
  return at == groups_.end() ? nullptr : at->get();
}

std::unique_ptr<Group> Scheduler::Take(Group* group, int64_t step) {
  for (size_t s = 0; s < slots_.size(); ++s) {
    if (slots_[s].group == group) Finish(static_cast<int32_t>(s), step);
  }
  const int32_t left = group->request.num_samples - group->started;
  if (left > 0) {  // it waits for its prompt or for slots, or stands in the queue
    unstarted_ -= left;
    if (std::erase(waiting_, group) > 0) waiting_samples_ -= left;
    else std::erase(queue_, group);
    recompute_.DropPrompt(group);
    ReleasePrompt(group, step);
    group->request.num_samples = group->started;
  }
  return Remove(group);
}

std::vector<std::unique_ptr<Group>> Scheduler::TakeAll(int64_t step) {
  for (size_t s = 0; s < slots_.size(); ++s) {
    if (slots_[s].group != nullptr) Finish(static_cast<int32_t>(s), step);
  }
  recompute_.Clear();
  for (Group* g : waiting_) ReleasePrompt(g, step);
  waiting_.clear();
  queue_.clear();
  unstarted_ = waiting_samples_ = 0;
  return std::exchange(groups_, {});
}

}  // namespace plumb::actor

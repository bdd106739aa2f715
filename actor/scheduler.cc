#include "actor/scheduler.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"

namespace plumb::actor {

Scheduler::Scheduler(const SchedulerOptions& options, KvPages* pages)
    : options_(options), pages_(pages), stride_(pages->PagesFor(options.max_positions)) {
  PLUMB_CHECK(options.max_batch >= 1 && options.prefill_tokens >= 1 && options.max_positions >= 1);
  const size_t slots = static_cast<size_t>(options.max_batch);
  page_table_.assign(2 * slots * static_cast<size_t>(stride_), 0);
  slots_.resize(slots);
  for (int32_t s = options.max_batch - 1; s >= 0; --s) {
    free_slots_.push_back(s);
    free_prompt_rows_.push_back(options.max_batch + s);
  }
  waiting_.reserve(slots);
  plan_.starts.reserve(slots);
  plan_.copy_from.reserve(slots);
  plan_.copy_to.reserve(slots);
  plan_.decode.reserve(slots);
  plan_.prefills.reserve(slots);
}

// The last token drawn is never fed back, so its key and value are never written.
int32_t Scheduler::TotalPages(const Group& g) const {
  return pages_->PagesFor(static_cast<int64_t>(g.request.tokens.size()) + g.request.limit - 1);
}

int32_t Scheduler::PrivatePages(const Group& g) const {
  const bool partial = static_cast<int32_t>(g.prompt_pages.size()) > g.full_pages;
  // the last one needs no copy
  const bool takes_partial = partial && g.started + 1 == g.request.num_samples;
  return TotalPages(g) - g.full_pages - (takes_partial ? 1 : 0);
}

int64_t Scheduler::MinimumPages(const GenerateRequest& r) const {
  const bool partial = (static_cast<int64_t>(r.tokens.size()) - 1) % pages_->page_tokens() != 0;
  const int64_t total = pages_->PagesFor(static_cast<int64_t>(r.tokens.size()) + r.limit - 1);
  return total + (partial && r.num_samples > 1 ? 1 : 0);  // the original of the copies
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
  const int64_t needed = MinimumPages(request);
  if (needed > pages_->num_pages()) {
    return "prompt of " + std::to_string(prompt) + " tokens + " + std::to_string(request.limit) +
           " new ones needs " + std::to_string(needed) + " KV pages of " +
           std::to_string(pages_->page_tokens()) + " tokens and the pool has " +
           std::to_string(pages_->num_pages()) + "; raise rollout.kv_budget_mb";
  }
  return std::nullopt;
}

void Scheduler::Submit(std::unique_ptr<Group> group) {
  PLUMB_CHECK(!Refusal(group->request) && group->request.limit >= 1 &&
              group->request.num_samples >= 1);
  const int32_t target = group->prefill_target();
  group->full_pages = target / pages_->page_tokens();
  group->prompt_pages.reserve(static_cast<size_t>(pages_->PagesFor(target)));
  unstarted_ += group->request.num_samples;
  queue_.push_back(group.get());
  groups_.push_back(std::move(group));
}

void Scheduler::ReleasePrompt(Group* g, int64_t step) {
  for (const int32_t page : g->prompt_pages) {
    if (page >= 0) pages_->Release(page, step);
  }
  waiting_pages_ -= static_cast<int64_t>(g->prompt_pages.size());
  g->prompt_pages.clear();
  if (g->prompt_row >= 0) free_prompt_rows_.push_back(g->prompt_row);
  g->prompt_row = -1;
}

void Scheduler::StartOne(Group* g, int64_t step) {
  const int32_t slot = free_slots_.back();
  free_slots_.pop_back();
  int32_t* row = page_table_.data() + static_cast<ptrdiff_t>(slot) * stride_;
  const int32_t total = TotalPages(*g);
  const bool partial = static_cast<int32_t>(g->prompt_pages.size()) > g->full_pages;
  const bool last = g->started + 1 == g->request.num_samples;
  for (int32_t p = 0; p < total; ++p) {
    if (p < g->full_pages) {
      row[p] = g->prompt_pages[static_cast<size_t>(p)];
      pages_->AddReference(row[p]);
    } else if (p == g->full_pages && partial && last) {
      // the reference moves along
      row[p] = std::exchange(g->prompt_pages[static_cast<size_t>(p)], -1);
    } else {
      row[p] = pages_->Allocate();
      if (p == g->full_pages && partial) {
        plan_.copy_from.push_back(g->prompt_pages[static_cast<size_t>(p)]);
        plan_.copy_to.push_back(row[p]);
      }
    }
  }
  slots_[static_cast<size_t>(slot)] = Slot{g, g->started, total};
  plan_.starts.push_back({slot, g, g->started});
  plan_.decode.push_back(slot);
  ++g->started;
  --unstarted_;
  --waiting_samples_;
  if (g->all_started()) ReleasePrompt(g, step);  // its full pages live on in the samples
}

bool Scheduler::StartSamples(int64_t step) {
  while (!waiting_.empty() && waiting_.front()->prefill_done()) {
    Group* g = waiting_.front();
    while (!g->all_started()) {
      if (free_slots_.empty()) return true;
      if (PrivatePages(*g) > pages_->free_pages()) return false;
      StartOne(g, step);
    }
    waiting_.erase(waiting_.begin());
  }
  return true;
}

void Scheduler::Admit() {
  while (!queue_.empty() && waiting_samples_ < options_.max_batch && !free_prompt_rows_.empty()) {
    Group* g = queue_.front();
    const int32_t pages = pages_->PagesFor(g->prefill_target());
    // With all these prompts held, one sample of any waiting group still has to fit once the
    // running ones have ended.
    int64_t largest = TotalPages(*g) - g->full_pages;
    if (g->request.num_samples == 1 && pages > g->full_pages) --largest;
    for (const Group* w : waiting_) largest = std::max<int64_t>(largest, PrivatePages(*w));
    if (pages > pages_->free_pages() || waiting_pages_ + pages + largest > pages_->num_pages())
      return;
    queue_.pop_front();
    waiting_pages_ += pages;
    waiting_samples_ += g->request.num_samples;
    g->prompt_row = free_prompt_rows_.back();
    free_prompt_rows_.pop_back();
    int32_t* row = page_table_.data() + static_cast<ptrdiff_t>(g->prompt_row) * stride_;
    for (int32_t p = 0; p < pages; ++p) {
      row[p] = pages_->Allocate();
      g->prompt_pages.push_back(row[p]);
    }
    waiting_.push_back(g);
  }
}

const StepPlan& Scheduler::Plan(int64_t step) {
  plan_.starts.clear();
  plan_.copy_from.clear();
  plan_.copy_to.clear();
  plan_.prefills.clear();
  // New prompts must not take the pages that samples of earlier ones are waiting for.
  if (StartSamples(step)) {
    Admit();
    StartSamples(step);  // prompts of one token need no prefill
  }
  int32_t budget = options_.prefill_tokens;
  for (Group* g : waiting_) {
    if (budget == 0) break;
    if (g->prefill_done()) continue;
    const int32_t count = std::min(budget, g->prefill_target() - g->prefilled);
    plan_.prefills.push_back({g, g->prompt_row, g->prefilled, g->prefilled + count});
    budget -= count;
  }
  return plan_;
}

void Scheduler::Commit() {
  for (const StepPlan::Prefill& p : plan_.prefills) p.group->prefilled = p.end;
}

void Scheduler::Finish(int32_t slot, int64_t step) {
  Slot& s = slots_[static_cast<size_t>(slot)];
  PLUMB_CHECK(s.group != nullptr, "slot " + std::to_string(slot) + " is empty");
  const int32_t* row = page_table_.data() + static_cast<ptrdiff_t>(slot) * stride_;
  for (int32_t p = 0; p < s.pages; ++p) pages_->Release(row[p], step);
  ++s.group->finished;
  s = Slot{};
  free_slots_.push_back(slot);
  const auto at = std::find(plan_.decode.begin(), plan_.decode.end(), slot);
  PLUMB_CHECK(at != plan_.decode.end());
  *at = plan_.decode.back();
  plan_.decode.pop_back();
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

std::vector<std::unique_ptr<Group>> Scheduler::TakeAll(int64_t step) {
  while (!plan_.decode.empty()) Finish(plan_.decode.back(), step);
  for (Group* g : waiting_) ReleasePrompt(g, step);
  waiting_.clear();
  queue_.clear();
  unstarted_ = waiting_samples_ = waiting_pages_ = 0;
  return std::exchange(groups_, {});
}

}  // namespace plumb::actor

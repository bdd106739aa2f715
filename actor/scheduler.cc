#include "actor/scheduler.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"

namespace plumb::actor {
namespace {

// Pages of a ring in which the token written last sees the `seen` - 1 before it.
int64_t RingPages(int64_t seen, int32_t page_tokens) {
  return (seen - 1 + page_tokens - 1) / page_tokens + 1;
}

// A chunk is written as a whole before its tokens look back.
int64_t PromptRing(const SchedulerOptions& o, int32_t page_tokens) {
  return RingPages(int64_t{o.window} + o.prefill_tokens - 1, page_tokens);
}

}  // namespace

int64_t Scheduler::MostPages(const SchedulerOptions& o, int32_t page_tokens) {
  const int64_t all = (int64_t{o.max_positions} + page_tokens - 1) / page_tokens;
  if (o.window == 0) return 2 * o.max_batch * all;
  // A sample: the last window of its prompt, and its own.
  return o.max_batch * (std::min(all, 2 * RingPages(o.window, page_tokens)) +
                        std::min(all, PromptRing(o, page_tokens)));
}

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
int32_t Scheduler::TotalPages(const GenerateRequest& r) const {
  return pages_->PagesFor(static_cast<int64_t>(r.tokens.size()) + r.limit - 1);
}

int32_t Scheduler::PromptPages(const GenerateRequest& r) const {
  const int64_t all = pages_->PagesFor(static_cast<int64_t>(r.tokens.size()) - 1);
  if (options_.window == 0) return static_cast<int32_t>(all);
  return static_cast<int32_t>(std::min(all, PromptRing(options_, pages_->page_tokens())));
}

int32_t Scheduler::OwnPages(const GenerateRequest& r) const {
  const int64_t full = (static_cast<int64_t>(r.tokens.size()) - 1) / pages_->page_tokens(),
                all = TotalPages(r) - full;
  if (options_.window == 0) return static_cast<int32_t>(all);
  return static_cast<int32_t>(std::min(all, RingPages(options_.window, pages_->page_tokens())));
}

int32_t Scheduler::PrivatePages(const Group& g) const {
  const bool partial = static_cast<int32_t>(g.prompt_pages.size()) > g.full_pages;
  // the last one needs no copy
  const bool takes_partial = partial && g.started + 1 == g.request.num_samples;
  return OwnPages(g.request) - (takes_partial ? 1 : 0);
}

int32_t Scheduler::FirstSeen(const Group& g) const {
  if (options_.window == 0) return 0;
  return std::max(0, g.prefill_target() - options_.window + 1) / pages_->page_tokens();
}

int64_t Scheduler::MinimumPages(const GenerateRequest& r) const {
  const bool partial = (static_cast<int64_t>(r.tokens.size()) - 1) % pages_->page_tokens() != 0;
  // A last sample takes the prompt's partial page over.
  return int64_t{PromptPages(r)} + OwnPages(r) - (partial && r.num_samples == 1 ? 1 : 0);
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
  waiting_pages_ -= std::exchange(g->prompt_held, 0);
  g->prompt_pages.clear();
  if (g->prompt_row >= 0) free_prompt_rows_.push_back(g->prompt_row);
  g->prompt_row = -1;
}

void Scheduler::StartOne(Group* g, int64_t step) {
  const int32_t slot = free_slots_.back();
  free_slots_.pop_back();
  int32_t* row = page_table_.data() + static_cast<ptrdiff_t>(slot) * stride_;
  const int32_t total = TotalPages(g->request), first = FirstSeen(*g), own = OwnPages(g->request),
                end = g->full_pages + own;
  const bool partial = static_cast<int32_t>(g->prompt_pages.size()) > g->full_pages;
  const bool last = g->started + 1 == g->request.num_samples;
  for (int32_t p = 0; p < total; ++p) {
    if (p < first) {
      row[p] = 0;  // the sample never looks there
    } else if (p >= end) {
      row[p] = row[p - own];
    } else if (p < g->full_pages) {
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
  slots_[static_cast<size_t>(slot)] = Slot{g, g->started, first, end};
  plan_.starts.push_back({slot, g, g->started});
  plan_.decode.push_back(slot);
  ++g->started;
  --unstarted_;
  --waiting_samples_;
  if (g->all_started()) ReleasePrompt(g, step);  // its full pages live on in the samples
}

// What of a prompt its samples do not see, once it is prefilled.
void Scheduler::DropUnseen(Group* g, int64_t step) {
  for (int32_t p = 0, first = FirstSeen(*g); p < first; ++p) {
    int32_t& page = g->prompt_pages[static_cast<size_t>(p)];
    if (page < 0) continue;
    pages_->Release(std::exchange(page, -1), step);
    --g->prompt_held;
    --waiting_pages_;
  }
}

bool Scheduler::StartSamples(int64_t step) {
  while (!waiting_.empty() && waiting_.front()->prefill_done()) {
    Group* g = waiting_.front();
    if (g->started == 0) DropUnseen(g, step);
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
    const int32_t pages = PromptPages(g->request), all = pages_->PagesFor(g->prefill_target()),
                  held = static_cast<int32_t>(g->prompt_pages.size());  // handed on to it
    // With all these prompts held, one sample of any waiting group still has to fit once the
    // running ones have ended.
    int64_t largest = OwnPages(g->request);
    if (g->request.num_samples == 1 && all > g->full_pages) --largest;
    for (const Group* w : waiting_) largest = std::max<int64_t>(largest, PrivatePages(*w));
    if (pages - held > pages_->free_pages() ||
        waiting_pages_ + pages + largest > pages_->num_pages())
      return;
    queue_.pop_front();
    waiting_pages_ += g->prompt_held = pages;
    waiting_samples_ += g->request.num_samples;
    g->prompt_row = free_prompt_rows_.back();
    free_prompt_rows_.pop_back();
    int32_t* row = page_table_.data() + static_cast<ptrdiff_t>(g->prompt_row) * stride_;
    for (int32_t p = 0; p < all; ++p) {
      if (p < held) {
        row[p] = g->prompt_pages[static_cast<size_t>(p)];
        continue;
      }
      row[p] = p < pages ? pages_->Allocate() : row[p - pages];
      g->prompt_pages.push_back(p < all - pages ? -1 : row[p]);
    }
    waiting_.push_back(g);
  }
}

void Scheduler::KeepPrefix(int32_t slot, std::span<const int32_t> tokens) {
  PLUMB_CHECK(options_.max_batch == 1 && prefix_pages_.empty(), "one prefix at a time");
  if (options_.window > 0) return;  // the first pages have made room for later ones
  const int32_t* row = page_table_.data() + static_cast<ptrdiff_t>(slot) * stride_;
  const size_t page = static_cast<size_t>(pages_->page_tokens()), pages = tokens.size() / page;
  for (size_t p = 0; p < pages; ++p) {
    pages_->AddReference(row[p]);
    prefix_pages_.push_back(row[p]);
  }
  prefix_tokens_.assign(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(pages * page));
}

void Scheduler::ForgetPrefix(int64_t step) {
  // No step before this one runs any more, and this one reads none of them.
  for (const int32_t page : prefix_pages_) pages_->Release(page, step - 1);
  pages_->Retire(step - 1);
  prefix_pages_.clear();
  prefix_tokens_.clear();
}

void Scheduler::HandPrefixOn(int64_t step) {
  if (prefix_pages_.empty() || (waiting_.empty() && queue_.empty())) return;
  if (waiting_.empty()) {
    Group* g = queue_.front();
    const auto& prompt = g->request.tokens;
    const auto page = static_cast<size_t>(pages_->page_tokens());
    const size_t most = std::min(static_cast<size_t>(g->full_pages) * page, prefix_tokens_.size());
    const auto same = static_cast<size_t>(
        std::mismatch(prompt.begin(), prompt.begin() + static_cast<ptrdiff_t>(most),
                      prefix_tokens_.begin())
            .first -
        prompt.begin());
    for (size_t p = 0; p < same / page; ++p) {
      pages_->AddReference(prefix_pages_[p]);
      g->prompt_pages.push_back(prefix_pages_[p]);
    }
    g->prefilled = static_cast<int32_t>(same / page * page);
    kept_tokens_ += same / page * page;
  }
  ForgetPrefix(step);
}

const StepPlan& Scheduler::Plan(int64_t step) {
  plan_.starts.clear();
  plan_.copy_from.clear();
  plan_.copy_to.clear();
  plan_.prefills.clear();
  HandPrefixOn(step);
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
  for (int32_t p = s.begin; p < s.end; ++p) pages_->Release(row[p], step);
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
  for (Group* g : queue_) {  // what was handed on to it
    for (const int32_t page : g->prompt_pages) pages_->Release(page, step);
    g->prompt_pages.clear();
  }
  waiting_.clear();
  queue_.clear();
  unstarted_ = waiting_samples_ = waiting_pages_ = 0;
  return std::exchange(groups_, {});
}

}  // namespace plumb::actor

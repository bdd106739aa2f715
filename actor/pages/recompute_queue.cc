#include "actor/pages/recompute_queue.h"

#include <algorithm>

#include "common/base/error.h"

namespace plumb::actor {

RecomputeQueue::RecomputeQueue(const PageTable* table, int32_t slots, bool states)
    : table_(table), page_tokens_(table->pages().page_tokens()), states_(states) {
  prompts_.reserve(2 * static_cast<size_t>(slots));
  samples_.reserve(static_cast<size_t>(slots));
  fresh_.assign(static_cast<size_t>(table->pages().num_pages()), 0);
}

void RecomputeQueue::AddPrompt(Group* group, int32_t row, int32_t end) {
  PLUMB_CHECK(!table_->slides(), "the first pages of what slides are gone");
  PLUMB_CHECK(!group->recomputes && end > 0 && end <= group->prefill_target());
  group->recomputes = true;
  prompts_.push_back({.group = group, .row = row, .end = end});
}

void RecomputeQueue::AddSample(Group* group, int32_t slot, int32_t end, bool draws) {
  const int32_t begin = group->prefill_target();
  PLUMB_CHECK(!table_->slides() && begin <= end && !Holds(slot));
  samples_.push_back(
      {.group = group, .row = slot, .done = begin, .planned = begin, .end = end, .draws = draws});
}

const RecomputeQueue::Job* RecomputeQueue::Find(int32_t slot) const {
  const auto at = std::find_if(samples_.begin(), samples_.end(),
                               [slot](const Job& job) { return job.row == slot; });
  return at == samples_.end() ? nullptr : &*at;
}

bool RecomputeQueue::Draws(int32_t slot) const {
  const Job* job = Find(slot);
  return job != nullptr && job->draws;
}

void RecomputeQueue::SetDraws(int32_t slot, bool draws) {
  const Job* job = Find(slot);
  PLUMB_CHECK(job != nullptr && job->draws != draws, "slot " + std::to_string(slot));
  samples_[static_cast<size_t>(job - samples_.data())].draws = draws;
}

int32_t RecomputeQueue::drawing() const {
  return static_cast<int32_t>(
      std::count_if(samples_.begin(), samples_.end(), [](const Job& job) { return job.draws; }));
}

int32_t RecomputeQueue::Page(int32_t row, int32_t index) const {
  return table_->entries()[static_cast<size_t>(row) * static_cast<size_t>(table_->stride()) +
                           static_cast<size_t>(index)];
}

int32_t RecomputeQueue::BehindFresh(const Job& job, int32_t at) const {
  // A state is behind every token, and pages do not hold it.
  while (!states_ && at % page_tokens_ == 0 && at + page_tokens_ <= job.end &&
         fresh_[static_cast<size_t>(Page(job.row, at / page_tokens_))] != 0)
    at += page_tokens_;
  return at;
}

void RecomputeQueue::Settle(const Handed& handed, std::vector<int32_t>* decode) {
  std::erase_if(prompts_, [&](Job& job) {
    job.done = BehindFresh(job, job.done);
    if (job.done < job.end) return false;
    const int32_t target = job.group->prefill_target(), whole = target / page_tokens_;
    for (const Job& sample : samples_) {
      if (sample.group != job.group || sample.row == job.row) continue;
      if (target % page_tokens_ != 0) {
        handed.copy_from.push_back(Page(job.row, whole));
        handed.copy_to.push_back(Page(sample.row, whole));
      }
      if (states_) handed.moves.push_back({.from = job.row, .to = sample.row});
    }
    job.group->recomputes = false;
    return true;
  });
  std::erase_if(samples_, [&](const Job& job) {
    if (job.group->recomputes || job.done < job.end) return false;
    if (job.draws) decode->push_back(job.row);
    return true;
  });
}

void RecomputeQueue::PlanOne(Job& job, int32_t slot, int32_t* budget, std::vector<Chunk>* chunks) {
  const int32_t count = std::min(*budget, job.end - job.planned);
  if (count == 0) return;
  chunks->push_back({.group = job.group,
                     .row = job.row,
                     .slot = slot,
                     .begin = job.planned,
                     .end = job.planned + count});
  job.planned += count;
  *budget -= count;
}

void RecomputeQueue::Plan(int32_t* budget, std::vector<Chunk>* chunks) {
  for (Job& job : prompts_) {
    job.planned = BehindFresh(job, job.done);
    const int32_t begin = job.planned;
    PlanOne(job, -1, budget, chunks);
    for (int32_t page = begin / page_tokens_; page < job.planned / page_tokens_; ++page)
      fresh_[static_cast<size_t>(Page(job.row, page))] = 1;
  }
  for (Job& job : samples_) {
    job.planned = job.done;
    // Behind a prompt that is complete, and what it hands on.
    if (!job.group->recomputes) PlanOne(job, job.row, budget, chunks);
  }
}

void RecomputeQueue::Commit() {
  for (Job& job : prompts_) job.done = job.planned;
  for (Job& job : samples_) job.done = job.planned;
}

void RecomputeQueue::Drop(int32_t slot) {
  std::erase_if(samples_, [slot](const Job& job) { return job.row == slot; });
  std::erase_if(prompts_, [&](Job& job) {
    if (job.row != slot) return false;
    const auto heir = std::find_if(samples_.begin(), samples_.end(),
                                   [&](const Job& s) { return s.group == job.group; });
    if (heir == samples_.end()) {
      job.group->recomputes = false;
      return true;
    }
    // It has the whole pages, not what went to the slot alone.
    job.row = heir->row;
    job.done = states_ ? 0 : std::min(job.done, job.group->full_pages * page_tokens_);
    job.planned = job.done;
    return false;
  });
}

void RecomputeQueue::DropPrompt(Group* group) {
  std::erase_if(prompts_, [group](const Job& job) { return job.group == group; });
  group->recomputes = false;
}

void RecomputeQueue::Clear() {
  for (const Job& job : prompts_) job.group->recomputes = false;
  prompts_.clear();
  samples_.clear();
  std::ranges::fill(fresh_, uint8_t{0});
}

}  // namespace plumb::actor

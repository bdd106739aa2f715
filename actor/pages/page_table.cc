#include "actor/pages/page_table.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"

namespace plumb::actor {
namespace {

// Pages of a ring in which the token written last sees the `seen` - 1 before it.
int64_t RingPages(int64_t seen, int32_t page_tokens) {
  return (seen - 1 + page_tokens - 1) / page_tokens + 1;
}

int64_t AllPages(const PageTableSize& s, int32_t page_tokens) {
  return (int64_t{s.max_positions} + page_tokens - 1) / page_tokens;
}

// What is appended to a running sample is written in chunks, too.
int64_t SampleRing(const PageTableSize& s, int32_t page_tokens) {
  return RingPages(int64_t{s.window} + s.append_tokens - 1, page_tokens);
}

// A chunk is written as a whole before its tokens look back.
int64_t PromptRing(const PageTableSize& s, int32_t page_tokens) {
  return RingPages(int64_t{s.window} + s.prefill_tokens - 1, page_tokens);
}

}  // namespace

int64_t PageTable::PagesOfSample(const PageTableSize& s, int32_t page_tokens) {
  const int64_t all = AllPages(s, page_tokens);
  // The last window of its prompt, and its own.
  return s.window == 0
             ? all
             : std::min(all, RingPages(s.window, page_tokens) + SampleRing(s, page_tokens));
}

int64_t PageTable::PagesOfPrompt(const PageTableSize& s, int32_t page_tokens) {
  const int64_t all = AllPages(s, page_tokens);
  return s.window == 0 ? all : std::min(all, PromptRing(s, page_tokens));
}

int64_t PageTable::MostPages(const PageTableSize& s, int32_t page_tokens) {
  return s.max_batch * (PagesOfSample(s, page_tokens) + PagesOfPrompt(s, page_tokens));
}

PageTable::PageTable(size_t kind, const PageTableSize& size, KvPages* pages, PrefixTree* tree)
    : kind_(kind),
      size_(size),
      pages_(pages),
      tree_(tree),
      stride_(pages->PagesFor(size.max_positions)) {
  PLUMB_CHECK(tree == nullptr || size.window == 0, "the first pages of what slides are gone");
  PLUMB_CHECK(kind < kPageKinds && size.max_batch >= 1 && size.prefill_tokens >= 1 &&
              size.max_positions >= 1);
  const auto slots = static_cast<size_t>(size.max_batch);
  entries_.assign(2 * slots * static_cast<size_t>(stride_), 0);
  held_.resize(slots);
}

// The last token drawn is never fed back, so its key and value are never written.
int32_t PageTable::TotalPages(const GenerateRequest& r) const {
  return pages_->PagesFor(static_cast<int64_t>(r.tokens.size()) + r.limit - 1);
}

int32_t PageTable::PromptPagesOf(const GenerateRequest& r) const {
  const int64_t all = pages_->PagesFor(static_cast<int64_t>(r.tokens.size()) - 1);
  if (!slides()) return static_cast<int32_t>(all);
  return static_cast<int32_t>(std::min(all, PromptRing(size_, pages_->page_tokens())));
}

int32_t PageTable::OwnPages(const GenerateRequest& r) const {
  const int64_t full = (static_cast<int64_t>(r.tokens.size()) - 1) / pages_->page_tokens(),
                all = TotalPages(r) - full;
  if (!slides()) return static_cast<int32_t>(all);
  return static_cast<int32_t>(std::min(all, SampleRing(size_, pages_->page_tokens())));
}

int32_t PageTable::PrivatePages(const Group& g) const {
  const bool partial = static_cast<int32_t>(g.prompt[kind_].pages.size()) > g.full_pages;
  // the last one needs no copy
  const bool takes_partial = partial && g.started + 1 == g.request.num_samples;
  return OwnPages(g.request) - (takes_partial ? 1 : 0);
}

int32_t PageTable::FirstSeen(const Group& g) const {
  if (!slides()) return 0;
  return std::max(0, g.prefill_target() - size_.window + 1) / pages_->page_tokens();
}

int64_t PageTable::MinimumPages(const GenerateRequest& r) const {
  const bool partial = (static_cast<int64_t>(r.tokens.size()) - 1) % pages_->page_tokens() != 0;
  // A last sample takes the prompt's partial page over.
  return int64_t{PromptPagesOf(r)} + OwnPages(r) - (partial && r.num_samples == 1 ? 1 : 0);
}

bool PageTable::CanAdmit(const Group& g, std::span<Group* const> waiting) const {
  const int32_t pages = PromptPagesOf(g.request), all = pages_->PagesFor(g.prefill_target()),
                held = static_cast<int32_t>(g.prompt[kind_].pages.size());
  int64_t largest = OwnPages(g.request);
  if (g.request.num_samples == 1 && all > g.full_pages) --largest;
  for (const Group* w : waiting) largest = std::max<int64_t>(largest, PrivatePages(*w));
  return pages - held <= Available() && waiting_pages_ + pages + largest <= pages_->num_pages();
}

void PageTable::Admit(Group* g) {
  PromptPages& prompt = Prompt(g);
  const int32_t pages = PromptPagesOf(g->request), all = pages_->PagesFor(g->prefill_target()),
                held = static_cast<int32_t>(prompt.pages.size());
  waiting_pages_ += prompt.held = pages;
  int32_t* row = entries_.data() + static_cast<ptrdiff_t>(g->prompt_row) * stride_;
  for (int32_t p = 0; p < all; ++p) {
    if (p < held) {
      row[p] = prompt.pages[static_cast<size_t>(p)];
      continue;
    }
    row[p] = p < pages ? NewPage() : row[p - pages];
    prompt.pages.push_back(p < all - pages ? -1 : row[p]);
  }
}

void PageTable::DropUnseen(Group* g, int64_t step) {
  PromptPages& prompt = Prompt(g);
  for (int32_t p = 0, first = FirstSeen(*g); p < first; ++p) {
    int32_t& page = prompt.pages[static_cast<size_t>(p)];
    if (page < 0) continue;
    pages_->Release(std::exchange(page, -1), step);
    --prompt.held;
    --waiting_pages_;
  }
}

void PageTable::Start(Group* g, int32_t slot, std::vector<int32_t>* copy_from,
                      std::vector<int32_t>* copy_to) {
  PromptPages& prompt = Prompt(g);
  int32_t* row = entries_.data() + static_cast<ptrdiff_t>(slot) * stride_;
  const int32_t total = TotalPages(g->request), first = FirstSeen(*g), own = OwnPages(g->request),
                end = g->full_pages + own;
  const bool partial = static_cast<int32_t>(prompt.pages.size()) > g->full_pages;
  const bool last = g->started + 1 == g->request.num_samples;
  for (int32_t p = 0; p < total; ++p) {
    if (p < first) {
      row[p] = 0;  // the sample never looks there
    } else if (p >= end) {
      row[p] = row[p - own];
    } else if (p < g->full_pages) {
      row[p] = prompt.pages[static_cast<size_t>(p)];
      pages_->AddReference(row[p]);
    } else if (p == g->full_pages && partial && last) {
      // the reference moves along
      row[p] = std::exchange(prompt.pages[static_cast<size_t>(p)], -1);
    } else {
      row[p] = NewPage();
      if (p == g->full_pages && partial) {
        copy_from->push_back(prompt.pages[static_cast<size_t>(p)]);
        copy_to->push_back(row[p]);
      }
    }
  }
  held_[static_cast<size_t>(slot)] = {first, end};
}

void PageTable::ReleasePrompt(Group* g, int64_t step) {
  PromptPages& prompt = Prompt(g);
  for (auto page = prompt.pages.rbegin(); page != prompt.pages.rend(); ++page) {
    if (*page >= 0) LetGo(*page, step);
  }
  waiting_pages_ -= std::exchange(prompt.held, 0);
  prompt.pages.clear();
}

void PageTable::Finish(int32_t slot, int64_t step) {
  const int32_t* row = entries_.data() + static_cast<ptrdiff_t>(slot) * stride_;
  const Held held = std::exchange(held_[static_cast<size_t>(slot)], {});
  for (int32_t p = held.end; p-- > held.begin;) LetGo(row[p], step);
}

int32_t PageTable::Available() const {
  return pages_->free_pages() + (tree_ == nullptr ? 0 : tree_->idle());
}

int32_t PageTable::NewPage() {
  if (pages_->free_pages() == 0 && tree_ != nullptr) tree_->Evict();
  return pages_->Allocate();
}

void PageTable::LetGo(int32_t page, int64_t step) {
  pages_->Release(page, step);
  if (tree_ != nullptr) tree_->Left(page);
}

int32_t PageTable::TakeKnown(Group* g, int32_t from, int64_t step) {
  PromptPages& prompt = Prompt(g);
  const auto each = static_cast<size_t>(pages_->page_tokens());
  const std::span<const int32_t> tokens = g->request.tokens;
  int32_t above =
      from == 0 ? PrefixTree::Root(g->request.task) : prompt.pages[static_cast<size_t>(from) - 1];
  int32_t p = from;
  for (; p < g->full_pages; ++p) {
    const auto at = static_cast<size_t>(p);
    const int32_t page = tree_->Find(above, tokens.subspan(at * each, each));
    if (page < 0) break;
    tree_->Hold(page);
    if (at == prompt.pages.size()) {
      prompt.pages.push_back(page);
    } else {  // its own, of which some tokens may have been computed
      LetGo(std::exchange(prompt.pages[at], page), step);
      entries_[static_cast<size_t>(g->prompt_row) * static_cast<size_t>(stride_) + at] = page;
    }
    above = page;
  }
  return p;
}

void PageTable::Share(int32_t task, std::span<const int32_t> tokens, std::span<int32_t> pages,
                      size_t begin, int64_t step) {
  const auto each = static_cast<size_t>(pages_->page_tokens());
  int32_t above = begin == 0 ? PrefixTree::Root(task) : pages[begin - 1];
  for (size_t p = begin; p < pages.size(); ++p) {
    const std::span<const int32_t> own = tokens.subspan(p * each, each);
    if (const int32_t known = tree_->Find(above, own); known >= 0) {
      tree_->Hold(known);
      LetGo(std::exchange(pages[p], known), step);
    } else {
      tree_->Add(above, own, pages[p]);
    }
    above = pages[p];
  }
}

void PageTable::SharePrompt(Group* g, int32_t begin, int32_t end, int64_t step) {
  PromptPages& prompt = Prompt(g);
  const std::span<int32_t> pages = std::span(prompt.pages).first(static_cast<size_t>(end));
  Share(g->request.task, g->request.tokens, pages, static_cast<size_t>(begin), step);
  std::ranges::copy(pages, entries_.begin() + static_cast<ptrdiff_t>(g->prompt_row) * stride_);
}

void PageTable::ShareAnswer(const Group& g, int32_t slot, std::span<const int32_t> tokens,
                            int64_t step) {
  const size_t whole = tokens.size() / static_cast<size_t>(pages_->page_tokens());
  const auto row =
      std::span(entries_).subspan(static_cast<size_t>(slot) * static_cast<size_t>(stride_), whole);
  Share(g.request.task, tokens, row, static_cast<size_t>(g.full_pages), step);
}

}  // namespace plumb::actor

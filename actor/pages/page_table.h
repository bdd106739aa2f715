// The pages of one kind of layers: which row of the table has which page at which place.
//
// Purpose: all that the scheduler asks about pages, once for every kind. A sample takes all pages
// that it will ever need when it starts: those of its maximum length, or, where the layers slide, a
// ring of so many that what falls out of the window makes room for what comes: page p of its row is
// the one that page p - ring was. A prompt goes through a ring, too, that holds the window and a
// chunk; once it is prefilled, only its last window is kept.
//
//   pages of a sample (page_tokens 4, P = 7, limit 3: KV slots 0 .. P + limit - 2)
//     [0 1 2 3] shared by the group   [4 5 | 6 7] copy of the partial page, then private   [8]
//                                     private
//
// Thread safety: none; the engine's thread owns it. Ownership: of the table; the pool outlives it.
// Known pages: with a tree (prefix_tree.h), what of a prompt is known is taken instead of computed,
// and idle pages of the tree count as free ones. REQUIRES: layers that do not slide.
// Allocation: none; a group's prompt pages have room since Submit.
// Errors: broken invariants abort.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "actor/group.h"
#include "actor/pages/kv_pages.h"
#include "actor/pages/prefix_tree.h"

namespace plumb::actor {

struct PageTableSize {
  int32_t max_batch = 1;       // slots; the table has a row each, and one for each prompt in work
  int32_t prefill_tokens = 1;  // prompt tokens per step at most
  int32_t max_positions = 1;   // longest sequence of the model
  int32_t window = 0;          // positions that any of the layers sees, the own included; 0: all
  int32_t append_tokens = 1;   // tokens that a sample computes at a time, where the layers slide
};

class PageTable {
 public:
  // Pages that all samples and prompts in work can hold together: a larger pool is of no use.
  static int64_t MostPages(const PageTableSize& size, int32_t page_tokens);
  // Of one running sample and of one prompt in work, of sequences of `max_positions` tokens.
  static int64_t PagesOfSample(const PageTableSize& size, int32_t page_tokens);
  static int64_t PagesOfPrompt(const PageTableSize& size, int32_t page_tokens);

  // `kind` is the index of these pages in Group::prompt. `tree`, where prompts share what they
  // begin with, outlives the table; nullptr: they do not.
  PageTable(size_t kind, const PageTableSize& size, KvPages* pages, PrefixTree* tree = nullptr);

  // A pool of so many can run the request alone, one sample after the other.
  int64_t MinimumPages(const GenerateRequest& r) const;
  const KvPages& pages() const { return *pages_; }
  bool slides() const { return size_.window > 0; }

  // With the prompt of `g` held, besides those of `waiting`, one sample of any of them still fits
  // once the running ones have ended.
  bool CanAdmit(const Group& g, std::span<Group* const> waiting) const;
  // Takes the pages of its prompt but those handed on to it. REQUIRES: CanAdmit, a prompt_row.
  void Admit(Group* g);
  // Releases what of a prompt its samples do not see, once it is prefilled.
  void DropUnseen(Group* g, int64_t step);
  bool CanStart(const Group& g) const { return PrivatePages(g) <= Available(); }
  // The pages of the next sample of `g`, in `slot`; a page to be copied is appended to both lists.
  void Start(Group* g, int32_t slot, std::vector<int32_t>* copy_from,
             std::vector<int32_t>* copy_to);
  void ReleasePrompt(Group* g, int64_t step);
  void Finish(int32_t slot, int64_t step);

  // What is known of the prompt of `g` from its page `from` on becomes its own; returns the page
  // behind that. REQUIRES: a tree; the pages before are known.
  int32_t TakeKnown(Group* g, int32_t from, int64_t step);
  // The prompt's pages [begin, end), whose tokens have been enqueued, are known from here on.
  void SharePrompt(Group* g, int32_t begin, int32_t end, int64_t step);
  // The same of the sample in `slot`, whose sequence `tokens` has been computed, before Finish.
  void ShareAnswer(const Group& g, int32_t slot, std::span<const int32_t> tokens, int64_t step);

  // int32 [2 * max_batch, stride]: rows of slots, then rows of prompts being prefilled.
  std::vector<int32_t>& entries() { return entries_; }
  const std::vector<int32_t>& entries() const { return entries_; }
  int32_t stride() const { return stride_; }

 private:
  // Entries of a slot's row that it holds; those before are out of its window, those behind are
  // these once more.
  struct Held {
    int32_t begin = 0, end = 0;
  };

  PromptPages& Prompt(Group* g) const { return g->prompt[kind_]; }
  int32_t TotalPages(const GenerateRequest& r) const;     // of one sample at its maximum length
  int32_t PromptPagesOf(const GenerateRequest& r) const;  // held while a prompt is prefilled
  int32_t OwnPages(const GenerateRequest& r) const;  // of a sample, besides full ones of its prompt
  int32_t PrivatePages(const Group& g) const;        // newly taken when its next sample starts
  int32_t FirstSeen(const Group& g) const;  // the first of a prompt's pages that its samples see
  int32_t Available() const;                // pages free or idle
  int32_t NewPage();
  void LetGo(int32_t page, int64_t step);
  // `pages` are those of a sequence that begins with `tokens`; where a page of the same tokens is
  // known, that one takes the place of its own.
  void Share(int32_t task, std::span<const int32_t> tokens, std::span<int32_t> pages, size_t begin,
             int64_t step);

  const size_t kind_;
  const PageTableSize size_;
  KvPages* const pages_;
  PrefixTree* const tree_;
  const int32_t stride_;
  std::vector<int32_t> entries_;
  std::vector<Held> held_;     // [max_batch]
  int64_t waiting_pages_ = 0;  // of prompts, of groups that still have samples to start
};

}  // namespace plumb::actor

// Continuous batching: which rows the next step computes.
//
// Purpose: groups wait in order of submission; the prompt of a group is prefilled once, in chunks
// under a token budget; then its samples start as slots and pages allow, all sharing the full
// prompt pages and each with a copy of the partial last one. Rows that finish leave their slot to
// the next sample.
//
// A prompt of P tokens is prefilled up to P - 1 of them: every sample computes the last prompt
// token itself as the first row it decodes. So a prefill needs no logits, and a sample is the same
// kind of row from its first token to its last.
//
// Pages: a sample takes all pages that it will ever need when it starts (pages/page_table.h), so it
// never waits for one later and nothing is ever preempted. Where some layers of a model slide and
// others do not, each kind has a pool and a table of its own, and a group or sample begins when
// every pool has room for it. A group is admitted only if, with the prompt pages of all groups that
// still have samples to start, one sample of any of them fits the pools: the oldest can then always
// start once the running ones end. A sample that waits for its environment keeps its slot and its
// pages, which are those of all its turns from the start. What is appended to it comes before
// prompts in the budget of a step.
//
// Prefixes: with share_prefixes, whole pages that a prompt has in common with one before it, of the
// same task and weights, are taken and not computed (pages/prefix_tree.h). A prompt of which a good
// part is being computed by another in the same step waits for that. What only the tree holds goes
// when a page is needed, so that nothing ever waits for it. A page that several prompts in work
// hold is counted for each of them, which never admits too much.
//
// New weights: with Recompute, what has been computed is computed again before what else there is
// (pages/recompute_queue.h), under the budget of prompts; answers draw on as theirs is done.
// Thread safety: none; the engine's thread owns it. Allocation: only in Submit and Recompute.
// Errors: see Refusal(); the rest are broken invariants and abort.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "actor/group.h"
#include "actor/pages/kv_pages.h"
#include "actor/pages/page_table.h"
#include "actor/pages/prefix_tree.h"
#include "actor/pages/recompute_queue.h"
#include "actor/sequence.h"
#include "common/base/problem.h"

namespace plumb::actor {

struct SchedulerOptions {
  int32_t max_batch = 1;       // slots
  int32_t prefill_tokens = 1;  // prompt tokens per step at most
  int32_t max_positions = 1;   // longest sequence of the model
  int32_t window = 0;          // positions that any layer sees, the own included; 0: all
  int32_t sliding_window = 0;  // the same of the layers whose pages lie in a pool of their own
  // tokens that are appended to a running sample at a time, where layers slide
  int32_t append_tokens = 1;
  // samples at a time, and prompts in work, at most; 0: max_batch
  int32_t at_once = 0;
  // REQUIRES: nothing slides, and no layer has a state, which is not there behind every page.
  bool share_prefixes = false;
  bool states = false;  // some layers have one
};

// What the next step does, in this order. All arrays are reused from step to step.
struct StepPlan {
  struct Start {
    int32_t slot = 0;
    Group* group = nullptr;
    int32_t index = 0;       // of the sample within the group
    int32_t prompt_row = 0;  // where the prompt was prefilled: what it left there goes to the slot
  };
  struct Prefill {
    Group* group = nullptr;
    int32_t row = 0;    // of the page table
    int32_t begin = 0;  // prompt tokens [begin, end)
    int32_t end = 0;
  };
  struct Append {
    int32_t slot = 0;
    int32_t begin = 0;  // of what is fed to the slot: [begin, end)
    int32_t end = 0;
  };
  std::vector<Start> starts;
  struct Copies {
    std::vector<int32_t> from, to;
  };
  std::array<Copies, kPageKinds> copies;  // of pages, before the forward
  // Slots, one row each; samples of a group one behind another, so that they can be computed
  // together
  std::vector<int32_t> decode;
  std::vector<Append> appends;  // behind the rows of `decode`
  std::vector<RecomputeQueue::Chunk> recomputed;
  std::vector<RecomputeQueue::Move> moves;  // of states, before the forward
  std::vector<Prefill> prefills;

  bool empty() const { return decode.empty() && !chunks(); }
  // Rows of more than one token of a sequence.
  bool chunks() const { return !appends.empty() || !recomputed.empty() || !prefills.empty(); }
  uint64_t appended_tokens() const {
    uint64_t n = 0;
    for (const Append& a : appends) n += static_cast<uint64_t>(a.end - a.begin);
    return n;
  }
};

class Scheduler {
 public:
  // Pages that all samples and prompts in work can hold together: a larger pool is of no use.
  static int64_t MostPages(const SchedulerOptions& options, int32_t page_tokens);
  // `pages` outlive the scheduler. `sliding`: those of the layers of options.sliding_window, where
  // they have a pool of their own, with pages of the same size.
  Scheduler(const SchedulerOptions& options, KvPages* pages, KvPages* sliding = nullptr);

  // Why a request can never run (empty prompt, longer than the model or the pool).
  Problem Refusal(const GenerateRequest& request) const;
  // REQUIRES: Refusal() has nothing to say and request.limit >= 1.
  void Submit(std::unique_ptr<Group> group);

  // Starts samples, admits groups and picks the rows of step `step`. The plan is valid until the
  // next call.
  const StepPlan& Plan(int64_t step);
  // The step's forward has been enqueued: its prefill chunks count as written.
  void Commit();
  // The sample in `slot` has ended: its pages are released after `step`, the slot is free for the
  // next Plan.
  void Finish(int32_t slot, int64_t step);
  // The sample in `slot` draws nothing until Resume, which lets it compute `rows` tokens first.
  void Pause(int32_t slot);
  void Resume(int32_t slot, int32_t rows);
  // With share_prefixes: `tokens`, a prompt with its answer, whose keys and values the sample in
  // `slot` has written, are known from here on. Before Finish.
  void ShareAnswer(int32_t slot, std::span<const int32_t> tokens, int64_t step);
  // The weights have changed: what earlier ones computed serves only who holds it.
  void ForgetPrefixes();
  // Behind ForgetPrefixes, and it serves nobody: it is computed again. `positions`: of each slot
  // that has a sample, the token that it computes next, were nothing fed to it. REQUIRES: nothing
  // slides.
  void Recompute(std::span<const int32_t> positions);
  bool recomputing() const { return !recompute_.empty(); }
  // Prompt tokens of all groups so far that were known and not computed.
  uint64_t reused_tokens() const { return reused_tokens_; }
  // Pages that are kept in case a prompt begins like one before it, and go when they are needed.
  int32_t idle_pages() const { return tree_ ? tree_->idle() : 0; }
  // Takes out a group all of whose samples have finished.
  std::unique_ptr<Group> Remove(Group* group);
  // Takes out a group, started or not, whatever of it has finished, and releases its pages.
  std::unique_ptr<Group> Take(Group* group, int64_t step);
  // The group that waits or runs with the caller's number; nullptr: none.
  Group* Find(uint64_t id) const;
  // Takes out everything, started or not, and releases its pages. Returns the groups in order of
  // submission.
  std::vector<std::unique_ptr<Group>> TakeAll(int64_t step);

  Group* group_of(int32_t slot) const { return slots_[static_cast<size_t>(slot)].group; }
  int32_t sample_index(int32_t slot) const { return slots_[static_cast<size_t>(slot)].index; }

  // int32 [2 * max_batch, page_table_stride]: rows of slots, then rows of prompts being prefilled.
  std::vector<int32_t>& page_table(size_t kind = 0) { return tables_[kind].entries(); }
  int32_t page_table_stride() const { return tables_[0].stride(); }
  size_t kinds() const { return tables_.size(); }
  int32_t running() const { return at_once_ - static_cast<int32_t>(free_slots_.size()); }
  // Samples in a slot that draw nothing and have nothing to compute: they wait.
  int32_t paused() const {
    return running() - static_cast<int32_t>(plan_.decode.size() + feeds_.size()) -
           recompute_.drawing();
  }
  // Rows of the page table that samples and prompts in work hold.
  int32_t held_rows() const {
    return 2 * at_once_ - static_cast<int32_t>(free_slots_.size() + free_prompt_rows_.size());
  }
  // Samples submitted that have no slot yet.
  int64_t unstarted() const { return unstarted_; }
  bool idle() const { return groups_.empty(); }

 private:
  struct Slot {
    Group* group = nullptr;  // nullptr: empty
    int32_t index = 0;
  };

  // Tokens to be computed by the sample in a slot before it draws.
  struct Feed {
    int32_t slot = 0;
    int32_t done = 0, rows = 0;
  };

  void PlanAppends(int32_t* budget);
  bool StartSamples(int64_t step);  // false: blocked by pages
  void Admit(int64_t step);
  void StartOne(Group* g, int64_t step);
  void ReleasePrompt(Group* g, int64_t step);
  // What of the prompt is known, behind what it has already, goes over to it.
  void TakeKnown(Group* g, int64_t step);
  // A prompt that is computed in this step begins like it for at least half of what is left.
  bool WaitsForAnother(const Group& g) const;

  const SchedulerOptions options_;
  const int32_t at_once_;
  std::unique_ptr<PrefixTree> tree_;  // nullptr: prefixes are not shared
  std::vector<PageTable> tables_;     // one a kind of layers
  RecomputeQueue recompute_;
  std::vector<Slot> slots_;          // [max_batch]
  std::vector<int32_t> free_slots_;  // stack
  std::vector<int32_t> free_prompt_rows_;
  std::vector<std::unique_ptr<Group>> groups_;  // everything submitted and not taken
  std::deque<Group*> queue_;                    // submitted, not admitted
  std::vector<Group*> waiting_;                 // admitted, some sample not started; in order
  int64_t unstarted_ = 0;
  int64_t waiting_samples_ = 0;  // unstarted samples of waiting_
  int64_t epoch_ = 0;            // of weights
  int64_t planned_step_ = 0;
  uint64_t reused_tokens_ = 0;
  std::vector<Feed> feeds_;  // in the order they came
  StepPlan plan_;
};

}  // namespace plumb::actor

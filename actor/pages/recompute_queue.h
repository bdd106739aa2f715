// Sequences that are computed once more, because the weights changed while they were at work.
//
// Purpose: with EngineOptions::recompute_after_update, what prompts and answers have written under
// older weights (keys and values, states) is written again before an answer draws on, in place: no
// page is taken and none is given back. A group's prompt comes first, once for all of its samples,
// through a row of the page table that has its pages: its own while samples are still to start,
// else that of a sample. Then the other samples get a copy of what they do not share of it (the
// partial page, the state), and each computes its own tokens. Whole pages that several prompts hold
// are computed for the first of them; that one is ahead in the same step or an earlier one, and a
// step writes all keys before it reads any.
// Thread safety: none; the engine's thread. Ownership: of the queue; groups and table are borrowed.
// Allocation: none after construction but in the scheduler's Recompute. Errors: none.
#pragma once

#include <cstdint>
#include <vector>

#include "actor/group.h"
#include "actor/pages/page_table.h"

namespace plumb::actor {

class RecomputeQueue {
 public:
  // Tokens [begin, end) of a sequence, through a row of the page table.
  struct Chunk {
    Group* group = nullptr;
    int32_t row = 0;
    int32_t slot = -1;  // of the sample whose tokens they are; -1: the prompt's
    int32_t begin = 0, end = 0;
  };
  // A state that goes from a row of the page table to a slot's.
  struct Move {
    int32_t from = 0, to = 0;
  };
  // What goes to other samples before a step's forward.
  struct Handed {
    std::vector<int32_t>& copy_from;
    std::vector<int32_t>& copy_to;
    std::vector<Move>& moves;
  };

  // `table` outlives the queue and does not slide where anything is added. `states`: layers have
  // them, so that a sequence is computed from its first token on, by one row.
  RecomputeQueue(const PageTable* table, int32_t slots, bool states);

  // The first `end` tokens of a prompt, through `row`; the group waits from here on.
  // REQUIRES: 0 < end <= prefill_target.
  void AddPrompt(Group* group, int32_t row, int32_t end);
  // The tokens behind the prompt's prefill_target up to `end` of the sample in `slot`; `draws`: it
  // goes on drawing then, otherwise it waits for its environment, or for what is fed to it.
  void AddSample(Group* group, int32_t slot, int32_t end, bool draws);

  bool empty() const { return prompts_.empty() && samples_.empty(); }
  // The sample in `slot` is not computed again yet.
  bool Holds(int32_t slot) const { return Find(slot) != nullptr; }
  bool Draws(int32_t slot) const;
  // Of a sample that Holds(): whether it draws afterwards.
  void SetDraws(int32_t slot, bool draws);
  int32_t drawing() const;  // samples that will

  // Lets go of what has been computed: hands on what other samples need of a prompt, and appends
  // slots that draw again to `decode`.
  void Settle(const Handed& handed, std::vector<int32_t>* decode);
  // The next tokens, of no more than *budget, which shrinks.
  void Plan(int32_t* budget, std::vector<Chunk>* chunks);
  // What was planned has been enqueued.
  void Commit();

  // The sample in `slot` ends. Was the prompt on its way through its row, another sample takes
  // over.
  void Drop(int32_t slot);
  // The group's prompt holds nothing any more.
  void DropPrompt(Group* group);
  void Clear();

 private:
  struct Job {
    Group* group = nullptr;
    int32_t row = 0;
    int32_t done = 0, planned = 0, end = 0;
    bool draws = false;
  };

  const Job* Find(int32_t slot) const;
  int32_t Page(int32_t row, int32_t index) const;
  // `at`, or behind the whole pages from there on that have been computed for another prompt.
  int32_t BehindFresh(const Job& job, int32_t at) const;
  static void PlanOne(Job& job, int32_t slot, int32_t* budget, std::vector<Chunk>* chunks);

  const PageTable* const table_;
  const int32_t page_tokens_;
  const bool states_;
  std::vector<Job> prompts_,
      samples_;                 // in the order they are computed; a sample's row is its slot
  std::vector<uint8_t> fresh_;  // [pages] computed again since the first was added
};

}  // namespace plumb::actor

// Ragged sequences laid end to end, for learner, reward model and scoring alike.
//
// Worked example, two sequences of 3 and 2 tokens where the last two of the first and the last of
// the second count:
//   tokens     a0 a1 a2 b0 b1      positions 0 1 2 0 1      cu_seqlens 0 3 5
//   rows       0 1 3               (token index whose successor is scored)
//   targets    a1 a2 b1            (the successor)
// What consecutive sequences begin with can lie there once, as a sequence of its own that they go
// on from. A prompt of 3 tokens with the answers a and b c; p2 stays with each answer, because its
// successor is scored:
//   tokens     p0 p1 | p2 a | p2 b c      positions 0 1 2 3 2 3 4
//   cu_seqlens 0 2 4 7                    parents -1 0 0
//   rows       2 4 5                      targets a b c
// The tokens of its task in front of a sequence (common/record/task_tokens.h) are laid only where
// `task_tokens` says so; else the sequence is laid as if they were not there, though tokens, masks
// and rows are counted with them.
// Thread safety: values.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/record/expert_choices.h"

namespace plumb::policy_model {

struct PackedBatch {
  std::vector<int32_t> tokens;      // [T]
  std::vector<int32_t> positions;   // [T]
  std::vector<int32_t> cu_seqlens;  // [B + 1]
  // [B] the sequence whose tokens come before those of this one; -1: none
  std::vector<int32_t> parents;
  std::vector<int32_t> tasks;    // [B] of common/record/task_tokens.h; -1: the sequence names none
  std::vector<int32_t> rows;     // [R] ascending
  std::vector<int32_t> targets;  // [R]
  // [R] the tokens that each target was drawn from (common/record/kept_tokens.h): its log-prob and
  // entropy are over these alone. Empty: over every token. Borrowed from whoever appended them.
  std::vector<std::span<const uint8_t>> kept;
  // [T, layers with experts, K] experts to take for each token (layers/routing.h), all -1 where the
  // router chooses; empty: it chooses everywhere
  std::vector<int32_t> experts;
  ExpertForm expert_form;    // of those that were appended
  bool task_tokens = false;  // those in front of sequences are laid; set it behind Clear
  bool filtered = false;     // some set is not every token
  int32_t max_seqlen = 0;    // longest, with what it goes on from
  int32_t prefix = -1;       // the sequence of the last AppendPrefix

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  int32_t sequences() const { return static_cast<int32_t>(cu_seqlens.size()) - 1; }
  void Clear();
  bool shares() const { return prefix >= 0; }
  // Tokens at the front of a sequence that are not laid.
  int32_t Passed(std::span<const int32_t> sequence) const;
  // Appends tokens that sequences to come begin with, and the experts of each. Nothing of it is
  // scored.
  void AppendPrefix(std::span<const int32_t> tokens_before, const ExpertChoices* choices = nullptr);
  // Appends a sequence; token i >= 1 is scored where mask[i] != 0. mask: [tokens.size()]. Its first
  // `shared` tokens are all those of the last AppendPrefix, and none of them comes directly before
  // a scored token. sets: Trajectory::kept, outlives this. choices: Trajectory::experts, of the
  // form of all others; nullptr: the router chooses.
  void Append(std::span<const int32_t> sequence, std::span<const uint8_t> mask, int32_t shared = 0,
              std::span<const uint8_t> sets = {}, const ExpertChoices* choices = nullptr);
  // Appends a sequence of which a scalar head looks at these tokens (ascending indices into it,
  // none below `shared`); their targets are 0.
  void AppendRows(std::span<const int32_t> sequence, std::span<const int32_t> at,
                  int32_t shared = 0);

 private:
  // Appends all but the first `shared` tokens and those passed over; returns where token 0 would
  // lie.
  int32_t Lay(std::span<const int32_t> sequence, int32_t shared, const ExpertChoices* choices);
};

// Which sequences go into a micro-batch together, and what neighbours begin with and is laid once
// there. Sequences are divided so that as few tokens as possible are laid: answers to one prompt go
// on from it, and prompts that share no more than their template do not cut that short.
//
//   plan.Clear();
//   for (each sequence) plan.Add(tokens, first_row);
//   int32_t first = 0;
//   for (const int32_t last : plan.Split(budget)) {
//     batch.Clear();
//     for (int32_t s = first; s < last; ++s) batch.Append(tokens, mask, plan.Shared(s, first, last,
//     batch)); first = last;
//   }
// Thread safety: none. Ownership: borrows the tokens until the next Clear; keeps its memory.
class PackPlan {
 public:
  void Clear() { sequences_.clear(); }
  // `first_row`: index of the first token that the model's head looks at. It and what follows stay
  // with the sequence.
  // `choices`: the experts of its tokens; what neighbours share goes through the same ones.
  void Add(std::span<const int32_t> tokens, int32_t first_row,
           const ExpertChoices* choices = nullptr);
  // The same for the tokens before those that `mask` scores.
  void Add(std::span<const int32_t> tokens, std::span<const uint8_t> mask,
           const ExpertChoices* choices = nullptr);

  // Divides into consecutive micro-batches of at most `token_budget` tokens laid, keeping the order
  // and parting none of `together` sequences; what is longer than the budget gets a micro-batch of
  // its own. Returns their ends, until the next call.
  const std::vector<int32_t>& Split(int64_t token_budget, int32_t together = 1);
  // The same for `ranks` that take micro-batches in turns: no more rounds than they need under the
  // budget, and within these the smallest micro-batches, so that none waits long for another.
  const std::vector<int32_t>& SplitInTurns(int64_t token_budget, int32_t ranks,
                                           int32_t together = 1);
  // Before sequence s of the micro-batch [first, last) is appended: lays what it shares with the
  // next ones where it is the first of them, and returns how many of its tokens that holds
  // (`shared` of Append).
  int32_t Shared(int32_t s, int32_t first, int32_t last, PackedBatch& batch) const;

 private:
  struct Sequence {
    std::span<const int32_t> tokens;
    int32_t first_row;
    const ExpertChoices* choices;
  };
  static int32_t Common(const Sequence& a, const Sequence& b);
  void FindPrefixes();

  std::vector<Sequence> sequences_;
  // first tokens of s that s - 1 begins with and that are laid once for both
  std::vector<int32_t> shared_;
  std::vector<int32_t> common_, begins_, ends_;
  std::vector<int64_t> saved_;
};

}  // namespace plumb::policy_model

#include "policy_model/packing.h"

#include <algorithm>

#include "common/base/error.h"
#include "common/record/kept_tokens.h"
#include "common/record/task_tokens.h"

namespace plumb::policy_model {

void PackedBatch::Clear() {
  tokens.clear();
  positions.clear();
  cu_seqlens.assign(1, 0);
  parents.clear();
  tasks.clear();
  rows.clear();
  targets.clear();
  kept.clear();
  experts.clear();
  task_tokens = false;
  expert_form = {};
  filtered = false;
  max_seqlen = 0;
  prefix = -1;
}

int32_t PackedBatch::Passed(std::span<const int32_t> sequence) const {
  return task_tokens ? 0 : static_cast<int32_t>(LeadingTaskTokens(sequence));
}

int32_t PackedBatch::Lay(std::span<const int32_t> sequence, int32_t shared,
                         const ExpertChoices* choices) {
  if (cu_seqlens.empty()) cu_seqlens.push_back(0);
  const auto length = static_cast<int32_t>(sequence.size());
  const int32_t begin = cu_seqlens.back(), passed = Passed(sequence);
  const bool goes_on = shared > passed;  // else nothing of what it shares was laid
  if (goes_on) {
    const auto p = static_cast<size_t>(prefix);
    PLUMB_CHECK(
        prefix >= 0 && shared < length && cu_seqlens[p + 1] - cu_seqlens[p] == shared - passed,
        "goes on from all of the prefix");
  }
  const int32_t from = std::max(shared, passed);
  if (choices && !expert_form.there()) {
    expert_form = choices->form;
    experts.assign(tokens.size() * expert_form.numbers(), -1);
  }
  if (expert_form.there()) {
    PLUMB_CHECK(!choices || choices->form == expert_form, "experts of one model");
    const size_t each = expert_form.numbers(), known = choices ? choices->tokens() : 0;
    for (auto i = static_cast<size_t>(from); i < sequence.size(); ++i) {
      experts.resize(experts.size() + each, -1);
      if (i < known) UnpackExperts(expert_form, choices->of(i), std::span(experts).last(each));
    }
  }
  tokens.insert(tokens.end(), sequence.begin() + from, sequence.end());
  for (int32_t i = from; i < length; ++i) positions.push_back(i - passed);
  cu_seqlens.push_back(begin + length - from);
  parents.push_back(goes_on ? prefix : -1);
  tasks.push_back(TaskOf(sequence));
  max_seqlen = std::max(max_seqlen, length - passed);
  return begin - from;
}

void PackedBatch::AppendPrefix(std::span<const int32_t> tokens_before,
                               const ExpertChoices* choices) {
  if (std::ssize(tokens_before) == Passed(tokens_before)) return;
  Lay(tokens_before, 0, choices);
  prefix = sequences() - 1;
}

void PackedBatch::Append(std::span<const int32_t> sequence, std::span<const uint8_t> mask,
                         int32_t shared, std::span<const uint8_t> sets,
                         const ExpertChoices* choices) {
  PLUMB_CHECK(sequence.size() == mask.size(), "every token needs a mask");
  const int32_t begin = Lay(sequence, shared, choices), from = std::max(shared, Passed(sequence));
  KeptTokensReader reader(sets);
  if (!sets.empty()) reader.Next();  // of token 0, before which there is nothing
  for (int32_t i = 1; i < static_cast<int32_t>(sequence.size()); ++i) {
    const std::span<const uint8_t> set = sets.empty() ? sets : reader.Next();
    if (!mask[static_cast<size_t>(i)]) continue;
    PLUMB_CHECK(i - 1 >= from, "a scored token follows directly behind a token of the prefix");
    rows.push_back(begin + i - 1);
    targets.push_back(sequence[static_cast<size_t>(i)]);
    kept.push_back(set);
    filtered = filtered || !KeepsEveryToken(set);
  }
}

void PackedBatch::AppendRows(std::span<const int32_t> sequence, std::span<const int32_t> at,
                             int32_t shared) {
  const auto length = static_cast<int32_t>(sequence.size());
  const int32_t begin = Lay(sequence, shared, nullptr), from = std::max(shared, Passed(sequence));
  for (int32_t i : at) {
    PLUMB_CHECK(i >= from && i < length, "row outside its sequence");
    rows.push_back(begin + i);
    targets.push_back(0);
    kept.emplace_back();
  }
}

void PackPlan::Add(std::span<const int32_t> tokens, int32_t first_row,
                   const ExpertChoices* choices) {
  PLUMB_CHECK(first_row >= 0, "a row has a number");
  sequences_.push_back(
      {tokens, std::min(first_row, std::max(0, static_cast<int32_t>(tokens.size()) - 1)), choices});
}

void PackPlan::Add(std::span<const int32_t> tokens, std::span<const uint8_t> mask,
                   const ExpertChoices* choices) {
  size_t scored = 1;
  while (scored < mask.size() && !mask[scored]) ++scored;
  Add(tokens, static_cast<int32_t>(scored) - 1, choices);
}

// First tokens of b that a begins with, too, and that go through the same experts in both.
int32_t PackPlan::Common(const Sequence& a, const Sequence& b) {
  const auto tokens = static_cast<size_t>(
      std::mismatch(a.tokens.begin(), a.tokens.end(), b.tokens.begin(), b.tokens.end()).first -
      a.tokens.begin());
  if (a.choices == b.choices) return static_cast<int32_t>(tokens);
  if (!a.choices || !b.choices || a.choices->form != b.choices->form) return 0;
  const std::span<const uint8_t> x(a.choices->bytes), y(b.choices->bytes);
  const auto bytes = std::mismatch(x.begin(), x.end(), y.begin(), y.end()).first - x.begin();
  return static_cast<int32_t>(
      std::min(tokens, static_cast<size_t>(bytes) / a.choices->form.bytes()));
}

void PackPlan::FindPrefixes() {
  // bounds the search: a prefix is laid at least once in so many sequences
  constexpr size_t kLongestRun = 256;
  const size_t n = sequences_.size();
  common_.assign(n, 0);  // first tokens of i that i - 1 begins with, too
  for (size_t i = 1; i < n; ++i) common_[i] = Common(sequences_[i - 1], sequences_[i]);
  // A run [begin, end) shares what all of it begins with. saved_[e]: the most tokens that runs of
  // the first e sequences save; begins_[e]: where the last of those runs begins.
  saved_.assign(n + 1, 0);
  begins_.assign(n + 1, 0);
  for (size_t end = 1; end <= n; ++end) {
    saved_[end] = -1;
    int32_t length = sequences_[end - 1].first_row;
    for (size_t begin = end; begin-- > 0 && end - begin <= kLongestRun;) {
      if (begin + 1 < end)
        length = std::min({length, sequences_[begin].first_row, common_[begin + 1]});
      const int64_t saved = saved_[begin] + static_cast<int64_t>(end - begin - 1) * length;
      if (saved <= saved_[end]) continue;
      saved_[end] = saved;
      begins_[end] = static_cast<int32_t>(begin);
    }
  }
  shared_.assign(n, 0);
  for (size_t end = n; end > 0;) {
    const auto begin = static_cast<size_t>(begins_[end]);
    int32_t length = sequences_[begin].first_row;
    for (size_t i = begin + 1; i < end; ++i)
      length = std::min({length, sequences_[i].first_row, common_[i]});
    for (size_t i = begin + 1; i < end; ++i) shared_[i] = length;
    end = begin;
  }
}

const std::vector<int32_t>& PackPlan::Split(int64_t token_budget, int32_t together) {
  PLUMB_CHECK(sequences_.size() % static_cast<size_t>(together) == 0,
              "sequences that belong together are all there");
  FindPrefixes();
  ends_.clear();
  const auto n = static_cast<int32_t>(sequences_.size());
  // Tokens of the next `together` in a micro-batch that begins with `first`.
  const auto laid = [&](int32_t s, int32_t first) {
    int64_t tokens = 0;
    for (int32_t i = s; i < s + together; ++i) {
      const auto at = static_cast<size_t>(i);
      tokens += static_cast<int64_t>(sequences_[at].tokens.size()) - (i > first ? shared_[at] : 0);
    }
    return tokens;
  };
  int64_t used = 0;
  for (int32_t s = 0, first = 0; s < n; s += together) {
    if (used > 0 && used + laid(s, first) > token_budget) {
      ends_.push_back(first = s);
      used = 0;
    }
    used += laid(s, first);
  }
  if (n > 0) ends_.push_back(n);
  return ends_;
}

const std::vector<int32_t>& PackPlan::SplitInTurns(int64_t token_budget, int32_t ranks,
                                                   int32_t together) {
  const auto whole = static_cast<int64_t>(Split(token_budget, together).size());
  if (ranks == 1 || whole == 0) return ends_;
  const int64_t most = (whole + ranks - 1) / ranks * ranks;
  int64_t low = 1, high = token_budget;  // the smallest budget of at most so many
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (static_cast<int64_t>(Split(middle, together).size()) <= most) high = middle;
    else low = middle + 1;
  }
  return Split(high, together);
}

int32_t PackPlan::Shared(int32_t s, int32_t first, int32_t last, PackedBatch& batch) const {
  const auto at = static_cast<size_t>(s);
  if (s > first && shared_[at] > 0) return shared_[at];
  const int32_t with_next = s + 1 < last ? shared_[at + 1] : 0;
  if (with_next > 0)
    batch.AppendPrefix(sequences_[at].tokens.first(static_cast<size_t>(with_next)),
                       sequences_[at].choices);
  return with_next;
}

}  // namespace plumb::policy_model

// The task of a row, written in front of its tokens as tokens that no vocabulary has.
//
// Purpose: a policy with several adapters weighs them by the task of a row (policy.tasks). The task
// stands where everything that has to tell rows apart looks anyway: in the prompt's tokens, which
// leases, groups, stores, caches of log-probs and shared beginnings know already. A row of such a
// run begins with max(1, policy.task_tokens) of these. Where the policy has learned embeddings for
// them they are computed like other tokens; everywhere else (the reference, a critic, a reward
// model) the row is computed as if they were not there.
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace plumb {

// Behind any vocabulary. Stored: do not change.
inline constexpr int32_t kFirstTaskToken = int32_t{1} << 30;
inline constexpr int32_t kMostTaskTokens = 256;  // of one task
inline constexpr int32_t kMostTasks = 4096;

// Token `i` of `task`.
constexpr int32_t TaskToken(int32_t task, int32_t i) {
  return kFirstTaskToken + task * kMostTaskTokens + i;
}
constexpr bool IsTaskToken(int32_t token) { return token >= kFirstTaskToken; }
constexpr int32_t TaskOf(int32_t token) { return (token - kFirstTaskToken) / kMostTaskTokens; }
// Its number within its task.
constexpr int32_t TaskPlace(int32_t token) { return (token - kFirstTaskToken) % kMostTaskTokens; }

// How many of them a sequence begins with.
inline size_t LeadingTaskTokens(std::span<const int32_t> tokens) {
  size_t n = 0;
  while (n < tokens.size() && IsTaskToken(tokens[n])) ++n;
  return n;
}

// The task that a sequence names; -1: none.
inline int32_t TaskOf(std::span<const int32_t> tokens) {
  return tokens.empty() || !IsTaskToken(tokens[0]) ? -1 : TaskOf(tokens[0]);
}

// What stands in front of a row of `task` where a task has so many tokens.
inline std::vector<int32_t> TaskFront(int32_t task, int64_t task_tokens) {
  std::vector<int32_t> out;
  for (int32_t i = 0; i == 0 || i < task_tokens; ++i) out.push_back(TaskToken(task, i));
  return out;
}

// Cuts tokens at the front until `most` are left, but none of the task's. Where nothing else would
// be left, one token is.
inline void CutFront(size_t most, std::vector<int32_t>& tokens) {
  const size_t front = LeadingTaskTokens(tokens);
  const size_t rest = most > front ? most - front : 1;
  if (tokens.size() - front <= rest) return;
  tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(front),
               tokens.end() - static_cast<std::ptrdiff_t>(rest));
}

}  // namespace plumb

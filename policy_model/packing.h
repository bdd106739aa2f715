// Ragged sequences laid end to end, for learner, reward model and scoring alike.
//
// Worked example, two sequences of 3 and 2 tokens where the last two of the first and the last of the second count:
//   tokens     a0 a1 a2 b0 b1      positions 0 1 2 0 1      cu_seqlens 0 3 5
//   rows       0 1 3               (token index whose successor is scored)
//   targets    a1 a2 b1            (the successor)
// Thread safety: values.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace plumb::policy_model {

struct PackedBatch {
  std::vector<int32_t> tokens;      // [T]
  std::vector<int32_t> positions;   // [T]
  std::vector<int32_t> cu_seqlens;  // [B + 1]
  std::vector<int32_t> rows;        // [R] ascending
  std::vector<int32_t> targets;     // [R]
  int32_t max_seqlen = 0;

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  int32_t sequences() const { return static_cast<int32_t>(cu_seqlens.size()) - 1; }
  void Clear();
  // Appends a sequence; token i >= 1 is scored where mask[i] != 0. mask: [tokens.size()].
  void Append(std::span<const int32_t> sequence, std::span<const uint8_t> mask);
  // Appends a sequence of which a scalar head looks at these tokens (ascending indices into it); their targets are 0.
  void AppendRows(std::span<const int32_t> sequence, std::span<const int32_t> at);
};

// Splits sequences (their lengths) into consecutive micro-batches of at most `token_budget` tokens, keeping the order; a
// sequence longer than the budget gets a micro-batch of its own. Returns end indices.
std::vector<int32_t> SplitByTokens(std::span<const int32_t> lengths, int64_t token_budget);
// The same into memory that is kept.
void SplitByTokens(std::span<const int32_t> lengths, int64_t token_budget, std::vector<int32_t>& ends);

}  // namespace plumb::policy_model

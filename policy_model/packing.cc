#include "policy_model/packing.h"

#include <algorithm>

#include "common/error.h"

namespace plumb::policy_model {

void PackedBatch::Clear() {
  tokens.clear();
  positions.clear();
  cu_seqlens.assign(1, 0);
  rows.clear();
  targets.clear();
  max_seqlen = 0;
}

void PackedBatch::Append(std::span<const int32_t> sequence, std::span<const uint8_t> mask) {
  PLUMB_CHECK(sequence.size() == mask.size(), "every token needs a mask");
  if (cu_seqlens.empty()) cu_seqlens.push_back(0);
  const int32_t begin = cu_seqlens.back();
  for (size_t i = 0; i < sequence.size(); ++i) {
    tokens.push_back(sequence[i]);
    positions.push_back(static_cast<int32_t>(i));
    if (i > 0 && mask[i]) {
      rows.push_back(begin + static_cast<int32_t>(i) - 1);
      targets.push_back(sequence[i]);
    }
  }
  cu_seqlens.push_back(begin + static_cast<int32_t>(sequence.size()));
  max_seqlen = std::max(max_seqlen, static_cast<int32_t>(sequence.size()));
}

void PackedBatch::AppendRows(std::span<const int32_t> sequence, std::span<const int32_t> at) {
  if (cu_seqlens.empty()) cu_seqlens.push_back(0);
  const int32_t begin = cu_seqlens.back();
  const auto length = static_cast<int32_t>(sequence.size());
  for (int32_t i = 0; i < length; ++i) positions.push_back(i);
  tokens.insert(tokens.end(), sequence.begin(), sequence.end());
  for (int32_t i : at) {
    PLUMB_CHECK(i >= 0 && i < length, "row outside its sequence");
    rows.push_back(begin + i);
    targets.push_back(0);
  }
  cu_seqlens.push_back(begin + length);
  max_seqlen = std::max(max_seqlen, length);
}

void SplitByTokens(std::span<const int32_t> lengths, int64_t token_budget, std::vector<int32_t>& ends) {
  ends.clear();
  int64_t used = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (used > 0 && used + lengths[i] > token_budget) {
      ends.push_back(static_cast<int32_t>(i));
      used = 0;
    }
    used += lengths[i];
  }
  if (!lengths.empty()) ends.push_back(static_cast<int32_t>(lengths.size()));
}

std::vector<int32_t> SplitByTokens(std::span<const int32_t> lengths, int64_t token_budget) {
  std::vector<int32_t> ends;
  SplitByTokens(lengths, token_budget, ends);
  return ends;
}

}  // namespace plumb::policy_model

#include "learner/update/compact_moments.h"

#include <iterator>
#include <span>
#include <vector>

#include "common/base/error.h"

namespace plumb::learner {

CompactMoments::CompactMoments(const Stream& stream, const policy_model::TensorList& table,
                               bool in_host_memory) {
  int64_t blocks = 0;
  for (const auto& entry : table.entries()) {
    PLUMB_CHECK(entry.offset % 4 == 0, "codes of a tensor begin with a word");
    offsets_.push_back(entry.offset);
    first_blocks_.push_back(blocks);
    blocks += kernels::MomentBlocks(entry.elements);
  }
  const auto take = [&](DType dtype, int64_t n) {
    return in_host_memory ? policy_model::FlatBuffer::InHostMemory(stream, dtype, n)
                          : policy_model::FlatBuffer(stream, dtype, n);
  };
  codes_ = take(DType::kInt32, (table.flat_elements() + 3) / 4);
  scales_ = take(DType::kFloat32, blocks);
}

kernels::MomentState CompactMoments::Of(size_t entry) {
  return {.codes = static_cast<uint8_t*>(codes_.data()) + offsets_[entry],
          .scales = scales_.f32() + first_blocks_[entry]};
}

policy_model::FlatBuffer CompactTensors(const Stream& stream,
                                        const policy_model::TensorList& table) {
  constexpr auto kWords = static_cast<int64_t>(sizeof(kernels::CompactTensor) / sizeof(int64_t));
  std::vector<kernels::CompactTensor> tensors;
  int64_t blocks = 0;
  for (const auto& entry : table.entries()) {
    PLUMB_CHECK(tensors.empty() || entry.offset >= tensors.back().at + tensors.back().n,
                "tensors of a set in the order of their places");
    tensors.push_back({.at = entry.offset,
                       .first_block = blocks,
                       .n = entry.elements,
                       .decay = entry.decay ? 1 : 0});
    blocks += kernels::MomentBlocks(entry.elements);
  }
  policy_model::FlatBuffer out(stream, DType::kInt64, std::ssize(tensors) * kWords);
  out.CopyFromHost(std::as_bytes(std::span<const kernels::CompactTensor>(tensors)));
  return out;
}

}  // namespace plumb::learner

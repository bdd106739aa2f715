#include "learner/update/compact_moments.h"

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

}  // namespace plumb::learner

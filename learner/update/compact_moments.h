// One moment of a set of parameters in 8 bits an element and a scale a block, tensor by tensor: no
// block reaches over two of them, so that a file can hold each on its own.
//
// What a code means: kernels/update/adamw_compact.h. Thread safety: that of FlatBuffer. Ownership:
// owns its buffers.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/update/adamw_compact.h"
#include "policy_model/families/tensor_table.h"
#include "policy_model/memory/flat_buffer.h"

namespace plumb::learner {

class CompactMoments {
 public:
  CompactMoments() = default;
  // All zero; `in_host_memory`: of a device's optimizer whose state lies there.
  CompactMoments(const Stream& stream, const policy_model::TensorList& table,
                 bool in_host_memory = false);

  // Of the table's tensor number `entry`.
  kernels::MomentState Of(size_t entry);
  int64_t first_block(size_t entry) const { return first_blocks_[entry]; }

  // Codes, a byte each where the set has its element, in whole int32; float scales.
  policy_model::FlatBuffer& codes() { return codes_; }
  policy_model::FlatBuffer& scales() { return scales_; }

 private:
  std::vector<int64_t> offsets_, first_blocks_;  // of each tensor
  policy_model::FlatBuffer codes_, scales_;
};

// Where each tensor of the table begins in the buffers of its set, as kernels::CompactTensor in the
// memory of the device; nothing for an empty one.
policy_model::FlatBuffer CompactTensors(const Stream& stream,
                                        const policy_model::TensorList& table);

}  // namespace plumb::learner

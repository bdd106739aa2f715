// The ranks that compute one model together, a share of every layer each (tensor parallelism), as
// the layers see them.
//
// Purpose: a rank has some heads of attention, some columns of each feed-forward part and some rows
// of the vocabulary (policy_model/families/tensor_share.h). What its products give is a summand of
// what the layer gives: it is added up over the group, forward and backward once a branch. All
// ranks of the group make the same passes over the same batch. Thread safety: one thread, that of
// the pass. Ownership: of whoever implements it (learner/update/shares/model_share.h). Errors:
// those of the ranks' connections. Bits: what comes out is the same on all ranks of the group.
#pragma once

#include <cstdint>
#include <span>

#include "common/base/dtype.h"
#include "kernels/device/stream.h"

namespace plumb::policy_model {

class TensorGroup {
 public:
  virtual ~TensorGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // values[n] of the type, where the stream's device has its memory: the sum over the ranks.
  virtual void Sum(const Stream& stream, DType dtype, void* values, int64_t n) = 0;
  // Of the host: what each rank has, in the order of the ranks; all.size() is own.size() * size().
  virtual void Gather(std::span<const float> own, std::span<float> all) = 0;
};

}  // namespace plumb::policy_model

// Collectives of ranks over memory of GPUs, by NCCL.
//
// Purpose: what learner/ranks/ranks.h does for memory of the host. Calls are enqueued on a CUDA
// stream and return at once. Every rank makes the same calls in the same order, on streams that it
// does not use at once. Sums are in an order of NCCL's choice, equal on all ranks.
// Thread safety: one thread at a time. Ownership: owns its communicator; the library has to outlive
// it. Errors: kUnavailable for what NCCL refuses, with its words. Non-goal: deadlines; a rank that
// dies in the middle of a call is noticed by whoever started the ranks (docs/ranks.md).
// Units: sent_bytes() is what such a call has to send at least, as ranks.h counts; NCCL does not
// say what it sent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/dtype.h"
#include "learner/ranks/nccl_library.h"
#include "learner/ranks/ranks.h"

namespace plumb::learner {

class NcclGroup {
 public:
  // Waits for all ranks. The device of this rank is the current one of the thread.
  NcclGroup(const NcclLibrary& library, const NcclId& id, int rank, int size);
  ~NcclGroup();
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  // values[n] becomes the sum over the ranks.
  void AllReduce(float* values, int64_t n, void* stream) {
    AllReduce(values, n, DType::kFloat32, stream);
  }
  // The same of float32 or bfloat16, in which the sums are made, too.
  void AllReduce(void* values, int64_t n, DType dtype, void* stream);
  // slices[r]: of values, what rank r gets the sum of; the rest is left as it comes.
  void ReduceScatter(float* values, std::span<const Slice> slices, void* stream);
  // places[r]: the bytes of `all` that rank r has; then all have all.
  void AllGather(std::byte* all, std::span<const Slice> places, void* stream);

  int64_t sent_bytes() const { return sent_bytes_; }

 private:
  void Check(int result, const char* what) const;

  const NcclLibrary library_;
  const int rank_, size_;
  NcclLibrary::Comm comm_ = nullptr;
  int64_t sent_bytes_ = 0;
};

// Of all ranks: the id of a new group, drawn by rank 0. Throws on all of them where one has no
// NCCL, naming it.
NcclId ShareNcclId(Ranks& ranks, const NcclLibrary* library, const std::string& why_not);

}  // namespace plumb::learner

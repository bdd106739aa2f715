// Sums and gathers over the ranks of memory wherever it lies: of the host through the ranks' mesh,
// of a GPU by NCCL on a stream.
//
// Thread safety: one thread at a time. Errors: RankLost; kUnsupported for a wire that rounds where
// the memory is a GPU's; kUnavailable from NCCL. Of a GPU's memory all calls return at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/device/stream.h"
#include "learner/ranks/ranks.h"

namespace plumb::learner {

// Where ranks train on GPUs: opens NCCL and meets the other ranks on the stream's device. All ranks
// call it, once; on the CPU nothing happens. PLUMB_NCCL is looked at.
void MeetOnDevice(Ranks& ranks, const Stream& stream);

// As those of Ranks; `residual` lies in the host's memory and is empty on a GPU.
void AllReduce(Ranks& ranks, const Stream& stream, std::span<float> values, Wire wire,
               std::span<float> residual);
void ReduceScatter(Ranks& ranks, const Stream& stream, std::span<float> values, int64_t unit,
                   Wire wire, std::span<float> residual);
// places[r]: the bytes of `all` that rank r has; then all have all.
void AllGather(Ranks& ranks, const Stream& stream, std::span<std::byte> all,
               std::span<const Slice> places);

}  // namespace plumb::learner

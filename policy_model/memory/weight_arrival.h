// Bytes of weights that arrive at a model's memory, and their digest as it is there.
//
// Purpose: a set comes from memory that the learner lends (kernels/device/lent_memory.h) or from
// the host's, in pieces; on a GPU a piece is hashed where it arrived while the next ones are
// copied, by streams of its own, so that steps of generation go on. Thread safety: one thread, not
// that of the model's stream; who uses the memory waits for the call. Ownership: owns its streams.
// Errors: kIo of CUDA.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "common/base/hash/digest.h"
#include "kernels/device/lent_memory.h"
#include "kernels/device/stream.h"
#include "kernels/device/stream_mark.h"
#include "policy_model/memory/flat_buffer.h"

namespace plumb::policy_model {

class WeightArrival {
 public:
  explicit WeightArrival(Device device);

  // Both return when all is there. `into`: memory of the device.
  Digest Take(const kernels::BorrowedMemory& from, void* into, size_t bytes);
  Digest Take(std::span<const std::byte> host, void* into);

 private:
  using CopyPiece = std::function<void(const Stream&, std::byte* to, size_t at, size_t bytes)>;
  Digest InPieces(std::byte* into, size_t bytes, const CopyPiece& copy);

  const Device device_;
  OwnedStream copies_;
  std::vector<OwnedStream> hashes_;  // a piece's blocks do not fill a GPU by themselves
  kernels::StreamMark arrived_;
  FlatBuffer leaves_;
};

}  // namespace plumb::policy_model

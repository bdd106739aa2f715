#include "policy_model/memory/weight_arrival.h"

#include <algorithm>

#include "common/base/error.h"
#include "kernels/block_hash.h"
#include "kernels/device/device_memory.h"

namespace plumb::policy_model {
namespace {

constexpr size_t kPieces = 8, kLeastPiece = size_t{32} << 20, kHashStreams = 4;

// In whole blocks of the digest.
size_t PieceOf(size_t bytes) {
  const size_t least = std::max(kLeastPiece, (bytes + kPieces - 1) / kPieces);
  return (least + kDigestBlockBytes - 1) / kDigestBlockBytes * kDigestBlockBytes;
}

}  // namespace

WeightArrival::WeightArrival(Device device) : device_(device), copies_(device), arrived_(device) {
  for (size_t i = 0; i < kHashStreams; ++i) hashes_.emplace_back(device);
}

Digest WeightArrival::Take(const kernels::BorrowedMemory& from, void* into, size_t bytes) {
  PLUMB_CHECK(from.bytes() >= bytes, "a set is lent whole");
  return InPieces(static_cast<std::byte*>(into), bytes,
                  [&](const Stream& stream, std::byte* to, size_t at, size_t n) {
                    from.CopyTo(stream, to, at, n);
                  });
}

Digest WeightArrival::Take(std::span<const std::byte> host, void* into) {
  return InPieces(static_cast<std::byte*>(into), host.size(),
                  [&](const Stream& stream, std::byte* to, size_t at, size_t n) {
                    kernels::Copy(stream, to, host.data() + at, n);
                  });
}

Digest WeightArrival::InPieces(std::byte* into, size_t bytes, const CopyPiece& copy) {
  const size_t count = (bytes + kDigestBlockBytes - 1) / kDigestBlockBytes;
  std::vector<BlockHash> blocks(count);
  auto* leaves = blocks.data();
  if (device_.is_cuda()) {
    const auto numbers = static_cast<int64_t>(count * sizeof(BlockHash) / sizeof(int32_t));
    if (leaves_.elements() < numbers) {
      leaves_ = FlatBuffer(copies_, DType::kInt32, numbers);
      copies_.Synchronize();
    }
    leaves = static_cast<BlockHash*>(leaves_.data());
  }
  const size_t piece = PieceOf(bytes);
  for (size_t at = 0, i = 0; at < bytes; at += piece, ++i) {
    const size_t n = std::min(piece, bytes - at);
    copy(copies_, into + at, at, n);
    const Stream& hashing = hashes_[i % hashes_.size()];
    arrived_.Set(copies_);
    arrived_.LetWait(hashing);
    kernels::Call({.stream = hashing},
                  kernels::HashWeightBlocks{.bytes = into + at,
                                            .size = static_cast<int64_t>(n),
                                            .out = leaves + at / kDigestBlockBytes});
  }
  copies_.Synchronize();
  for (const OwnedStream& hashing : hashes_) hashing.Synchronize();
  if (device_.is_cuda()) leaves_.CopyToHost(std::as_writable_bytes(std::span(blocks)));
  return CombineBlocks(blocks, bytes);
}

}  // namespace plumb::policy_model

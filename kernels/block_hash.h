// What has to be known of all weights at every publication, found where they lie: the hash of each
// 1 MiB block (leaves of the published digest, common/base/hash/digest.h) and whether every value
// is finite.
//
// Hash: XXH3-128 with the default secret (Collet, xxHash specification 0.8), of blocks longer than
// 240 bytes. Thread safety, alignment, errors: kernels/device/launch.h; bytes start on 8.
#pragma once

#include "common/base/hash/digest.h"
#include "kernels/device/launch.h"

namespace plumb::kernels {

struct HashWeightBlocks {
  static constexpr const char* kName = "HashWeightBlocks";
  const void* bytes = nullptr;
  // the last block may be shorter than the others: above 240 bytes, or there is none
  int64_t size = 0;
  BlockHash* out = nullptr;  // [blocks()]
  int64_t blocks() const {
    return (size + static_cast<int64_t>(kDigestBlockBytes) - 1) /
           static_cast<int64_t>(kDigestBlockBytes);
  }
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

// first[0] = the smallest i with x[i] NaN or infinite, n when there is none. Padding counts too.
struct FindNonFinite {
  static constexpr const char* kName = "FindNonFinite";
  const void* x = nullptr;  // T[n]
  int64_t n = 0;
  uint64_t* first = nullptr;  // [1], in the device's memory
  void Cpu(const Launch& launch) const;
  void Cuda(const Launch& launch) const;
};

}  // namespace plumb::kernels

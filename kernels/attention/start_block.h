// How blocks of attention on warp groups are started: a block a processor, each with the shared
// memory that it asks for.
//
// Thread safety: pure functions. Ownership: none. Units: bytes. Errors: those of launch.h. Included
// by .cu files; others see nothing.
#pragma once

#ifdef __CUDACC__

#include <algorithm>

#include "kernels/attention/prompt_block.h"
#include "kernels/attention/warpgroup_chip.h"
#include "kernels/device/cuda_common.h"

namespace plumb::kernels {

inline int DeviceAttribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  CheckCuda(cudaGetDevice(&device), "to ask for the GPU of attention");
  CheckCuda(cudaDeviceGetAttribute(&value, attribute, device), "to ask a GPU for its processors");
  return value;
}

inline bool HasHopperProducts() { return DeviceAttribute(cudaDevAttrComputeCapabilityMajor) == 9; }

// `Block::Run(source, block, blocks, memory)` of as many blocks as there are processors, or items.
template <class Block, class Source>
__global__ void __launch_bounds__(Block::kThreads, 1)
    RunBlocks(const __grid_constant__ Source source) {
  extern __shared__ unsigned char block_memory[];
  const uint32_t past = HopperChip::Address(block_memory) % 1024;
  Block::Run(source, static_cast<int32_t>(blockIdx.x), static_cast<int32_t>(gridDim.x),
             block_memory + (1024 - past) % 1024);
}

template <class Block, class Source>
void StartBlocks(const Launch& launch, const Source& source, int64_t items) {
  constexpr int kBytes = Block::kBytes + 1024;
  static_assert(kBytes <= 227 * 1024, "a processor's shared memory");
  if (items == 0) return;
  CheckCuda(cudaFuncSetAttribute(RunBlocks<Block, Source>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
            "to give attention its shared memory");
  const int64_t blocks = std::min<int64_t>(items, DeviceAttribute(cudaDevAttrMultiProcessorCount));
  RunBlocks<Block, Source>
      <<<static_cast<unsigned>(blocks), Block::kThreads, kBytes, StreamOf(launch)>>>(source);
  CheckLaunch("attention on warp groups");
}

template <int D, class Source>
void StartPromptBlock(const Launch& launch, const Source& source) {
  const int64_t rows = source.end() - source.begin(),
                tiles = (rows + source.rows_a_tile() - 1) / source.rows_a_tile();
  StartBlocks<PromptBlock<HopperChip, D, Source>>(launch, source,
                                                  tiles * (source.heads() / source.group()));
}

}  // namespace plumb::kernels

#endif  // __CUDACC__

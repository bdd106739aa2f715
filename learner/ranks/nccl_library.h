// NCCL, NVIDIA's collectives between GPUs, as far as ranks need it: found and opened at run time,
// so that the program starts where it is not.
//
// It is looked for at PLUMB_NCCL (a file), where the loader looks for libnccl.so.2, and beside
// LibTorch (pip's torch brings nvidia/nccl/lib).
// Thread safety: const after construction. Ownership: the library stays open until the process
// ends. Errors: kUnsupported naming each place that was tried and why it was no use.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace plumb::learner {

// The C interface of nccl.h (version 2), by its documentation. Results are ncclResult_t, 0 where
// all went well; a stream is a cudaStream_t.
struct NcclId {
  char bytes[128];
};
inline constexpr int kNcclInt8 = 0, kNcclFloat32 = 7, kNcclBFloat16 = 9, kNcclSum = 0;

struct NcclLibrary {
  using Comm = void*;
  int (*GetUniqueId)(NcclId*) = nullptr;
  int (*CommInitRank)(Comm*, int ranks, NcclId, int rank) = nullptr;
  int (*CommDestroy)(Comm) = nullptr;
  int (*AllReduce)(const void*, void*, size_t, int type, int op, Comm, void* stream) = nullptr;
  int (*ReduceScatter)(const void*, void*, size_t, int type, int op, Comm, void* stream) = nullptr;
  int (*AllGather)(const void*, void*, size_t, int type, Comm, void* stream) = nullptr;
  int (*Reduce)(const void*, void*, size_t, int type, int op, int root, Comm,
                void* stream) = nullptr;
  int (*Broadcast)(const void*, void*, size_t, int type, int root, Comm, void* stream) = nullptr;
  int (*GroupStart)() = nullptr;
  int (*GroupEnd)() = nullptr;
  const char* (*GetErrorString)(int) = nullptr;
  std::string path;  // that it was opened by
};

// The files to try, in order: `wanted` alone where it is not empty.
std::vector<std::string> NcclPlaces(const std::string& wanted);
// `wanted`: PLUMB_NCCL's value.
NcclLibrary OpenNccl(const std::string& wanted);

}  // namespace plumb::learner

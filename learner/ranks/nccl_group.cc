#include "learner/ranks/nccl_group.h"

#include <cstring>

#include "common/base/error.h"

namespace plumb::learner {
namespace {

// Slices of equal size one behind the other: what NCCL scatters and gathers in one call.
bool Even(std::span<const Slice> slices) {
  for (size_t i = 0; i < slices.size(); ++i) {
    if (slices[i].size() != slices[0].size()) return false;
    if (slices[i].begin != slices[0].begin + static_cast<int64_t>(i) * slices[0].size())
      return false;
  }
  return true;
}

int64_t SizeOf(std::span<const Slice> slices) {
  int64_t sum = 0;
  for (const Slice& slice : slices) sum += slice.size();
  return sum;
}

}  // namespace

NcclGroup::NcclGroup(const NcclLibrary& library, const NcclId& id, int rank, int size)
    : library_(library), rank_(rank), size_(size) {
  Check(library_.CommInitRank(&comm_, size, id, rank), "ncclCommInitRank");
}

NcclGroup::~NcclGroup() { library_.CommDestroy(comm_); }

void NcclGroup::Check(int result, const char* what) const {
  if (result == 0) return;
  throw Error(ErrorCode::kUnavailable,
              std::string(what) + " of rank " + std::to_string(rank_) + " of " +
                  std::to_string(size_) + " failed: " + library_.GetErrorString(result) +
                  " (NCCL_DEBUG=INFO says more)",
              library_.path);
}

void NcclGroup::AllReduce(void* values, int64_t n, DType dtype, void* stream) {
  if (n == 0) return;
  PLUMB_CHECK(dtype == DType::kFloat32 || dtype == DType::kBFloat16, "sums of floats");
  const int type = dtype == DType::kFloat32 ? kNcclFloat32 : kNcclBFloat16;
  Check(library_.AllReduce(values, values, static_cast<size_t>(n), type, kNcclSum, comm_, stream),
        "ncclAllReduce");
  sent_bytes_ += 2 * n * static_cast<int64_t>(ElementSize(dtype)) * (size_ - 1) / size_;
}

void NcclGroup::ReduceScatter(float* values, std::span<const Slice> slices, void* stream) {
  if (SizeOf(slices) == 0) return;
  const Slice& own = slices[static_cast<size_t>(rank_)];
  sent_bytes_ += (SizeOf(slices) - own.size()) * int64_t{sizeof(float)};
  if (Even(slices)) {
    Check(library_.ReduceScatter(values + slices[0].begin, values + own.begin,
                                 static_cast<size_t>(own.size()), kNcclFloat32, kNcclSum, comm_,
                                 stream),
          "ncclReduceScatter");
    return;
  }
  Check(library_.GroupStart(), "ncclGroupStart");
  for (int root = 0; root < size_; ++root) {
    const Slice& slice = slices[static_cast<size_t>(root)];
    if (slice.size() == 0) continue;
    float* const at = values + slice.begin;
    Check(library_.Reduce(at, at, static_cast<size_t>(slice.size()), kNcclFloat32, kNcclSum, root,
                          comm_, stream),
          "ncclReduce");
  }
  Check(library_.GroupEnd(), "ncclGroupEnd");
}

void NcclGroup::AllGather(std::byte* all, std::span<const Slice> places, void* stream) {
  if (SizeOf(places) == 0) return;
  const Slice& own = places[static_cast<size_t>(rank_)];
  sent_bytes_ += own.size() * (size_ - 1);
  if (Even(places)) {
    Check(library_.AllGather(all + own.begin, all + places[0].begin,
                             static_cast<size_t>(own.size()), kNcclInt8, comm_, stream),
          "ncclAllGather");
    return;
  }
  Check(library_.GroupStart(), "ncclGroupStart");
  for (int root = 0; root < size_; ++root) {
    const Slice& place = places[static_cast<size_t>(root)];
    if (place.size() == 0) continue;
    std::byte* const at = all + place.begin;
    Check(library_.Broadcast(at, at, static_cast<size_t>(place.size()), kNcclInt8, root, comm_,
                             stream),
          "ncclBroadcast");
  }
  Check(library_.GroupEnd(), "ncclGroupEnd");
}

NcclId ShareNcclId(Ranks& ranks, const NcclLibrary* library, const std::string& why_not) {
  const std::vector<std::string> whys = ranks.Gather(library ? std::string() : why_not);
  for (size_t rank = 0; rank < whys.size(); ++rank) {
    if (!whys[rank].empty())
      throw Error(ErrorCode::kUnsupported, "rank " + std::to_string(rank) + ": " + whys[rank],
                  "run.device");
  }
  NcclId id{};
  std::string refused;
  if (ranks.first()) {
    const int result = library->GetUniqueId(&id);
    if (result != 0) refused = library->GetErrorString(result);
  }
  const std::string drawn = ranks.Share(
      refused.empty() ? "id " + std::string(id.bytes, sizeof id.bytes) : "no " + refused);
  if (!drawn.starts_with("id ") || drawn.size() != 3 + sizeof id.bytes) {
    throw Error(ErrorCode::kUnavailable, "ncclGetUniqueId of rank 0 failed: " + drawn.substr(3),
                library->path);
  }
  std::memcpy(id.bytes, drawn.data() + 3, sizeof id.bytes);
  return id;
}

}  // namespace plumb::learner

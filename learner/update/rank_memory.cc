#include "learner/update/rank_memory.h"

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "learner/ranks/nccl_group.h"

namespace plumb::learner {
namespace {

NcclGroup& GroupOf(Ranks& ranks, Wire wire = Wire::kFloat32) {
  PLUMB_CHECK(ranks.device(), "ranks on GPUs meet by MeetOnDevice");
  PLUMB_CHECK(wire == Wire::kFloat32, "run.gradient_wire is refused on GPUs");
  return *ranks.device();
}

}  // namespace

void MeetOnDevice(Ranks& ranks, const Stream& stream) {
  if (stream.device().is_cpu()) return;
  std::optional<NcclLibrary> library;
  std::string why_not;
  try {
    const char* wanted = std::getenv("PLUMB_NCCL");
    library = OpenNccl(wanted ? wanted : "");
  } catch (const Error& e) {
    why_not = e.what();
  }
  const NcclId id = ShareNcclId(ranks, library ? &*library : nullptr, why_not);
  const kernels::OnDevice here(stream.device());
  ranks.UseDevice(std::make_shared<NcclGroup>(*library, id, ranks.rank(), ranks.size()));
}

void AllReduce(Ranks& ranks, const Stream& stream, std::span<float> values, Wire wire,
               std::span<float> residual) {
  if (stream.device().is_cpu()) return ranks.AllReduce(values, wire, residual);
  const kernels::OnDevice here(stream.device());
  GroupOf(ranks, wire)
      .AllReduce(values.data(), static_cast<int64_t>(values.size()), stream.handle());
}

void ReduceScatter(Ranks& ranks, const Stream& stream, std::span<float> values, int64_t unit,
                   Wire wire, std::span<float> residual) {
  if (stream.device().is_cpu()) return ranks.ReduceScatter(values, unit, wire, residual);
  const kernels::OnDevice here(stream.device());
  std::vector<Slice> slices;
  for (int rank = 0; rank < ranks.size(); ++rank)
    slices.push_back(SliceOf(static_cast<int64_t>(values.size()), rank, ranks.size(), unit));
  GroupOf(ranks, wire).ReduceScatter(values.data(), slices, stream.handle());
}

void AllGather(Ranks& ranks, const Stream& stream, std::span<std::byte> all,
               std::span<const Slice> places) {
  if (stream.device().is_cpu()) return ranks.AllGather(all, places);
  const kernels::OnDevice here(stream.device());
  GroupOf(ranks).AllGather(all.data(), places, stream.handle());
}

}  // namespace plumb::learner

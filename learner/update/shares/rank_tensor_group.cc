#include "learner/update/shares/rank_tensor_group.h"

#include <algorithm>

#include "common/base/error.h"
#include "kernels/delta/move_columns.h"
#include "kernels/device/device_memory.h"
#include "learner/ranks/nccl_group.h"
#include "learner/update/rank_memory.h"
#include "policy_model/families/tensor_share.h"

namespace plumb::learner {
namespace {

using policy_model::FlatBuffer;
using policy_model::ShareRun;

// Equal runs at equal distances, one behind the other in the share: columns of a matrix.
bool AreColumns(std::span<const ShareRun> runs) {
  if (runs.size() < 2) return false;
  const int64_t apart = runs[1].whole - runs[0].whole;
  for (size_t i = 0; i < runs.size(); ++i) {
    const auto n = static_cast<int64_t>(i);
    if (runs[i].size != runs[0].size || runs[i].share != n * runs[0].size ||
        runs[i].whole != runs[0].whole + n * apart)
      return false;
  }
  return runs[0].whole + runs[0].size <= apart;
}

// What a rank has of the tensor at `whole`, to `share`. Enqueues.
void CutTensor(const Stream& stream, DType dtype, std::span<const ShareRun> runs, const void* whole,
               void* share) {
  if (AreColumns(runs)) {
    const kernels::ColumnRun columns{.from = runs[0].whole, .to = 0, .count = runs[0].size};
    kernels::Call({.stream = stream, .dtype = dtype},
                  kernels::MoveColumns{.x = whole,
                                       .rows = static_cast<int64_t>(runs.size()),
                                       .x_width = runs[1].whole - runs[0].whole,
                                       .y_width = runs[0].size,
                                       .runs = &columns,
                                       .count = 1,
                                       .y = share});
    return;
  }
  const size_t element = ElementSize(dtype);
  for (const ShareRun& run : runs) {
    kernels::Copy(stream, static_cast<std::byte*>(share) + static_cast<size_t>(run.share) * element,
                  static_cast<const std::byte*>(whole) + static_cast<size_t>(run.whole) * element,
                  static_cast<size_t>(run.size) * element);
  }
}

}  // namespace

RankTensorGroup::RankTensorGroup(Ranks& ranks, const Stream& stream) : ranks_(ranks) {
  MeetOnDevice(ranks, stream);
}

void RankTensorGroup::Sum(const Stream& stream, DType dtype, void* values, int64_t n) {
  const auto count = static_cast<size_t>(n);
  if (!stream.device().is_cpu()) {
    const kernels::OnDevice here(stream.device());
    PLUMB_CHECK(ranks_.device(), "ranks on GPUs meet by MeetOnDevice");
    ranks_.device()->AllReduce(values, n, dtype, stream.handle());
    return;
  }
  if (dtype == DType::kFloat32) {
    ranks_.AllReduce(std::span(static_cast<float*>(values), count));
    return;
  }
  sums_.resize(count);
  policy_model::ConvertToFloat(values, dtype, sums_);
  ranks_.AllReduce(sums_);
  policy_model::ConvertFloat(sums_, dtype, values);
}

void RankTensorGroup::Gather(std::span<const float> own, std::span<float> all) {
  const std::vector<size_t> sizes(static_cast<size_t>(size()), own.size());
  std::vector<float> gathered;
  ranks_.Gather(own, sizes, gathered);
  PLUMB_CHECK(gathered.size() == all.size());
  std::copy(gathered.begin(), gathered.end(), all.begin());
}

void RankTensorGroup::Spread(const policy_model::Weights& whole, policy_model::Weights& share) {
  const auto &entries = whole.table().entries(), &own = share.table().entries();
  PLUMB_CHECK(entries.size() == own.size() && whole.adapters().empty());
  const Stream& stream = share.stream();
  const size_t element = ElementSize(share.dtype());
  FlatBuffer room;  // where a tensor arrives
  for (size_t i = 0; i < entries.size(); ++i) {
    const size_t bytes = static_cast<size_t>(entries[i].elements) * element;
    void* at = nullptr;
    if (ranks_.first()) {
      at = const_cast<void*>(whole.flat().at(entries[i].offset));  // is sent, and stays
    } else {
      if (room.elements() < entries[i].elements) {
        stream.Synchronize();
        room = FlatBuffer(stream, share.dtype(), entries[i].elements);
      }
      at = room.data();
    }
    std::vector<Slice> places(static_cast<size_t>(size()),
                              Slice{static_cast<int64_t>(bytes), static_cast<int64_t>(bytes)});
    places[0].begin = 0;
    AllGather(ranks_, stream, {static_cast<std::byte*>(at), bytes}, places);
    CutTensor(stream, share.dtype(), policy_model::ShareRuns(entries[i], rank(), size()), at,
              share.flat().at(own[i].offset));
  }
  stream.Synchronize();
}

}  // namespace plumb::learner

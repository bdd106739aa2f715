#include "learner/update/shares/model_share.h"

#include <algorithm>
#include <cstring>

#include "common/base/error.h"
#include "common/base/hash/sha256.h"
#include "learner/ranks/nccl_group.h"
#include "learner/update/rank_memory.h"

namespace plumb::learner {

using policy_model::FlatBuffer;
using policy_model::ShareRun;
using policy_model::ShareRuns;
using policy_model::TensorEntry;
using policy_model::Weights;

namespace {

constexpr char kWhere[] = "run.parallel";

Weights MakeShare(const Ranks& group, const Weights& whole) {
  if (!whole.adapters().empty() || !whole.base().trained) {
    throw Error(ErrorCode::kUnsupported,
                "asks for tp=" + std::to_string(group.size()) +
                    ", and adapters are not cut in this version: train the whole model "
                    "(policy.adapter = \"none\"), or share the work as dp=" +
                    std::to_string(group.size()),
                kWhere);
  }
  return {policy_model::ShareOf(whole.shape(), group.rank(), group.size(), kWhere), whole.stream(),
          whole.dtype()};
}

std::vector<std::byte> BytesOf(const FlatBuffer& flat, const TensorEntry& entry) {
  std::vector<std::byte> out(static_cast<size_t>(entry.elements) * ElementSize(flat.dtype()));
  flat.CopyToHost(out, entry.offset);
  return out;
}

}  // namespace

ModelShare::ModelShare(Ranks& group, Weights& whole, Weights share, Whole stays)
    : group_(group), whole_(whole), share_(std::move(share)), stays_(stays) {
  MeetOnDevice(group_, share_.stream());
}

ModelShare::ModelShare(Ranks& group, Weights& whole, Whole stays)
    : ModelShare(group, whole, MakeShare(group, whole), stays) {
  const auto &ours = share_.table().entries(), &all = whole_.table().entries();
  PLUMB_CHECK(ours.size() == all.size(), "a share has the tensors of the whole");
  for (size_t i = 0; i < all.size(); ++i) {
    const std::vector<ShareRun> runs = ShareRuns(all[i], rank(), size());
    PLUMB_CHECK(
        ours[i].name == all[i].name && ours[i].elements == runs.back().share + runs.back().size,
        "a share of " + all[i].name);
  }
  Take();
}

void ModelShare::Take(const Weights& whole, Weights& share) const {
  PLUMB_CHECK(whole.flat().data() != nullptr, "the whole is there");
  const size_t element = ElementSize(whole.dtype());
  for (size_t i = 0; i < tensors(); ++i) {
    const TensorEntry* const here = Own(i);
    if (!here) continue;
    share.flat().CopyFromHost(Cut(i, element, BytesOf(whole.flat(), WholeEntry(i))), here->offset);
  }
}

void ModelShare::Spread() {
  if (stays_ == Whole::kStays) return;
  FlatBuffer& flat = whole_.flat();
  flat = FlatBuffer::WithoutMemory(flat.stream(), flat.dtype(), flat.elements());
}

void ModelShare::Gather() {
  FlatBuffer& flat = whole_.flat();
  if (spread()) flat = FlatBuffer(whole_.stream(), whole_.dtype(), flat.elements());
  const size_t element = ElementSize(flat.dtype());
  std::vector<std::byte> own, all;
  for (size_t i = 0; i < tensors(); ++i) {
    const TensorEntry& entry = WholeEntry(i);
    all.resize(static_cast<size_t>(entry.elements) * element);
    own.clear();
    if (const TensorEntry* const here = Own(i)) own = BytesOf(share_.flat(), *here);
    Join(i, element, own, all);
    flat.CopyFromHost(all, entry.offset);
  }
}

void ModelShare::CheckUncut(const std::string& what) const {
  Sha256 hash;
  for (size_t i = 0; i < whole_.table().entries().size(); ++i) {
    if (!policy_model::IsCut(WholeEntry(i)))
      hash.Update(BytesOf(share_.flat(), share_.table().entries()[i]));
  }
  group_.CheckSame(what + " that are not cut", hash.HexDigest());
}

std::vector<std::byte> ModelShare::Cut(size_t i, size_t element,
                                       std::span<const std::byte> whole) const {
  const std::vector<ShareRun> runs = ShareRuns(WholeEntry(i), rank(), size());
  std::vector<std::byte> out(static_cast<size_t>(runs.back().share + runs.back().size) * element);
  for (const ShareRun& run : runs) {
    std::memcpy(out.data() + static_cast<size_t>(run.share) * element,
                whole.data() + static_cast<size_t>(run.whole) * element,
                static_cast<size_t>(run.size) * element);
  }
  return out;
}

void ModelShare::Join(size_t i, size_t element, std::span<const std::byte> own,
                      std::span<std::byte> whole) const {
  const TensorEntry& entry = WholeEntry(i);
  if (!policy_model::IsCut(entry)) {
    std::memcpy(whole.data(), own.data(), whole.size());
    return;
  }
  std::vector<std::vector<ShareRun>> runs;
  std::vector<size_t> sizes;
  for (int rank = 0; rank < size(); ++rank) {
    const ShareRun& last = runs.emplace_back(ShareRuns(entry, rank, size())).back();
    sizes.push_back(static_cast<size_t>(last.share + last.size) * element);
  }
  std::vector<std::byte> all;
  group_.Gather(own, sizes, all);
  const std::byte* from = all.data();
  for (size_t rank = 0; rank < runs.size(); from += sizes[rank++]) {
    for (const ShareRun& run : runs[rank]) {
      std::memcpy(whole.data() + static_cast<size_t>(run.whole) * element,
                  from + static_cast<size_t>(run.share) * element,
                  static_cast<size_t>(run.size) * element);
    }
  }
}

void ModelShare::Sum(const Stream& stream, DType dtype, void* values, int64_t n) {
  const auto count = static_cast<size_t>(n);
  if (!stream.device().is_cpu()) {
    const kernels::OnDevice here(stream.device());
    PLUMB_CHECK(group_.device(), "ranks on GPUs meet by MeetOnDevice");
    group_.device()->AllReduce(values, n, dtype, stream.handle());
    return;
  }
  if (dtype == DType::kFloat32) {
    group_.AllReduce(std::span(static_cast<float*>(values), count));
    return;
  }
  sums_.resize(count);
  policy_model::ConvertToFloat(values, dtype, sums_);
  group_.AllReduce(sums_);
  policy_model::ConvertFloat(sums_, dtype, values);
}

void ModelShare::Gather(std::span<const float> own, std::span<float> all) {
  const std::vector<size_t> sizes(static_cast<size_t>(size()), own.size());
  std::vector<float> gathered;
  group_.Gather(own, sizes, gathered);
  PLUMB_CHECK(gathered.size() == all.size());
  std::copy(gathered.begin(), gathered.end(), all.begin());
}

}  // namespace plumb::learner

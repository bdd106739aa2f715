#include "learner/update/stages/model_stage.h"

#include <array>
#include <cstring>

#include "common/base/error.h"
#include "common/base/hash/sha256.h"
#include "learner/update/rank_memory.h"

namespace plumb::learner {

using policy_model::TensorEntry;
using policy_model::Weights;

namespace {

constexpr char kWhere[] = "run.parallel";

Weights MakeStage(const Ranks& stages, const Weights& whole) {
  if (!whole.adapters().empty() || !whole.base().trained) {
    throw Error(ErrorCode::kUnsupported,
                "asks for pp=" + std::to_string(stages.size()) +
                    ", and adapters are not cut into stages in this version: train the whole model "
                    "(policy.adapter = \"none\"), or share the work as dp=" +
                    std::to_string(stages.size()),
                kWhere);
  }
  return {policy_model::StageShape(whole.shape(), stages.rank(), stages.size(), kWhere),
          whole.stream(), whole.dtype()};
}

}  // namespace

ModelStage::ModelStage(Ranks& stages, Weights& whole, Whole stays)
    : ModelShare(stages, whole, MakeStage(stages, whole), stays),
      ranges_(policy_model::StagesOf(whole.shape(), stages.size(), kWhere)),
      first_(policy_model::FirstStages(whole.table(), ranges_)),
      entries_(policy_model::StageEntries(whole.table(), weights().table(), layers(), rank() == 0,
                                          rank() + 1 == size())),
      pipeline_(stages, whole.stream(), whole.dtype(), whole.shape().hidden, whole.shape().vocab) {
  const bool tied = whole.table().lm_head() == whole.table().embedding();
  if (tied && (rank() == 0 || pipeline_.last())) {
    const std::array<int, 2> both = {0, size() - 1};
    ends_ = stages.Among(both);
    MeetOnDevice(*ends_, whole.stream());
  }
  // What stands for nothing stays what it is, which is 0 in a new buffer.
  Take();
}

const TensorEntry* ModelStage::Own(size_t i) const {
  const int64_t at = entries_[i];
  return at < 0 ? nullptr : &share().table().entries()[static_cast<size_t>(at)];
}

std::vector<std::byte> ModelStage::Cut(size_t i, size_t /*element*/,
                                       std::span<const std::byte> whole) const {
  if (!Own(i)) return {};
  return {whole.begin(), whole.end()};
}

void ModelStage::Join(size_t i, size_t /*element*/, std::span<const std::byte> own,
                      std::span<std::byte> whole) const {
  const auto owner = static_cast<size_t>(first_[i]);
  if (static_cast<int>(owner) == rank()) {
    PLUMB_CHECK(own.size() == whole.size(), "a stage has whole tensors");
    std::memcpy(whole.data(), own.data(), own.size());
  }
  std::vector<Slice> places(static_cast<size_t>(size()));
  places[owner] = {.begin = 0, .end = static_cast<int64_t>(whole.size())};
  for (size_t behind = owner + 1; behind < places.size(); ++behind)
    places[behind] = {.begin = places[owner].end, .end = places[owner].end};
  ranks().AllGather(whole, places);
}

bool ModelStage::CountsElsewhere(const TensorEntry& own) const {
  return ends_ && rank() > 0 && own.name == "embedding";
}

Ranks* ModelStage::SummandsOf(const TensorEntry& own) const {
  return ends_ && own.name == "embedding" ? ends_.get() : nullptr;
}

void ModelStage::CheckUncut(const std::string& what) const {
  if (!ends_) return;
  const TensorEntry* entry = nullptr;
  for (const TensorEntry& each : share().table().entries()) {
    if (each.name == "embedding") entry = &each;
  }
  std::vector<std::byte> bytes(static_cast<size_t>(entry->elements) * ElementSize(share().dtype()));
  share().flat().CopyToHost(bytes, entry->offset);
  Sha256 hash;
  hash.Update(bytes);
  ends_->CheckSame(what + " of the embedding", hash.HexDigest());
}

void ModelStage::AddTimes(std::map<std::string, double>& metrics) {
  metrics["time/pipeline_wait"] = ranks().Sum(pipeline_.TakeWaited()) / size();
}

std::unique_ptr<ModelShare> MakeShareOf(Weights& whole, Ranks* tensor, Ranks* stages,
                                        ModelShare::Whole stays) {
  if (stages) return std::make_unique<ModelStage>(*stages, whole, stays);
  if (tensor) return std::make_unique<ModelShare>(*tensor, whole, stays);
  return nullptr;
}

Pipeline* PipelineOf(ModelShare* share) {
  auto* const stage = dynamic_cast<ModelStage*>(share);
  return stage ? &stage->pipeline() : nullptr;
}

}  // namespace plumb::learner

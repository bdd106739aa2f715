// This rank's stage of a model whose layers several ranks have a range of each (pipeline
// parallelism).
//
// Purpose: a share (shares/model_share.h) whose tensors are whole or elsewhere: what trains has the
// stage for a model of its own, what loads, saves, compares and hands out has the whole. An
// embedding that is the head, too, is on the first stage and on the last: both have a summand of
// its gradient, make the same update, and compare what came out. Thread safety: one thread.
// Ownership: owns stage and pipeline, borrows the ranks and the whole. Errors: those of StageShape
// (policy_model/families/stages/stage_shape.h); kUnsupported for adapters; RankLost. Host memory:
// tensor by tensor.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "learner/ranks/ranks.h"
#include "learner/update/shares/model_share.h"
#include "learner/update/stages/pipeline.h"
#include "policy_model/families/stages/stage_shape.h"

namespace plumb::learner {

class ModelStage : public ModelShare {
 public:
  // All ranks of the pipeline make it at once; a rank's stage is its number among them. The stage
  // has the numbers of `whole` from the start.
  ModelStage(Ranks& stages, policy_model::Weights& whole, Whole stays = Whole::kComesAndGoes);

  Pipeline& pipeline() { return pipeline_; }
  const policy_model::LayerRange& layers() const { return ranges_[static_cast<size_t>(rank())]; }

  policy_model::TensorGroup* group() override { return nullptr; }
  const char* factor() const override { return "pp"; }
  void CheckUncut(const std::string& what) const override;
  std::vector<std::byte> Cut(size_t i, size_t element,
                             std::span<const std::byte> whole) const override;
  void Join(size_t i, size_t element, std::span<const std::byte> own,
            std::span<std::byte> whole) const override;
  const policy_model::TensorEntry* Own(size_t i) const override;
  bool CountsElsewhere(const policy_model::TensorEntry& own) const override;
  Ranks* SummandsOf(const policy_model::TensorEntry& own) const override;
  // time/pipeline_wait: seconds that a stage waited in hand-overs, the mean of all.
  void AddTimes(std::map<std::string, double>& metrics) override;

 private:
  const std::vector<policy_model::LayerRange> ranges_;
  const std::vector<int> first_;        // of the whole's tensors, the first stage that has it
  const std::vector<int64_t> entries_;  // which of the stage's it is; -1: it is elsewhere
  std::unique_ptr<Ranks> ends_;         // first and last stage, where they share a tensor
  Pipeline pipeline_;
};

// The share of `whole` that this rank trains; nullptr: it is whole. `tensor`, `stages`: of the
// grid, at most one of them is there.
std::unique_ptr<ModelShare> MakeShareOf(policy_model::Weights& whole, Ranks* tensor, Ranks* stages,
                                        ModelShare::Whole stays);
// nullptr: the share is no stage, or there is none.
Pipeline* PipelineOf(ModelShare* share);

}  // namespace plumb::learner

// What an optimizer does where experts are apart from the rest of a model: other ranks add up their
// gradients, or they are added up and applied at every so manyth update only.
//
// Between two such updates the gradients of experts gather where they are, on every rank its own;
// the update has their mean. A skipped update forgets them. What is there when a checkpoint is
// written goes to the owners of its elements, as residuals do, and with these into the file.
#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "kernels/device/device_memory.h"
#include "kernels/update/adamw.h"
#include "learner/update/optimizer.h"
#include "learner/update/part_keeper.h"
#include "learner/update/rank_memory.h"
#include "learner/update/shares/model_share.h"
#include "policy_model/families/experts/expert_share.h"

namespace plumb::learner {

using policy_model::TensorEntry;

namespace {

std::span<float> Floats(policy_model::FlatBuffer& of, const Slice& slice) {
  return {of.f32() + slice.begin, static_cast<size_t>(slice.size())};
}

}  // namespace

// Buckets end where a pass's do, and where experts begin or end.
void Optimizer::DivideExperts(SetState& state) {
  std::vector<int64_t> ends;
  state.of_experts.clear();
  const std::vector<int64_t> of_pass = BucketEnds(*state.set);
  const auto& entries = state.set->table->entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    const bool last = i + 1 == entries.size(), experts = policy_model::IsOfExperts(entries[i]);
    const int64_t end = last ? state.set->flat.elements() : entries[i + 1].offset;
    const bool ends_here = last || experts != policy_model::IsOfExperts(entries[i + 1]) ||
                           std::find(of_pass.begin(), of_pass.end(), end) != of_pass.end();
    if (!ends_here) continue;
    ends.push_back(state.PlacesBefore(end));
    state.of_experts.push_back(experts);
  }
  std::vector<int> sizes, own;
  for (size_t bucket = 0; bucket < ends.size(); ++bucket) {
    Ranks* const ranks = RanksOf(state, bucket);
    sizes.push_back(ranks && sharded() ? ranks->size() : 1);
    own.push_back(ranks && sharded() ? ranks->rank() : 0);
  }
  state.partition = Partition(std::move(ends), std::move(sizes), kernels::kDecayBlock);
  state.kept = state.partition.KeptBy(own);
}

void Optimizer::AddUpApart(SetState& state) {
  for (size_t bucket = 0; bucket < state.partition.buckets(); ++bucket) {
    if (!Due(state, bucket)) continue;
    const Slice all = state.partition.Bucket(bucket);
    const std::span<float> values = Floats(state.grad, all);
    if (Ranks* const ranks = RanksOf(state, bucket)) {
      if (sharded())
        ReduceScatter(*ranks, state.grad.stream(), values, state.partition.unit(), Wire::kFloat32,
                      {});
      else AllReduce(*ranks, state.grad.stream(), values, Wire::kFloat32, {});
    }
    if (!state.of_experts[bucket] || sharing_.experts.sync_every == 1) continue;
    const auto share = static_cast<float>(1.0 / static_cast<double>(sharing_.experts.sync_every));
    for (float& value : Floats(state.grad, state.OwnGradient(state.kept[bucket]))) value *= share;
  }
}

void Optimizer::ZeroExperts(SetState& state, bool experts) {
  for (size_t bucket = 0; bucket < state.of_experts.size(); ++bucket) {
    if ((state.of_experts[bucket] != 0) != experts) continue;
    const std::span<float> values = Floats(state.grad, state.partition.Bucket(bucket));
    kernels::Zero(state.grad.stream(), values.data(), values.size_bytes());
  }
}

double Optimizer::OverRanks(double of_rest, double of_experts) {
  if (sharded()) return sharing_.ranks->Sum(of_rest + of_experts);
  return of_rest + (sharing_.share ? sharing_.share->ranks().Sum(of_experts) : of_experts);
}

// Of the gradients that wait, on all ranks: not finite where one of them is not.
double Optimizer::WaitingSquares() {
  double squares = 0;
  for (SetState& state : sets_) {
    for (size_t bucket = 0; bucket < state.of_experts.size(); ++bucket) {
      const Slice all = state.partition.Bucket(bucket);
      if (!state.of_experts[bucket] || all.size() == 0) continue;
      squares += Squares(state, state.grad.at(all.begin), all.size());
    }
  }
  return sharing_.ranks ? sharing_.ranks->Sum(squares) : squares;
}

// Before a checkpoint: the owner of an element has what all ranks wait with.
void Optimizer::FoldWaiting() {
  if (!experts_wait()) return;
  for (SetState& state : sets_) {
    for (size_t bucket = 0; bucket < state.of_experts.size(); ++bucket) {
      Ranks* const ranks = RanksOf(state, bucket);
      if (!state.of_experts[bucket] || !ranks) continue;
      const Slice all = state.partition.Bucket(bucket);
      const std::span<float> values = Floats(state.grad, all);
      ranks->ReduceScatter(values, state.partition.unit());
      const Slice own = SliceOf(all.size(), ranks->rank(), ranks->size(), state.partition.unit());
      std::fill(values.begin(), values.begin() + own.begin, 0.0f);
      std::fill(values.begin() + own.end, values.end(), 0.0f);
    }
  }
}

bool Optimizer::Waits(const TensorEntry& entry) const {
  return experts_wait() && policy_model::IsOfExperts(entry);
}

void Optimizer::AdoptWaiting() {
  if (sharing_.experts.sync_every <= 1) return;
  for (SetState& state : sets_) {
    if (state.residual.elements() == 0) continue;
    for (size_t bucket = 0; bucket < state.of_experts.size(); ++bucket) {
      if (!state.of_experts[bucket]) continue;
      const Slice all = state.partition.Bucket(bucket);
      const std::span<float> from = Floats(state.residual, all), to = Floats(state.grad, all);
      std::copy(from.begin(), from.end(), to.begin());
    }
    state.residual = {};
  }
}

}  // namespace plumb::learner

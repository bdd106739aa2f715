// What a layer with experts does where ranks share these out: rows of all ranks at the experts here
// (expert_visits.h).
#include <cstring>

#include "common/base/error.h"
#include "policy_model/layers/experts_stage.h"
#include "policy_model/layers/ops.h"

namespace plumb::policy_model {

// How many rows come is known once all ranks have routed theirs, so that memory for them is taken
// then; before, in the plan of a run's memory, as many as go.
void ExpertsStage::PlanVisits(const PackedPass& pass, int64_t n) const {
  if (!VisitsOf(pass)->planned()) return;
  const int64_t rows = pass.Bytes(slots(n) * hidden_),
                widths = pass.Bytes(slots(n) * spec_.widest());
  if (pass.keep) pass.saved.Reserve(rows);
  pass.saved.Reserve(2 * widths);
  // Rows as they travel, and as they lie by expert; the gated unit's, forward and backward.
  pass.scratch.Reserve(2 * rows);
  pass.scratch.Reserve((pass.keep ? 2 : 1) * widths);
}

void ExpertsStage::VisitForward(const PackedPass& pass, const int32_t* begin, void* rows) {
  ExpertVisits& visits = *VisitsOf(pass);
  visits_.Count(visits, begin);
  const int64_t n = visits_.rows(), row = pass.Bytes(hidden_);
  Arena& scratch = visits.scratch();
  Arena& kept = pass.keep ? visits_.kept(visits, pass.launch.stream) : scratch;
  scratch.Begin();
  const int64_t y = scratch.Reserve(n * row), act = scratch.Reserve(pass.Bytes(n * spec_.widest()));
  if (pass.keep) kept.Begin();
  visits_.x = pass.keep ? kept.Reserve(n * row) : y;
  visits_.gate_up = kept.Reserve(pass.Bytes(n * 2 * spec_.widest()));
  scratch.Commit();
  if (pass.keep) kept.Commit();
  visits_.Bring(visits, rows, row, kept.At(visits_.x));
  Through(ops::Linear, pass, visits_.begin(), scratch, kept.At(visits_.x), kept.At(visits_.gate_up),
          scratch.At(act), scratch.At(y));
  visits_.TakeBack(visits, scratch.At(y), row, rows);
}

void ExpertsStage::VisitBackward(const PackedPass& pass, const float* weight, void* rows,
                                 float* dweight) {
  ExpertVisits& visits = *VisitsOf(pass);
  const int64_t n = visits_.rows(), row = pass.Bytes(hidden_), number = sizeof(float);
  Arena& scratch = visits.scratch();
  Arena& kept = visits_.kept(visits, pass.launch.stream);
  scratch.Begin();
  const int64_t d = scratch.Reserve(n * row), weights = scratch.Reserve(n * number),
                dweights = scratch.Reserve(n * number),
                act = scratch.Reserve(pass.Bytes(n * spec_.widest())),
                dact = scratch.Reserve(pass.Bytes(n * spec_.widest()));
  scratch.Commit();
  visits_.Bring(visits, rows, row, scratch.At(d));
  visits_.Bring(visits, weight, number, scratch.At(weights));
  BackThrough(pass, {.begin = visits_.begin(),
                     .x = kept.At(visits_.x),
                     .d = scratch.At(d),
                     .weight = scratch.Floats(weights),
                     .dweight = scratch.Floats(dweights),
                     .gate_up = kept.At(visits_.gate_up),
                     .act = scratch.At(act),
                     .dact = scratch.At(dact)});
  visits_.TakeBack(visits, scratch.At(d), row, rows);
  visits_.TakeBack(visits, scratch.At(dweights), number, dweight);
}

void ExpertsStage::PassBy(const PackedPass& pass, PassParts::Way way) {
  if (!VisitsOf(pass)) return;
  if (way == PassParts::Way::kForward) VisitForward(pass, nullptr, nullptr);
  else VisitBackward(pass, nullptr, nullptr, nullptr);
}

}  // namespace plumb::policy_model

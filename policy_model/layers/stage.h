// What a layer is made of: stages between two norms, each with a forward, a backward and a paged
// step.
//
// Purpose: a kind of attention or feed-forward is written once, the three ways of use side by side
// in one file. The transformer walks branches (branch.h); only stages know what lies between.
// Protocol: Plan* takes regions of the arenas and keeps their offsets; the arenas are committed;
// then the call itself runs. A stage reads all of `in` before it writes to `out` or `din`, so these
// may be one buffer where it accumulates.
// Thread safety: a stage belongs to one transformer, which belongs to one thread at a time.
// Ownership: nothing of a pass is kept but offsets of the last plan. Errors: a stage that cannot be
// used in a way says so with kUnsupported when it is planned.
// Shapes: T tokens of a pass, H hidden.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/delta/sequence_states.h"
#include "kernels/paged_kv.h"
#include "policy_model/layers/attention.h"
#include "policy_model/layers/rotary_table.h"
#include "policy_model/layers/routing.h"
#include "policy_model/memory/arena.h"
#include "policy_model/memory/pass_parts.h"
#include "policy_model/memory/tensor_group.h"
#include "policy_model/memory/weights.h"

namespace plumb::policy_model {

// The adapters' weights in a pass, where the policy has tasks.
struct TaskGate {
  size_t adapter = 0;             // which of Weights::adapters() has them
  const int32_t* task = nullptr;  // [rows of the pass]
  const float* weight = nullptr;  // [tasks, adapters]
  double* dweight = nullptr;      // [tasks, adapters]; backward: added to
};

// What all stages of a pass see.
struct Pass {
  kernels::Launch launch;
  const Weights& weights;
  std::span<const RotaryTable> rotary;
  // What adapters drop by in the passes that a set is trained with; nothing is dropped without it.
  std::optional<uint64_t> dropout = std::nullopt;
  Routing* routing = nullptr;       // of a transformer that has experts
  const TaskGate* tasks = nullptr;  // of a policy that has them
  // Of a base of which ranks keep a part each; nullptr: it lies in its flat buffer.
  const PassParts* parts = nullptr;
  // The ranks that compute this model together, of which the weights are one's share; nullptr: they
  // are whole. What a stage gives is this rank's summand then, and so is the gradient of what goes
  // into it: the branch adds them up.
  TensorGroup* group = nullptr;

  // A bias on what is added up over the group: one of its ranks adds it.
  bool AddsBias() const { return group == nullptr || group->rank() == 0; }
  int64_t hidden() const { return weights.shape().hidden; }
  // Bytes of `elements` of the weights' type.
  int64_t Bytes(int64_t elements) const {
    return elements * static_cast<int64_t>(ElementSize(launch.dtype));
  }
  const void* W(int64_t offset) const {
    return parts ? parts->Weight(offset) : weights.flat().at(offset);
  }
};

// Training and scoring: T packed tokens.
struct PackedPass : Pass {
  AttentionShape attention;            // scale and window are each stage's own
  const int32_t* positions = nullptr;  // [T], device
  bool keep = false;                   // a backward follows
  Arena& saved;                        // from the forward to the backward
  Arena& scratch;                      // of one call
  Gradients grad = {};                 // backward
  float* norm_scratch = nullptr;       // backward: [kRmsNormScratchRows, H]
  // A forward that the backward runs once more for what it saves: the same numbers come of it, and
  // a stage that counts what it sees does not count it again.
  bool again = false;
  bool output = true;  // false: only what is saved is wanted; `out` may stay as it is
  bool fp8 = false;    // products of layers read FP8 (fp8/fp8_linear.h); REQUIRES: no adapters
  bool fp16 = false;   // or float16 (fp16/fp16_linear.h)

  int64_t tokens() const { return attention.tokens; }
  // Where the gradient of the base's parameter at `offset` is added; nullptr where it is not
  // trained.
  float* G(int64_t offset) const { return parts ? parts->Gradient(offset) : grad.OfBase(offset); }
  // Ask before G: whether all of a tensor's gradient is to be written instead of added.
  bool TakeEmpty(int64_t offset, int64_t elements) const {
    return parts && parts->TakeEmpty(offset, elements);
  }
  // Ask before both: where all of it is to be written as bfloat16; nullptr: not there.
  BFloat16* TakeNarrow(int64_t offset, int64_t elements) const {
    return parts ? parts->TakeNarrow(offset, elements) : nullptr;
  }
};

// Generation: rows of a paged step. Where the pages of layers that give them back lie apart, they
// are those of `sliding`, and each kind of layers is counted by itself.
struct PagedPass : Pass {
  const kernels::PagedRows& rows;
  const kernels::PagedKv& kv;
  Arena& scratch;
  const kernels::SlidingPages* sliding = nullptr;
  const kernels::SequenceStates* states = nullptr;  // where layers have them
};

class Stage {
 public:
  virtual ~Stage() = default;

  // out[T, H] = f(in[T, H]), added when `accumulate`.
  virtual void PlanForward(const PackedPass& pass) = 0;
  virtual void Forward(const PackedPass& pass, const void* in, bool accumulate, void* out) = 0;

  // After Forward with pass.keep and the same `in`: din = the gradient of `in` (added when
  // `accumulate`), parameters' into pass.grad. Saved memory may be overwritten: one Backward a
  // Forward.
  virtual void PlanBackward(const PackedPass& pass) = 0;
  virtual void Backward(const PackedPass& pass, const void* dout, const void* in, bool accumulate,
                        void* din) = 0;

  // Of a rank that has no tokens while others of its group do: does its part of their pass in the
  // place of Forward or Backward. `pass` has no tokens.
  virtual void PassBy(const PackedPass& /*pass*/, PassParts::Way /*way*/) {}

  // The same for rows whose past lies in pages. No host work that depends on data.
  virtual void PlanStep(const PagedPass& pass) = 0;
  virtual void Step(const PagedPass& pass, const void* in, bool accumulate, void* out) = 0;
};

}  // namespace plumb::policy_model

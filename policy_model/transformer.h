// The decoder: one set of layer stages, two ways to see the past.
//
// Purpose: packed forward and backward for the learner, paged forward for the actor, over the same
// kernels and products, so that the log-prob recorded at sampling and the one recomputed agree.
// Stages have explicit Forward and Backward on views of one planned arena; gradients land in the
// flat fp32 gradient buffer.
// Thread safety: a Transformer owns scratch memory and belongs to one thread at a time; Weights are
// shared read-only. On a GPU all of it runs on the stream given; weights of another stream have to
// be ready before the call.
// Ownership: Weights are passed in with every call, never kept.
// Log-probs, entropies and logits are over the tokens that there are: rows of
// ModelShape::unused_tokens count as -infinity. Those of a target with a set of kept tokens
// (PackedBatch::kept) are over that set, and so is their gradient.
// Errors: kInvalidArgument for token ids outside the vocabulary, targets that are no token, or
// positions beyond max_positions.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "configs/choices.h"
#include "kernels/delta/sequence_states.h"
#include "kernels/paged_kv.h"
#include "policy_model/layers/routing.h"
#include "policy_model/memory/expert_group.h"
#include "policy_model/memory/pass_parts.h"
#include "policy_model/memory/tensor_group.h"
#include "policy_model/memory/weights.h"
#include "policy_model/packing.h"
#include "policy_model/pass_guest.h"

namespace plumb::policy_model {

// Threads of every product and kernel in this process; 0: one a core. Bit-identity holds at equal
// thread count.
void SetThreads(int threads);
int Threads();

struct ScoreOptions {
  float temperature = 1.0f;
  bool entropy = true;
  // Of a pass that adapters are trained with (AdapterSpec::dropout): what they drop by. A Backward
  // drops by that of its Forward.
  std::optional<uint64_t> dropout = std::nullopt;
  // Looks on at the pass and at its Backward, and adds to them; borrowed until the next pass.
  PassGuest* guest = nullptr;
};

class Transformer {
 public:
  // Plans nothing yet: arenas grow on first use and are kept; no allocation of ours after warm-up
  // at a given size.
  Transformer(const ModelShape& shape, const Stream& stream, DType dtype);
  ~Transformer();

  // Whether forwards to come keep of a layer only what goes into it, and their backwards compute
  // the rest of it again: the same numbers from less memory (pass_bytes.h), for a third more work.
  void RecomputeLayers(bool on);
  // What products of layers in packed passes to come read (pass_products.h); throws where this
  // model or device has no such. REQUIRES: kFp8: weights without adapters.
  void UseProducts(configs::Products products);
  // Of a model with experts (layers/routing.h): what passes do that a backward follows.
  void SetRouting(const RoutingOptions& options);
  // Numbers the next such pass; each raises the number by one.
  void SetRoutingPass(uint64_t pass);
  // The share of an update's tokens that lies in the passes to come, by which the losses of routers
  // count.
  void SetRoutingShare(double share);
  // [tokens, layers with experts, K] what the tokens of the last pass went to, until the next. On a
  // GPU of steps of generation only, once their stream has been waited for.
  std::span<const int32_t> experts() const;
  // The load since the last call, a layer with experts each; empty: the model has none.
  std::vector<LayerLoad> TakeLoad();

  // Packed forward. logprob and entropy: [R] host memory (entropy empty when options.entropy is
  // false): log-prob of targets[r] after the tokens up to rows[r], and the entropy of that
  // distribution. With `keep`, what Backward needs is kept until the next Forward. [tokens, V]
  // logits are never materialised: the head runs in chunks of rows, or on the CPU in one kernel
  // that leaves no logits at all (kernels/head).
  void Forward(const Weights& weights, const PackedBatch& batch, const ScoreOptions& options,
               bool keep, std::span<float> logprob, std::span<float> entropy);

  // Values of a scalar head that shares this model's trunk (Weights of ValueHeadFor), for the rows
  // of the last Forward.
  void HeadValues(const Weights& head, std::span<float> values);

  // What a shared scalar head adds to a Backward: the gradient of sum_r g_values[r] * values[r]
  // goes on into the trunk, and the head's own is added to `grad` (float, laid out as `head`).
  struct SharedHead {
    const Weights* head = nullptr;
    std::span<const float> g_values;  // [R]
    FlatBuffer* grad = nullptr;
  };

  // Backward of the last Forward(keep = true) on the same batch and unchanged weights: adds to
  // `grad`, for the sets that it has, the gradient of sum_r g_logprob[r] * logprob[r] +
  // g_entropy[r] * entropy[r]. g_entropy may be empty.
  void Backward(const Weights& weights, const PackedBatch& batch, std::span<const float> g_logprob,
                std::span<const float> g_entropy, const Gradients& grad,
                const SharedHead* shared = nullptr);

  // The same pair for a model with a scalar head (ModelShape::scalar_head): values[r] is the head's
  // number at rows[r], host memory [R]; `targets` of the batch are not looked at. Backward adds the
  // gradient of sum_r g_values[r] * values[r].
  void ForwardValues(const Weights& weights, const PackedBatch& batch, bool keep,
                     std::span<float> values);
  void BackwardValues(const Weights& weights, const PackedBatch& batch,
                      std::span<const float> g_values, const Gradients& grad);

  // Full logits of `rows` of a packed batch: out float[R, V] host memory. For tests, `generate`
  // checks and tools.
  void Logits(const Weights& weights, const PackedBatch& batch, std::span<float> out);

  // Where ForwardPaged works, for who keeps a step as a graph: another address than before once a
  // step needed more memory.
  const void* step_memory() const;

  // Paged forward of rows.rows tokens: writes their keys and values, returns logits of the rows
  // listed in `logit_rows` (ascending indices into the rows) in device memory
  // float[logit_rows.size(), V], valid until the next call. `sliding`: the pages of the layers that
  // give them back, where they lie apart; kv holds those of the others then. `states`: of a model
  // with layers that have them, ModelPlan::state() floats for each row of the page table. `tasks`:
  // of each row, where the policy has tasks (common/record/task_tokens.h). `host_tokens`: `tokens`
  // once more in the host's memory, where ranks share the model; their steps wait for one another
  // and are not captured, and V is that of the whole model. Everything else it reads lies
  // in the device's memory, `tokens` and `logit_rows` too. It neither waits nor takes memory once
  // it has run at these sizes, so that a step can be captured in a graph after a first one by the
  // same thread. A row's logits do not depend on the other rows (fp32, CPU: bit for bit).
  const float* ForwardPaged(const Weights& weights, std::span<const int32_t> tokens,
                            const kernels::PagedRows& rows, const kernels::PagedKv& kv,
                            std::span<const int32_t> logit_rows,
                            const kernels::SlidingPages* sliding = nullptr,
                            const kernels::SequenceStates* states = nullptr,
                            std::span<const int32_t> tasks = {},
                            std::span<const int32_t> host_tokens = {});

  // From now on packed passes of weights with this base find its parts there; nullptr: in its flat
  // buffer again. Both are borrowed.
  void SetParts(const ParameterSet* base, PassParts* parts);
  // From now on weights are this rank's share of a model (families/tensor_share.h), of whose shape
  // the transformer was made, and passes are those of all ranks of the group at once; nullptr: they
  // are whole. `vocab`: rows of the whole model's vocabulary. Borrowed. Token ids, log-probs and
  // entropies are those of the whole model, and so are logits of paged passes; `Logits` is not
  // there.
  void SetGroup(TensorGroup* group, int64_t vocab);
  // From now on weights are a share of a model whose experts are shared out over ranks
  // (families/experts/expert_share.h), of whose shape the transformer was made; passes are those of
  // all ranks of the group at once, each of its own batch. nullptr: all experts are here. Borrowed.
  // Paged passes are not there.
  void SetExpertGroup(ExpertGroup* group);
  // What a pass of these weights does about parts and about other ranks' rows, without a batch: of
  // a rank that has nothing to compute while the others do. `keep`: as of Forward; `grad`: as of
  // Backward.
  void PassBy(const Weights& weights, PassParts::Way way, bool keep = false,
              const Gradients& grad = {});

  // Bytes of arenas held now.
  int64_t arena_bytes() const;
  const ModelShape& shape() const;
  DType dtype() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plumb::policy_model

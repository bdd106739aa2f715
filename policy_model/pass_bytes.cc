#include "policy_model/pass_bytes.h"

#include <algorithm>
#include <vector>

#include "policy_model/layers/expert_visits.h"
#include "policy_model/pass_memory.h"
#include "policy_model/pass_products.h"

namespace plumb::policy_model {
namespace {

// Of which nothing is asked: layers lay out more where there is a group.
class PlannedGroup : public TensorGroup {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void Sum(const Stream&, DType, void*, int64_t) override {}
  void Gather(std::span<const float>, std::span<float>) override {}
};

PassBytes BytesOf(const Weights& weights, const PassSize& size, bool backward, bool recompute,
                  bool guest, bool of_group = false,
                  configs::Products products = configs::Products::kDType) {
  const ModelShape& shape = weights.shape();
  std::vector<Branch> branches = BranchesOf(weights.table());
  Arena saved = Arena::WithoutMemory(weights.stream()),
        scratch = Arena::WithoutMemory(weights.stream());
  const AttentionShape attention{
      {.tokens = size.tokens,
       .sequences = static_cast<int32_t>(size.tokens / std::max<int64_t>(1, size.longest) + 1),
       .max_seqlen = static_cast<int32_t>(size.longest),
       .heads = static_cast<int32_t>(shape.heads),
       .kv_heads = static_cast<int32_t>(shape.kv_heads),
       .head_dim = static_cast<int32_t>(shape.head_dim)}};
  PlannedGroup group;
  PackedPass pass{{{.stream = weights.stream(), .dtype = weights.dtype()}, weights, {}},
                  attention,
                  nullptr,
                  backward,
                  saved,
                  scratch};
  if (of_group) pass.group = &group;
  SetProducts(products, pass);
  Routing routing;
  ExpertVisits visits(nullptr, weights.stream());
  if (shape.experts.here > 0) {
    routing.visits = &visits;
    pass.routing = &routing;
  }
  PassMemory memory;
  memory.PlanForward(branches, pass, size.rows, recompute);
  saved.Commit();
  scratch.Commit();
  const int64_t chunk =
      shape.scalar_head ? 0 : PassMemory::HeadRows(pass.launch, shape, size.rows, guest);
  scratch.Begin();
  scratch.Reserve(chunk > 0 ? PassMemory::HeadBytes(pass.launch, shape, chunk, guest) : 0);
  scratch.Commit();
  if (backward) {
    memory.PlanBackward(branches, pass, size.rows, chunk, guest);
    scratch.Commit();
  }
  return {.saved = saved.bytes(), .scratch = scratch.bytes()};
}

}  // namespace

int64_t BytesOfStep(const Weights& weights, int64_t rows, int64_t logit_rows) {
  std::vector<Branch> branches = BranchesOf(weights.table());
  Arena arena = Arena::WithoutMemory(weights.stream());
  kernels::PagedRows shape;
  shape.rows = static_cast<int32_t>(rows);
  shape.single = static_cast<int32_t>(logit_rows);
  // Pages of one token, so that a slot has room for the longest sequence.
  const ModelShape& model = weights.shape();
  shape.page_table_stride = static_cast<int32_t>(model.max_positions);
  kernels::PagedKv kv;
  kv.dtype = weights.dtype();
  kv.page_tokens = 1;
  kv.kv_heads = static_cast<int32_t>(model.kv_heads);
  kv.head_dim = static_cast<int32_t>(model.head_dim);
  const PagedPass pass{
      {{.stream = weights.stream(), .dtype = weights.dtype()}, weights, {}}, shape, kv, arena};
  StepMemory memory;
  memory.Plan(branches, pass, logit_rows, weights.shape().vocab);
  arena.Commit();
  return arena.bytes();
}

PassBytes BytesOfTraining(const Weights& weights, const PassSize& size, bool recompute, bool guest,
                          bool of_group, configs::Products products) {
  return BytesOf(weights, size, true, recompute, guest, of_group, products);
}

PassBytes BytesOfScoring(const Weights& weights, const PassSize& size, bool guest) {
  return BytesOf(weights, size, false, false, guest);
}

int64_t BytesOfPositions(const Weights& weights) {
  int64_t floats = 0;
  for (const RotarySpec& spec : weights.table().plan().rotary) {
    floats += weights.shape().max_positions *
              (2 * static_cast<int64_t>(spec.frequencies.size()) + (spec.query_beta == 0 ? 0 : 1));
  }
  return 4 * floats;
}

}  // namespace plumb::policy_model

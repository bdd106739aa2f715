// How a budget of memory is divided into pools of KV pages: one for all layers of a model, or,
// where some layers slide and others do not, one for each kind.
//
// A sequence of n tokens holds ceil(n / page_tokens) pages of the layers that see everything, and
// of sliding ones no more than a ring for its window, however long it is. So the pools are of sizes
// at which as many of the longest sequences as the budget allows find room in both: neither runs
// dry before the other. Where the budget buys more than could ever be in use, less is taken.
// Layers that keep a state in the place of keys and values (ModelPlan::state) take their part of
// the budget first: so many answers, and as many prompts in work, are computed at once as find room
// with all that they hold, or one of each where the budget is smaller than that.
// Thread safety: pure functions. Errors: kInvalidArgument where the budget does not hold one page
// of each pool, or the states of one answer and one prompt besides.
#pragma once

#include <array>
#include <cstdint>

#include "actor/group.h"
#include "actor/pages/page_table.h"
#include "common/base/dtype.h"
#include "kernels/paged_kv.h"
#include "policy_model/families/model_shape.h"

namespace plumb::actor {

struct PagePool {
  int64_t layers = 0;  // 0: there is no such pool
  int32_t window = 0;  // positions that any of its layers sees; 0: all
  int32_t pages = 0;
};

struct PageDemand {
  PageTableSize size;   // window: each pool's own
  int32_t longest = 0;  // tokens of the longest sequence that will be asked; 0: max_positions
  int32_t page_tokens = 1;
  int64_t budget_mb = 0;  // MiB
  kernels::KvFormat format = kernels::KvFormat::kModel;
  bool keep_all = false;  // also what lies behind every window: one pool
  bool one_pool = false;  // pages are given back only where every layer slides
};

// Answers at a time, and prompts in work, for whose states the budget has room; size.max_batch
// where the model has none. StateBytes: of one of them.
int32_t SequencesAtOnce(const policy_model::ModelShape& shape, DType dtype,
                        const PageDemand& demand);
int64_t StateBytes(const policy_model::ModelShape& shape);

std::array<PagePool, kPageKinds> DividePages(const policy_model::ModelShape& shape, DType dtype,
                                             const PageDemand& demand);

}  // namespace plumb::actor

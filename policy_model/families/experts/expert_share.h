// A rank's share of a model whose experts are shared out over ranks (expert parallelism): the shape
// of what it holds, and where its numbers lie in the whole.
//
// Of every layer with experts rank r of W has experts [r E / W, (r + 1) E / W): their gate, up and
// down and the biases of these. Everything else, routers too, is whole on every rank.
// Thread safety: pure functions. Units: elements of a tensor, from its beginning. Errors:
// kInvalidArgument where the model has no experts or they cannot be shared out equally,
// kUnsupported for experts of different widths; all name `where` and say what to do.
#pragma once

#include <string>
#include <vector>

#include "policy_model/families/model_shape.h"
#include "policy_model/families/tensor_share.h"
#include "policy_model/families/tensor_table.h"

namespace plumb::policy_model {

ModelShape ExpertShareOf(const ModelShape& whole, int rank, int ranks, const std::string& where);

// Of experts, which ranks have a part of each.
bool IsOfExperts(const TensorEntry& entry);

// What of a tensor of the whole model's table the rank has: of experts one run, else all.
std::vector<ShareRun> ExpertRuns(const TensorEntry& entry, int rank, int ranks);

}  // namespace plumb::policy_model

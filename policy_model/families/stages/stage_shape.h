// A stage of a model under pipeline parallelism: which neighbouring layers it has, the shape of
// what it computes, and which tensors of the whole model its own are.
//
// A stage is a model of a range of the layers. The first one has the embedding, the last one final
// norm and head; where the two are one tensor, both have it. A stage's table is that of a model
// whose head is its embedding: in the last stage that tensor is the head, in one between it has a
// single row and stands for nothing, as does the final norm of every stage but the last. What
// stands for nothing is zero, is read by no pass and has no gradient.
// Thread safety: pure functions. Units: layers; elements of products. Errors: kInvalidArgument for
// more stages than layers, kUnsupported for a model whose layers are not those of a shorter model
// or that has parts which are computed whole; both name `where` and say what to do.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "policy_model/families/model_shape.h"
#include "policy_model/families/tensor_table.h"

namespace plumb::policy_model {

// Layers [begin, end).
struct LayerRange {
  int64_t begin = 0, end = 0;
  bool operator==(const LayerRange&) const = default;
};

// Of costs in order, `stages` neighbouring ranges, none of them empty: the dearest costs as little
// as it can, and among those the squares of their costs add up to the least. `last`: what the last
// range costs besides.
std::vector<LayerRange> BalancedRanges(std::span<const int64_t> costs, int64_t last, int stages);

// The layers of every stage, balanced by the products that a token goes through; of the last one,
// with those of the head.
std::vector<LayerRange> StagesOf(const ModelShape& whole, int stages, const std::string& where);
// The same products of each stage.
std::vector<int64_t> StageCosts(const ModelShape& whole, std::span<const LayerRange> stages);

ModelShape StageShape(const ModelShape& whole, int stage, int stages, const std::string& where);

// Of each tensor of the whole's table, the first stage that has it.
std::vector<int> FirstStages(const TensorTable& whole, std::span<const LayerRange> stages);
// Of each tensor of the whole's table, which one of the stage's it is; -1: it is not here.
std::vector<int64_t> StageEntries(const TensorTable& whole, const TensorTable& stage,
                                  const LayerRange& layers, bool first, bool last);

}  // namespace plumb::policy_model

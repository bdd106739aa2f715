// A rank's share of a model under tensor parallelism: the shape of what it computes, and where its
// numbers lie in the whole.
//
// A share is a model of the same layers with fewer heads, narrower feed-forward parts and a part of
// the vocabulary; its table has the tensors of the whole one by one, cut as RankShare says
// (tensor_table.h), but that the rows of the vocabulary need not divide. What is not cut (norms,
// biases on what is added up) is whole on every rank.
// Thread safety: pure functions. Units: elements of a tensor, from its beginning. Errors:
// kInvalidArgument where heads or widths cannot be cut into equal shares, kUnsupported for layers
// that are computed whole only; both name `where` and say what to do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "policy_model/families/model_shape.h"
#include "policy_model/families/tensor_table.h"

namespace plumb::policy_model {

// Of `whole`, for rank `rank` of `ranks`. Its unused_tokens are those among its rows, counted from
// the first of them.
ModelShape ShareOf(const ModelShape& whole, int rank, int ranks, const std::string& where);

// Rows [begin, end) of a vocabulary of so many: equal parts, but for the last ones.
struct VocabularyRows {
  int64_t begin = 0, end = 0;
};
VocabularyRows RowsOfVocabulary(int64_t vocab, int rank, int ranks);

// Elements [whole, whole + size) of a tensor are [share, share + size) of the rank's.
struct ShareRun {
  int64_t whole = 0, share = 0, size = 0;
};
// Ascending in both. `entry`: of the whole model's table.
std::vector<ShareRun> ShareRuns(const TensorEntry& entry, int rank, int ranks);

// Whether ranks have a part each; else all have all of it.
bool IsCut(const TensorEntry& entry);
// It is whole on every rank, and each rank's gradient is a summand: norms of single heads.
bool GradientIsSummand(const TensorEntry& entry);

}  // namespace plumb::policy_model

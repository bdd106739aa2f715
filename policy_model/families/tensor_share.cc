#include "policy_model/families/tensor_share.h"

#include <algorithm>

#include "common/base/error.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

// What of a layer is computed by whole models only; nullptr: nothing.
const char* WholeOnly(const LayerSpec& spec) {
  if (spec.latent) return "latent attention";
  if (spec.delta.there() || spec.conv.there()) return "layers with states";
  if (spec.experts.there()) return "mixtures of experts";
  if (spec.qk_norm == QkNorm::kFullWidth) return "norms over the queries of all heads";
  if (!spec.norm_before) return "branches without a norm before them";
  if (spec.attention_gate) return "gated attention";
  if (spec.gate_top_k > 0) return "tokens that a gate chooses";
  return spec.table ? "memory tables" : nullptr;
}

}  // namespace

ModelShape ShareOf(const ModelShape& whole, int rank, int ranks, const std::string& where) {
  PLUMB_CHECK(rank >= 0 && rank < ranks);
  const std::string instead = where == "rollout.tp"
                                  ? "set it to 1, and run.actors to " + std::to_string(ranks)
                                  : "share the work as dp=" + std::to_string(ranks);
  for (const LayerSpec& spec : PlanOf(whole).layers) {
    if (const char* what = WholeOnly(spec)) {
      throw Error(ErrorCode::kUnsupported,
                  std::string("asks for tp=") + std::to_string(ranks) +
                      ", and a model of the family " + whole.family + " has " + what +
                      ", which are not cut in this version: " + instead,
                  where);
    }
  }
  const auto share = [&](const char* name, int64_t n) {
    if (n % ranks != 0) {
      throw Error(ErrorCode::kInvalidArgument,
                  std::string("asks for tp=") + std::to_string(ranks) + ", and the model has " +
                      std::to_string(n) + " " + name +
                      ", which cannot be shared out equally: take a tp that divides them",
                  where);
    }
    return n / ranks;
  };
  ModelShape out = whole;
  out.kv_heads = share("heads of keys and values", whole.kv_heads);
  out.heads = share("heads of queries", whole.heads);
  out.ffn = share("columns in a feed-forward part", whole.ffn);
  const VocabularyRows rows = RowsOfVocabulary(whole.vocab, rank, ranks);
  out.vocab = rows.end - rows.begin;
  // Where a text ends is asked of the whole model; its ids need not be among these rows.
  out.eos_tokens.clear();
  out.unused_tokens.clear();
  for (const int32_t id : whole.unused_tokens) {
    if (id >= rows.begin && id < rows.end)
      out.unused_tokens.push_back(static_cast<int32_t>(id - rows.begin));
  }
  if (static_cast<int64_t>(out.unused_tokens.size()) == out.vocab) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("asks for tp=") + std::to_string(ranks) + ", and rank " +
                    std::to_string(rank) +
                    "'s part of the vocabulary has no token: take a smaller tp",
                where);
  }
  return out;
}

VocabularyRows RowsOfVocabulary(int64_t vocab, int rank, int ranks) {
  const int64_t each = (vocab + ranks - 1) / ranks;
  return {.begin = std::min(vocab, rank * each), .end = std::min(vocab, (rank + 1) * each)};
}

std::vector<ShareRun> ShareRuns(const TensorEntry& entry, int rank, int ranks) {
  if (entry.name == "embedding" || entry.name == "lm_head") {
    const VocabularyRows rows = RowsOfVocabulary(entry.shape[0], rank, ranks);
    return {{.whole = rows.begin * entry.columns(),
             .share = 0,
             .size = (rows.end - rows.begin) * entry.columns()}};
  }
  std::vector<ShareRun> out;
  int64_t at = 0;
  for (const ElementRange& range : RankShare(entry, rank, ranks)) {
    const int64_t whole = range.begin - entry.offset, size = range.end - range.begin;
    if (!out.empty() && out.back().whole + out.back().size == whole) out.back().size += size;
    else out.push_back({.whole = whole, .share = at, .size = size});
    at += size;
  }
  return out;
}

bool IsCut(const TensorEntry& entry) {
  return std::any_of(entry.parts.begin(), entry.parts.end(),
                     [](const TensorPart& part) { return part.split != SplitAxis::kNone; });
}

bool GradientIsSummand(const TensorEntry& entry) {
  return entry.name.ends_with(".q_norm") || entry.name.ends_with(".k_norm");
}

}  // namespace plumb::policy_model

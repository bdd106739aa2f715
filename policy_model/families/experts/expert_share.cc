#include "policy_model/families/experts/expert_share.h"

#include "common/base/error.h"

namespace plumb::policy_model {

ModelShape ExpertShareOf(const ModelShape& whole, int rank, int ranks, const std::string& where) {
  PLUMB_CHECK(rank >= 0 && rank < ranks);
  const ExpertsShape& experts = whole.experts;
  const std::string asks = "asks for ep=" + std::to_string(ranks) + ", and ",
                    instead = "share the work as dp=" + std::to_string(ranks);
  if (experts.count == 0)
    throw Error(ErrorCode::kInvalidArgument, asks + "the model has no experts: " + instead, where);
  if (experts.count % ranks != 0) {
    throw Error(ErrorCode::kInvalidArgument,
                asks + "the model has " + std::to_string(experts.count) +
                    " experts a layer, which cannot be shared out equally: take an ep that divides "
                    "them",
                where);
  }
  for (int64_t e = 1; e < experts.count; ++e) {
    if (experts.width(e) == experts.width(0)) continue;
    throw Error(ErrorCode::kUnsupported,
                asks +
                    "the model's experts have different widths, which are not shared out in "
                    "this version: " +
                    instead,
                where);
  }
  ModelShape out = whole;
  out.experts.here = experts.count / ranks;
  out.experts.first_here = rank * out.experts.here;
  return out;
}

bool IsOfExperts(const TensorEntry& entry) {
  for (const char* name :
       {".experts_down", ".experts_gate_up", ".experts_down_bias", ".experts_gate_up_bias"}) {
    if (entry.name.ends_with(name)) return true;
  }
  // Of widths of their own each has a tensor of its own.
  return entry.name.find(".experts.") != std::string::npos;
}

std::vector<ShareRun> ExpertRuns(const TensorEntry& entry, int rank, int ranks) {
  if (!IsOfExperts(entry)) return {{.whole = 0, .share = 0, .size = entry.elements}};
  PLUMB_CHECK(entry.elements % ranks == 0, "experts that ranks share out equally");
  const int64_t size = entry.elements / ranks;
  return {{.whole = rank * size, .share = 0, .size = size}};
}

}  // namespace plumb::policy_model

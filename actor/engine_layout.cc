#include "actor/engine_layout.h"

#include "common/base/error.h"

namespace plumb::actor {

void BadEngineOption(const std::string& name, const std::string& why) {
  throw Error(ErrorCode::kInvalidArgument, name + " " + why, "rollout." + name);
}

EngineOptions Checked(EngineOptions o, const policy_model::ModelShape& shape) {
  if (o.max_batch < 1) BadEngineOption("max_batch", "must be at least 1");
  if (o.page_tokens < 1) BadEngineOption("page_tokens", "must be at least 1");
  if (o.prefill_tokens < 1) BadEngineOption("prefill_tokens", "must be at least 1");
  if (o.max_new_tokens < 1) BadEngineOption("max_new_tokens", "must be at least 1");
  PLUMB_CHECK(o.steps_together >= 0 && o.steps_together <= 8, "steps behind the host's back");
  if (o.kv_budget_mb < 1) BadEngineOption("kv_budget_mb", "must be at least 1");
  PLUMB_CHECK(!o.share_answers || o.share_prefixes, "answers are shared as prefixes");
  if (o.record_experts && shape.experts.count == 0)
    BadEngineOption("replay_experts", "is set, but the model has no experts; set it to false");
  return o;
}

int32_t AppendTokens(const EngineOptions& o) { return o.turns ? o.page_tokens : 1; }

PageDemand DemandOf(const policy_model::ModelShape& shape, Device device, const EngineOptions& o) {
  return {.size = {.max_batch = o.max_batch,
                   .prefill_tokens = o.prefill_tokens,
                   .max_positions = static_cast<int32_t>(shape.max_positions),
                   .append_tokens = AppendTokens(o)},
          .longest = o.longest,
          .page_tokens = o.page_tokens,
          .budget_mb = o.kv_budget_mb,
          .format = o.kv_format,
          .keep_all = o.keep_all_pages || o.recompute_after_update,
          // On a GPU two pools were never tried.
          .one_pool = o.one_pool || device.is_cuda()};
}

EngineOptions WithRoomForStates(EngineOptions o, const policy_model::ModelShape& shape,
                                Device device, DType dtype) {
  if (device.is_cuda() && StateBytes(shape) > 0)
    o.max_batch = SequencesAtOnce(shape, dtype, DemandOf(shape, device, o));
  return o;
}

std::array<PagePool, kPageKinds> PoolsOf(const policy_model::ModelShape& shape, Device device,
                                         DType dtype, const EngineOptions& o) {
  return DividePages(shape, dtype, DemandOf(shape, device, o));
}

policy_model::ModelShape OfLayers(policy_model::ModelShape shape, const PagePool& pool) {
  shape.layers = pool.layers;
  shape.hybrid.layers.clear();  // layers with states have no pages
  return shape;
}

std::string WhyNotShared(const policy_model::ModelShape& shape, const EngineOptions& o,
                         const std::array<PagePool, kPageKinds>& pools) {
  if (StateBytes(shape) > 0)
    return "some of the model's layers carry a state, which is there behind the newest token only";
  if (pools[0].window > 0 || pools[1].layers > 0)
    return "the model's sliding layers give their first pages back";
  if (o.record_experts) return "the experts of every token of a prompt are recorded";
  return "";
}

bool Filters(const kernels::SamplingOptions& o) {
  return o.temperature != 0 && (o.top_k > 0 || o.top_p < 1.0f || o.min_p > 0);
}

}  // namespace plumb::actor

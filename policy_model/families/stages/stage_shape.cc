#include "policy_model/families/stages/stage_shape.h"

#include <algorithm>
#include <limits>
#include <map>

#include "common/base/error.h"
#include "policy_model/families/family.h"

namespace plumb::policy_model {
namespace {

[[noreturn]] void Refuse(ErrorCode code, int stages, const std::string& why,
                         const std::string& where) {
  throw Error(code,
              "asks for pp=" + std::to_string(stages) + ", and " + why +
                  ", or share the work as dp=" + std::to_string(stages),
              where);
}

// What of a layer is not cut into stages; nullptr: nothing.
const char* WholeOnly(const LayerSpec& spec) {
  if (spec.experts.there()) return "mixtures of experts";
  if (spec.delta.there() || spec.conv.there()) return "layers with states";
  if (spec.gate_top_k > 0) return "tokens that a gate chooses";
  return spec.table ? "memory tables" : nullptr;
}

std::vector<uint8_t> Cut(const std::vector<uint8_t>& of, const LayerRange& layers) {
  if (of.empty()) return of;
  return {of.begin() + layers.begin, of.begin() + layers.end};
}

// Everything that a stage may differ in without the plan saying so is in these fields.
bool SameLayer(const LayerSpec& a, const LayerSpec& b) {
  return a.norm == b.norm && a.norm_before == b.norm_before && a.norm_behind == b.norm_behind &&
         a.residual_scale == b.residual_scale && a.latent == b.latent &&
         a.attention_scale == b.attention_scale && a.window == b.window &&
         a.global_every == b.global_every && a.rotary == b.rotary && a.qkv_bias == b.qkv_bias &&
         a.o_bias == b.o_bias && a.qk_norm == b.qk_norm && a.sinks == b.sinks &&
         a.attention_gate == b.attention_gate && a.ffn == b.ffn && a.activation == b.activation &&
         a.ffn_bias == b.ffn_bias;
}

bool SameRotary(const RotarySpec& a, const RotarySpec& b) {
  return a.frequencies == b.frequencies && a.factor == b.factor && a.interleaved == b.interleaved &&
         a.query_beta == b.query_beta && a.query_step == b.query_step;
}

// Elements of a layer's matrices, and of the head.
std::vector<int64_t> LayerCosts(const ModelShape& whole, int64_t* head) {
  const TensorTable table(whole);
  std::vector<int64_t> costs(static_cast<size_t>(whole.layers), 0);
  for (const TensorEntry& entry : table.entries()) {
    if (!entry.name.starts_with("layers.") || entry.shape.size() < 2) continue;
    costs[static_cast<size_t>(std::stoll(entry.name.substr(7)))] += entry.elements;
  }
  *head = whole.hidden * (whole.scalar_head ? 1 : whole.vocab);
  return costs;
}

}  // namespace

std::vector<LayerRange> BalancedRanges(std::span<const int64_t> costs, int64_t last, int stages) {
  const auto n = costs.size(), many = static_cast<size_t>(stages);
  PLUMB_CHECK(stages > 0 && n >= many);
  std::vector<int64_t> before(n + 1, 0);
  for (size_t i = 0; i < n; ++i) before[i + 1] = before[i] + costs[i];
  constexpr double kNever = std::numeric_limits<double>::infinity();
  // best[k][i]: of the first i layers in k ranges; from[k][i]: where the last of them begins.
  std::vector<std::vector<double>> best;
  std::vector<std::vector<size_t>> from;
  const auto fill = [&](const auto& join, double most) {
    best.assign(many + 1, std::vector<double>(n + 1, kNever));
    from.assign(many + 1, std::vector<size_t>(n + 1, 0));
    best[0][0] = 0;
    for (size_t k = 1; k <= many; ++k) {
      for (size_t i = k; i <= n; ++i) {
        for (size_t j = k - 1; j < i; ++j) {
          const auto cost =
              static_cast<double>(before[i] - before[j] + (k == many && i == n ? last : 0));
          if (cost > most || best[k - 1][j] == kNever) continue;
          const double all = join(best[k - 1][j], cost);
          if (all >= best[k][i]) continue;
          best[k][i] = all;
          from[k][i] = j;
        }
      }
    }
  };
  fill([](double a, double b) { return std::max(a, b); }, kNever);
  const double dearest = best[many][n];
  fill([](double a, double b) { return a + b * b; }, dearest);
  std::vector<LayerRange> out(many);
  for (size_t k = many, end = n; k > 0; --k) {
    const size_t begin = from[k][end];
    out[k - 1] = {.begin = static_cast<int64_t>(begin), .end = static_cast<int64_t>(end)};
    end = begin;
  }
  return out;
}

std::vector<LayerRange> StagesOf(const ModelShape& whole, int stages, const std::string& where) {
  if (whole.layers < stages) {
    Refuse(ErrorCode::kInvalidArgument, stages,
           "each stage needs a layer, of which the model has " + std::to_string(whole.layers) +
               ": take a smaller pp",
           where);
  }
  int64_t head = 0;
  const std::vector<int64_t> costs = LayerCosts(whole, &head);
  return BalancedRanges(costs, head, stages);
}

std::vector<int64_t> StageCosts(const ModelShape& whole, std::span<const LayerRange> stages) {
  int64_t head = 0;
  const std::vector<int64_t> costs = LayerCosts(whole, &head);
  std::vector<int64_t> out;
  for (const LayerRange& stage : stages) {
    out.push_back(0);
    for (int64_t l = stage.begin; l < stage.end; ++l) out.back() += costs[static_cast<size_t>(l)];
  }
  out.back() += head;
  return out;
}

ModelShape StageShape(const ModelShape& whole, int stage, int stages, const std::string& where) {
  PLUMB_CHECK(stage >= 0 && stage < stages);
  const ModelPlan plan = PlanOf(whole);
  for (const LayerSpec& spec : plan.layers) {
    if (const char* what = WholeOnly(spec)) {
      Refuse(ErrorCode::kUnsupported, stages,
             "a model of the family " + whole.family + " has " + what +
                 ", which are not cut into stages in this version: take another model",
             where);
    }
  }
  if (whole.scalar_head) {
    Refuse(
        ErrorCode::kUnsupported, stages,
        "a model with a scalar head is not cut into stages in this version: train it by one rank",
        where);
  }
  const LayerRange layers = StagesOf(whole, stages, where)[static_cast<size_t>(stage)];
  const bool first = stage == 0, last = stage + 1 == stages;
  ModelShape out = whole;
  out.layers = layers.end - layers.begin;
  out.tied = true;
  if (!first && !last) out.vocab = 1;
  // Where a text ends is asked of the whole model.
  out.eos_tokens.clear();
  if (!last) out.unused_tokens.clear();
  for (std::vector<uint8_t>* of :
       {&out.sliding, &out.sees_table, &out.layer_norms, &out.rotated, &out.experts.dense})
    *of = Cut(*of, layers);
  const ModelPlan cut = PlanOf(out);
  bool same = cut.rotary.size() == plan.rotary.size() && cut.norm_offset == plan.norm_offset &&
              cut.embedding_scale == plan.embedding_scale && cut.final_norm == plan.final_norm &&
              cut.logit_divisor == plan.logit_divisor;
  for (size_t i = 0; same && i < plan.rotary.size(); ++i)
    same = SameRotary(cut.rotary[i], plan.rotary[i]);
  for (int64_t l = layers.begin; same && l < layers.end; ++l) {
    same = SameLayer(cut.layers[static_cast<size_t>(l - layers.begin)],
                     plan.layers[static_cast<size_t>(l)]);
  }
  if (!same) {
    Refuse(ErrorCode::kUnsupported, stages,
           "the layers of a model of the family " + whole.family +
               " follow from how many there are, so that they are not cut into stages: take "
               "another model",
           where);
  }
  return out;
}

std::vector<int> FirstStages(const TensorTable& whole, std::span<const LayerRange> stages) {
  std::vector<int> out;
  for (const TensorEntry& entry : whole.entries()) {
    if (!entry.name.starts_with("layers.")) {
      out.push_back(entry.name == "embedding" ? 0 : static_cast<int>(stages.size()) - 1);
      continue;
    }
    const int64_t layer = std::stoll(entry.name.substr(7));
    const auto at = std::find_if(stages.begin(), stages.end(),
                                 [&](const LayerRange& range) { return layer < range.end; });
    PLUMB_CHECK(at != stages.end(), "every layer is in a stage");
    out.push_back(static_cast<int>(at - stages.begin()));
  }
  return out;
}

std::vector<int64_t> StageEntries(const TensorTable& whole, const TensorTable& stage,
                                  const LayerRange& layers, bool first, bool last) {
  std::map<std::string, int64_t> here;
  for (size_t i = 0; i < stage.entries().size(); ++i)
    here[stage.entries()[i].name] = static_cast<int64_t>(i);
  const bool tied = whole.lm_head() == whole.embedding();
  std::vector<int64_t> out;
  for (const TensorEntry& entry : whole.entries()) {
    std::string name = entry.name;
    bool has = true;
    if (name.starts_with("layers.")) {
      const size_t dot = name.find('.', 7);
      const int64_t layer = std::stoll(name.substr(7, dot - 7));
      has = layer >= layers.begin && layer < layers.end;
      if (has) name = "layers." + std::to_string(layer - layers.begin) + name.substr(dot);
    } else if (name == "embedding") {
      has = first || (last && tied);
    } else {  // of the head
      has = last;
      if (name == "lm_head") name = "embedding";
    }
    int64_t found = -1;
    if (has) {
      const auto at = here.find(name);
      PLUMB_CHECK(at != here.end() &&
                      stage.entries()[static_cast<size_t>(at->second)].elements == entry.elements,
                  "a stage has " + entry.name);
      found = at->second;
    }
    out.push_back(found);
  }
  return out;
}

}  // namespace plumb::policy_model

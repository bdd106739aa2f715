#include "actor/pages/page_pools.h"

#include <algorithm>
#include <string>

#include "actor/pages/kv_pages.h"
#include "common/base/error.h"
#include "common/base/size_text.h"
#include "policy_model/families/family.h"

namespace plumb::actor {
namespace {

using Pools = std::array<PagePool, kPageKinds>;

int32_t AsPages(int64_t pages) {
  return static_cast<int32_t>(std::clamp<int64_t>(pages, 0, INT32_MAX));
}

Pools KindsOf(const policy_model::ModelShape& shape, const PageDemand& demand) {
  Pools pools;
  int64_t widest = 0;
  for (const policy_model::LayerSpec& layer : policy_model::PlanOf(shape).layers) {
    if (!layer.KeepsPages()) continue;
    ++pools[layer.GivesPagesBack() ? 1 : 0].layers;
    if (layer.GivesPagesBack()) widest = std::max(widest, layer.window);
  }
  const auto window = static_cast<int32_t>(std::min(widest, shape.max_positions));
  const bool every = pools[0].layers == 0, none = pools[1].layers == 0;
  if (every || none || demand.one_pool || demand.keep_all) {
    return {
        PagePool{.layers = shape.paged_layers(), .window = every && !demand.keep_all ? window : 0},
        PagePool{}};
  }
  pools[1].window = window;
  return pools;
}

// Bytes of a page of one layer.
int64_t OfLayer(const policy_model::ModelShape& shape, DType dtype, const PageDemand& demand) {
  return KvPages::PageBytes(shape, dtype, demand.page_tokens, demand.format) / shape.paged_layers();
}

}  // namespace

int64_t StateBytes(const policy_model::ModelShape& shape) {
  return 4 * policy_model::PlanOf(shape).state();
}

int32_t SequencesAtOnce(const policy_model::ModelShape& shape, DType dtype,
                        const PageDemand& demand) {
  const int64_t state = StateBytes(shape), budget = demand.budget_mb << 20;
  if (state == 0) return demand.size.max_batch;
  const Pools pools = KindsOf(shape, demand);
  const int64_t of_layer = OfLayer(shape, dtype, demand);
  int64_t sample = 0, prompt = 0, page = 0;  // bytes
  for (const PagePool& pool : pools) {
    if (pool.layers == 0) continue;
    PageTableSize size = demand.size;
    size.window = pool.window;
    if (demand.longest > 0) size.max_positions = std::min(size.max_positions, demand.longest);
    page += of_layer * pool.layers;
    sample += of_layer * pool.layers * PageTable::PagesOfSample(size, demand.page_tokens);
    prompt += of_layer * pool.layers * PageTable::PagesOfPrompt(size, demand.page_tokens);
  }
  if (2 * state + page > budget) {
    throw Error(ErrorCode::kInvalidArgument,
                "kv_budget_mb = " + std::to_string(demand.budget_mb) +
                    " does not hold the states of one answer and one prompt (" + LimitText(state) +
                    " each) and a page of " + std::to_string(demand.page_tokens) +
                    " tokens; raise it",
                "rollout.kv_budget_mb");
  }
  const int64_t fit = (budget - prompt) / (sample + 2 * state);
  return static_cast<int32_t>(std::clamp<int64_t>(fit, 1, demand.size.max_batch));
}

Pools DividePages(const policy_model::ModelShape& shape, DType dtype, const PageDemand& demand) {
  Pools pools = KindsOf(shape, demand);
  struct Part {
    int64_t bytes = 0;   // of a page
    int64_t useful = 0;  // pages at most
    int64_t sample = 0;  // pages of one of the longest sequences,
    int64_t prompt = 0;  // and of a prompt in work
  };
  std::array<Part, kPageKinds> parts;
  const int64_t states = 2 * SequencesAtOnce(shape, dtype, demand) * StateBytes(shape);
  const int64_t budget = (demand.budget_mb << 20) - states, page_tokens = demand.page_tokens;
  const int64_t of_layer = OfLayer(shape, dtype, demand);
  int64_t useful_bytes = 0, sample_bytes = 0, prompt_bytes = 0;
  for (size_t k = 0; k < kPageKinds; ++k) {
    if (pools[k].layers == 0) continue;
    PageTableSize size = demand.size;
    size.window = pools[k].window;
    Part& part = parts[k];
    part.bytes = of_layer * pools[k].layers;
    part.useful = PageTable::MostPages(size, demand.page_tokens);
    if (demand.longest > 0) size.max_positions = std::min(size.max_positions, demand.longest);
    part.sample = PageTable::PagesOfSample(size, demand.page_tokens);
    part.prompt = PageTable::PagesOfPrompt(size, demand.page_tokens);
    useful_bytes += part.useful * part.bytes;
    sample_bytes += part.sample * part.bytes;
    prompt_bytes += part.prompt * part.bytes;
  }
  if (pools[1].layers == 0) {
    pools[0].pages = AsPages(std::min(budget / parts[0].bytes, parts[0].useful));
  } else if (useful_bytes <= budget) {
    for (size_t k = 0; k < kPageKinds; ++k) pools[k].pages = AsPages(parts[k].useful);
  } else {
    // One prompt in work and so many running sequences. Where not even one of the longest finds
    // room, shorter ones shall: of sliding layers they hold as much, if that leaves half of it.
    const double samples =
                     static_cast<double>(budget - prompt_bytes) / static_cast<double>(sample_bytes),
                 share =
                     static_cast<double>(budget) / static_cast<double>(prompt_bytes + sample_bytes);
    const Part &all = parts[0], &sliding = parts[1];
    const int64_t one = sliding.prompt + sliding.sample;
    int64_t pages = one;
    if (samples >= 1) {
      pages = sliding.prompt + static_cast<int64_t>(samples * static_cast<double>(sliding.sample));
    } else if (one * sliding.bytes > budget / 2) {
      pages = static_cast<int64_t>(share * static_cast<double>(one));
    }
    pages = std::min(pages, sliding.useful);
    pools[0].pages = AsPages(std::min((budget - pages * sliding.bytes) / all.bytes, all.useful));
    pools[1].pages =
        AsPages(std::min((budget - pools[0].pages * all.bytes) / sliding.bytes, sliding.useful));
  }
  for (const PagePool& pool : pools) {
    if (pool.layers == 0 || pool.pages >= 1) continue;
    throw Error(ErrorCode::kInvalidArgument,
                "kv_budget_mb = " + std::to_string(demand.budget_mb) +
                    " does not hold one page of " + std::to_string(page_tokens) +
                    " tokens; raise it",
                "rollout.kv_budget_mb");
  }
  return pools;
}

}  // namespace plumb::actor

// The engine's side of a step's rows: which tokens of which sequences a step computes, which of
// them read shared keys together, and what a recorded step is recognised by.
#include <algorithm>

#include "actor/engine_impl.h"
#include "kernels/attention_paged.h"

namespace plumb::actor {

int32_t Engine::Impl::BuildRows(const StepPlan& plan) {
  size_t r = 0;
  for (const int32_t slot : plan.decode) {
    decode_slot[r] = row_slot[r] = slot;
    row_position[r] = position[static_cast<size_t>(slot)];
    row_token[r] = last_token[static_cast<size_t>(slot)];
    if (options.tasks > 0) row_task[r] = scheduler.group_of(slot)->request.task;
    ++r;
  }
  r = static_cast<size_t>(BuildAppended(plan, static_cast<int32_t>(r)));
  r = static_cast<size_t>(BuildRecomputed(plan, static_cast<int32_t>(r)));
  for (const StepPlan::Prefill& p : plan.prefills) {
    for (int32_t i = p.begin; i < p.end; ++i, ++r) {
      row_slot[r] = p.row;
      row_position[r] = i;
      row_token[r] = p.group->request.tokens[static_cast<size_t>(i)];
      if (options.tasks > 0) row_task[r] = p.group->request.task;
    }
    counters.prefill_tokens += static_cast<uint64_t>(p.end - p.begin);
  }
  if (launch.device().is_cuda() &&
      (!plan.starts.empty() || !plan.prefills.empty() || !plan.appends.empty())) {
    std::copy(scheduler.page_table().begin(), scheduler.page_table().end(), page_table.host());
    page_table.Upload();
  }
  return static_cast<int32_t>(r);
}

void Engine::Impl::Recompute() {
  if (scheduler.idle()) return;
  tokens.Download();  // what was drawn is read here
  launch.stream.Synchronize();
  scheduler.Recompute({position.host(), slots()});
}

int32_t Engine::Impl::BuildRecomputed(const StepPlan& plan, int32_t row) {
  auto r = static_cast<size_t>(row);
  for (const RecomputeQueue::Chunk& c : plan.recomputed) {
    const std::vector<int32_t>& prompt_tokens = c.group->request.tokens;
    const auto p = static_cast<int32_t>(prompt_tokens.size());
    const size_t own = c.slot < 0 ? 0 : static_cast<size_t>(c.slot) * new_tokens();
    for (int32_t i = c.begin; i < c.end; ++i, ++r) {
      row_slot[r] = c.row;
      row_position[r] = i;
      row_token[r] =
          i < p ? prompt_tokens[static_cast<size_t>(i)] : tokens[own + static_cast<size_t>(i - p)];
      if (options.tasks > 0) row_task[r] = c.group->request.task;
    }
    counters.recomputed_tokens += static_cast<uint64_t>(c.end - c.begin);
  }
  return static_cast<int32_t>(r);
}

void Engine::Impl::ShareRows(const StepPlan& plan) {
  rows_share = false;
  // Where layers slide, a prompt's first pages are not kept.
  if (!launch.device().is_cuda() || pools[0].window > 0) return;
  const size_t rows = plan.decode.size();
  for (size_t a = 0, b = 0; a < rows; a = b) {
    const Group* group = scheduler.group_of(plan.decode[a]);
    for (b = a + 1; b < rows && scheduler.group_of(plan.decode[b]) == group;) ++b;
    const int32_t tokens = b - a < 2 ? 0
                                     : group->full_pages * options.page_tokens /
                                           kernels::kSharedTokens * kernels::kSharedTokens;
    std::fill_n(row_with.host() + a, b - a, static_cast<int32_t>(a));
    std::fill_n(row_shared.host() + a, b - a, tokens);
    rows_share = rows_share || tokens > 0;
  }
}

int32_t Engine::Impl::FillRows(const StepPlan& plan) {
  const bool can = options.record_steps && !share.group && launch.device().is_cuda() &&
                   !plan.chunks() && !plan.decode.empty() && sampling.AllAlike(plan.decode) &&
                   options.tasks == 0;
  if (!can) return 0;
  const auto rows = static_cast<int32_t>(plan.decode.size());
  const int32_t filled = StepGraphs::Rows(rows, options.max_batch);
  sampling.Set(options.max_batch, sampling.of(plan.decode[0]));
  // They compute the first row once more, write what it writes, and draw for nobody.
  for (auto r = static_cast<size_t>(rows); r < static_cast<size_t>(filled); ++r) {
    row_slot[r] = row_slot[0];
    row_position[r] = row_position[0];
    row_token[r] = row_token[0];
    decode_slot[r] = options.max_batch;
    row_with[r] = rows;
    row_shared[r] = row_shared[0];
  }
  return filled;
}

int32_t Engine::Impl::StepsNow(const StepPlan& plan) {
  const bool can = together > 1 && !plan.chunks() && !plan.decode.empty() && !stop.active() &&
                   kept.empty() && !expert_form.there() && turns.empty() && options.tasks == 0 &&
                   !share.group;
  if (!can) return 1;
  // The last token of most of them would leave a step that nobody needs.
  const auto more = std::count_if(plan.decode.begin(), plan.decode.end(), [&](int32_t slot) {
    const auto s = static_cast<size_t>(slot);
    return generated[s] + together <= limit[s];
  });
  return 2 * more >= std::ssize(plan.decode) ? together : 1;
}

StepKind Engine::Impl::KindOf(const policy_model::Weights& weights, int32_t rows, int32_t steps) {
  StepKind kind{.rows = rows,
                .steps = steps,
                .sampling = sampling.of(decode_slot[0]),
                .memory = {model.step_memory()},
                .rows_share = rows_share};
  kind.memory.push_back(model.experts().data());
  for (const auto& set : weights.sets()) kind.memory.push_back(set->flat.data());
  return kind;
}

}  // namespace plumb::actor

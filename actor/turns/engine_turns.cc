// The engine's side of conversations of several turns: a sample that waits, and what is appended.
#include <algorithm>
#include <utility>

#include "actor/engine_impl.h"
#include "common/base/error.h"

namespace plumb::actor {

int32_t Engine::Impl::SlotOf(uint64_t id, uint32_t number) {
  for (int32_t slot = 0; slot < options.max_batch; ++slot) {
    const Group* group = scheduler.group_of(slot);
    if (group == nullptr || group->request.id != id) continue;
    if (sample[static_cast<size_t>(slot)] == number) return slot;
  }
  return -1;
}

void Engine::Impl::EndTurn(int32_t slot) {
  const auto s = static_cast<size_t>(slot);
  const GenerateRequest& request = scheduler.group_of(slot)->request;
  SlotTurns& own = turns[s];
  const int32_t n = generated[s], begin = own.turn_begin;
  const int32_t* at = tokens.host() + s * new_tokens();
  ended_turns.push_back({.id = request.id,
                         .sample = sample[s],
                         .turn = own.turns,
                         .tokens = {at + begin, at + n},
                         .room = request.limit - n});
  own.EndTurn(n);
  own.waits = true;
  scheduler.Pause(slot);
}

void Engine::Impl::Append(int32_t slot, std::span<const int32_t> appended) {
  const auto s = static_cast<size_t>(slot);
  // Whole arrays go back to the device, so that what it drew for others has to be here first.
  tokens.Download();
  logprobs.Download();
  versions.Download();
  launch.stream.Synchronize();
  const int32_t n = generated[s], count = static_cast<int32_t>(appended.size());
  PLUMB_CHECK(n + count <= limit[s], "no room for what an environment says");
  turns[s].Append(appended, n, last_token[s], position[s]);
  const size_t at = s * new_tokens() + static_cast<size_t>(n);
  std::copy(appended.begin(), appended.end(), tokens.host() + at);
  std::fill_n(logprobs.host() + at, appended.size(), 0.0f);
  std::fill_n(versions.host() + at, appended.size(), int64_t{-1});
  generated[s] = n + count;
  // A token that was not drawn has a set of one byte, 0.
  if (!kept.empty()) kept[s].insert(kept[s].end(), appended.size(), uint8_t{0});
  tokens.Upload();
  logprobs.Upload();
  versions.Upload();
  generated.Upload();
}

int32_t Engine::Impl::BuildAppended(const StepPlan& plan, int32_t row) {
  auto r = static_cast<size_t>(row);
  for (const StepPlan::Append& a : plan.appends) {
    const SlotTurns& own = turns[static_cast<size_t>(a.slot)];
    for (int32_t i = a.begin; i < a.end; ++i, ++r) {
      row_slot[r] = a.slot;
      row_position[r] = own.position + i;
      row_token[r] = own.feed[static_cast<size_t>(i)];
      if (options.tasks > 0) row_task[r] = scheduler.group_of(a.slot)->request.task;
    }
  }
  return static_cast<int32_t>(r);
}

void Engine::Impl::AfterAppended(const StepPlan& plan) {
  bool any = false;
  for (const StepPlan::Append& a : plan.appends) {
    const auto s = static_cast<size_t>(a.slot);
    SlotTurns& own = turns[s];
    if (a.end < static_cast<int32_t>(own.feed.size())) continue;
    any = true;
    last_token[s] = own.next;
    position[s] = own.position + a.end;
    status[s] = static_cast<uint8_t>(kernels::SlotStatus::kRunning);
    own.feed.clear();
    if (own.ends) ended.push_back({a.slot, own.finish, false, std::move(own.why)});
  }
  if (!any) return;
  last_token.Upload();
  position.Upload();
  status.Upload();
  FinishEnded();
}

std::vector<EndedTurn> Engine::TakeTurns() { return std::exchange(impl_->ended_turns, {}); }

bool Engine::EndTurn(uint64_t id, uint32_t sample) {
  Impl& e = *impl_;
  const int32_t slot = e.SlotOf(id, sample);
  if (slot < 0 || !e.options.turns) return false;
  const auto s = static_cast<size_t>(slot);
  const SlotTurns& own = e.turns[s];
  const bool draws = !own.waits && !own.ends && own.feed.empty() &&
                     e.generated[s] > own.turn_begin && e.scheduler.group_of(slot)->request.turns;
  if (!draws) return false;
  e.ended.push_back({slot, FinishReason::kStop, true});
  e.FinishEnded();
  return true;
}

bool Engine::Continue(uint64_t id, uint32_t sample, std::span<const int32_t> tokens) {
  Impl& e = *impl_;
  const int32_t slot = e.SlotOf(id, sample);
  if (slot < 0 || !e.options.turns) return false;
  const auto s = static_cast<size_t>(slot);
  SlotTurns& own = e.turns[s];
  if (!own.waits) return false;
  PLUMB_CHECK(e.generated[s] + static_cast<int32_t>(tokens.size()) < e.limit[s],
              "no room for another turn");
  own.waits = false;
  e.stop.Reset(slot);
  if (tokens.empty()) {
    e.status[s] = static_cast<uint8_t>(kernels::SlotStatus::kRunning);
    e.status.Upload();
  } else {
    e.Append(slot, tokens);
  }
  e.scheduler.Resume(slot, static_cast<int32_t>(own.feed.size()));
  return true;
}

bool Engine::End(uint64_t id, uint32_t sample, FinishReason finish, std::string why,
                 std::span<const int32_t> rest) {
  Impl& e = *impl_;
  const int32_t slot = e.SlotOf(id, sample);
  if (slot < 0) return false;
  if (e.options.turns) {
    SlotTurns& own = e.turns[static_cast<size_t>(slot)];
    PLUMB_CHECK(rest.empty() || own.waits, "its environment is not asked");
    const bool fed = !own.feed.empty();  // the last reply is not computed yet
    if (!rest.empty()) e.Append(slot, rest);
    // Experts are recorded of what is computed: the end comes behind that.
    if (!own.feed.empty() && e.expert_form.there()) {
      own.waits = false;
      own.ends = true;
      own.finish = finish;
      own.why = std::move(why);
      if (!fed) e.scheduler.Resume(slot, static_cast<int32_t>(own.feed.size()));
      return true;
    }
  }
  e.ended.push_back({slot, finish, false, std::move(why)});
  e.FinishEnded();
  e.Retire();
  return true;
}

}  // namespace plumb::actor

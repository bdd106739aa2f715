#include "actor/engine.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "actor/engine_impl.h"
#include "actor/engine_layout.h"
#include "actor/prompt_check.h"
#include "common/base/error.h"
#include "common/record/abort_reason.h"
#include "common/record/kept_tokens.h"
#include "kernels/attention_paged.h"
#include "policy_model/families/experts/expert_form.h"

namespace plumb::actor {
Engine::Impl::Impl(const policy_model::ModelShape& shape, const Stream& stream, DType dtype,
                   const EngineOptions& o, const Tokenizer* tokenizer, const EngineShare& of)
    : shape(shape),
      options(o),
      share(of),
      vocab(of.group ? of.vocab : shape.vocab),
      tokenizer(tokenizer),
      launch{stream, dtype},
      together(o.steps_together > 0        ? o.steps_together
               : stream.device().is_cuda() ? 2
                                           : 1),
      model(shape, stream, dtype),
      pools(PoolsOf(shape, stream.device(), dtype, o)),
      why_not_shared(WhyNotShared(shape, o, pools)),
      pages(OfLayers(shape, pools[0]), stream, dtype, o.page_tokens, pools[0].pages, o.kv_format),
      sliding_pages(pools[1].layers == 0
                        ? nullptr
                        : std::make_unique<KvPages>(OfLayers(shape, pools[1]), stream, dtype,
                                                    o.page_tokens, pools[1].pages, o.kv_format)),
      states(stream, StateBytes(shape), 2 * o.max_batch),
      scheduler({.max_batch = o.max_batch,
                 .prefill_tokens = o.prefill_tokens,
                 .max_positions = static_cast<int32_t>(shape.max_positions),
                 .window = pools[0].window,
                 .sliding_window = pools[1].window,
                 .append_tokens = AppendTokens(o),
                 .at_once = SequencesAtOnce(shape, dtype, DemandOf(shape, stream.device(), o)),
                 .share_prefixes = o.share_prefixes && why_not_shared.empty(),
                 .states = StateBytes(shape) > 0},
                &pages, sliding_pages.get()),
      stop(o.stop, o.max_batch),
      sampling(o.sampling, o.max_batch + 1),
      last_token(stream, slots() + 1),
      position(stream, slots() + 1),
      generated(stream, slots() + 1),
      limit(stream, slots() + 1),
      status(stream, slots() + 1),
      prompt(stream, slots() + 1),
      sample(stream, slots() + 1),
      version(stream, 1),
      tokens(stream, slots() * new_tokens()),
      logprobs(stream, slots() * new_tokens()),
      versions(stream, slots() * new_tokens()),
      row_slot(stream, max_rows()),
      row_position(stream, max_rows()),
      row_token(stream, max_rows()),
      row_task(stream, o.tasks > 0 ? max_rows() : 0),
      row_with(stream, slots()),
      row_shared(stream, slots()),
      logit_row(stream, slots()),
      page_table(stream, stream.device().is_cpu() ? 0 : scheduler.page_table().size()),
      copy_from{DeviceArray<int32_t>(stream, slots()), DeviceArray<int32_t>(stream, slots())},
      copy_to{DeviceArray<int32_t>(stream, slots()), DeviceArray<int32_t>(stream, slots())},
      decode_slot(stream, slots()),
      draw_prompt(stream, slots()),
      draw_sample(stream, slots()),
      draw_position(stream, slots()),
      drawn(stream, static_cast<size_t>(together) * slots()),
      drawn_logprob(stream, static_cast<size_t>(together) * slots()),
      status_then(stream, static_cast<size_t>(together - 1) * (slots() + 1)),
      drawn_kept(stream, o.record_kept && Filters(o.sampling) ? slots() * set_words() : 0),
      kept(drawn_kept.size() > 0 ? slots() : 0),
      expert_form(o.record_experts ? policy_model::ExpertFormOf(shape) : ExpertForm{}),
      experts(o.record_experts ? slots() : 0),
      eos(stream, std::max<size_t>(1, o.eos.size())),
      scratch(stream, static_cast<size_t>(kernels::SamplingScratch(o.max_batch, vocab))),
      graphs(stream) {
  if (stop.active() && tokenizer == nullptr) BadEngineOption("stop", "needs a tokenizer");
  PLUMB_CHECK(!share.group || (!o.turns && o.tasks == 0 && !o.record_experts));
  model.SetGroup(share.group, vocab);
  state.max_slots = o.max_batch;
  state.max_new_tokens = o.max_new_tokens;
  state.last_token = last_token.device();
  state.position = position.device();
  state.generated = generated.device();
  state.limit = limit.device();
  state.status = status.device();
  state.prompt = prompt.device();
  state.sample = sample.device();
  state.version = version.device();
  state.tokens = tokens.device();
  state.logprobs = logprobs.device();
  state.versions = versions.device();
  for (size_t s = 0; s <= slots(); ++s) {
    last_token[s] = position[s] = generated[s] = limit[s] = 0;
    status[s] = static_cast<uint8_t>(kernels::SlotStatus::kEmpty);
    prompt[s] = sample[s] = 0;
  }
  std::copy(o.eos.begin(), o.eos.end(), eos.host());
  eos.Upload();
  for (size_t i = 0; i < slots(); ++i) logit_row[i] = static_cast<int32_t>(i);
  logit_row.Upload();
  ended.reserve(slots());
  if (o.turns) turns.resize(slots());
  last_drawn.reserve(slots() * static_cast<size_t>(together));
}

void Engine::Impl::StartSlots(const StepPlan& plan) {
  for (const StepPlan::Start& start : plan.starts) {
    const GenerateRequest& request = start.group->request;
    const size_t s = static_cast<size_t>(start.slot);
    if (start.group->prefilled > 0) states.Copy(start.prompt_row, start.slot);
    last_token[s] = request.tokens.back();
    position[s] = static_cast<int32_t>(request.tokens.size()) - 1;
    generated[s] = 0;
    limit[s] = request.limit;
    status[s] = static_cast<uint8_t>(kernels::SlotStatus::kRunning);
    prompt[s] = request.prompt_key;
    sample[s] = request.first_sample + static_cast<uint32_t>(start.index);
    stop.Reset(start.slot);
    if (options.turns) turns[s] = {};
    sampling.Set(start.slot, request.sampling,
                 request.greedy_last && start.index + 1 == request.num_samples);
    if (!kept.empty()) kept[s].clear();
    if (expert_form.there()) {
      experts[s].clear();
      experts[s].reserve(static_cast<size_t>(request.limit) * expert_form.bytes());
    }
    if (!request.openings.empty()) {
      const std::vector<int32_t>& opening = request.openings[static_cast<size_t>(start.index)];
      if (!opening.empty()) Append(start.slot, opening);
    }
  }
  if (plan.starts.empty()) return;
  last_token.Upload();
  position.Upload();
  generated.Upload();
  limit.Upload();
  status.Upload();
  prompt.Upload();
  sample.Upload();
}

void Engine::Impl::Compute(const policy_model::Weights& weights, int32_t rows, int32_t decode_rows,
                           int32_t steps) {
  const auto all = static_cast<size_t>(rows), drawn_rows = static_cast<size_t>(decode_rows);
  row_slot.Upload(all);
  row_position.Upload(all);
  row_token.Upload(all);
  decode_slot.Upload(drawn_rows);
  const int32_t* table =
      launch.device().is_cpu() ? scheduler.page_table().data() : page_table.device();
  kernels::PagedRows paged{rows, row_slot.device(), row_position.device(), table,
                           scheduler.page_table_stride()};
  paged.single = decode_rows;
  if (rows_share) {
    row_with.Upload(drawn_rows);
    row_shared.Upload(drawn_rows);
    paged.shared_with = row_with.device();
    paged.shared_tokens = row_shared.device();
  }
  const kernels::SlidingPages sliding = Sliding();
  const kernels::SequenceStates held = states.view();
  for (int32_t step = 0; step < steps; ++step) {
    if (step > 0) {
      kernels::Call(launch, kernels::NextRows{.state = state,
                                              .slots = row_slot.device(),
                                              .rows = rows,
                                              .token = row_token.device(),
                                              .position = row_position.device()});
    }
    const float* logits = model.ForwardPaged(
        weights, {row_token.device(), all}, paged, pages.view(), {logit_row.device(), drawn_rows},
        sliding_pages ? &sliding : nullptr, &held,
        options.tasks > 0 ? std::span(row_task.host(), all) : std::span<const int32_t>(),
        {row_token.host(), share.group ? all : 0});
    if (decode_rows > 0) Draw(logits, decode_rows, step, steps);
  }
}

void Engine::Impl::CopyPages(const StepPlan& plan) {
  for (const RecomputeQueue::Move& move : plan.moves) states.Copy(move.from, move.to);
  for (size_t k = 0; k < scheduler.kinds(); ++k) {
    const StepPlan::Copies& copies = plan.copies[k];
    if (copies.from.empty()) continue;
    std::copy(copies.from.begin(), copies.from.end(), copy_from[k].host());
    std::copy(copies.to.begin(), copies.to.end(), copy_to[k].host());
    copy_from[k].Upload();
    copy_to[k].Upload();
    kernels::Call(launch, kernels::CopyPages{.from = copy_from[k].device(),
                                             .to = copy_to[k].device(),
                                             .count = static_cast<int32_t>(copies.from.size()),
                                             .kv = k == 0 ? pages.view() : sliding_pages->view()});
  }
}

// On the CPU, where the scheduler's own table is read in place.
kernels::SlidingPages Engine::Impl::Sliding() {
  if (!sliding_pages) return {};
  return {.kv = sliding_pages->view(), .page_table = scheduler.page_table(1).data()};
}

int64_t Engine::Impl::HeldBytes() const {
  const auto bytes = [](const KvPages& p) {
    return p.view().bytes() / p.num_pages() * p.held_pages();
  };
  const int64_t idle = pages.view().bytes() / pages.num_pages() * scheduler.idle_pages();
  return bytes(pages) - idle + (sliding_pages ? bytes(*sliding_pages) : 0) +
         scheduler.held_rows() * states.row_bytes();
}

void Engine::Impl::Draw(const float* logits, int32_t rows, int32_t step, int32_t steps) {
  const size_t at = static_cast<size_t>(step) * slots();
  int32_t* const tokens_now = drawn.device() + at;
  float* const logprobs_now = drawn_logprob.device() + at;
  kernels::Call(launch, kernels::GatherAddresses{.state = state,
                                                 .slots = decode_slot.device(),
                                                 .rows = rows,
                                                 .prompt_out = draw_prompt.device(),
                                                 .sample_out = draw_sample.device(),
                                                 .position_out = draw_position.device()});
  // Rows in a row that are sampled alike; mostly that is all of them.
  sampling.ForRuns(
      {decode_slot.host(), static_cast<size_t>(rows)}, [&](const RowSampling::Run& run) {
        kernels::Call(launch,
                      kernels::SampleTokens{.logits = logits + run.begin * vocab,
                                            .rows = run.rows,
                                            .vocab = vocab,
                                            .options = run.options,
                                            .prompt = draw_prompt.device() + run.begin,
                                            .sample = draw_sample.device() + run.begin,
                                            .position = draw_position.device() + run.begin,
                                            .token = tokens_now + run.begin,
                                            .logprob = logprobs_now + run.begin,
                                            .scratch = scratch.device(),
                                            .kept = kept.empty() ? nullptr : drawn_kept.device()});
      });
  kernels::Call(launch, kernels::AdvanceSlots{.state = state,
                                              .slots = decode_slot.device(),
                                              .rows = rows,
                                              .token = tokens_now,
                                              .logprob = logprobs_now,
                                              .eos = eos.device(),
                                              .num_eos = static_cast<int32_t>(options.eos.size())});
  if (step + 1 < steps) {
    kernels::Copy(launch.stream, status_then.device() + static_cast<size_t>(step) * (slots() + 1),
                  status.device(), slots() + 1);
    return;
  }
  last_token.Download();
  position.Download();
  generated.Download();
  status.Download();
  if (steps > 1) status_then.Download();
  drawn.Download(at + slots());
  drawn_logprob.Download(at + slots());
  if (!kept.empty()) drawn_kept.Download(static_cast<size_t>(rows) * set_words());
}

// Of the rows of the step that has just been computed and waited for.
void Engine::Impl::RecordExperts(const StepPlan& plan) {
  if (!expert_form.there()) return;
  std::span<const int32_t> rest = model.experts();
  const auto next = [&](std::vector<uint8_t>& out) {
    AppendExperts(expert_form, rest.first(expert_form.numbers()), out);
    rest = rest.subspan(expert_form.numbers());
  };
  for (const int32_t slot : plan.decode) next(experts[static_cast<size_t>(slot)]);
  for (const StepPlan::Append& a : plan.appends) {
    for (int32_t i = a.begin; i < a.end; ++i) next(experts[static_cast<size_t>(a.slot)]);
  }
  for (const RecomputeQueue::Chunk& c : plan.recomputed) {
    // In the place of those that older weights chose.
    std::vector<uint8_t>& out =
        c.slot < 0 ? c.group->prompt_experts : experts[static_cast<size_t>(c.slot)];
    const int32_t first = c.slot < 0 ? 0 : c.group->prefill_target();
    for (int32_t i = c.begin; i < c.end; ++i) {
      again_experts.clear();
      next(again_experts);
      std::ranges::copy(again_experts,
                        out.begin() + (i - first) * static_cast<ptrdiff_t>(expert_form.bytes()));
    }
  }
  for (const StepPlan::Prefill& p : plan.prefills) {
    for (int32_t i = p.begin; i < p.end; ++i) next(p.group->prompt_experts);
  }
}

void Engine::Impl::FinishSlots(int32_t rows, int32_t steps) {
  ended.clear();
  for (int32_t i = 0; i < rows * steps; ++i) {
    const int32_t r = i % rows, step = i / rows, slot = decode_slot[static_cast<size_t>(r)];
    const auto status_of = [&](int32_t which) {
      const size_t from = static_cast<size_t>(which) * (slots() + 1), s = static_cast<size_t>(slot);
      return static_cast<kernels::SlotStatus>(which + 1 < steps ? status_then[from + s]
                                                                : status[s]);
    };
    if (step > 0 && status_of(step - 1) != kernels::SlotStatus::kRunning) continue;
    const size_t at = static_cast<size_t>(step) * slots() + static_cast<size_t>(r);
    const int32_t token = drawn[at];
    if (!kept.empty() && token >= 0) {
      const auto words = std::span<const uint32_t>(drawn_kept.host(), slots() * set_words());
      AppendKeptTokens(words.subspan(static_cast<size_t>(r) * set_words(), set_words()), vocab,
                       kept[static_cast<size_t>(slot)]);
    }
    switch (status_of(step)) {
      case kernels::SlotStatus::kStopped:
        ended.push_back({slot, FinishReason::kStop, scheduler.group_of(slot)->request.turns});
        break;
      case kernels::SlotStatus::kFailed: ended.push_back({slot, FinishReason::kAborted}); break;
      case kernels::SlotStatus::kLength:
      case kernels::SlotStatus::kRunning:
        if (stop.active() && stop.Append(slot, tokenizer->TokenBytes(token))) {
          ended.push_back({slot, FinishReason::kStop, scheduler.group_of(slot)->request.turns});
        } else if (status_of(step) == kernels::SlotStatus::kLength) {
          ended.push_back({slot, FinishReason::kLength});
        }
        break;
      case kernels::SlotStatus::kEmpty:
        PLUMB_CHECK(false, "slot " + std::to_string(slot) + " was never started");
    }
    if (token < 0) continue;
    ++counters.generated_tokens;
    const bool last = !ended.empty() && ended.back().slot == slot && !ended.back().turn;
    last_drawn.push_back({.id = scheduler.group_of(slot)->request.id,
                          .sample = sample[static_cast<size_t>(slot)],
                          .token = token,
                          .logprob = drawn_logprob[at],
                          .ended = last,
                          .finish = last ? ended.back().finish : FinishReason::kStop});
  }
  FinishEnded();
}

void Engine::Impl::FinishEnded() {
  if (ended.empty()) return;
  tokens.Download();
  logprobs.Download();
  versions.Download();
  launch.stream.Synchronize();
  for (EndedSlot& e : ended) {
    if (e.turn) EndTurn(e.slot);
    else FinishSlot(e.slot, e.finish, std::move(e.why));
  }
  ended.clear();
}

void Engine::Impl::FinishSlot(int32_t slot, FinishReason reason, std::string why) {
  Group* group = scheduler.group_of(slot);
  GeneratedSample& out = group->result.samples[static_cast<size_t>(scheduler.sample_index(slot))];
  const size_t begin = static_cast<size_t>(slot) * new_tokens();
  size_t n = static_cast<size_t>(generated[static_cast<size_t>(slot)]);
  while (n > 0 && tokens[begin + n - 1] < 0) --n;  // the draw that failed
  out.tokens.assign(tokens.host() + begin, tokens.host() + begin + n);
  out.logprobs.assign(logprobs.host() + begin, logprobs.host() + begin + n);
  out.versions.assign(versions.host() + begin, versions.host() + begin + n);
  if (!kept.empty()) out.kept = kept[static_cast<size_t>(slot)];
  if (expert_form.there()) {
    const std::vector<uint8_t>& own = experts[static_cast<size_t>(slot)];
    out.experts = {expert_form, group->prompt_experts};
    out.experts.bytes.insert(out.experts.bytes.end(), own.begin(), own.end());
    // a draw that failed has computed a row, too
    out.experts.bytes.resize((group->request.tokens.size() - 1 + n) * expert_form.bytes());
  }
  out.finish = reason;
  if (group->request.turns) {
    SlotTurns& own = turns[static_cast<size_t>(slot)];
    if (own.segments.empty() || own.turn_begin < static_cast<int32_t>(n))
      own.EndTurn(static_cast<int32_t>(n));
    out.segments = std::move(own.segments);
  }
  ++counters.finished_samples;
  if (reason == FinishReason::kLength) ++counters.length_samples;
  if (reason == FinishReason::kAborted && !why.empty()) {
    out.reason = std::move(why);
  } else if (reason == FinishReason::kAborted) {
    ++counters.nonfinite_samples;
    out.reason = std::string(kNonFiniteLogits) + " after token " + std::to_string(n) +
                 " of the answer: they hold NaN or nothing finite";
  }
  if (options.share_answers && reason != FinishReason::kAborted) {
    sequence.assign(group->request.tokens.begin(), group->request.tokens.end());
    sequence.insert(sequence.end(), out.tokens.begin(), out.tokens.end());
    // The last token was drawn and never fed, nor may be what an environment said last.
    sequence.resize(static_cast<size_t>(position[static_cast<size_t>(slot)]));
    scheduler.ShareAnswer(slot, sequence, step);
  }
  scheduler.Finish(slot, step);
  if (group->finished == group->request.num_samples)
    finished.push_back(std::move(scheduler.Remove(group)->result));
}

Engine::Engine(const policy_model::ModelShape& shape, const Stream& stream, DType dtype,
               const EngineOptions& options, const Tokenizer* tokenizer, const EngineShare& share)
    : impl_(std::make_unique<Impl>(
          shape, stream, dtype,
          WithRoomForStates(Checked(options, shape), shape, stream.device(), dtype), tokenizer,
          share)) {}

Engine::~Engine() = default;

int64_t Engine::KvBytes(const policy_model::ModelShape& shape, Device device, DType dtype,
                        const EngineOptions& options) {
  int64_t bytes = 0;
  for (const PagePool& pool : PoolsOf(shape, device, dtype, Checked(options, shape))) {
    if (pool.layers > 0)
      bytes += pool.pages * KvPages::PageBytes(OfLayers(shape, pool), dtype, options.page_tokens,
                                               options.kv_format);
  }
  const int64_t rows = 2 * SequencesAtOnce(shape, dtype, DemandOf(shape, device, options));
  return bytes + rows * StateBytes(shape);
}

void Engine::Submit(GenerateRequest request) {
  Impl& e = *impl_;
  if (request.limit == 0) request.limit = e.options.max_new_tokens;
  if (request.num_samples < 1 || request.limit < 1 || request.limit > e.options.max_new_tokens) {
    throw Error(ErrorCode::kInvalidArgument,
                "request " + std::to_string(request.id) + " wants " +
                    std::to_string(request.num_samples) + " samples of up to " +
                    std::to_string(request.limit) + " tokens; the engine gives 1 to " +
                    std::to_string(e.options.max_new_tokens) + " tokens");
  }
  PLUMB_CHECK(!request.sampling || !e.options.record_kept, "kept sets are of one sampling");
  PLUMB_CHECK(!request.turns || e.options.turns, "the engine was made without turns");
  PLUMB_CHECK(request.openings.empty() ||
              (request.turns &&
               std::ssize(request.openings) == static_cast<ptrdiff_t>(request.num_samples)));
  for (const auto& opening : request.openings)
    PLUMB_CHECK(std::ssize(opening) < static_cast<ptrdiff_t>(request.limit));
  PLUMB_CHECK(!request.greedy_last || !e.options.record_kept || !Filters(e.options.sampling),
              "a greedy draw has no kept set");
  if (e.share.followers) e.share.followers->Submitted(request);
  auto group = std::make_unique<Group>();
  group->result.id = request.id;
  group->result.samples.resize(static_cast<size_t>(request.num_samples));
  for (size_t i = 0; i < group->result.samples.size(); ++i) {
    group->result.samples[i].sample = request.first_sample + static_cast<uint32_t>(i);
  }
  Problem refusal = TakeTask(request, e.options.tasks, e.options.task_tokens);
  if (!refusal) refusal = e.scheduler.Refusal(request);
  if (!refusal) refusal = ForeignToken(request, e.vocab);
  if (refusal) {
    ++e.counters.refused_requests;
    for (GeneratedSample& s : group->result.samples) {
      s.finish = FinishReason::kAborted;
      s.reason = *refusal;
    }
    e.finished.push_back(std::move(group->result));
    return;
  }
  group->request = std::move(request);
  if (e.expert_form.there())
    group->prompt_experts.reserve(group->request.tokens.size() * e.expert_form.bytes());
  e.scheduler.Submit(std::move(group));
}

bool Engine::Step(const policy_model::Weights& given, int64_t version) {
  Impl& e = *impl_;
  PLUMB_CHECK(version >= 0, "weights without a version");
  EngineFollowers* const followers = e.share.followers;
  const policy_model::Weights& weights =
      followers && !idle() ? followers->Stepping(given, version) : given;
  const auto begin = std::chrono::steady_clock::now();
  e.last_drawn.clear();
  if (e.version[0] != version) {
    e.scheduler.ForgetPrefixes();
    if (e.options.recompute_after_update) e.Recompute();
  }
  const StepPlan& plan = e.scheduler.Plan(e.step);
  e.counters.prefix_tokens_reused = e.scheduler.reused_tokens();
  if (plan.empty()) return false;
  e.StartSlots(plan);
  const int32_t rows = e.BuildRows(plan);
  e.ShareRows(plan);
  if (e.version[0] != version) {
    e.version[0] = version;
    e.version.Upload();
  }
  e.CopyPages(plan);
  const int32_t decode_rows = static_cast<int32_t>(plan.decode.size()), steps = e.StepsNow(plan);
  if (const int32_t filled = e.FillRows(plan); filled > 0) {
    const uint64_t before = e.graphs.replays();
    e.graphs.Run([&] { return e.KindOf(weights, filled, steps); },
                 [&] { e.Compute(weights, filled, filled, steps); });
    if (e.graphs.replays() > before) e.counters.replayed_steps += static_cast<uint64_t>(steps);
  } else {
    e.Compute(weights, rows, decode_rows, steps);
  }
  e.scheduler.Commit();
  e.counters.appended_tokens += plan.appended_tokens();
  e.launch.stream.Synchronize();  // the one wait of a step in which nothing ends
  e.RecordExperts(plan);
  if (decode_rows > 0) {
    e.FinishSlots(decode_rows, steps);
    e.counters.decode_steps += static_cast<uint64_t>(steps);
  }
  e.AfterAppended(plan);
  e.counters.most_kv_bytes = std::max(e.counters.most_kv_bytes, e.HeldBytes());
  e.Retire();
  ++e.step;
  e.counters.steps += static_cast<uint64_t>(steps);
  e.counters.generate_seconds +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return true;
}

std::span<const DrawnToken> Engine::last_drawn() const { return impl_->last_drawn; }

std::vector<GenerateResult> Engine::TakeFinished() { return std::exchange(impl_->finished, {}); }

bool Engine::Cancel(uint64_t id) {
  Impl& e = *impl_;
  PLUMB_CHECK(!e.share.group, "a request is cancelled on all ranks or on none");
  Group* group = e.scheduler.Find(id);
  if (group == nullptr) return false;
  e.scheduler.Take(group, e.step);
  e.Retire();
  return true;
}

std::vector<uint64_t> Engine::Abandon() {
  std::vector<uint64_t> ids;
  if (EngineFollowers* const followers = impl_->share.followers) followers->Abandoned();
  impl_->ended_turns.clear();
  for (const auto& group : impl_->scheduler.TakeAll(impl_->step)) ids.push_back(group->result.id);
  impl_->Retire();
  return ids;
}

bool Engine::idle() const { return impl_->scheduler.idle(); }
bool Engine::blocked() const {
  const Scheduler& scheduler = impl_->scheduler;
  return scheduler.running() > 0 && scheduler.paused() == scheduler.running() &&
         !scheduler.recomputing();
}
int32_t Engine::running() const { return impl_->scheduler.running(); }
int64_t Engine::unstarted() const { return impl_->scheduler.unstarted(); }
int32_t Engine::num_pages() const {
  const KvPages* sliding = impl_->sliding_pages.get();
  return impl_->pages.num_pages() + (sliding ? sliding->num_pages() : 0);
}
int32_t Engine::free_pages() const {
  const KvPages* sliding = impl_->sliding_pages.get();
  return impl_->pages.free_pages() + idle_pages() + (sliding ? sliding->free_pages() : 0);
}
int32_t Engine::idle_pages() const { return impl_->scheduler.idle_pages(); }
const std::string& Engine::why_not_shared() const { return impl_->why_not_shared; }
const EngineCounters& Engine::counters() const { return impl_->counters; }
const EngineOptions& Engine::options() const { return impl_->options; }

}  // namespace plumb::actor

// What an engine is made of: the private part of actor/engine.h, which its two sources share.
//
// Purpose: engine.cc has the steps, engine_turns.cc what belongs to conversations of several turns.
// Thread safety, ownership, errors: actor/engine.h.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "actor/device_array.h"
#include "actor/engine.h"
#include "actor/pages/kv_pages.h"
#include "actor/pages/page_pools.h"
#include "actor/row_sampling.h"
#include "actor/scheduler.h"
#include "actor/state_rows.h"
#include "actor/step_graphs.h"
#include "actor/stop_rule.h"
#include "actor/turns/slot_turns.h"
#include "kernels/decode_state.h"
#include "kernels/token_mask.h"
#include "policy_model/transformer.h"

namespace plumb::actor {

struct Engine::Impl {
  Impl(const policy_model::ModelShape& shape, const Stream& stream, DType dtype,
       const EngineOptions& options, const Tokenizer* tokenizer, const EngineShare& share);

  size_t slots() const { return static_cast<size_t>(options.max_batch); }
  size_t new_tokens() const { return static_cast<size_t>(options.max_new_tokens); }
  size_t set_words() const { return static_cast<size_t>(kernels::SetWords(vocab)); }
  size_t max_rows() const { return slots() + static_cast<size_t>(options.prefill_tokens); }

  void StartSlots(const StepPlan& plan);
  int32_t BuildRows(const StepPlan& plan);
  // Which rows of samples see the same keys of their prompt, so that a GPU reads them once.
  void ShareRows(const StepPlan& plan);
  // Fills a step of samples alone up with rows that change nothing, where it can be recorded;
  // returns how many there are then. 0: it cannot.
  int32_t FillRows(const StepPlan& plan);
  StepKind KindOf(const policy_model::Weights& weights, int32_t rows, int32_t steps);
  // How many steps may be enqueued before the host looks at what the first of them drew.
  int32_t StepsNow(const StepPlan& plan);
  // Enqueues `steps` steps over `rows` rows, of which the first `decode_rows` are of samples.
  void Compute(const policy_model::Weights& weights, int32_t rows, int32_t decode_rows,
               int32_t steps);
  // Enqueues, of step `step` of those enqueued together; the host's side of the arrays is right
  // after the next wait.
  void Draw(const float* logits, int32_t rows, int32_t step, int32_t steps);
  // Pages and states that go from sequence to sequence before the forward.
  void CopyPages(const StepPlan& plan);
  // The weights are others than those that computed what is in work.
  void Recompute();
  int32_t BuildRecomputed(const StepPlan& plan, int32_t row);
  kernels::SlidingPages Sliding();
  int64_t HeldBytes() const;
  void Retire() {
    pages.Retire(step);
    if (sliding_pages) sliding_pages->Retire(step);
  }
  void RecordExperts(const StepPlan& plan);
  void FinishSlots(int32_t rows, int32_t steps);
  void FinishEnded();
  void FinishSlot(int32_t slot, FinishReason reason, std::string why);

  // Of the sample in a slot; -1: there is none.
  int32_t SlotOf(uint64_t id, uint32_t sample);
  void EndTurn(int32_t slot);
  // The tokens belong to the answer; they are still to be computed.
  void Append(int32_t slot, std::span<const int32_t> appended);
  int32_t BuildAppended(const StepPlan& plan, int32_t row);
  // What was fed completely goes on, or ends.
  void AfterAppended(const StepPlan& plan);

  const policy_model::ModelShape shape;
  const EngineOptions options;
  const EngineShare share;
  const int64_t vocab;  // that tokens are drawn from
  const Tokenizer* const tokenizer;
  const kernels::Launch launch;
  const int32_t together;  // steps that may be
  policy_model::Transformer model;
  const std::array<PagePool, kPageKinds> pools;
  const std::string why_not_shared;  // prefixes; "": they may be
  KvPages pages;
  const std::unique_ptr<KvPages> sliding_pages;  // nullptr: all layers' pages lie in one pool
  StateRows states;  // of layers that have them, a row of the page tables each
  Scheduler scheduler;
  StopStrings stop;
  RowSampling sampling;
  kernels::DecodeState state;
  // The arrays of `state`; slot S never runs: rows that fill a step up are its own.
  DeviceArray<int32_t> last_token, position, generated, limit;  // [S + 1]
  DeviceArray<uint8_t> status;                                  // [S + 1]
  DeviceArray<uint64_t> prompt;                                 // [S + 1]
  DeviceArray<uint32_t> sample;                                 // [S + 1]
  DeviceArray<int64_t> version;                                 // [1]
  DeviceArray<int32_t> tokens;                                  // [S, N]
  DeviceArray<float> logprobs;                                  // [S, N]
  DeviceArray<int64_t> versions;                                // [S, N]
  // One step's rows: samples first, then prompt chunks.
  DeviceArray<int32_t> row_slot, row_position, row_token;  // [S + prefill_tokens]
  DeviceArray<int32_t> row_task;                           // the same; empty without tasks
  DeviceArray<int32_t> row_with, row_shared;               // [S] PagedRows::shared_with, _tokens
  bool rows_share = false;                                 // any of this step's
  DeviceArray<int32_t> logit_row;                          // [S] 0, 1, 2, ...
  // [2 S, stride]; on the CPU the scheduler's own is read in place
  DeviceArray<int32_t> page_table;
  DeviceArray<int32_t> copy_from[kPageKinds], copy_to[kPageKinds];  // [S]
  DeviceArray<int32_t> decode_slot;                                 // [S]
  DeviceArray<uint64_t> draw_prompt;                                // [S]
  DeviceArray<uint32_t> draw_sample;                                // [S]
  DeviceArray<int32_t> draw_position;                               // [S]
  DeviceArray<int32_t> drawn;                                       // [together, S]
  DeviceArray<float> drawn_logprob;                                 // [together, S]
  DeviceArray<uint8_t> status_then;        // [together - 1, S + 1] behind all but the last of them
  DeviceArray<uint32_t> drawn_kept;        // [S, set words]; empty where sets are not recorded
  std::vector<std::vector<uint8_t>> kept;  // [S] sets of the slot's tokens so far
  const ExpertForm expert_form;            // not there: experts are not recorded
  std::vector<std::vector<uint8_t>> experts;  // [S] of the slot's own rows so far
  std::vector<uint8_t> again_experts;         // of a row that is computed once more
  DeviceArray<int32_t> eos;
  DeviceArray<uint8_t> scratch;
  struct EndedSlot {
    int32_t slot = 0;
    FinishReason finish = FinishReason::kStop;
    bool turn = false;  // only its turn
    std::string why = {};
  };
  std::vector<EndedSlot> ended;  // of this step
  std::vector<SlotTurns> turns;  // [S] where options.turns
  std::vector<EndedTurn> ended_turns;
  std::vector<DrawnToken> last_drawn;
  std::vector<int32_t> sequence;  // of a sample that ends
  StepGraphs graphs;
  int64_t step = 0;
  std::vector<GenerateResult> finished;
  EngineCounters counters;
};

}  // namespace plumb::actor

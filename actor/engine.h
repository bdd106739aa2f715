// Prompts -> samples: the step loop over the paged model.
//
// Purpose: each Step computes one row per running sample (and prompt chunks), draws the next
// tokens, applies the stop rules and refills slots. Random addresses and row-independent kernels
// make a sample's tokens and log-probs independent of the batch, of the order of submission, of
// page sharing and of prompt chunks (fp32 on the CPU: bit for bit). page_tokens is the order of
// attention's sums: another value may change a log-prob's last bits.
// Stop rules: an end token; a stop string, found in the bytes of the completion (special tokens
// included): the token that completes it is the last and is kept whole, even when it goes on beyond
// the string; the limit of new tokens. Logits with NaN or nothing finite end the sample as kAborted
// with the tokens drawn before; counted.
// Turns: of a request with an environment, an end token or a stop string ends a turn, not the
// sample (TakeTurns). The sample keeps its slot and pages, the others go on; what is appended is
// computed as a prompt's tokens are, within the same budget of a step. Draws are addressed by their
// place in the sequence, so that a sample does not depend on how long its environment took.
// Thread safety: none; one thread owns an engine. Ownership: owns pages, state and the Transformer,
// borrows the stream that all of it works on; Weights are the caller's, ready when Step is called
// and read during it only.
// The host is late: where it has nothing to decide between two steps (no prompts in work, no stop
// strings, turns, kept sets or experts) it enqueues `steps_together` of them and reads what they
// drew afterwards. End tokens and limits are the device's: a sample that ended in the first of them
// leaves its slot a step later, and its answer is the same. Allocation: none of ours in a step that
// neither starts nor finishes a sample or a turn (the products' own inside policy_model not
// counted). Errors: Error(kInvalidArgument) for options that cannot be; requests that can never run
// come back as kAborted.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "actor/sequence.h"
#include "common/text/tokenizer/tokenizer.h"
#include "kernels/device/stream.h"
#include "kernels/paged_kv.h"
#include "kernels/sampling.h"
#include "policy_model/families/model_config.h"
#include "policy_model/memory/tensor_group.h"
#include "policy_model/memory/weights.h"

namespace plumb::actor {

struct EngineOptions {
  int32_t max_batch = 256;                                  // samples decoded together
  int32_t page_tokens = 16;                                 // KV slots per page
  int64_t kv_budget_mb = 2048;                              // MiB of KV pages and states at most
  kernels::KvFormat kv_format = kernels::KvFormat::kModel;  // of keys and values
  int32_t prefill_tokens = 2048;                            // prompt tokens per step at most
  int32_t max_new_tokens = 64;  // of a sample, and the default limit of a request
  kernels::SamplingOptions sampling;
  std::vector<std::string> stop;  // stop strings
  std::vector<int32_t> eos;       // end tokens
  bool record_kept = false;       // what filters kept for each token: for whoever scores it again
  // The experts that each token went through, prompts' too: for whoever trains on the answers.
  // REQUIRES: a model with experts.
  bool record_experts = false;
  // Whole pages that a prompt has in common with what these weights computed before, for the same
  // task, are not computed again (scheduler.h); WhyNotShared() says of what that is not so.
  bool share_prefixes = false;
  // The same of answers that have ended: for prompts that are conversations. REQUIRES
  // share_prefixes.
  bool share_answers = false;
  // Where only some layers slide, the others' pages and theirs lie in one pool and none is given
  // back: it takes more memory, and prefixes can be shared.
  bool one_pool = false;
  // Tokens of the longest sequence that will be asked, for the division of the budget where some
  // layers slide (pages/page_pools.h); 0: the model's max_positions. Longer ones run, if they fit.
  int32_t longest = 0;
  bool keep_all_pages = false;  // none is given back as a window moves on
  bool record_steps = true;     // on a GPU: decode steps are CUDA graphs (step_graphs.h)
  // Decode steps that one call of Step does at most; 0: 2 on a GPU, which does not stand still
  // between them, 1 on the CPU, where it would only be late.
  int32_t steps_together = 0;
  bool turns = false;  // requests may have an environment
  // When a step comes with other weights than the one before, what is in work is computed again
  // under them before it goes on (pages/recompute_queue.h). No page is given back then as windows
  // move on, for the first tokens are needed again.
  bool recompute_after_update = false;
  // Of a policy with tasks (common/record/task_tokens.h): how many, and learned tokens of each.
  // Every prompt begins with its task then.
  int32_t tasks = 0, task_tokens = 0;
};

// Totals since construction; plain numbers, read them from the engine's thread.
struct EngineCounters {
  uint64_t steps = 0;
  uint64_t decode_steps = 0;    // steps with at least one decode row
  uint64_t replayed_steps = 0;  // of those, the ones that were one call (step_graphs.h)
  uint64_t generated_tokens = 0;
  uint64_t prefill_tokens = 0;        // computed once a group
  uint64_t appended_tokens = 0;       // of environments, behind turns
  uint64_t recomputed_tokens = 0;     // once more, after new weights; none of them is counted above
  uint64_t prefix_tokens_reused = 0;  // of prompts, once a group: known and not computed
  uint64_t finished_samples = 0;      // of every reason
  uint64_t length_samples = 0;        // cut at the limit
  uint64_t nonfinite_samples = 0;     // aborted: logits without a finite maximum
  uint64_t refused_requests = 0;      // can never run: empty, or longer than the model or the pool
  double generate_seconds = 0;        // wall time inside Step
  int64_t most_kv_bytes = 0;          // of pages and states held in a step
};

// This process has a share of a model (policy_model/families/tensor_share.h) that the ranks of a
// group compute together: the engine's shape and weights are the share's, tokens those of the whole
// model. All of the group's engines are called alike, with the same requests in the same order and
// steps of the same version, and so draw the same tokens. No turns, tasks or graphs.
struct EngineShare {
  policy_model::TensorGroup* group = nullptr;  // nullptr: the model is whole
  int64_t vocab = 0;                           // of the whole model
  class EngineFollowers* followers = nullptr;  // of the first rank: who is told of each call
};

// The engines of the other ranks, as the first one's sees them.
class EngineFollowers {
 public:
  virtual ~EngineFollowers() = default;
  virtual void Submitted(const GenerateRequest& request) = 0;
  virtual void Abandoned() = 0;
  // Before a step with the whole model's weights: what this rank computes it with.
  virtual const policy_model::Weights& Stepping(const policy_model::Weights& whole,
                                                int64_t version) = 0;
};

// One token of the last call of Step, for who shows answers while they are drawn.
struct DrawnToken {
  uint64_t id = 0;  // of the request
  uint32_t sample = 0;
  int32_t token = 0;
  float logprob = 0;
  bool ended = false;  // the sample's last; `finish` says why then
  FinishReason finish = FinishReason::kStop;
};

// A turn that has ended: the sample waits for Continue or End.
struct EndedTurn {
  uint64_t id = 0;  // of the request
  uint32_t sample = 0;
  int32_t turn = 0;             // its number, from 0
  std::vector<int32_t> tokens;  // with the end token, or what completed the stop string
  int32_t room = 0;             // tokens that the answer may still have
};

class Engine {
 public:
  // `tokenizer` gives the bytes that stop strings are looked for in; may be nullptr when
  // options.stop is empty, and has to outlive the engine otherwise.
  Engine(const policy_model::ModelShape& shape, const Stream& stream, DType dtype,
         const EngineOptions& options, const Tokenizer* tokenizer = nullptr,
         const EngineShare& share = {});
  ~Engine();
  // Of keys and values, and of states, that such an engine takes on a GPU; on the CPU it is what it
  // touches at most.
  static int64_t KvBytes(const policy_model::ModelShape& shape, Device device, DType dtype,
                         const EngineOptions& options);

  void Submit(GenerateRequest request);
  // One step with these weights, or steps_together; tokens drawn are stamped with `version`. False:
  // there was nothing to do.
  bool Step(const policy_model::Weights& weights, int64_t version);
  // What the last Step drew, of each sample in order; until the next one.
  std::span<const DrawnToken> last_drawn() const;
  // Groups all of whose samples have ended, in the order they ended.
  std::vector<GenerateResult> TakeFinished();
  // Ends a sample that runs or waits behind its newest token, as a stop string would: for whoever
  // knows more than the stop rules. `why` of kAborted; `rest`: last words of its environment, no
  // more than there is room. False: no such sample has a slot.
  bool End(uint64_t id, uint32_t sample, FinishReason finish = FinishReason::kStop,
           std::string why = {}, std::span<const int32_t> rest = {});
  // Turns that ended since the last call, in the order they ended.
  std::vector<EndedTurn> TakeTurns();
  // Ends the turn that a sample is drawing behind its newest token, as a stop string would. False:
  // no such sample has drawn a token of a turn that goes on.
  bool EndTurn(uint64_t id, uint32_t sample);
  // The policy's next turn begins behind `tokens`, fewer than there is room. False: no such sample
  // waits.
  bool Continue(uint64_t id, uint32_t sample, std::span<const int32_t> tokens);
  // Forgets a request and releases its pages; it never comes back. False: there is none that has
  // not finished.
  bool Cancel(uint64_t id);
  // Forgets every request that has not finished, releases its pages and returns their ids in order
  // of submission.
  std::vector<uint64_t> Abandon();

  bool idle() const;           // nothing submitted that has not finished
  bool blocked() const;        // not idle, and everything in a slot waits for its environment
  int32_t running() const;     // samples in a slot
  int64_t unstarted() const;   // samples without a slot yet
  int32_t num_pages() const;   // of all pools
  int32_t free_pages() const;  // that no request holds
  // Of them, those that are kept in case a prompt begins like one before it.
  int32_t idle_pages() const;
  // Why no prefixes are shared though options().share_prefixes asks for it; "": they are.
  const std::string& why_not_shared() const;
  const EngineCounters& counters() const;
  const EngineOptions& options() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plumb::actor

// Many prompts through the engine, a bounded number of them in flight.
//
// Purpose: what `generate --prompts` and `eval` share: every prompt gets its answers, at most
// max_new_tokens each and no more than the model's positions leave, however many prompts wait.
// Answers are handed over in the order of the prompts; those that end before an earlier prompt's
// are held meanwhile, held_tokens of them at most, since no more prompts are begun until then.
// Thread safety: one thread. Ownership: borrows the model. Errors: those of the engine's options;
// an answer that was never generated comes as kAborted with its reason.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "actor/engine.h"
#include "run/session/model_folder.h"

namespace plumb::run {

struct AnsweringOptions {
  int64_t samples = 1;  // answers a prompt
  int64_t max_new_tokens = 256;
  int64_t max_batch = 256;  // answers drawn together
  // Answers until the first prompt's have ended, at most max_batch: on the CPU, where a step of
  // many takes as many times longer, somebody sees these soon. 0: max_batch.
  int64_t first_batch = 0;
  kernels::SamplingOptions sampling;
  std::vector<std::string> stop;
  Purpose purpose = Purpose::kEval;  // of the random address: train and eval never meet
  // Of answers that wait for an earlier prompt's; never so few that the batch would run empty.
  int64_t held_tokens = int64_t{4} << 20;
};

class Answering {
 public:
  Answering(const ModelFolder& model, const AnsweringOptions& options);

  // `prompts` have their tokens. `finished` sees each prompt's index and its answers, prompt by
  // prompt; `stop` is asked between steps. False: stopped; the rest has no answer, and what had
  // ended behind a prompt that had not was handed over last.
  // `drawn` sees each token as it is drawn; may be empty.
  using Finished = std::function<void(size_t prompt, actor::GenerateResult& result)>;
  bool Run(std::span<const Prompt> prompts, const Finished& finished,
           const std::function<bool()>& stop,
           const std::function<void(const actor::DrawnToken&)>& drawn = {});

  const actor::EngineCounters& counters() const { return engine_.counters(); }
  int64_t ended() const { return ended_; }  // prompts of the running or last Run, held ones too
  // Of the tokens that the running Run will draw, those that are drawn, in [0, 1]. An answer that
  // has not ended counts as long as it may become until a batch of them has ended, then as long as
  // they.
  double share() const;

 private:
  const ModelFolder& model_;
  const AnsweringOptions options_;
  actor::Engine engine_;
  int64_t ended_ = 0, asked_ = 0;  // prompts
  int64_t ended_tokens_ = 0, drawn_before_ = 0;
};

// A sample as rewards see it: prompt and answer as one sequence, and the answer's text.
Trajectory AsTrajectory(const Prompt& prompt, const actor::GeneratedSample& sample,
                        const Tokenizer& tokenizer);
const char* FinishName(FinishReason finish);  // stop, length, aborted

}  // namespace plumb::run

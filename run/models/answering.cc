#include "run/models/answering.h"

#include <algorithm>
#include <map>

namespace plumb::run {
namespace {

constexpr size_t kPromptsInFlight = 512;  // more wait here, not in the engine
// Of a prompt; how pages are divided reckons with it, and longer ones run as well.
constexpr int32_t kUsualTokens = 2048;

}  // namespace

Answering::Answering(const ModelFolder& model, const AnsweringOptions& options)
    : model_(model),
      options_(options),
      engine_(model.shape, model.stream, model.dtype,
              {.max_batch = static_cast<int32_t>(options.max_batch),
               .max_new_tokens = static_cast<int32_t>(options.max_new_tokens),
               .sampling = options.sampling,
               .stop = options.stop,
               .eos = model.shape.eos_tokens,
               .share_prefixes = true,
               .longest = kUsualTokens + static_cast<int32_t>(options.max_new_tokens),
               .tasks = model.front.empty() ? 0 : 1,
               .task_tokens = static_cast<int32_t>(model.front.size())},
              model.tokenizer.get()) {}

double Answering::share() const {
  const auto drawn = static_cast<double>(static_cast<int64_t>(engine_.counters().generated_tokens) -
                                         drawn_before_);
  if (drawn <= 0) return 0;
  const int64_t all = asked_ * options_.samples, ended = ended_ * options_.samples;
  const int64_t longest = std::min(options_.max_new_tokens, model_.shape.max_positions);
  const double each = ended >= options_.max_batch
                          ? static_cast<double>(ended_tokens_) / static_cast<double>(ended)
                          : static_cast<double>(longest);
  const double wanted =
      static_cast<double>(ended_tokens_) + each * static_cast<double>(all - ended);
  return drawn / std::max(drawn, wanted);
}

bool Answering::Run(std::span<const Prompt> prompts, const Finished& finished,
                    const std::function<bool()>& stop,
                    const std::function<void(const actor::DrawnToken&)>& drawn) {
  // Prompts that may have begun before the first of them has been handed over.
  const auto window = static_cast<size_t>(
      std::max(2 + 2 * options_.max_batch / options_.samples,
               options_.held_tokens / (options_.samples * options_.max_new_tokens)));
  const size_t first =
      options_.first_batch > 0
          ? static_cast<size_t>((options_.first_batch + options_.samples - 1) / options_.samples)
          : kPromptsInFlight;
  std::map<size_t, actor::GenerateResult> held;
  size_t submitted = 0, next = 0;
  asked_ = static_cast<int64_t>(prompts.size());
  ended_ = ended_tokens_ = 0;
  drawn_before_ = static_cast<int64_t>(engine_.counters().generated_tokens);
  while (next < prompts.size()) {
    if (stop()) {
      engine_.Abandon();
      for (auto& [prompt, result] : held) finished(prompt, result);
      return false;
    }
    const size_t in_flight = next == 0 ? std::min(first, kPromptsInFlight) : kPromptsInFlight;
    for (; submitted < prompts.size() && submitted - next < window &&
           submitted - static_cast<size_t>(ended_) < in_flight;
         ++submitted) {
      const Prompt& p = prompts[submitted];
      const int64_t room = model_.shape.max_positions - static_cast<int64_t>(p.tokens.size());
      engine_.Submit(
          {.id = submitted,
           .tokens = p.tokens,
           .num_samples = static_cast<int32_t>(options_.samples),
           .prompt_key = actor::RandomAddress(options_.purpose, p.row),
           .limit = static_cast<int32_t>(std::clamp<int64_t>(room, 1, options_.max_new_tokens))});
    }
    engine_.Step(*model_.weights, 0);
    if (drawn) {
      for (const actor::DrawnToken& token : engine_.last_drawn()) drawn(token);
    }
    for (actor::GenerateResult& result : engine_.TakeFinished()) {
      ++ended_;
      for (const auto& sample : result.samples)
        ended_tokens_ += static_cast<int64_t>(sample.tokens.size());
      held.emplace(result.id, std::move(result));
    }
    for (; !held.empty() && held.begin()->first == next; ++next, held.erase(held.begin()))
      finished(next, held.begin()->second);
  }
  return true;
}

Trajectory AsTrajectory(const Prompt& prompt, const actor::GeneratedSample& sample,
                        const Tokenizer& tokenizer) {
  Trajectory t;
  t.sample = sample.sample;
  t.tokens = prompt.tokens;
  t.tokens.insert(t.tokens.end(), sample.tokens.begin(), sample.tokens.end());
  const auto begin = static_cast<int32_t>(prompt.tokens.size()),
             end = static_cast<int32_t>(t.tokens.size());
  t.segments = {{.origin = Origin::kPrompt, .begin = 0, .end = begin},
                {.origin = Origin::kPolicy, .begin = begin, .end = end}};
  t.finish = sample.finish;
  t.unscored_reason = sample.reason;
  t.completion = tokenizer.Decode(sample.tokens);
  return t;
}

const char* FinishName(FinishReason finish) {
  switch (finish) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kAborted: break;
  }
  return "aborted";
}

}  // namespace plumb::run

#include "run/serve/batch_engine.h"

#include <algorithm>
#include <map>
#include <span>
#include <utility>

#include "actor/pages/kv_pages.h"
#include "common/base/error.h"
#include "common/record/abort_reason.h"
#include "policy_model/memory/out_of_memory.h"
#include "policy_model/memory/threads.h"
#include "policy_model/transformer.h"
#include "run/serve/cut_text.h"

namespace plumb::run {
namespace {

using SteadyClock = std::chrono::steady_clock;

// How long the prompts of newcomers may hold up a step of those that run: on the CPU a token of a
// prompt costs about as much as one of an answer.
constexpr int32_t kPrefillOnCpu = 256, kPrefillOnGpu = 2048;
constexpr int32_t kPageTokens = 16;
constexpr int64_t kUsualPrompt = 2048;  // how pages are divided reckons with it

// A run's options by the names that they have here.
std::string AsServed(std::string reason) {
  for (const auto& [run, here] :
       {std::pair<std::string, std::string>{"rollout.kv_budget_mb", "--kv-mb"},
        {"data.max_prompt_tokens", "the prompt's tokens"},
        {"rollout.max_new_tokens", "max_tokens"}}) {
    if (const size_t at = reason.find(run); at != std::string::npos)
      reason.replace(at, run.size(), here);
  }
  return reason;
}

int64_t ContextOf(const ModelFolder& model, const BatchOptions& options) {
  const int64_t page = actor::KvPages::PageBytes(model.shape, model.dtype, kPageTokens);
  return std::min(model.shape.max_positions, (options.kv_mb << 20) / page * kPageTokens);
}

struct Choice {
  CutText text;
  std::vector<int32_t> tokens;  // of the part that is being made
  std::vector<float> logprobs;
  bool ended = false;
};

}  // namespace

// Guarded by the engine's mutex where it says so; the rest is the thread's from TakeOn on.
struct RunningAnswer::Job {
  Asked asked;
  SteadyClock::time_point begin;
  std::vector<Choice> choices;
  std::vector<uint64_t> ids;  // of the engine's requests, one a prompt
  bool begun = false;         // its first token is there
  int64_t open = 0;           // choices that have not ended
  // guarded
  News news;
  bool finished = false;  // the thread has nothing more to do with it
  bool released = false;
  CondVar changed;
};

struct BatchEngine::Engines {
  std::vector<std::unique_ptr<actor::Engine>> of;
  std::map<uint64_t, std::shared_ptr<Job>> by_id;
  uint64_t next_id = 1;
};

RunningAnswer::~RunningAnswer() {
  MutexLock lock(engine_.mu_);
  job_->released = true;
  std::erase(engine_.jobs_, job_);
  engine_.counters_.requests = static_cast<int64_t>(engine_.jobs_.size());
  if (!job_->finished) {
    engine_.left_ = true;
    ++engine_.counters_.requests_left;
    engine_.work_.notify_one();
  }
  if (engine_.jobs_.empty()) engine_.idle_.notify_all();
}

News RunningAnswer::Wait(SteadyClock::time_point deadline) {
  MutexLock lock(engine_.mu_);
  job_->changed.wait_until(lock, deadline, [this] { return !job_->news.empty(); });
  return std::exchange(job_->news, {});
}

BatchEngine::BatchEngine(const ServedModels& models, const BatchOptions& options)
    : models_(models), options_(options), context_(ContextOf(models.folder(), options)) {
  thread_ = std::thread([this] { Loop(); });
}

BatchEngine::~BatchEngine() {
  {
    MutexLock lock(mu_);
    closed_ = give_up_ = stop_ = true;
    work_.notify_one();
  }
  thread_.join();
}

std::unique_ptr<RunningAnswer> BatchEngine::Ask(Asked asked) {
  auto job = std::make_shared<Job>();
  job->begin = SteadyClock::now();
  job->open = static_cast<int64_t>(asked.prompts.size()) * asked.n;
  for (int64_t i = 0; i < job->open; ++i) {
    job->choices.push_back(
        {.text = CutText(*models_.folder().tokenizer, asked.stop), .tokens = {}, .logprobs = {}});
  }
  job->asked = std::move(asked);
  MutexLock lock(mu_);
  if (!failure_.empty()) throw ApiError{500, "the engine has ended: " + failure_, "", ""};
  if (closed_) throw ApiError{503, "the server is ending: it takes nothing on", "", "ending"};
  if (static_cast<int64_t>(jobs_.size()) >= options_.max_requests) {
    throw ApiError{429,
                   std::to_string(jobs_.size()) +
                       " requests are being answered or wait, which is --max-requests: ask again "
                       "later",
                   "", "queue_full"};
  }
  jobs_.push_back(job);
  counters_.requests = static_cast<int64_t>(jobs_.size());
  fresh_.push_back(job);
  work_.notify_one();
  return std::unique_ptr<RunningAnswer>(new RunningAnswer(*this, std::move(job)));
}

void BatchEngine::Close() {
  MutexLock lock(mu_);
  closed_ = true;
}

bool BatchEngine::closed() const {
  MutexLock lock(mu_);
  return closed_;
}

bool BatchEngine::WaitIdle(SteadyClock::time_point deadline) {
  MutexLock lock(mu_);
  return idle_.wait_until(lock, deadline, [this]() PLUMB_REQUIRES(mu_) { return jobs_.empty(); });
}

void BatchEngine::GiveUp() {
  MutexLock lock(mu_);
  closed_ = give_up_ = true;
  work_.notify_one();
}

BatchCounters BatchEngine::counters() const {
  MutexLock lock(mu_);
  return counters_;
}

std::string BatchEngine::Failure() const {
  MutexLock lock(mu_);
  return failure_;
}

void BatchEngine::Fail(const ApiError& why) {
  MutexLock lock(mu_);
  fresh_.clear();
  for (const auto& job : jobs_) {
    if (job->finished) continue;
    job->finished = true;
    job->news.failure = why;
    job->changed.notify_all();
  }
}

void BatchEngine::Loop() {
  try {
    try {
      // A thread begins with one a core, whatever the process was given.
      policy_model::UseThreads(options_.threads > 0 ? static_cast<int>(options_.threads)
                                                    : policy_model::Threads());
      const ModelFolder& m = models_.folder();
      const bool cpu = m.stream.device().is_cpu();
      Engines engines;
      for (size_t i = 0; i < models_.models().size(); ++i) {
        engines.of.push_back(std::make_unique<actor::Engine>(
            m.shape, m.stream, m.dtype,
            actor::EngineOptions{
                .max_batch = static_cast<int32_t>(options_.max_batch),
                .page_tokens = kPageTokens,
                .kv_budget_mb = options_.kv_mb,
                .prefill_tokens = cpu ? kPrefillOnCpu : kPrefillOnGpu,
                .max_new_tokens = static_cast<int32_t>(options_.max_new_tokens),
                .sampling = options_.sampling,
                .eos = m.shape.eos_tokens,
                .share_prefixes = options_.share_prefixes,
                .share_answers = options_.share_prefixes,
                .longest = static_cast<int32_t>(kUsualPrompt + options_.max_new_tokens),
                .tasks = m.front.empty() ? 0 : 1,
                .task_tokens = static_cast<int32_t>(m.front.size())},
            m.tokenizer.get()));
      }
      for (;;) {
        std::vector<std::shared_ptr<Job>> fresh;
        bool give_up = false;
        {
          MutexLock lock(mu_);
          work_.wait(lock, [&]() PLUMB_REQUIRES(mu_) {
            return stop_ || give_up_ || left_ || !fresh_.empty() || !engines.by_id.empty();
          });
          if (stop_) break;
          give_up = std::exchange(give_up_, false);
          fresh.swap(fresh_);
        }
        if (give_up) {
          for (auto& engine : engines.of) engine->Abandon();
          engines.by_id.clear();
          Fail({503, "the server ends: the answer was cut off", "", "ending"});
          continue;
        }
        TakeOn(engines, std::move(fresh));
        DropLeft(engines);
        for (size_t i = 0; i < engines.of.size(); ++i) {
          actor::Engine& engine = *engines.of[i];
          const auto begin = SteadyClock::now();
          const bool stepped = !engine.idle() && engine.Step(*models_.models()[i].weights, 0);
          const std::chrono::duration<double> seconds = SteadyClock::now() - begin;
          Deliver(engines, i, stepped, seconds.count());
        }
      }
    } catch (...) {
      policy_model::RethrowOutOfMemory(models_.folder().stream.device());
    }
  } catch (const std::exception& e) {
    {
      MutexLock lock(mu_);
      failure_ = e.what();
    }
    Fail({500, std::string("the engine has ended: ") + e.what(), "", ""});
    return;
  }
  Fail({503, "the server ends: the answer was cut off", "", "ending"});
}

void BatchEngine::TakeOn(Engines& engines, std::vector<std::shared_ptr<Job>> fresh) {
  for (const auto& job : fresh) {
    const Asked& asked = job->asked;
    actor::Engine& engine = *engines.of[asked.model];
    for (size_t p = 0; p < asked.prompts.size(); ++p) {
      const uint64_t id = engines.next_id++;
      job->ids.push_back(id);
      engines.by_id[id] = job;
      engine.Submit({.id = id,
                     .tokens = asked.prompts[p].tokens,
                     .num_samples = asked.n,
                     .first_sample = static_cast<uint32_t>(p) * static_cast<uint32_t>(asked.n),
                     .prompt_key = asked.key,
                     .limit = asked.prompts[p].limit,
                     .sampling = asked.sampling});
    }
  }
}

// Whose asker has gone: their slots are the next ones'.
void BatchEngine::DropLeft(Engines& engines) {
  {
    MutexLock lock(mu_);
    if (!std::exchange(left_, false)) return;
  }
  std::vector<std::shared_ptr<Job>> gone;
  for (const auto& [id, job] : engines.by_id) {
    MutexLock lock(mu_);
    if (!job->released) continue;
    job->finished = true;
    if (gone.empty() || gone.back() != job) gone.push_back(job);
  }
  for (const auto& job : gone) {
    for (const uint64_t id : job->ids) {
      engines.of[job->asked.model]->Cancel(id);
      engines.by_id.erase(id);
    }
  }
}

void BatchEngine::Deliver(Engines& engines, size_t model, bool stepped, double seconds) {
  actor::Engine& engine = *engines.of[model];
  const auto& eos = models_.folder().shape.eos_tokens;
  uint64_t stopped = 0, length = 0, failed = 0;
  std::vector<std::pair<Job*, AnswerPart>> parts;
  std::vector<std::pair<uint64_t, uint32_t>> to_end;
  std::vector<double> first;
  const auto drawn_now =
      stepped ? engine.last_drawn() : std::span<const actor::DrawnToken>();  // no token twice
  for (const actor::DrawnToken& drawn : drawn_now) {
    const auto at = engines.by_id.find(drawn.id);
    if (at == engines.by_id.end()) continue;
    Job& job = *at->second;
    Choice& choice = job.choices[drawn.sample];
    if (choice.ended) continue;
    if (!std::exchange(job.begun, true))
      first.push_back(std::chrono::duration<double>(SteadyClock::now() - job.begin).count());
    choice.tokens.push_back(drawn.token);
    choice.logprobs.push_back(drawn.logprob);
    AnswerPart part;
    part.answer = drawn.sample;
    // The end token is no text, whatever it is called.
    const bool end_token = drawn.ended && drawn.finish == FinishReason::kStop &&
                           std::find(eos.begin(), eos.end(), drawn.token) != eos.end();
    if (!end_token) part.text = choice.text.Add(drawn.token);
    part.ended = drawn.ended || choice.text.stopped();
    part.finish = drawn.ended && !choice.text.stopped() ? drawn.finish : FinishReason::kStop;
    if (part.ended) {
      part.text += choice.text.End();
      // what was held back may hold a stop string's last character
      if (choice.text.stopped()) part.finish = FinishReason::kStop;
      part.stop = choice.text.found();
      choice.ended = true;
      --job.open;
      ++(part.finish == FinishReason::kLength ? length : stopped);
      if (!drawn.ended) to_end.emplace_back(drawn.id, drawn.sample);
    }
    if (part.text.empty() && !part.ended) continue;
    part.tokens = std::exchange(choice.tokens, {});
    part.logprobs = std::exchange(choice.logprobs, {});
    parts.emplace_back(&job, std::move(part));
  }
  for (const auto& [id, sample] : to_end) engine.End(id, sample);
  std::vector<std::pair<std::shared_ptr<Job>, ApiError>> failures;
  for (const actor::GenerateResult& result : engine.TakeFinished()) {
    const auto at = engines.by_id.find(result.id);
    if (at == engines.by_id.end()) continue;
    for (const actor::GeneratedSample& sample : result.samples) {
      Choice& choice = at->second->choices[sample.sample];
      if (sample.finish != FinishReason::kAborted || choice.ended) continue;
      choice.ended = true;
      ++failed;
      // What was not refused before its first token was given up behind one.
      const bool ours = sample.reason.starts_with(kNonFiniteLogits);
      failures.emplace_back(
          at->second, ApiError{ours ? 500 : 400, AsServed(sample.reason), "", "not_answered"});
    }
  }
  MutexLock lock(mu_);
  for (auto& [job, part] : parts) {
    job->news.parts.push_back(std::move(part));
    if (job->open == 0) job->news.all_ended = job->finished = true;
    job->changed.notify_all();
  }
  for (auto& [job, failure] : failures) {
    if (job->finished) continue;
    job->news.failure = failure;
    job->finished = true;
    job->changed.notify_all();
  }
  for (const double seconds : first) {
    size_t bucket = 0;
    while (bucket < std::size(BatchCounters::kFirstTokenBounds) &&
           seconds > BatchCounters::kFirstTokenBounds[bucket])
      ++bucket;
    ++counters_.first_tokens[bucket];
    counters_.first_token_seconds += seconds;
  }
  counters_.answers_stopped += stopped;
  counters_.answers_length += length;
  counters_.answers_failed += failed;
  for (auto at = engines.by_id.begin(); at != engines.by_id.end();) {
    if (!at->second->finished || at->second->asked.model != model) {
      ++at;
      continue;
    }
    engine.Cancel(at->first);  // other answers of a request that failed
    at = engines.by_id.erase(at);
  }
  Count(engines, seconds);  // before anybody is told
}

void BatchEngine::Count(const Engines& engines, double seconds) {
  counters_.step_seconds += seconds;
  counters_.prompt_tokens = counters_.generated_tokens = counters_.reused_tokens = 0;
  counters_.running = counters_.waiting = counters_.pages = counters_.held_pages = 0;
  for (const auto& engine : engines.of) {
    counters_.prompt_tokens += engine->counters().prefill_tokens;
    counters_.generated_tokens += engine->counters().generated_tokens;
    counters_.reused_tokens += engine->counters().prefix_tokens_reused;
    counters_.running += engine->running();
    counters_.waiting += engine->unstarted();
    counters_.pages += engine->num_pages();
    counters_.held_pages += engine->num_pages() - engine->free_pages();
  }
}

}  // namespace plumb::run

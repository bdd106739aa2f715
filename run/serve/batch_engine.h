// Many askers, one batch: the thread that steps the engine, and what it tells each of them.
//
// Purpose: requests join the running batch between two steps and leave it when they have ended,
// when a stop string is found, or when their asker goes. Each model has an engine of its own; they
// take turns step by step. Thread safety: all of BatchEngine's members from all threads; a
// RunningAnswer belongs to one thread at a time. Ownership: borrows the models; owns its engines
// and its thread. A RunningAnswer that is dropped before its end frees its slots.
// Errors: ApiError: 429 where too many are answered already, 503 once it was closed, 400 for what
// the engine cannot run; what the thread itself dies of is Failure(), and 500 for whoever waits.
#pragma once

#include <chrono>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "actor/engine.h"
#include "common/base/mutex.h"
#include "run/serve/api_error.h"
#include "run/serve/served_models.h"

namespace plumb::run {

struct BatchOptions {
  int64_t max_batch = 64;         // answers drawn together, of each model
  int64_t max_requests = 256;     // being answered or waiting
  int64_t max_new_tokens = 4096;  // of an answer
  int64_t kv_mb = 2048;           // MiB of keys and values, of each model
  int64_t threads = 0;            // 0: as the process has it
  bool share_prefixes = true;     // pages that prompts have in common with earlier requests
  kernels::SamplingOptions sampling;
};

struct AskedPrompt {
  std::vector<int32_t> tokens;
  int32_t limit = 1;  // new tokens of each answer
};

struct Asked {
  size_t model = 0;
  std::vector<AskedPrompt> prompts;
  int32_t n = 1;     // answers a prompt; answer i of prompt p is number p * n + i
  uint64_t key = 0;  // random address: same key, tokens and number, same answer
  kernels::SamplingOptions sampling;
  std::vector<std::string> stop;
};

// What has come of one answer since the last time.
struct AnswerPart {
  uint32_t answer = 0;  // its number
  std::string text;
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;  // of the tokens
  bool ended = false;
  FinishReason finish = FinishReason::kStop;
  std::string stop;  // the stop string that ended it; "": none did
};

struct News {
  std::vector<AnswerPart> parts;
  bool all_ended = false;           // nothing comes after these
  std::optional<ApiError> failure;  // nor after this
  bool empty() const { return parts.empty() && !all_ended && !failure; }
};

// Totals since the start, and what is now.
struct BatchCounters {
  static constexpr double kFirstTokenBounds[] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                                 1,    2.5,   5,    10,  30,   60};
  uint64_t prompt_tokens = 0, generated_tokens = 0;
  uint64_t reused_tokens = 0;  // of prompts, from pages of earlier requests
  uint64_t answers_stopped = 0, answers_length = 0, answers_failed = 0, requests_left = 0;
  uint64_t first_tokens[std::size(kFirstTokenBounds) + 1] = {};  // requests by seconds, each once
  double first_token_seconds = 0;
  int64_t requests = 0;  // taken on and not released
  int64_t running = 0;   // answers in a slot
  int64_t waiting = 0;   // answers without one
  int64_t pages = 0, held_pages = 0;
  double step_seconds = 0;
};

class BatchEngine;

class RunningAnswer {
 public:
  ~RunningAnswer();  // of one that has not ended: it is given up
  RunningAnswer(const RunningAnswer&) = delete;

  // Waits for news; empty when there are none by then.
  News Wait(std::chrono::steady_clock::time_point deadline);

 private:
  friend class BatchEngine;
  struct Job;
  RunningAnswer(BatchEngine& engine, std::shared_ptr<Job> job)
      : engine_(engine), job_(std::move(job)) {}
  BatchEngine& engine_;
  const std::shared_ptr<Job> job_;
};

class BatchEngine {
 public:
  BatchEngine(const ServedModels& models, const BatchOptions& options);
  ~BatchEngine();  // gives up what is left

  std::unique_ptr<RunningAnswer> Ask(Asked asked);
  // Takes on nothing from here on.
  void Close();
  // Until nothing that was taken on is left; false: not by then.
  bool WaitIdle(std::chrono::steady_clock::time_point deadline);
  // Ends all that is left with 503.
  void GiveUp();

  bool closed() const;
  BatchCounters counters() const;
  std::string Failure() const;  // why its thread ended; "": it runs
  const BatchOptions& options() const { return options_; }
  // Tokens that an answer and its prompt may have: the model's positions, or what the memory for
  // keys and values surely holds.
  int64_t context() const { return context_; }

 private:
  friend class RunningAnswer;
  using Job = RunningAnswer::Job;
  struct Engines;  // of the thread

  void Loop();
  void TakeOn(Engines& engines, std::vector<std::shared_ptr<Job>> fresh);
  void DropLeft(Engines& engines);
  void Deliver(Engines& engines, size_t model, bool stepped, double seconds);
  void Fail(const ApiError& why);
  void Count(const Engines& engines, double seconds) PLUMB_REQUIRES(mu_);

  const ServedModels& models_;
  const BatchOptions options_;
  const int64_t context_;
  mutable Mutex mu_;
  CondVar work_, idle_;
  std::vector<std::shared_ptr<Job>> fresh_ PLUMB_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<Job>> jobs_ PLUMB_GUARDED_BY(mu_);  // all that were not released
  bool closed_ PLUMB_GUARDED_BY(mu_) = false;
  bool give_up_ PLUMB_GUARDED_BY(mu_) = false;
  bool stop_ PLUMB_GUARDED_BY(mu_) = false;
  bool left_ PLUMB_GUARDED_BY(mu_) = false;  // somebody went whose answer had not ended
  std::string failure_ PLUMB_GUARDED_BY(mu_);
  BatchCounters counters_ PLUMB_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace plumb::run

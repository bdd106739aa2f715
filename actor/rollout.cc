#include "actor/rollout.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "common/base/error.h"

namespace plumb::actor {
namespace {

constexpr size_t kDigestsKept = 64;  // versions that can still be in flight
// after giving a lease back: it comes again at once
constexpr std::chrono::milliseconds kStaleBackoff{100};
// after a renewal or a return that found nobody
constexpr std::chrono::milliseconds kPortBackoff{5000};

bool Retryable(const Error& e) {
  return e.code() == ErrorCode::kDeadline || e.code() == ErrorCode::kUnavailable ||
         e.code() == ErrorCode::kNoSpace;
}

}  // namespace

Rollout::Rollout(const policy_model::ModelShape& shape, const Stream& stream, DType dtype,
                 RolloutOptions options, PromptSource* prompts, Policy* policy,
                 const Tokenizer* tokenizer, const ChatTemplate* chat_template, GroupSink sink,
                 Surroundings around)
    : options_(std::move(options)),
      prompts_(prompts),
      policy_(policy),
      tokenizer_(tokenizer),
      chat_template_(chat_template),
      sink_(std::move(sink)),
      around_(std::move(around)),
      engine_(shape, stream, dtype, options_.engine, tokenizer, options_.share) {
  PLUMB_CHECK(prompts_ != nullptr && policy_ != nullptr && tokenizer_ != nullptr && sink_);
  if (around_.environment != nullptr) {
    PLUMB_CHECK(options_.engine.turns, "an engine without turns");
    episodes_ = std::make_unique<Episodes>(around_.environment, tokenizer, chat_template,
                                           options_.episodes);
  }
  if (around_.agents != nullptr) {
    PLUMB_CHECK(options_.engine.turns && !episodes_ && !options_.greedy_last,
                "agents without turns, or beside an environment");
    agents_ = std::make_unique<AgentBook>(around_.agents, tokenizer, &engine_, options_.agents);
  }
}

bool Rollout::Pump(Deadline deadline) {
  if (around_.stop()) return true;
  bool delivered = Deliver();
  for (;;) {
    Renew();
    Release();
    if (around_.stop()) return true;
    LeaseMore(deadline);
    if (around_.stop()) return true;
    SubmitPending(deadline);
    StepEngine();
    Converse(deadline);
    ServeAgents(deadline);
    Collect();
    delivered |= Deliver();
    if (source_finished_ && in_flight() == 0) return false;
    if (delivered || std::chrono::steady_clock::now() >= deadline) return true;
    if (engine_.idle() && !outbox_.empty()) {  // only the sink is awaited
      std::this_thread::sleep_until(
          std::min(deadline, After(std::chrono::milliseconds(options_.poll_ms))));
    }
  }
}

void Rollout::LeaseMore(Deadline deadline) {
  const int64_t hint = std::max(1, options_.group_size_hint);
  // one group ahead, so that slots refill without a gap
  const int64_t capacity = options_.engine.max_batch + hint;
  if (source_finished_ || samples_held_ >= capacity) return;
  const bool busy = in_flight() > 0;
  const auto now = std::chrono::steady_clock::now();
  if (now < next_lease_) {
    if (busy) return;
    std::this_thread::sleep_until(std::min(deadline, next_lease_));
    if (std::chrono::steady_clock::now() < next_lease_) return;
  }
  const int groups = static_cast<int>(std::max<int64_t>(1, (capacity - samples_held_) / hint));
  try {
    std::vector<PromptLease> leases = prompts_->Lease(groups, busy ? now : deadline);
    if (leases.empty()) {
      next_lease_ = busy ? After(std::chrono::milliseconds(options_.poll_ms)) : now;
      if (!busy) source_finished_ = prompts_->Finished();
    }
    for (PromptLease& lease : leases) {
      ++counters_.leases;
      samples_held_ += lease.num_samples;
      pending_.push_back(std::move(lease));
    }
  } catch (const Error& e) {
    if (!Retryable(e)) throw;
    ++counters_.port_retries;
    next_lease_ = After(std::chrono::milliseconds(options_.poll_ms));
  }
}

// Whether a lease of version `wanted` may be submitted now; waits for the version when nothing else
// is to be done.
bool Rollout::VersionReady(int64_t wanted, Deadline deadline) {
  const Deadline wait = in_flight_.empty() ? deadline : Deadline{};
  if (exact_in_flight_ > 0) return wanted < 0 || wanted == exact_version_;
  if (wanted < 0) return policy_->version() >= 0 || policy_->Update(-1, wait);
  return policy_->Update(wanted, wait);
}

void Rollout::SubmitPending(Deadline deadline) {
  while (!pending_.empty() && VersionReady(pending_.front().policy_version, deadline)) {
    PromptLease lease = std::move(pending_.front());
    pending_.pop_front();
    const int64_t wanted = lease.policy_version;
    if (wanted >= 0 && policy_->version() != wanted) {
      GiveBack(lease);
      continue;
    }
    NoteVersion();
    if (!SubmitOne(std::move(lease))) return;
  }
}

void Rollout::GiveBack(const PromptLease& lease) {
  ++counters_.stale_leases;
  samples_held_ -= lease.num_samples;
  stale_log_.Warning("gave lease " + std::to_string(lease.lease_id) +
                     " back: it wants policy version " + std::to_string(lease.policy_version) +
                     ", the weights here are version " + std::to_string(policy_->version()));
  next_lease_ = After(kStaleBackoff);
  returned_.push_back(lease);
  Release();
}

// Until the store has heard of it: what it believes to be here it would wait for, as long as this
// actor renews.
void Rollout::Release() {
  if (returned_.empty() || std::chrono::steady_clock::now() < next_release_) return;
  try {
    prompts_->Release(returned_);
    returned_.clear();
  } catch (const Error& e) {
    if (!Retryable(e)) throw;
    ++counters_.port_retries;
    next_release_ = After(kPortBackoff);
  }
}

void Rollout::Renew() {
  if (std::chrono::steady_clock::now() < next_renewal_) return;
  next_renewal_ = After(std::chrono::milliseconds(options_.renew_ms));
  try {
    prompts_->Renew();
  } catch (const Error& e) {
    if (!Retryable(e)) throw;
    ++counters_.port_retries;
    next_renewal_ = After(std::min(kPortBackoff, std::chrono::milliseconds(options_.renew_ms)));
  }
}

void Rollout::Tokenize(Prompt& prompt) const {
  if (!prompt.tokens.empty()) return;
  if (prompt.messages.empty()) {
    prompt.tokens = tokenizer_->Encode(prompt.text);
    return;
  }
  if (chat_template_ == nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                "the prompt consists of messages and the model has no chat template");
  }
  prompt.tokens = tokenizer_->Encode(
      chat_template_->Render(prompt.messages, /*add_generation_prompt=*/true, prompt.extra_json));
}

bool Rollout::SubmitOne(PromptLease lease) {
  Prompt whole;  // what an environment begins with
  if (episodes_ || agents_) {
    try {
      whole = around_.whole_prompt(lease);
    } catch (const Error& e) {
      if (!Retryable(e)) throw;
      ++counters_.port_retries;
      pending_.push_front(std::move(lease));
      return false;
    }
  }
  try {
    Tokenize(lease.prompt);
  } catch (const Error& e) {
    ++counters_.untokenizable;
    std::vector<GeneratedSample> samples(static_cast<size_t>(lease.num_samples));
    for (GeneratedSample& s : samples) {
      s.finish = FinishReason::kAborted;
      s.reason = std::string("the prompt cannot be tokenized: ") + e.what();
    }
    samples_held_ -= lease.num_samples;
    outbox_.push_back(Build(std::move(lease), std::move(samples)));
    return true;
  }
  const uint64_t request = next_request_++;
  if (lease.policy_version >= 0) {
    ++exact_in_flight_;
    exact_version_ = lease.policy_version;
  }
  const int32_t samples = lease.num_samples;
  in_flight_.emplace(request, std::move(lease));
  if (agents_) {
    const PromptLease& held = in_flight_.at(request);
    whole.tokens = held.prompt.tokens;
    agents_->Begin(request, whole, RandomAddress(held.purpose, held.lease_id), samples);
  } else if (episodes_) {
    episodes_->Begin(request, whole, samples);
  } else {
    Generate(request, {});
  }
  return true;
}

void Rollout::Generate(uint64_t id, std::vector<std::vector<int32_t>> openings) {
  const PromptLease& lease = in_flight_.at(id);
  GenerateRequest request;
  request.id = id;
  request.tokens = lease.prompt.tokens;
  request.num_samples = lease.num_samples;
  request.greedy_last = options_.greedy_last && lease.purpose == Purpose::kTrain;
  request.prompt_key = RandomAddress(lease.purpose, lease.lease_id);
  request.turns = episodes_ != nullptr;
  request.openings = std::move(openings);
  engine_.Submit(std::move(request));
}

// What environments have said goes to the engine, and what the policy has said to them. Waits only
// where nothing else is to be done.
void Rollout::Converse(Deadline deadline) {
  if (!episodes_) return;
  for (const EndedTurn& turn : engine_.TakeTurns()) episodes_->Act(turn);
  const bool waits = !Busy() && !episodes_->idle() && outbox_.empty();
  episodes_->Poll(waits ? std::min({deadline, episodes_->next_limit(),
                                    After(std::chrono::milliseconds(options_.poll_ms))})
                        : Deadline{});
  while (auto begun = episodes_->TakeBegun()) Generate(begun->first, std::move(begun->second));
  for (EpisodeMove& move : episodes_->TakeMoves()) {
    if (!move.ends) {
      // Where it failed to begin, or its time was over, it may have ended meanwhile.
      engine_.Continue(move.request, move.sample, move.tokens);
    } else if (!engine_.End(move.request, move.sample, move.finish, move.why, move.tokens)) {
      episodes_->Retry(std::move(move));  // it has no slot yet
    }
  }
  episode_counters_ = episodes_->counters();
}

// The same of agents: their calls go to the engine.
void Rollout::ServeAgents(Deadline deadline) {
  if (!agents_) return;
  const bool waits = !Busy() && !in_flight_.empty() && outbox_.empty();
  agents_->Poll(waits ? std::min(deadline, After(std::chrono::milliseconds(options_.poll_ms)))
                      : Deadline{});
  episode_counters_ = agents_->counters();
  agent_counters_ = agents_->agent_counters();
}

void Rollout::NoteVersion() {
  const PolicyVersion now = policy_->current();
  if (digests_.contains(now.version)) return;
  digests_[now.version] = now.digest;
  if (digests_.size() > kDigestsKept) digests_.erase(digests_.begin());
}

void Rollout::StepEngine() {
  if (engine_.idle()) return;
  if (exact_in_flight_ == 0 && std::chrono::steady_clock::now() >= next_look_) {
    policy_->Update(-1, Deadline{});
    NoteVersion();
    next_look_ = After(std::chrono::milliseconds(options_.poll_ms));
  }
  const int64_t version = policy_->version();
  if (exact_in_flight_ > 0 && version != exact_version_) {
    throw Error(ErrorCode::kConflict,
                "the weights became version " + std::to_string(version) +
                    " while answers by exactly version " + std::to_string(exact_version_) +
                    " were being sampled; schedule sync must not publish before they are in");
  }
  engine_.Step(policy_->weights(), version);
  if (agents_) agents_->AfterStep();
}

PromptLease Rollout::TakeLease(uint64_t request) {
  auto at = in_flight_.find(request);
  PLUMB_CHECK(at != in_flight_.end(), "result " + std::to_string(request) + " was never asked for");
  PromptLease lease = std::move(at->second);
  in_flight_.erase(at);
  samples_held_ -= lease.num_samples;
  if (lease.policy_version >= 0) --exact_in_flight_;
  return lease;
}

void Rollout::CollectAgents() {
  // A result may be all that its episode waited for, and that of others.
  for (GenerateResult& result : engine_.TakeFinished()) agents_->Take(std::move(result));
  for (GenerateResult& result : engine_.TakeFinished()) agents_->Take(std::move(result));
  while (auto done = agents_->TakeDone())
    outbox_.push_back(BuildOfAgents(TakeLease(done->first), std::move(done->second)));
}

void Rollout::Collect() {
  if (agents_) CollectAgents();
  for (GenerateResult& result : engine_.TakeFinished()) {
    PromptLease lease = TakeLease(result.id);
    std::vector<std::vector<TurnNote>> notes;
    if (episodes_) notes = episodes_->Close(result.id);
    outbox_.push_back(Build(std::move(lease), std::move(result.samples), notes));
  }
  // Of agents: calls, which are counted as such.
  if (!agents_) counters_.refused_prompts = engine_.counters().refused_requests;
}

bool Rollout::Deliver() {
  bool any = false;
  while (!outbox_.empty()) {
    try {
      sink_(outbox_.front());
    } catch (const Error& e) {
      if (!Retryable(e)) throw;
      ++counters_.port_retries;
      break;
    }
    outbox_.pop_front();
    ++counters_.groups_delivered;
    any = true;
  }
  return any;
}

TrajectoryGroup Rollout::Build(PromptLease lease, std::vector<GeneratedSample> samples,
                               std::span<const std::vector<TurnNote>> notes) {
  TrajectoryGroup group;
  int64_t newest = -1;
  const std::vector<int32_t>& prompt = lease.prompt.tokens;
  const int32_t p = static_cast<int32_t>(prompt.size());
  for (size_t i = 0; i < samples.size(); ++i) {
    GeneratedSample& s = samples[i];
    Trajectory t;
    t.sample = static_cast<uint32_t>(i);
    t.tokens = prompt;
    t.tokens.insert(t.tokens.end(), s.tokens.begin(), s.tokens.end());
    const int32_t n = static_cast<int32_t>(t.tokens.size());
    t.segments.push_back({Origin::kPrompt, 0, p});
    if (s.segments.empty()) t.segments.push_back({Origin::kPolicy, p, n});
    for (const Segment& own : s.segments) {
      if (own.origin == Origin::kPolicy) {
        const size_t turn = t.turns.size();
        const TurnNote note =
            i < notes.size() && turn < notes[i].size() ? notes[i][turn] : TurnNote{};
        t.turns.push_back({.segment = static_cast<int32_t>(t.segments.size()),
                           .reward = note.reward,
                           .called = note.called,
                           .failed_call = note.failed_call});
      }
      t.segments.push_back({own.origin, own.begin + p, own.end + p});
    }
    const bool trained = s.finish != FinishReason::kAborted;
    t.loss_mask.assign(static_cast<size_t>(n), 0);
    for (const Segment& own : t.segments) {
      if (trained && own.origin == Origin::kPolicy)
        std::fill(t.loss_mask.begin() + own.begin, t.loss_mask.begin() + own.end, uint8_t{1});
    }
    t.logprobs.assign(static_cast<size_t>(p), 0.0f);
    t.logprobs.insert(t.logprobs.end(), s.logprobs.begin(), s.logprobs.end());
    t.policy_versions.assign(static_cast<size_t>(p), -1);
    t.policy_versions.insert(t.policy_versions.end(), s.versions.begin(), s.versions.end());
    // The learner computes over the same tokens; who is only evaluated is not computed again.
    if (!s.kept.empty() && lease.purpose == Purpose::kTrain) {
      t.kept.assign(static_cast<size_t>(p), 0);  // a prompt's tokens were not drawn
      t.kept.insert(t.kept.end(), s.kept.begin(), s.kept.end());
    }
    if (lease.purpose == Purpose::kTrain) t.experts = std::move(s.experts);
    for (const int64_t v : s.versions) newest = std::max(newest, v);
    t.finish = s.finish;
    t.completion = tokenizer_->Decode(s.tokens, /*skip_special=*/false);
    t.unscored_reason = std::move(s.reason);
    group.trajectories.push_back(std::move(t));
  }
  Sign(group, newest);
  group.lease = std::move(lease);
  return group;
}

void Rollout::Sign(TrajectoryGroup& group, int64_t newest) {
  group.run_id = options_.run_id;
  group.actor = options_.actor;
  group.policy = policy_->current();
  if (newest < 0 || newest == group.policy.version) return;
  const auto known = digests_.find(newest);
  group.policy = {newest, known != digests_.end() ? known->second : Digest{}};
}

TrajectoryGroup Rollout::BuildOfAgents(PromptLease lease, AgentBook::Answers answers) {
  TrajectoryGroup group;
  int64_t newest = -1;
  for (std::vector<Trajectory>& conversations : answers) {
    // What is measured is measured once an answer.
    if (lease.purpose == Purpose::kEval) conversations.resize(1);
    for (Trajectory& t : conversations) {
      t.sample = static_cast<uint32_t>(group.trajectories.size());
      for (const int64_t v : t.policy_versions) newest = std::max(newest, v);
      if (lease.purpose == Purpose::kEval) {
        t.kept.clear();
        t.experts = {};
      }
      group.trajectories.push_back(std::move(t));
    }
  }
  Sign(group, newest);
  lease.num_samples = static_cast<int32_t>(group.trajectories.size());
  group.lease = std::move(lease);
  return group;
}

void Rollout::Stop() {
  Collect();
  Deliver();
  engine_.Abandon();
  if (episodes_) {
    for (const auto& [id, lease] : in_flight_) episodes_->Close(id);
  }
  if (agents_) {
    for (const auto& [id, lease] : in_flight_) agents_->Close(id);
  }
  for (auto& [id, lease] : in_flight_) returned_.push_back(std::move(lease));
  for (PromptLease& lease : pending_) returned_.push_back(std::move(lease));
  // the sink did not take them
  for (TrajectoryGroup& group : outbox_) returned_.push_back(std::move(group.lease));
  in_flight_.clear();
  pending_.clear();
  outbox_.clear();
  exact_in_flight_ = 0;
  samples_held_ = 0;
  next_release_ = {};
  Release();  // where nobody answers, they run out by themselves
}

}  // namespace plumb::actor

#include "actor/agents/agent_book.h"

#include <algorithm>
#include <span>

#include "common/base/error.h"
#include "common/record/abort_reason.h"
#include "common/record/kept_tokens.h"

namespace plumb::actor {

struct AgentBook::Conversation {
  uint32_t number = 0;
  int32_t prompt = 0;  // tokens
  // All that the engine has given back, the prompt in front; what an open request has is not here.
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<int64_t> versions;
  std::vector<Segment> segments;
  std::vector<uint8_t> kept;
  size_t kept_tokens = 0;  // that `kept` is of
  ExpertChoices experts;
  uint64_t request = 0;  // of the engine
  uint32_t address = 0;  // its sample there: other draws for each conversation
  bool open = false;     // the engine has it
  bool waits = false;    // with its slot, for the next call
  int32_t length = 0;    // tokens, those of the open request too
  // The call that is being answered.
  bool asked = false, left = false;
  AgentCall call;
  std::vector<int32_t> drawn;
  std::vector<float> drawn_logprobs;
  std::string text;  // of `drawn`, where stop strings are looked for
  std::string found;
  bool cut_short = false;  // at the call's own limit or stop string, not by the model
  // What has been answered.
  uint64_t last_call = 0;
  int32_t answered = 0, before = 0;  // `length` behind the last turn that somebody got, and before
  uint64_t spoke = 0;
  FinishReason last_finish = FinishReason::kStop;
};

struct AgentBook::Episode {
  uint64_t number = 0, request = 0, prompt_key = 0;
  uint32_t sample = 0, samples = 1;
  int32_t turns = 0;
  bool over = false, closed = false;
  FinishReason finish = FinishReason::kStop;
  std::optional<double> reward;
  std::string why;
  std::map<uint32_t, Conversation> conversations;
};

AgentBook::AgentBook(AgentPort* port, const Tokenizer* tokenizer, Engine* engine,
                     AgentOptions options)
    : port_(port), tokenizer_(tokenizer), engine_(engine), options_(options) {
  PLUMB_CHECK(port != nullptr && tokenizer != nullptr && engine != nullptr);
}

AgentBook::~AgentBook() {
  for (auto& [number, episode] : episodes_) {
    if (!episode.over) port_->End(number);
  }
}

void AgentBook::Begin(uint64_t request, const Prompt& prompt, uint64_t prompt_key,
                      int32_t samples) {
  Group& group = groups_[request];
  group.prompt_key = prompt_key;
  group.prompt = prompt.tokens;
  group.open = samples;
  for (int32_t i = 0; i < samples; ++i) {
    Episode e;
    e.number = next_episode_++;
    e.request = request;
    e.prompt_key = prompt_key;
    e.sample = static_cast<uint32_t>(i);
    e.samples = static_cast<uint32_t>(samples);
    group.episodes.push_back(e.number);
    ++counters_.episodes;
    port_->Begin(e.number, prompt, e.sample);
    episodes_.emplace(e.number, std::move(e));
  }
}

void AgentBook::Poll(Deadline deadline) {
  for (const AgentEvent& event : port_->Poll(deadline)) {
    if (event.kind == AgentEvent::Kind::kCall) {
      TakeCall(event.call);
      continue;
    }
    if (event.kind == AgentEvent::Kind::kLeft) {
      TakeLeft(event.call);
      continue;
    }
    const auto at = episodes_.find(event.episode);
    if (at == episodes_.end() || at->second.over) continue;
    Episode& e = at->second;
    e.reward = event.reward;
    if (event.timed_out) ++counters_.timeouts;
    if (!event.error.empty())
      Finish(e, FinishReason::kAborted, std::string(kEnvironmentFailed) + event.error);
    else Finish(e, event.cut ? FinishReason::kLength : FinishReason::kStop, "");
  }
  MakeRoom();
}

void AgentBook::Refuse(const AgentCall& call, const std::string& code, const std::string& why) {
  ++agent_counters_.refused;
  port_->Answer({.call = call.call,
                 .episode = call.episode,
                 .tokens = {},
                 .logprobs = {},
                 .finish = FinishReason::kAborted,
                 .stop = {},
                 .refused = why,
                 .code = code});
}

void AgentBook::TakeCall(const AgentCall& call) {
  const auto at = episodes_.find(call.episode);
  if (at == episodes_.end() || at->second.over) return;  // whoever asked has been told
  Episode& e = at->second;
  if (e.turns >= options_.max_turns) {
    Refuse(call, "max_turns",
           "the episode has had its " + std::to_string(options_.max_turns) +
               " calls (environment.max_turns): end it");
    return;
  }
  const auto added = std::ssize(call.tokens);
  const auto known = e.conversations.find(call.conversation);
  const int64_t prompt = call.begins ? added : known->second.prompt;
  int64_t most = prompt + options_.max_new_tokens;
  if (options_.max_positions > 0) most = std::min<int64_t>(most, options_.max_positions);
  const int64_t length = call.begins ? added : known->second.length + added;
  if (call.begins && added > options_.max_prompt_tokens) {
    Refuse(call, "context_length_exceeded",
           "the conversation begins with " + std::to_string(added) +
               " tokens; data.max_prompt_tokens is " + std::to_string(options_.max_prompt_tokens));
    return;
  }
  if (length >= most) {
    Refuse(call, "context_length_exceeded",
           "the conversation has " + std::to_string(length) + " tokens, of which " +
               std::to_string(prompt) + " are its prompt; rollout.max_new_tokens and the model " +
               "leave room for " + std::to_string(most) + " in all");
    return;
  }
  ++e.turns;
  ++counters_.turns;
  if (call.begins && !e.conversations.empty()) ++agent_counters_.branches;
  Conversation& c = e.conversations[call.conversation];
  PLUMB_CHECK(call.begins == (known == e.conversations.end()) && !c.asked && added > 0,
              "a call that fits no conversation");
  c.asked = true;
  c.left = false;
  c.call = call;
  c.drawn.clear();
  c.drawn_logprobs.clear();
  c.text.clear();
  c.found.clear();
  c.length = static_cast<int32_t>(length);
  if (c.open) {
    PLUMB_CHECK(c.waits && engine_->Continue(c.request, c.address, call.tokens),
                "it does not wait");
    c.waits = false;
    return;
  }
  const auto begin = static_cast<int32_t>(c.tokens.size());
  c.number = call.conversation;
  c.tokens.insert(c.tokens.end(), call.tokens.begin(), call.tokens.end());
  c.logprobs.resize(c.tokens.size(), 0.0f);
  c.versions.resize(c.tokens.size(), -1);
  c.segments.push_back({call.begins ? Origin::kPrompt : Origin::kEnvironment, begin, c.length});
  if (call.begins) c.prompt = c.length;
  Submit(e, c);
}

void AgentBook::Submit(Episode& e, Conversation& c) {
  int32_t most = c.prompt + options_.max_new_tokens;
  if (options_.max_positions > 0) most = std::min(most, options_.max_positions);
  c.request = next_request_++;
  c.open = true;
  c.waits = false;
  requests_[c.request] = {e.number, c.number};
  GenerateRequest request;
  request.id = c.request;
  request.tokens = c.tokens;
  // The same question asked twice has two answers.
  request.first_sample = c.address = e.sample + e.samples * c.number;
  request.prompt_key = e.prompt_key;
  request.limit = most - c.length;
  request.turns = true;
  engine_->Submit(std::move(request));
}

void AgentBook::TakeLeft(const AgentCall& call) {
  const auto at = episodes_.find(call.episode);
  if (at == episodes_.end()) return;
  const auto known = at->second.conversations.find(call.conversation);
  if (known == at->second.conversations.end()) return;
  Conversation& c = known->second;
  ++agent_counters_.left_calls;
  if (c.asked && c.call.call == call.call) c.left = true;
  else if (c.last_call == call.call) c.answered = c.before;
}

void AgentBook::Answered(Episode& e, Conversation& c, FinishReason finish) {
  c.asked = false;
  c.before = c.answered;
  if (!c.left) c.answered = c.length;
  c.last_call = c.call.call;
  c.last_finish = finish;
  c.spoke = ++clock_;
  port_->Answer({.call = c.call.call,
                 .episode = e.number,
                 .tokens = std::move(c.drawn),
                 .logprobs = std::move(c.drawn_logprobs),
                 .finish = finish,
                 .stop = std::move(c.found),
                 .refused = {},
                 .code = {}});
  c.drawn = {};
  c.drawn_logprobs = {};
  c.found = {};
}

void AgentBook::EndTurns() {
  for (const EndedTurn& turn : engine_->TakeTurns()) {
    const auto [episode, number] = requests_.at(turn.id);
    Episode& e = episodes_.at(episode);
    Conversation& c = e.conversations.at(number);
    c.waits = true;
    // What ends a turn of its own accord is its end, though the call's limit was reached with it.
    const bool at_limit = c.found.empty() && c.cut_short;
    Answered(e, c, at_limit ? FinishReason::kLength : FinishReason::kStop);
  }
}

void AgentBook::AfterStep() {
  std::vector<uint64_t> to_end;
  for (const DrawnToken& d : engine_->last_drawn()) {
    const auto at = requests_.find(d.id);
    if (at == requests_.end()) continue;
    Conversation& c = episodes_.at(at->second.first).conversations.at(at->second.second);
    c.cut_short = false;
    c.drawn.push_back(d.token);
    c.drawn_logprobs.push_back(d.logprob);
    ++c.length;
    if (!c.call.stop.empty()) {
      const std::string_view bytes = tokenizer_->TokenBytes(d.token);
      c.text += bytes;
      for (const std::string& stop : c.call.stop) {
        const size_t tail = bytes.size() + stop.size();
        if (c.text.find(stop, c.text.size() > tail ? c.text.size() - tail : 0) != std::string::npos)
          c.found = stop;
      }
    }
    const bool full = c.call.limit > 0 && std::ssize(c.drawn) >= c.call.limit;
    if (full || !c.found.empty()) to_end.push_back(d.id);
  }
  EndTurns();
  for (const uint64_t id : to_end) {
    const auto [episode, number] = requests_.at(id);
    Conversation& c = episodes_.at(episode).conversations.at(number);
    if (!c.asked || c.waits) continue;
    c.cut_short = true;
    engine_->EndTurn(id, c.address);  // false: the sample itself has ended
  }
  EndTurns();
}

void AgentBook::Take(GenerateResult result) {
  const auto at = requests_.find(result.id);
  PLUMB_CHECK(at != requests_.end(), "a result that nobody asked for");
  const auto [episode, number] = at->second;
  requests_.erase(at);
  Episode& e = episodes_.at(episode);
  Conversation& c = e.conversations.at(number);
  GeneratedSample& s = result.samples.front();
  const auto base = static_cast<int32_t>(c.tokens.size());
  c.open = c.waits = false;
  c.tokens.insert(c.tokens.end(), s.tokens.begin(), s.tokens.end());
  c.logprobs.insert(c.logprobs.end(), s.logprobs.begin(), s.logprobs.end());
  c.versions.insert(c.versions.end(), s.versions.begin(), s.versions.end());
  for (const Segment& own : s.segments)
    c.segments.push_back({own.origin, own.begin + base, own.end + base});
  if (!s.kept.empty()) {
    // What was not drawn has a set of one byte, 0.
    c.kept.insert(c.kept.end(), static_cast<size_t>(base) - c.kept_tokens, uint8_t{0});
    c.kept.insert(c.kept.end(), s.kept.begin(), s.kept.end());
    c.kept_tokens = c.tokens.size();
  }
  if (s.experts.there()) c.experts = std::move(s.experts);
  if (c.asked && !e.over) {
    if (s.finish != FinishReason::kAborted) {
      Answered(e, c,
               s.finish == FinishReason::kLength && c.found.empty() ? FinishReason::kLength
                                                                    : FinishReason::kStop);
    } else {
      c.asked = false;
      Refuse(c.call, "not_answered", s.reason);
      // No prompt is answered by such weights (common/record/abort_reason.h).
      if (s.reason.starts_with(kNonFiniteLogits)) Finish(e, FinishReason::kAborted, s.reason);
    }
  }
  CloseIfDone(e);
}

// Where all that have a slot wait for their agents and others wait for a slot, the one that has
// been silent for longest gives its own up.
void AgentBook::MakeRoom() {
  if (!engine_->blocked() || engine_->unstarted() == 0) return;
  Conversation* longest = nullptr;
  for (auto& [number, e] : episodes_) {
    for (auto& [index, c] : e.conversations) {
      if (c.open && c.waits && (longest == nullptr || c.spoke < longest->spoke)) longest = &c;
    }
  }
  if (longest == nullptr) return;
  ++agent_counters_.put_aside;
  engine_->End(longest->request, longest->address);
}

void AgentBook::Finish(Episode& e, FinishReason finish, const std::string& why) {
  e.over = true;
  e.finish = finish;
  e.why = why;
  port_->End(e.number);
  for (auto& [number, c] : e.conversations) {
    if (!c.open || engine_->End(c.request, c.address)) continue;
    engine_->Cancel(c.request);  // it had no slot
    requests_.erase(c.request);
    c.open = false;
  }
  CloseIfDone(e);
}

void AgentBook::CloseIfDone(Episode& e) {
  if (!e.over || e.closed) return;
  for (const auto& [number, c] : e.conversations) {
    if (c.open) return;
  }
  e.closed = true;
  if (--groups_.at(e.request).open == 0) done_.push_back(e.request);
}

std::optional<std::pair<uint64_t, AgentBook::Answers>> AgentBook::TakeDone() {
  if (done_.empty()) return std::nullopt;
  const uint64_t request = done_.front();
  done_.pop_front();
  const Group& group = groups_.at(request);
  Answers answers;
  for (const uint64_t number : group.episodes) {
    answers.push_back(Record(episodes_.at(number), group));
    episodes_.erase(number);
  }
  groups_.erase(request);
  return std::pair{request, std::move(answers)};
}

void AgentBook::Close(uint64_t request) {
  const auto at = groups_.find(request);
  if (at == groups_.end()) return;
  for (const uint64_t number : at->second.episodes) {
    Episode& e = episodes_.at(number);
    if (!e.over) port_->End(number);
    for (const auto& [index, c] : e.conversations) {
      if (!c.open) continue;
      engine_->Cancel(c.request);
      requests_.erase(c.request);
    }
    episodes_.erase(number);
  }
  groups_.erase(at);
  std::erase(done_, request);
}

std::vector<Trajectory> AgentBook::Record(Episode& e, const Group& group) {
  std::vector<Conversation*> spoken;
  for (auto& [number, c] : e.conversations) {
    const auto end = c.versions.begin() + std::min<ptrdiff_t>(c.answered, std::ssize(c.versions));
    if (std::any_of(c.versions.begin(), end, [](int64_t v) { return v >= 0; }))
      spoken.push_back(&c);
  }
  const auto last = std::max_element(
      spoken.begin(), spoken.end(),
      [](const Conversation* a, const Conversation* b) { return a->spoke < b->spoke; });
  if (last != spoken.end()) std::rotate(spoken.begin(), last, last + 1);
  if (e.finish == FinishReason::kAborted && spoken.size() > 1)
    spoken.erase(spoken.begin() + 1, spoken.end());
  std::vector<Trajectory> out;
  for (Conversation* c : spoken) out.push_back(RecordOf(e, *c));
  if (out.empty()) out.push_back(Empty(e, group));
  if (out.front().finish == FinishReason::kAborted) ++counters_.failures;
  return out;
}

Trajectory AgentBook::RecordOf(Episode& e, Conversation& c) {
  Trajectory t;
  const int32_t n = c.answered;
  const auto count = static_cast<size_t>(n);
  t.tokens = std::move(c.tokens);
  t.logprobs = std::move(c.logprobs);
  t.policy_versions = std::move(c.versions);
  t.tokens.resize(count);
  t.logprobs.resize(count);
  t.policy_versions.resize(count);
  t.loss_mask.assign(count, 0);
  const bool trained = e.finish != FinishReason::kAborted;
  for (const Segment& own : c.segments) {
    const Segment s = {own.origin, own.begin, std::min(own.end, n)};
    if (s.begin >= s.end) continue;
    if (s.origin == Origin::kPolicy) {
      t.turns.push_back({.segment = static_cast<int32_t>(t.segments.size()), .called = true});
      if (trained) std::fill(t.loss_mask.begin() + s.begin, t.loss_mask.begin() + s.end, 1);
    }
    t.segments.push_back(s);
  }
  t.turns.back().called = false;
  t.turns.back().reward = e.reward;
  const bool cut = e.finish == FinishReason::kStop && c.last_finish == FinishReason::kLength;
  t.finish = cut ? FinishReason::kLength : e.finish;
  t.completion = tokenizer_->Decode(std::span(t.tokens).subspan(static_cast<size_t>(c.prompt)),
                                    /*skip_special=*/false);
  t.unscored_reason = e.why;
  if (!c.kept.empty()) {
    KeptTokensReader sets(c.kept);
    for (int32_t i = 0; i < n; ++i) {
      const auto set = sets.Next();
      t.kept.insert(t.kept.end(), set.begin(), set.end());
    }
  }
  if (c.experts.there()) {
    t.experts = std::move(c.experts);
    t.experts.bytes.resize((count - 1) * t.experts.form.bytes());
  }
  return t;
}

Trajectory AgentBook::Empty(const Episode& e, const Group& group) {
  Trajectory t;
  t.tokens = group.prompt;
  const auto n = static_cast<int32_t>(t.tokens.size());
  t.segments = {{Origin::kPrompt, 0, n}};
  t.loss_mask.assign(t.tokens.size(), 0);
  t.logprobs.assign(t.tokens.size(), 0.0f);
  t.policy_versions.assign(t.tokens.size(), -1);
  t.finish = FinishReason::kAborted;
  t.unscored_reason = !e.why.empty() ? e.why
                      : e.finish == FinishReason::kLength
                          ? "environment: the agent got no answer within its limits"
                          : "environment: the agent ended without having asked the policy";
  return t;
}

}  // namespace plumb::actor

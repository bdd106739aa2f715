#include "run/agents/agent_door.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <utility>

#include "common/base/error.h"
#include "common/base/text.h"
#include "common/record/json_text.h"
#include "common/text/template/transcript.h"
#include "environment/calls/tool_table.h"

namespace plumb::run {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLook{50};  // between looks at who is silent

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

std::string Seconds(std::chrono::milliseconds d) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", static_cast<double>(d.count()) / 1000);
  return text;
}

bool KeepsBeginnings(const ChatTemplate* chat_template) {
  if (chat_template == nullptr) return false;
  try {
    CheckKeepsBeginnings(*chat_template, "user", "", "chat template");
    return true;
  } catch (const Error& error) {
    LogWarningOnce(std::string("calls of agents go on with a conversation only where the template "
                               "writes it as it was: ") +
                   error.what());
    return false;
  }
}

// 128 bits that nobody guesses.
std::string NewKey() {
  std::random_device random;
  std::array<uint32_t, 4> bits;
  for (uint32_t& b : bits) b = random();
  return "plumb-" + Hex(std::as_bytes(std::span(bits)));
}

// Takes as long whatever is wrong with it.
bool SameKey(const std::string& given, const std::string& key) {
  unsigned differs = given.size() == key.size() ? 0 : 1;
  for (size_t i = 0; i < key.size(); ++i) {
    const char other = i < given.size() ? given[i] : '\0';
    differs |= static_cast<unsigned char>(other) ^ static_cast<unsigned char>(key[i]);
  }
  return differs == 0;
}

[[noreturn]] void ThrowOver() {
  throw ApiError{410, "the episode is over: what was said until then counts", "", "episode_over"};
}

// Arguments that came as texts become what the tools of the request say that they are.
void TypeCalls(const std::string& columns, environment::ParsedTurn* turn) {
  const bool spelled = std::any_of(turn->calls.begin(), turn->calls.end(),
                                   [](const environment::ToolCall& call) { return call.spelled; });
  if (!spelled) return;
  const auto json = nlohmann::json::parse(columns, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("tools")) return;
  try {
    const environment::ToolTable tools(json["tools"].dump());
    for (environment::ToolCall& call : turn->calls) call = tools.Typed(std::move(call));
  } catch (const Error&) {
    // Tools that are no schemas say nothing of types: the agent gets the texts.
  }
}

}  // namespace

struct AgentDoor::Episode {
  uint64_t number = 0;
  std::string key;
  Prompt prompt;
  uint32_t sample = 0;
  // Guarded by the door's mutex.
  bool begun = false;  // it has an agent
  bool over = false;
  bool cut = false;  // something was refused for a limit
  int64_t running = 0, asked = 0;
  Deadline until = Deadline::max(), silent_until = Deadline::max();
  std::optional<double> reward;
  // Of its conversations. Never taken with the door's held.
  Mutex placing;
  std::optional<PlacedConversations> conversations PLUMB_GUARDED_BY(placing);
};

AgentDoor::AgentDoor(const Tokenizer* tokenizer, const ChatTemplate* chat_template,
                     DoorOptions options)
    : tokenizer_(tokenizer),
      template_(chat_template),
      options_(std::move(options)),
      keeps_beginnings_(KeepsBeginnings(chat_template)),
      form_(options_.environment.tool_form != configs::ToolForm::kAuto
                ? options_.environment.tool_form
                : environment::FormOfTemplate(chat_template ? chat_template->source() : "")) {}

AgentDoor::~AgentDoor() { Close(); }

void AgentDoor::Begin(uint64_t number, const Prompt& prompt, uint32_t sample) {
  auto episode = std::make_shared<Episode>();
  episode->number = number;
  episode->key = NewKey();
  episode->prompt = prompt;
  episode->sample = sample;
  {
    MutexLock placing(episode->placing);
    episode->conversations.emplace(tokenizer_, template_, keeps_beginnings_);
  }
  MutexLock lock(mu_);
  episodes_[number] = std::move(episode);
  waiting_.push_back(number);
  tasks_changed_.notify_one();
}

std::optional<AgentTask> AgentDoor::Fetch(Deadline deadline) {
  MutexLock lock(mu_);
  tasks_changed_.wait_until(lock, deadline,
                            [this]() PLUMB_REQUIRES(mu_) { return closed_ || !waiting_.empty(); });
  if (closed_ || waiting_.empty()) return std::nullopt;
  Episode& e = *episodes_.at(waiting_.front());
  waiting_.pop_front();
  e.begun = true;
  e.until = SteadyClock::now() + Milliseconds(options_.environment.episode_seconds);
  e.silent_until = SteadyClock::now() + options_.first_call;
  nlohmann::ordered_json task = {{"prompt", PromptJson(e.prompt)},
                                 {"ground_truth", e.prompt.ground_truth},
                                 {"sample", e.sample},
                                 {"extra", nlohmann::ordered_json::parse(ExtraJson(e.prompt))}};
  return AgentTask{e.number, e.key, DumpJson(task)};
}

AgentDoor::Shared AgentDoor::Find(uint64_t number, const std::string& key) const {
  MutexLock lock(mu_);
  const auto at = episodes_.find(number);
  if (at == episodes_.end()) ThrowOver();
  if (!SameKey(key, at->second->key)) {
    throw ApiError{401, "the API key is missing or is not this episode's", "", "invalid_api_key"};
  }
  if (at->second->over || closed_) ThrowOver();
  return at->second;
}

void AgentDoor::CountSampling(const AnswerRequest& request) {
  const configs::RolloutConfig& own = options_.rollout;
  const auto other = [](const auto& asked, auto recipe) {
    return asked && std::abs(static_cast<double>(*asked) - static_cast<double>(recipe)) > 1e-6;
  };
  if (!other(request.temperature, own.temperature) && !other(request.top_p, own.top_p) &&
      !other(request.min_p, own.min_p) && !other(request.top_k, own.top_k) && !request.seed)
    return;
  LogWarningOnce(
      "an agent asks for a temperature, top_p, top_k, min_p or seed of its own: the recipe's "
      "[rollout] is followed, for what is learned from has to be drawn from the policy; counted in "
      "environment/other_sampling");
  MutexLock lock(mu_);
  ++counters_["environment/other_sampling"];
}

void AgentDoor::CheckTools(const Said& said) const {
  nlohmann::ordered_json columns = nlohmann::ordered_json::parse(said.columns);
  columns.erase("tools");
  try {
    const std::string with = template_->Render(said.messages, true, said.columns),
                      without = template_->Render(said.messages, true, columns.dump());
    if (with != without) return;
  } catch (const Error& error) {
    throw AsApiError(error);
  }
  throw ApiError{400, "the model's chat template writes no tools: it would never see them", "tools",
                 "no_tools"};
}

std::string AgentDoor::TextOf(const AgentAnswer& answer) const {
  std::span<const int32_t> said = answer.tokens;
  const std::vector<int32_t>& eos = options_.eos;
  if (!said.empty() && std::find(eos.begin(), eos.end(), said.back()) != eos.end())
    said = said.first(said.size() - 1);
  return tokenizer_->Decode(said, /*skip_special=*/false);
}

AnsweredCall AgentDoor::Ask(uint64_t number, const std::string& key, const AnswerRequest& request) {
  if (request.n != 1)
    throw ApiError{400, "'n' has to be 1: ask as many times as you want answers", "n", ""};
  const Shared e = Find(number, key);
  Said said;
  said.chat = request.chat;
  said.messages = request.conversation.messages;
  said.columns = request.conversation.extra_json;
  if (request.chat && template_ == nullptr) {
    throw ApiError{400,
                   "this model has no chat template, so that nothing says how a conversation is "
                   "written for it: ask /v1/completions",
                   "messages", "no_chat_template"};
  }
  if (request.tools) CheckTools(said);
  if (!request.chat) {
    if (request.texts.size() != 1)
      throw ApiError{400, "'prompt' has to be one prompt", "prompt", ""};
    said.text = request.texts[0].text;
    said.tokens = request.texts[0].tokens;
  }
  CountSampling(request);
  AnsweredCall out;
  out.episode = number;
  AgentCall& call = out.call;
  {
    // Events stand in the order in which conversations were found: both under this lock.
    MutexLock placing(e->placing);
    Place place;
    try {
      place = e->conversations->Put(said);
    } catch (const Error& error) {
      throw AsApiError(error);
    }
    out.prompt = std::move(place.prompt);
    call = {.call = 0,
            .episode = number,
            .conversation = place.conversation,
            .begins = place.begins,
            .tokens = std::move(place.tokens),
            .limit = static_cast<int32_t>(request.max_tokens.value_or(0)),
            .stop = request.stop};
    MutexLock lock(mu_);
    if (e->over || closed_) ThrowOver();
    call.call = next_call_++;
    calls_[call.call] = std::nullopt;
    ++e->running;
    ++e->asked;
    events_.push_back({.kind = AgentEvent::Kind::kCall, .call = call, .episode = number});
    events_changed_.notify_one();
  }
  {
    MutexLock lock(mu_);
    answered_.wait(lock, [&]() PLUMB_REQUIRES(mu_) {
      return calls_.at(call.call).has_value() || e->over || closed_;
    });
    auto node = calls_.extract(call.call);
    --e->running;
    e->silent_until = SteadyClock::now() + Milliseconds(options_.environment.timeout_s);
    if (!node.mapped()) ThrowOver();
    out.answer = std::move(*node.mapped());
    if (!out.answer.refused.empty()) e->cut = true;
  }
  MutexLock placing(e->placing);
  if (!out.answer.refused.empty()) {
    e->conversations->Dropped(call.conversation);
    throw ApiError{400, out.answer.refused, request.chat ? "messages" : "prompt", out.answer.code};
  }
  const std::string whole = TextOf(out.answer);
  if (request.chat && request.tools) {
    out.turn = environment::ParseTurn(form_, whole);
    TypeCalls(said.columns, &out.turn);
    MutexLock lock(mu_);
    if (!out.turn.malformed.empty()) ++counters_["environment/malformed_calls"];
    counters_["environment/calls"] += static_cast<int64_t>(out.turn.calls.size());
  }
  if (out.turn.calls.empty()) {
    // What the agent gets is plain text, as from any server.
    out.text = tokenizer_->Decode(out.answer.tokens, /*skip_special=*/true);
    const std::string& stop = out.answer.stop;
    const size_t at = stop.empty() ? std::string::npos : out.text.find(stop);
    if (at != std::string::npos) out.text.resize(at);
    out.turn = {.content = out.text, .calls = {}, .malformed = out.turn.malformed};
  } else {
    out.text = out.turn.content;
    for (size_t i = 0; i < out.turn.calls.size(); ++i) {
      std::string& id = out.turn.calls[i].id;
      // Nine characters: what Mistral's template takes.
      char made[32];
      std::snprintf(made, sizeof made, "call%05llu",
                    static_cast<unsigned long long>((call.call * 8 + i) % 100000));
      if (id.empty()) id = made;
    }
  }
  e->conversations->Answered(call.conversation, out.answer.tokens, out.turn);
  return out;
}

void AgentDoor::Left(const AnsweredCall& answered) {
  Shared e;
  {
    MutexLock lock(mu_);
    const auto at = episodes_.find(answered.episode);
    if (at == episodes_.end() || at->second->over) return;
    e = at->second;
    AgentEvent event{
        .kind = AgentEvent::Kind::kLeft, .call = answered.call, .episode = answered.episode};
    event.call.tokens.clear();
    events_.push_back(std::move(event));
  }
  events_changed_.notify_one();
  MutexLock placing(e->placing);
  e->conversations->Dropped(answered.call.conversation);
}

void AgentDoor::Reward(uint64_t number, const std::string& key, std::optional<double> reward,
                       bool done) {
  const Shared e = Find(number, key);
  if (reward && !std::isfinite(*reward))
    throw ApiError{400, "'reward' has to be a finite number", "reward", ""};
  MutexLock lock(mu_);
  if (reward) e->reward = reward;
  e->silent_until =
      std::max(e->silent_until, SteadyClock::now() + Milliseconds(options_.environment.timeout_s));
  if (done) Finish(*e, {.cut = e->cut});
}

// REQUIRES: what the event says of its end.
void AgentDoor::Finish(Episode& e, AgentEvent event) {
  if (e.over) return;
  e.over = true;
  event.kind = AgentEvent::Kind::kEnded;
  event.episode = e.number;
  event.reward = e.reward;
  events_.push_back(std::move(event));
  std::erase(waiting_, e.number);
  events_changed_.notify_one();
  answered_.notify_all();
}

void AgentDoor::Ended(uint64_t number, const std::string& error) {
  MutexLock lock(mu_);
  const auto at = episodes_.find(number);
  if (at != episodes_.end()) Finish(*at->second, {.cut = at->second->cut, .error = error});
}

void AgentDoor::Expire() {
  const auto now = SteadyClock::now();
  for (const auto& [number, e] : episodes_) {
    if (!e->begun || e->over) continue;
    if (now >= e->until) {
      Finish(*e, {.cut = true, .timed_out = true});
    } else if (e->running == 0 && now >= e->silent_until) {
      const std::chrono::milliseconds limit =
          e->asked == 0 ? options_.first_call : Milliseconds(options_.environment.timeout_s);
      Finish(*e, {.error = "the agent asked for nothing for " + Seconds(limit) + " s" +
                           (e->asked == 0 ? " after its start"
                                          : "; environment.timeout_s is the limit between calls")});
    }
  }
}

std::vector<AgentEvent> AgentDoor::Poll(Deadline deadline) {
  MutexLock lock(mu_);
  for (;;) {
    Expire();
    const auto now = SteadyClock::now();
    if (!events_.empty() || closed_ || now >= deadline) break;
    events_changed_.wait_until(lock, std::min(deadline, now + kLook), [this]() PLUMB_REQUIRES(mu_) {
      return closed_ || !events_.empty();
    });
  }
  std::vector<AgentEvent> out(std::make_move_iterator(events_.begin()),
                              std::make_move_iterator(events_.end()));
  events_.clear();
  return out;
}

void AgentDoor::Answer(AgentAnswer answer) {
  MutexLock lock(mu_);
  const auto at = calls_.find(answer.call);
  if (at == calls_.end()) return;  // its episode is over
  at->second = std::move(answer);
  answered_.notify_all();
}

void AgentDoor::End(uint64_t number) {
  MutexLock lock(mu_);
  const auto at = episodes_.find(number);
  if (at == episodes_.end()) return;
  at->second->over = true;  // who still holds it is told
  std::erase(waiting_, number);
  std::erase_if(events_, [&](const AgentEvent& event) { return event.episode == number; });
  episodes_.erase(at);
  answered_.notify_all();
}

bool AgentDoor::Over(uint64_t number) const {
  MutexLock lock(mu_);
  const auto at = episodes_.find(number);
  return closed_ || at == episodes_.end() || at->second->over;
}

void AgentDoor::Close() {
  MutexLock lock(mu_);
  closed_ = true;
  events_changed_.notify_all();
  tasks_changed_.notify_all();
  answered_.notify_all();
}

bool AgentDoor::closed() const {
  MutexLock lock(mu_);
  return closed_;
}

std::map<std::string, int64_t> AgentDoor::Counters() const {
  MutexLock lock(mu_);
  return counters_;
}

}  // namespace plumb::run

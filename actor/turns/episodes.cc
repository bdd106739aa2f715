#include "actor/turns/episodes.h"

#include <algorithm>
#include <cmath>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/record/abort_reason.h"

namespace plumb::actor {

struct Episodes::Episode {
  uint64_t number = 0, request = 0;
  uint32_t sample = 0;
  Deadline limit;
  bool begun = false, awaited = false, over = false;
  std::optional<Transcript> transcript;  // where replies go through the chat template
  std::vector<int32_t> opening;
  std::string_view drawn_end;  // of the newest turn
  int32_t turn = 0, room = 0;
  std::vector<TurnNote> notes;
};

Episodes::Episodes(EnvironmentPort* environment, const Tokenizer* tokenizer,
                   const ChatTemplate* chat_template, EpisodeOptions options)
    : environment_(environment),
      tokenizer_(tokenizer),
      template_(chat_template),
      options_(std::move(options)),
      tools_json_(environment->ToolsJson()) {}

Episodes::~Episodes() {
  for (auto& [number, episode] : episodes_) EndPort(episode);
}

void Episodes::EndPort(Episode& e) {
  if (e.over) return;
  e.over = true;
  awaited_ -= std::exchange(e.awaited, false);
  environment_->End(e.number);
}

void Episodes::Begin(uint64_t request, const Prompt& prompt, int32_t samples) {
  Request& r = requests_[request];
  r.beginning = samples;
  const bool renders = template_ != nullptr && (!prompt.messages.empty() || options_.renders_text);
  std::vector<Message> messages = prompt.messages;
  if (messages.empty()) messages.push_back({.role = "user", .content = prompt.text});
  const std::string columns = renders ? WithTools(prompt.extra_json, tools_json_) : "";
  for (int32_t i = 0; i < samples; ++i) {
    Episode e;
    e.number = next_++;
    e.request = request;
    e.sample = static_cast<uint32_t>(i);
    e.limit = After(options_.episode_time);
    e.awaited = true;
    if (renders) e.transcript.emplace(template_, messages, columns);
    ++awaited_;
    ++counters_.episodes;
    r.episodes.push_back(e.number);
    environment_->Begin(e.number, prompt, e.sample);
    episodes_.emplace(e.number, std::move(e));
  }
}

std::optional<std::pair<uint64_t, std::vector<std::vector<int32_t>>>> Episodes::TakeBegun() {
  if (begun_.empty()) return std::nullopt;
  auto first = std::move(begun_.front());
  begun_.erase(begun_.begin());
  return first;
}

std::vector<EpisodeMove> Episodes::TakeMoves() { return std::exchange(moves_, {}); }

Deadline Episodes::next_limit() const {
  Deadline next = Deadline::max();
  for (const auto& [number, e] : episodes_) {
    if (!e.over) next = std::min(next, e.limit);
  }
  return next;
}

void Episodes::Act(const EndedTurn& turn) {
  const auto request = requests_.find(turn.id);
  PLUMB_CHECK(request != requests_.end(), "a turn of no conversation");
  Episode& e = episodes_.at(request->second.episodes.at(turn.sample));
  if (e.over) return;  // its end is on the way to the engine
  std::span<const int32_t> said = turn.tokens;
  e.drawn_end = {};
  if (!said.empty() &&
      std::find(options_.eos.begin(), options_.eos.end(), said.back()) != options_.eos.end()) {
    e.drawn_end = tokenizer_->TokenBytes(said.back());
    said = said.first(said.size() - 1);
  }
  e.turn = turn.turn;
  e.room = turn.room;
  e.notes.resize(static_cast<size_t>(turn.turn) + 1);
  e.awaited = true;
  ++awaited_;
  ++counters_.turns;
  environment_->Act(e.number, tokenizer_->Decode(said, /*skip_special=*/false));
}

void Episodes::Poll(Deadline deadline) {
  // Episodes that begin or act with one that answers at once have their replies here already.
  for (EnvironmentReply& reply : environment_->Poll(deadline)) TakeIn(std::move(reply));
  Expire();
}

void Episodes::TakeIn(EnvironmentReply reply) {
  const auto at = episodes_.find(reply.episode);
  if (at == episodes_.end() || at->second.over) return;  // it ended meanwhile
  Episode& e = at->second;
  PLUMB_CHECK(e.awaited, "an environment answered twice");
  e.awaited = false;
  --awaited_;
  if (reply.reward && !std::isfinite(*reply.reward))
    reply.error = "it gave a reward that is not finite";
  try {
    if (!reply.error.empty()) Fail(e, reply.error);
    else if (!e.begun) Begun(e, reply);
    else Replied(e, reply);
  } catch (const Error& error) {
    Fail(e, error.what());
  }
  if (e.begun) return;
  e.begun = true;
  Request& request = requests_.at(e.request);
  if (--request.beginning > 0) return;
  std::vector<std::vector<int32_t>> openings;
  for (const uint64_t number : request.episodes)
    openings.push_back(std::move(episodes_.at(number).opening));
  begun_.emplace_back(e.request, std::move(openings));
}

void Episodes::Begun(Episode& e, const EnvironmentReply& reply) {
  if (reply.done) {
    Fail(e, "it ended the conversation before the policy said anything");
    return;
  }
  if (reply.messages.empty() && reply.text.empty()) return;
  std::vector<int32_t> opening = Tokens(e, reply, /*goes_on=*/true);
  if (std::ssize(opening) >= options_.max_new_tokens) {
    Fail(e, "what it says first has " + std::to_string(opening.size()) +
                " tokens, rollout.max_new_tokens = " + std::to_string(options_.max_new_tokens));
    return;
  }
  e.opening = std::move(opening);
}

void Episodes::Replied(Episode& e, const EnvironmentReply& reply) {
  const bool says = !reply.messages.empty() || !reply.text.empty();
  TurnNote& note = e.notes.back();
  note = {.reward = reply.reward,
          .called = says || reply.failed_call,
          .failed_call = reply.failed_call};
  const bool last = e.turn + 1 >= options_.max_turns;
  if (!reply.done && last) {  // nobody would answer it
    Finish(e, FinishReason::kLength, "");
    return;
  }
  std::vector<int32_t> tokens;
  if (says || !reply.done) tokens = Tokens(e, reply, !reply.done);
  const bool fits = std::ssize(tokens) < e.room || (reply.done && std::ssize(tokens) == e.room);
  if (!fits) {
    ++counters_.cut_replies;
    tokens.resize(static_cast<size_t>(std::min<ptrdiff_t>(std::ssize(tokens), e.room)));
  }
  if (reply.done) {
    Finish(e, FinishReason::kStop, "", std::move(tokens));
  } else if (!fits) {
    Finish(e, FinishReason::kLength, "", std::move(tokens));
  } else {
    moves_.push_back({.request = e.request,
                      .sample = e.sample,
                      .tokens = std::move(tokens),
                      .ends = false,
                      .finish = {},
                      .why = {}});
  }
}

void Episodes::Finish(Episode& e, FinishReason finish, std::string why, std::vector<int32_t> rest) {
  EndPort(e);
  moves_.push_back({.request = e.request,
                    .sample = e.sample,
                    .tokens = std::move(rest),
                    .ends = true,
                    .finish = finish,
                    .why = std::move(why)});
}

void Episodes::Fail(Episode& e, const std::string& why) {
  ++counters_.failures;
  Finish(e, FinishReason::kAborted, std::string(kEnvironmentFailed) + why);
}

void Episodes::Expire() {
  const Deadline now = std::chrono::steady_clock::now();
  for (auto& [number, e] : episodes_) {
    if (e.over || now < e.limit) continue;
    ++counters_.timeouts;
    if (e.begun) {
      Finish(e, FinishReason::kLength, "");
      continue;
    }
    TakeIn({.episode = number,
            .error = "the conversation did not begin within environment.episode_seconds"});
  }
}

std::vector<int32_t> Episodes::Tokens(Episode& e, const EnvironmentReply& reply, bool goes_on) {
  if (!e.transcript) {
    std::string text = reply.text;
    for (const Message& m : reply.messages) text += (text.empty() ? "" : "\n") + m.content;
    return text.empty() ? std::vector<int32_t>() : tokenizer_->Encode(Cut(text));
  }
  std::vector<Message> messages = reply.messages;
  if (messages.empty() && !reply.text.empty())
    messages.push_back({.role = "user", .content = reply.text});
  for (Message& m : messages) m.content = Cut(m.content);
  return tokenizer_->Encode(e.transcript->Reply(messages, goes_on, std::exchange(e.drawn_end, {})));
}

std::string Episodes::Cut(const std::string& text) {
  const std::vector<int32_t> tokens = tokenizer_->Encode(text);
  const auto most = static_cast<size_t>(options_.reply_tokens);
  if (tokens.size() <= most) return text;
  ++counters_.cut_replies;
  return tokenizer_->Decode(std::span(tokens).first(most), /*skip_special=*/false);
}

std::vector<std::vector<TurnNote>> Episodes::Close(uint64_t request) {
  std::vector<std::vector<TurnNote>> notes;
  const auto at = requests_.find(request);
  PLUMB_CHECK(at != requests_.end(), "a request without conversations");
  for (const uint64_t number : at->second.episodes) {
    const auto episode = episodes_.find(number);
    EndPort(episode->second);
    notes.push_back(std::move(episode->second.notes));
    episodes_.erase(episode);
  }
  requests_.erase(at);
  std::erase_if(moves_, [&](const EpisodeMove& move) { return move.request == request; });
  std::erase_if(begun_, [&](const auto& begun) { return begun.first == request; });
  return notes;
}

}  // namespace plumb::actor

#include "environment/doors/conversation.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "common/record/json_text.h"

namespace plumb::environment {
namespace {

using configs::ToolForm;

// For a model that made a call which cannot be read.
std::string Example(ToolForm form) {
  switch (form) {
    case ToolForm::kLlama3: return R"({"name": "tool", "parameters": {"argument": 1}})";
    case ToolForm::kMistral:
      return R"([TOOL_CALLS][{"name": "tool", "arguments": {"argument": 1}}])";
    default: return R"({"name": "tool", "arguments": {"argument": 1}})";
  }
}

// Templates of these write a tool's message for a call that went before only.
bool WantsCallBefore(ToolForm form) {
  return form == ToolForm::kMistral || form == ToolForm::kHarmony || form == ToolForm::kDeepseek;
}

}  // namespace

void Conversation::Say(std::vector<Message> messages, const std::string& text,
                       EnvironmentReply* out) const {
  out->text += text;
  if (rules_.chat) {
    std::move(messages.begin(), messages.end(), std::back_inserter(out->messages));
    return;
  }
  for (const Message& message : messages) out->text += "\n" + message.content + "\n";
}

EnvironmentReply Conversation::Opening(PeerReply reply) const {
  EnvironmentReply out{.episode = episode_};
  out.error = reply.error;
  if (!out.error.empty()) return out;
  Say(std::move(reply.messages), reply.text, &out);
  out.done = reply.done;
  out.reward = reply.reward;
  return out;
}

Conversation::Turn Conversation::Take(const std::string& text) {
  Turn turn;
  turn.request.ask = Ask::kAct;
  turn.request.episode = episode_;
  turn.request.text = text;
  turn.request.last = ++turns_ >= rules_.max_turns;
  if (rules_.tools.empty()) {
    turn.request.content = text;
    return turn;
  }
  ParsedTurn parsed = ParseTurn(rules_.form, text);
  turn.request.content = parsed.content;
  turn.malformed = parsed.malformed;
  turn.like = parsed.like;
  turn.calls = std::move(parsed.calls);
  for (ToolCall& call : turn.calls) {
    char id[32];  // nine characters: what Mistral's template takes
    std::snprintf(id, sizeof id, "call%05lld", static_cast<long long>(calls_++ % 100000));
    if (call.id.empty()) call.id = id;
    call = rules_.tools.Typed(std::move(call));
    turn.wrong.push_back(rules_.tools.Check(call));
    if (!turn.wrong.back()) turn.request.calls.push_back(call);
  }
  // The last turn goes to the environment in any case: it may have a reward to give.
  const bool said_wrong = !turn.malformed.empty() || !turn.calls.empty();
  turn.answered = !turn.request.last && said_wrong && turn.request.calls.empty();
  return turn;
}

EnvironmentReply Conversation::Answer(const Turn& turn, PeerReply reply) const {
  EnvironmentReply out{.episode = episode_};
  out.error = reply.error;
  if (!out.error.empty()) return out;
  std::vector<Message> messages;
  if (!turn.malformed.empty()) {
    out.failed_call = true;
    messages.push_back({WantsCallBefore(rules_.form) ? "user" : "tool",
                        "error: the tool call cannot be read: " + turn.malformed +
                            ". A call looks like " +
                            (turn.like.empty() ? Example(rules_.form) : turn.like)});
  }
  size_t next = 0;
  for (size_t i = 0; i < turn.calls.size(); ++i) {
    const ToolCall& call = turn.calls[i];
    CallResult result;
    if (turn.wrong[i]) {
      result = {"error: " + *turn.wrong[i], true};
    } else if (next < reply.results.size()) {
      result = std::move(reply.results[next++]);
    }
    out.failed_call |= result.failed;
    messages.push_back({"tool", std::move(result.content),
                        DumpJson({{"tool_call_id", call.id}, {"name", call.name}})});
  }
  std::move(reply.messages.begin(), reply.messages.end(), std::back_inserter(messages));
  const bool silent = messages.empty() && reply.text.empty();
  Say(std::move(messages), reply.text, &out);
  out.failed_call |= reply.failed;
  out.reward = reply.reward;
  // A policy that is told nothing has nothing to go on from.
  out.done = reply.done || turn.request.last || silent;
  return out;
}

}  // namespace plumb::environment

#include "run/agents/agent_reply.h"

#include <chrono>
#include <nlohmann/json.hpp>

#include "common/record/json_text.h"
#include "run/serve/answer_reply.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

Json CallsJson(const environment::ParsedTurn& turn, bool with_index) {
  Json calls = Json::array();
  for (size_t i = 0; i < turn.calls.size(); ++i) {
    const environment::ToolCall& call = turn.calls[i];
    Json one = Json::object();
    if (with_index) one["index"] = i;
    one.update({{"id", call.id},
                {"type", "function"},
                {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
    calls.push_back(std::move(one));
  }
  return calls;
}

std::string Event(const Json& json) { return "data: " + DumpJson(json) + "\n\n"; }

// The same as chunks: what is said, why it ended, and, where it was asked for, what it cost.
std::string Chunks(const Json& whole, const AnswerRequest& request, const AnsweredCall& answered) {
  const auto head = [&] {
    Json out = Json::object();
    for (const char* name : {"id", "object", "created", "model"}) out[name] = whole[name];
    if (request.chat) out["object"] = "chat.completion.chunk";
    if (request.include_usage) out["usage"] = nullptr;
    return out;
  };
  const Json& choice = whole["choices"][0];
  Json said = head(), end = head();
  Json first = {{"index", 0}};
  if (request.chat) {
    first["delta"] = {{"role", "assistant"}, {"content", choice["message"]["content"]}};
    if (!answered.turn.calls.empty()) first["delta"]["tool_calls"] = CallsJson(answered.turn, true);
  } else {
    first["text"] = choice["text"];
  }
  first["logprobs"] = choice["logprobs"];
  first["finish_reason"] = nullptr;
  for (const char* name : {"token_ids", "prompt_token_ids"}) {
    if (choice.contains(name)) first[name] = choice[name];
  }
  if (whole.contains("prompt_token_ids")) said["prompt_token_ids"] = whole["prompt_token_ids"];
  said["choices"] = Json::array({first});
  Json last = {{"index", 0}};
  if (request.chat) last["delta"] = Json::object();
  else last["text"] = "";
  last["logprobs"] = nullptr;
  last["finish_reason"] = choice["finish_reason"];
  last["stop_reason"] = choice["stop_reason"];
  end["choices"] = Json::array({last});
  std::string out = Event(said) + Event(end);
  if (request.include_usage) {
    Json usage = head();
    usage["choices"] = Json::array();
    usage["usage"] = whole["usage"];
    out += Event(usage);
  }
  return out + "data: [DONE]\n\n";
}

}  // namespace

std::string AgentReply(const AnswerRequest& request, const AnsweredCall& answered,
                       const Tokenizer& tokenizer, const std::string& model) {
  char id[64];
  std::snprintf(id, sizeof id, "%s-%llu-%llu", request.chat ? "chatcmpl" : "cmpl",
                static_cast<unsigned long long>(answered.episode),
                static_cast<unsigned long long>(answered.call.call));
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::system_clock::now().time_since_epoch());
  AnswerReply reply(request, tokenizer, {id, now.count(), model}, {answered.prompt});
  AnswerPart part;
  part.text = answered.text;
  part.tokens = answered.answer.tokens;
  part.logprobs = answered.answer.logprobs;
  part.ended = true;
  part.finish = answered.answer.finish;
  part.stop = answered.answer.stop;
  reply.Add({part});
  if (!request.stream && answered.turn.calls.empty()) return reply.Whole();
  Json whole = Json::parse(reply.Whole());
  if (!answered.turn.calls.empty()) {
    Json& choice = whole["choices"][0];
    if (answered.text.empty()) choice["message"]["content"] = nullptr;
    choice["message"]["tool_calls"] = CallsJson(answered.turn, false);
    choice["finish_reason"] = "tool_calls";
  }
  return request.stream ? Chunks(whole, request, answered) : DumpJson(whole);
}

}  // namespace plumb::run

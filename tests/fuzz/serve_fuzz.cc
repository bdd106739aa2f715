// What clients send to `plumb serve`.
#include "common/base/error.h"
#include "run/serve/answer_request.h"
#include "targets.h"

namespace plumb::fuzz {
namespace {

// What was taken asks for something that can be done.
void Check(const run::AnswerRequest& request) {
  const auto prompts = static_cast<int64_t>(request.chat ? 1 : request.texts.size());
  PLUMB_CHECK(prompts >= 1 && request.n >= 1);
  PLUMB_CHECK(prompts * request.n <= run::AnswerRequest::kMostAnswers, "too many answers");
  PLUMB_CHECK(!request.chat || !request.conversation.messages.empty(), "a chat of nothing");
  PLUMB_CHECK(!request.temperature || (*request.temperature >= 0 && *request.temperature <= 100));
  PLUMB_CHECK(!request.top_p || (*request.top_p > 0 && *request.top_p <= 1));
  PLUMB_CHECK(!request.max_tokens || *request.max_tokens >= 1);
  for (const std::string& stop : request.stop) PLUMB_CHECK(!stop.empty(), "an empty stop string");
  for (const auto& text : request.texts) {
    for (const int32_t token : text.tokens) PLUMB_CHECK(token >= 0, "a negative token");
  }
  Use(request.conversation.extra_json.size());
}

template <class Read>
void Try(Read read, std::string_view input) {
  try {
    read(input);
  } catch (const run::ApiError& error) {
    PLUMB_CHECK(error.status == 400 && !error.message.empty());
    Use(run::ErrorJson(error).size());
  }
}

}  // namespace

void FuzzServeRequest(std::string_view input) {
  Try([](std::string_view body) { Check(run::ReadCompletionRequest(body)); }, input);
  Try([](std::string_view body) { Check(run::ReadChatRequest(body)); }, input);
  Try([](std::string_view body) { Use(run::ReadTokenizeRequest(body).model.size()); }, input);
}

Seeds ServeRequestSeeds() {
  return {
      R"({"model":"m","prompt":["a",[1,2]],"n":2,"max_tokens":5,"temperature":0.5,"top_p":0.9})",
      R"({"prompt":"a","seed":-1,"stop":["x","\u00e9"],"stream":true,"logprobs":0,"top_k":-1})",
      R"({"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"logprobs":true})",
      R"({"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]},)"
      R"({"role":"tool","tool_call_id":"1","content":"b"}],"tools":[{"type":"function"}],)"
      R"("tool_choice":"auto","chat_template_kwargs":{"a":[1]},"max_completion_tokens":7})",
      R"({"prompt":"a","add_special_tokens":false,"stream_options":{"include_usage":true}})"};
}

}  // namespace plumb::fuzz

// The body of a request of OpenAI's API, read and checked.
//
// Purpose: what /v1/completions and /v1/chat/completions take. A field that would change the answer
// and is not done here is refused by its name, as is one that nobody knows; only those that say
// nothing about the answer (user, metadata, ...) are passed over. null counts as absent. Thread
// safety: pure functions. Errors: ApiError 400 naming the field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/record/trajectory.h"
#include "run/serve/api_error.h"

namespace plumb::run {

struct AnswerRequest {
  static constexpr int64_t kMostAnswers = 128;  // prompts x n
  static constexpr size_t kMostStops = 16, kMostStopBytes = 1024;

  bool chat = false;
  std::string model;  // "": the first
  // Of a completion: each a text, or tokens where these are not empty.
  struct Text {
    std::string text;
    std::vector<int32_t> tokens;
  };
  std::vector<Text> texts;
  Prompt conversation;  // of a chat: messages; extra_json has tools and chat_template_kwargs
  bool tools = false;
  int64_t n = 1;                      // answers a prompt
  std::optional<int64_t> max_tokens;  // absent: a completion's 16, as OpenAI has it; a chat's: all
  std::optional<double> temperature, top_p, min_p;
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  bool stream = false, include_usage = false;
  bool logprobs = false;   // of the tokens drawn
  bool token_ids = false;  // return_token_ids
};

AnswerRequest ReadCompletionRequest(std::string_view body);
AnswerRequest ReadChatRequest(std::string_view body);

// Of /tokenize: {"model", "prompt", "add_special_tokens"} or {"model", "messages", "tools"}.
struct TokenizeRequest {
  std::string model;
  std::optional<std::string> text;
  bool add_special = true;
  Prompt conversation;
};
TokenizeRequest ReadTokenizeRequest(std::string_view body);

}  // namespace plumb::run

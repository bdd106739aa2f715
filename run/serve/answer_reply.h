// An answer in OpenAI's form: as a whole, or in the chunks of a stream.
//
// Purpose: what /v1/completions and /v1/chat/completions reply, made of what the engine tells. With
// "return_token_ids" a choice has `token_ids`, and the prompts' stand beside (of a chat on top, of
// a completion in each choice), as vLLM has them. Thread safety: none. Ownership: borrows the
// tokenizer. Errors: none.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/tokenizer/tokenizer.h"
#include "run/serve/answer_request.h"
#include "run/serve/batch_engine.h"

namespace plumb::run {

struct ReplyHead {
  std::string id;       // "cmpl-..." or "chatcmpl-..."
  int64_t created = 0;  // seconds since 1970
  std::string model;
};

class AnswerReply {
 public:
  // `prompts`: tokens of each.
  AnswerReply(const AnswerRequest& asked, const Tokenizer& tokenizer, ReplyHead head,
              std::vector<std::vector<int32_t>> prompts);

  // Of a stream: the lines that say these parts, "data: {...}\n\n" each.
  std::string Stream(const std::vector<AnswerPart>& parts);
  // The last lines of one: the usage where it was asked for, and [DONE].
  std::string StreamEnd() const;
  // A failure within a stream.
  static std::string StreamFailure(const ApiError& error);

  // Of a whole answer.
  void Add(const std::vector<AnswerPart>& parts);
  std::string Whole() const;

 private:
  using Json = nlohmann::ordered_json;
  struct Choice {
    std::string text;
    std::vector<int32_t> tokens;
    std::vector<float> logprobs;
    std::string finish, stop;
    bool begun = false;
    int64_t offset = 0;  // characters of the tokens so far
  };

  Json Head(const char* object) const;
  Json Usage() const;
  Json LogProbs(std::span<const int32_t> tokens, std::span<const float> logprobs,
                int64_t* offset) const;
  Json ChunkChoice(uint32_t answer, const AnswerPart& part, Choice& choice) const;
  std::string Line(const Json& json) const;

  const bool chat_, logprobs_, token_ids_, include_usage_;
  const int64_t n_;
  const Tokenizer& tokenizer_;
  const ReplyHead head_;
  const std::vector<std::vector<int32_t>> prompts_;
  std::vector<Choice> choices_;
  int64_t drawn_ = 0;  // tokens
};

}  // namespace plumb::run

#include "run/serve/answer_reply.h"

#include <span>
#include <utility>

#include "common/text/unicode.h"

namespace plumb::run {
namespace {

const char* FinishWord(const AnswerPart& part) {
  return part.finish == FinishReason::kLength ? "length" : "stop";
}

int64_t Characters(std::string_view text) {
  int64_t n = 0;
  for (const char c : text) n += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return n;
}

}  // namespace

AnswerReply::AnswerReply(const AnswerRequest& asked, const Tokenizer& tokenizer, ReplyHead head,
                         std::vector<std::vector<int32_t>> prompts)
    : chat_(asked.chat),
      logprobs_(asked.logprobs),
      token_ids_(asked.token_ids),
      include_usage_(asked.include_usage),
      n_(asked.n),
      tokenizer_(tokenizer),
      head_(std::move(head)),
      prompts_(std::move(prompts)),
      choices_(prompts_.size() * static_cast<size_t>(asked.n)) {}

AnswerReply::Json AnswerReply::Head(const char* object) const {
  return {{"id", head_.id},
          {"object", object},
          {"created", head_.created},
          {"model", head_.model},
          {"choices", Json::array()}};
}

AnswerReply::Json AnswerReply::Usage() const {
  int64_t asked = 0;
  for (const auto& prompt : prompts_) asked += static_cast<int64_t>(prompt.size());
  return {
      {"prompt_tokens", asked}, {"completion_tokens", drawn_}, {"total_tokens", asked + drawn_}};
}

AnswerReply::Json AnswerReply::LogProbs(std::span<const int32_t> tokens,
                                        std::span<const float> logprobs, int64_t* offset) const {
  if (!logprobs_) return nullptr;
  Json content = Json::array(), texts = Json::array(), offsets = Json::array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string_view bytes = tokenizer_.TokenBytes(tokens[i]);
    std::string text(bytes);
    RepairUtf8(text);
    if (chat_) {
      Json numbers = Json::array();
      for (const char c : bytes) numbers.push_back(static_cast<unsigned char>(c));
      content.push_back({{"token", text},
                         {"logprob", logprobs[i]},
                         {"bytes", std::move(numbers)},
                         {"top_logprobs", Json::array()}});
    } else {
      texts.push_back(text);
      offsets.push_back(*offset);
      *offset += Characters(bytes);
    }
  }
  if (chat_) return {{"content", std::move(content)}};
  return {{"text_offset", std::move(offsets)},
          {"token_logprobs", std::vector<float>(logprobs.begin(), logprobs.end())},
          {"tokens", std::move(texts)},
          {"top_logprobs", nullptr}};
}

std::string AnswerReply::Line(const Json& json) const {
  return "data: " + json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n\n";
}

AnswerReply::Json AnswerReply::ChunkChoice(uint32_t answer, const AnswerPart& part,
                                           Choice& choice) const {
  Json out = {{"index", answer}};
  if (chat_) {
    out["delta"] = Json::object();
    if (!choice.begun) out["delta"]["role"] = "assistant";
    if (!part.text.empty() || !choice.begun) out["delta"]["content"] = part.text;
  } else {
    out["text"] = part.text;
  }
  out["logprobs"] = LogProbs(part.tokens, part.logprobs, &choice.offset);
  out["finish_reason"] = part.ended ? Json(FinishWord(part)) : Json();
  if (part.ended) out["stop_reason"] = part.stop.empty() ? Json() : Json(part.stop);
  if (token_ids_) {
    if (!chat_ && !choice.begun)
      out["prompt_token_ids"] = prompts_[answer / static_cast<uint32_t>(n_)];
    out["token_ids"] = part.tokens;
  }
  choice.begun = true;
  return out;
}

std::string AnswerReply::Stream(const std::vector<AnswerPart>& parts) {
  std::string out;
  for (const AnswerPart& part : parts) {
    Json chunk = Head(chat_ ? "chat.completion.chunk" : "text_completion");
    if (chat_ && token_ids_ && drawn_ == 0) chunk["prompt_token_ids"] = prompts_.front();
    drawn_ += static_cast<int64_t>(part.tokens.size());
    chunk["choices"].push_back(ChunkChoice(part.answer, part, choices_[part.answer]));
    if (include_usage_) chunk["usage"] = nullptr;
    out += Line(chunk);
  }
  return out;
}

std::string AnswerReply::StreamEnd() const {
  std::string out;
  if (include_usage_) {
    Json chunk = Head(chat_ ? "chat.completion.chunk" : "text_completion");
    chunk["usage"] = Usage();
    out += Line(chunk);
  }
  return out + "data: [DONE]\n\n";
}

std::string AnswerReply::StreamFailure(const ApiError& error) {
  return "data: " + ErrorJson(error) + "\n\n";
}

void AnswerReply::Add(const std::vector<AnswerPart>& parts) {
  for (const AnswerPart& part : parts) {
    Choice& choice = choices_[part.answer];
    choice.text += part.text;
    choice.tokens.insert(choice.tokens.end(), part.tokens.begin(), part.tokens.end());
    choice.logprobs.insert(choice.logprobs.end(), part.logprobs.begin(), part.logprobs.end());
    drawn_ += static_cast<int64_t>(part.tokens.size());
    if (!part.ended) continue;
    choice.finish = FinishWord(part);
    choice.stop = part.stop;
  }
}

std::string AnswerReply::Whole() const {
  Json out = Head(chat_ ? "chat.completion" : "text_completion");
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Choice& choice = choices_[i];
    Json one = {{"index", i}};
    if (chat_) {
      one["message"] = {{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
    } else {
      one["text"] = choice.text;
    }
    int64_t offset = 0;
    one["logprobs"] = LogProbs(choice.tokens, choice.logprobs, &offset);
    one["finish_reason"] = choice.finish;
    one["stop_reason"] = choice.stop.empty() ? Json() : Json(choice.stop);
    if (token_ids_) {
      if (!chat_) one["prompt_token_ids"] = prompts_[i / static_cast<size_t>(n_)];
      one["token_ids"] = choice.tokens;
    }
    out["choices"].push_back(std::move(one));
  }
  out["usage"] = Usage();
  if (chat_ && token_ids_) out["prompt_token_ids"] = prompts_.front();
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace plumb::run

#include "run/serve/answer_request.h"

#include <gtest/gtest.h>

namespace plumb::run {
namespace {

template <class Read>
std::string Refused(Read read, std::string_view body) {
  try {
    read(body);
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 400);
    EXPECT_FALSE(error.message.empty());
    return error.param;
  }
  return "(taken)";
}

TEST(AnswerRequest, ACompletionHasItsDefaults) {
  const AnswerRequest r = ReadCompletionRequest(R"({"prompt": "a", "user": "me", "stop": null})");
  EXPECT_FALSE(r.chat);
  ASSERT_EQ(r.texts.size(), 1u);
  EXPECT_EQ(r.texts[0].text, "a");
  EXPECT_EQ(r.max_tokens, 16);
  EXPECT_EQ(r.n, 1);
  EXPECT_FALSE(r.temperature || r.top_p || r.top_k || r.min_p || r.seed);
  EXPECT_FALSE(r.stream || r.logprobs || r.token_ids);
}

TEST(AnswerRequest, EveryFieldIsRead) {
  const AnswerRequest r = ReadCompletionRequest(
      R"({"model": "m", "prompt": [[1, 2], "b"], "n": 2, "max_tokens": 5, "temperature": 0.5,
          "top_p": 0.25, "top_k": -1, "min_p": 0.125, "seed": -1, "stop": ["x", "y"],
          "stream": true, "stream_options": {"include_usage": true}, "logprobs": 0,
          "return_token_ids": true, "frequency_penalty": 0.0, "logit_bias": {}, "best_of": 2})");
  EXPECT_EQ(r.model, "m");
  ASSERT_EQ(r.texts.size(), 2u);
  EXPECT_EQ(r.texts[0].tokens, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(r.texts[1].text, "b");
  EXPECT_EQ(r.n, 2);
  EXPECT_EQ(r.temperature, 0.5);
  EXPECT_EQ(r.top_p, 0.25);
  EXPECT_EQ(r.top_k, 0);
  EXPECT_EQ(r.min_p, 0.125);
  EXPECT_EQ(r.seed, ~uint64_t{0});
  EXPECT_EQ(r.stop, (std::vector<std::string>{"x", "y"}));
  EXPECT_TRUE(r.stream && r.include_usage && r.logprobs && r.token_ids);
}

TEST(AnswerRequest, AChatKeepsItsMessagesAsTheyAre) {
  const AnswerRequest r = ReadChatRequest(
      R"({"messages": [{"role": "user", "content": "a"},
                       {"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]},
                       {"role": "tool", "tool_call_id": "1", "content": "b"},
                       {"role": "assistant", "content": "c"}],
          "tools": [{"type": "function"}], "tool_choice": "auto", "max_completion_tokens": 7,
          "chat_template_kwargs": {"enable_thinking": false}})");
  ASSERT_EQ(r.conversation.messages.size(), 4u) << "an answer at the end is a message, too";
  EXPECT_EQ(r.conversation.messages[3].content, "c");
  EXPECT_NE(r.conversation.messages[1].fields_json.find("tool_calls"), std::string::npos);
  EXPECT_NE(r.conversation.extra_json.find("enable_thinking"), std::string::npos);
  EXPECT_NE(r.conversation.extra_json.find("tools"), std::string::npos);
  EXPECT_TRUE(r.tools);
  EXPECT_EQ(r.max_tokens, 7);
  const AnswerRequest none = ReadChatRequest(
      R"({"messages": [{"role": "user", "content": "a"}], "tools": [{}], "tool_choice": "none"})");
  EXPECT_FALSE(none.tools);
  EXPECT_EQ(none.conversation.messages.size(), 1u);
  EXPECT_EQ(none.conversation.extra_json.find("tools"), std::string::npos);
  EXPECT_FALSE(none.max_tokens);
}

TEST(AnswerRequest, TextPartsAreTheLinesOfOneText) {
  const AnswerRequest r = ReadChatRequest(
      R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"},
                                                    {"type": "text", "text": "b"}]}]})");
  ASSERT_EQ(r.conversation.messages.size(), 1u);
  EXPECT_EQ(r.conversation.messages[0], (Message{.role = "user", .content = "a\nb"}));
}

TEST(AnswerRequest, WhatIsNotDoneIsNamed) {
  for (const auto& [body, field] : std::vector<std::pair<std::string, std::string>>{
           {R"({"prompt": "a", "echo": true})", "echo"},
           {R"({"prompt": "a", "best_of": 3})", "best_of"},
           {R"({"prompt": "a", "suffix": "b"})", "suffix"},
           {R"({"prompt": "a", "presence_penalty": 0.5})", "presence_penalty"},
           {R"({"prompt": "a", "logit_bias": {"1": 5}})", "logit_bias"},
           {R"({"prompt": "a", "stream_options": {"include_usage": true}})", "stream_options"},
           {R"({"prompt": "a", "made_up": 1})", "made_up"},
           {R"({"prompt": [1, -2]})", "prompt"},
           {R"({"prompt": [1, 9999999999]})", "prompt"},
           {R"({"prompt": {"a": 1}})", "prompt"},
           {R"({"prompt": ["a", "b"], "n": 100})", "prompt"},
           {R"({"prompt": "a", "seed": 18446744073709551615})", "seed"},
           {R"({"prompt": "a", "n": 1.5})", "n"},
           {R"({})", "prompt"}})
    EXPECT_EQ(Refused(ReadCompletionRequest, body), field) << body;
  const std::string messages = R"({"messages": [{"role": "user", "content": "a"}], )";
  for (const auto& [more, field] : std::vector<std::pair<std::string, std::string>>{
           {R"("tool_choice": "required"})", "tool_choice"},
           {R"("tool_choice": {"type": "function"}})", "tool_choice"},
           {R"("max_tokens": 3, "max_completion_tokens": 4})", "max_tokens"},
           {R"("logprobs": 1})", "logprobs"},
           {R"("functions": []})", "functions"}})
    EXPECT_EQ(Refused(ReadChatRequest, messages + more), field) << more;
  EXPECT_EQ(Refused(ReadChatRequest,
                    R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})"),
            "messages");
}

TEST(AnswerRequest, TokenizeTakesATextOrMessages) {
  EXPECT_EQ(ReadTokenizeRequest(R"({"prompt": ""})").text, "");
  EXPECT_TRUE(ReadTokenizeRequest(R"({"prompt": "a"})").add_special);
  EXPECT_FALSE(ReadTokenizeRequest(R"({"prompt": "a", "add_special_tokens": false})").add_special);
  EXPECT_EQ(ReadTokenizeRequest(R"({"messages": [{"role": "user", "content": "a"}]})")
                .conversation.messages.size(),
            1u);
  EXPECT_EQ(Refused(ReadTokenizeRequest, "{}"), "prompt");
}

}  // namespace
}  // namespace plumb::run

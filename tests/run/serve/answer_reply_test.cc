// The words of replies; that they say what the engine says is in api_server_test.cc.
#include "run/serve/answer_reply.h"

#include <gtest/gtest.h>

#include "run/serve/api_error.h"
#include "run/serve/serve_metrics.h"

namespace plumb::run {
namespace {

using nlohmann::json;

TEST(AnswerReply, AStreamOfAChatBeginsWithTheRoleAndEndsWithWhy) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  AnswerRequest asked;
  asked.chat = true;
  AnswerReply reply(asked, *tokenizer, {.id = "chatcmpl-1", .created = 5, .model = "m"}, {{1, 2}});
  AnswerPart part;
  part.text = "1";
  part.tokens = {3};
  part.logprobs = {-0.5f};
  const std::string first = reply.Stream({part});
  ASSERT_TRUE(first.starts_with("data: {") && first.ends_with("}\n\n"));
  json chunk = json::parse(first.substr(6));
  EXPECT_EQ(chunk["object"], "chat.completion.chunk");
  EXPECT_EQ(chunk["id"], "chatcmpl-1");
  EXPECT_EQ(chunk["created"], 5);
  EXPECT_EQ(chunk["choices"][0]["delta"], (json{{"role", "assistant"}, {"content", "1"}}));
  EXPECT_TRUE(chunk["choices"][0]["finish_reason"].is_null());
  EXPECT_TRUE(chunk["choices"][0]["logprobs"].is_null()) << "nobody asked for them";
  EXPECT_FALSE(chunk["choices"][0].contains("token_ids"));
  EXPECT_FALSE(chunk.contains("usage"));
  part.text = "";
  part.ended = true;
  part.stop = "x";
  chunk = json::parse(reply.Stream({part}).substr(6));
  EXPECT_EQ(chunk["choices"][0]["delta"], json::object());
  EXPECT_EQ(chunk["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(chunk["choices"][0]["stop_reason"], "x");
  EXPECT_EQ(reply.StreamEnd(), "data: [DONE]\n\n");
}

TEST(AnswerReply, OffsetsCountCharactersAndBytesStandBeside) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  AnswerRequest asked;
  asked.logprobs = true;
  AnswerPart part;
  part.tokens = {tokenizer->Find("<think>"), tokenizer->Find("1"), tokenizer->Find("2")};
  part.logprobs = {-1, -2, -3};
  part.ended = true;
  AnswerReply reply(asked, *tokenizer, {}, {{1}});
  reply.Add({part});
  const json whole = json::parse(reply.Whole());
  EXPECT_EQ(whole["choices"][0]["logprobs"]["text_offset"], json({0, 7, 8}));
  EXPECT_EQ(whole["choices"][0]["logprobs"]["tokens"][0], "<think>");
  asked.chat = true;
  AnswerReply chat(asked, *tokenizer, {}, {{1}});
  chat.Add({part});
  EXPECT_EQ(
      json::parse(chat.Whole())["choices"][0]["logprobs"]["content"][1],
      (json{{"token", "1"}, {"logprob", -2}, {"bytes", {49}}, {"top_logprobs", json::array()}}));
}

TEST(ApiError, HasOpenAisForm) {
  const json error = json::parse(ErrorJson({429, "too \"many\"", "", "queue_full"}))["error"];
  EXPECT_EQ(error, (json{{"message", "too \"many\""},
                         {"type", "rate_limit_error"},
                         {"param", nullptr},
                         {"code", "queue_full"}}));
  EXPECT_EQ(AsApiError(Error(ErrorCode::kInvalidArgument, "x")).status, 400);
  EXPECT_EQ(AsApiError(Error(ErrorCode::kIo, "x")).status, 500);
}

TEST(ServeMetrics, BucketsAddUp) {
  BatchCounters counters;
  counters.first_tokens[0] = 2;
  counters.first_tokens[1] = 3;
  counters.first_tokens[std::size(BatchCounters::kFirstTokenBounds)] = 4;
  ServedReplies replies;
  replies.Count("/health", 200);
  replies.Count("/health", 200);
  const std::string text = ServeMetricsText(counters, replies.Now());
  for (const char* line :
       {"first_token_seconds_bucket{le=\"0.01\"} 2\n",
        "first_token_seconds_bucket{le=\"0.025\"} 5\n", "first_token_seconds_bucket{le=\"60\"} 5\n",
        "first_token_seconds_bucket{le=\"+Inf\"} 9\n", "first_token_seconds_count 9\n",
        "replies_total{endpoint=\"/health\",status=\"200\"} 2\n"})
    EXPECT_NE(text.find(std::string("plumb_serve_") + line), std::string::npos) << line << text;
}

}  // namespace
}  // namespace plumb::run

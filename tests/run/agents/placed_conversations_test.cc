// Whether a call goes on with what was said before, or begins anew.
#include "run/agents/placed_conversations.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::run {
namespace {

constexpr char kTemplate[] =
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
    "{% if m['tool_calls'] %}{% for c in m['tool_calls'] %}[call {{ c['function']['name'] }} "
    "{{ c['function']['arguments'] | tojson }}]{% endfor %}{% endif %}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";

class Placed : public ::testing::Test {
 protected:
  Said Chat(std::vector<Message> messages) const { return {.messages = std::move(messages)}; }
  // What the policy draws.
  std::vector<int32_t> Drawn(const std::string& text) const {
    return tokenizer->Encode(text + "<eos>");
  }
  static environment::ParsedTurn Text(const std::string& text) { return {.content = text}; }

  const std::unique_ptr<Tokenizer> tokenizer = Tokenizer::BuiltIn("bytes");
  const std::unique_ptr<ChatTemplate> chat = ChatTemplate::Parse(kTemplate, "<bos>", "<eos>");
  PlacedConversations placed{tokenizer.get(), chat.get(), /*keeps_beginnings=*/true};
};

TEST_F(Placed, WhatBeginsWithTheTokensGoesOn) {
  const Place first = placed.Put(Chat({{"user", "2+3?"}}));
  EXPECT_TRUE(first.begins);
  EXPECT_EQ(first.tokens, tokenizer->Encode("<user>2+3?<eos><assistant>"));
  placed.Answered(0, Drawn("call 2+3"), Text("call 2+3"));
  const Place second =
      placed.Put(Chat({{"user", "2+3?"}, {"assistant", "call 2+3"}, {"user", "5"}}));
  EXPECT_FALSE(second.begins);
  EXPECT_EQ(second.conversation, 0u);
  EXPECT_EQ(second.tokens, tokenizer->Encode("<user>5<eos><assistant>"));
  EXPECT_EQ(second.prompt,
            tokenizer->Encode("<user>2+3?<eos><assistant>call 2+3<eos><user>5<eos><assistant>"));
}

TEST_F(Placed, AnAnswerCutWithoutAnEndIsEndedByTheTemplate) {
  placed.Put(Chat({{"user", "2+3?"}}));
  placed.Answered(0, tokenizer->Encode("cut"), Text("cut"));
  const Place second = placed.Put(Chat({{"user", "2+3?"}, {"assistant", "cut"}, {"user", "5"}}));
  EXPECT_FALSE(second.begins);
  EXPECT_EQ(second.tokens, tokenizer->Encode("<eos><user>5<eos><assistant>"));
}

// Bytes that are no text, and special tokens that the agent is not shown: the message says less
// than the tokens, which stay as they were drawn.
TEST_F(Placed, TheAnswerAsItWasGivenGoesOnWithTheTokensThatWereDrawn) {
  placed.Put(Chat({{"user", "2+3?"}}));
  std::vector<int32_t> drawn = {200, 201, tokenizer->Find("<user>"), 65};
  drawn.push_back(tokenizer->Find("<eos>"));
  const std::string given = tokenizer->Decode(drawn, /*skip_special=*/true);
  placed.Answered(0, drawn, Text(given));
  const Place second = placed.Put(Chat({{"user", "2+3?"}, {"assistant", given}, {"user", "5"}}));
  EXPECT_FALSE(second.begins);
  EXPECT_EQ(second.tokens, tokenizer->Encode("<user>5<eos><assistant>"));
}

TEST_F(Placed, CallsOfToolsAreTheSameByNameAndArguments) {
  placed.Put(Chat({{"user", "2+3?"}}));
  const environment::ParsedTurn given{
      .content = "", .calls = {{.id = "c1", .name = "add", .arguments = R"({"a": 2, "b": 3})"}}};
  placed.Answered(0, Drawn("<tool_call>{...}"), given);
  const auto back = [](const std::string& arguments) {
    return Message{"assistant", "",
                   R"({"content":null,"tool_calls":[{"id":"c1","type":"function","function":)"
                   R"({"name":"add","arguments":)" +
                       arguments + "}}]}"};
  };
  for (const char* arguments : {R"("{\"b\":3,\"a\":2}")", R"({"a":2,"b":3})"}) {
    PlacedConversations fresh(tokenizer.get(), chat.get(), true);
    fresh.Put(Chat({{"user", "2+3?"}}));
    fresh.Answered(0, Drawn("<tool_call>{...}"), given);
    const Place next = fresh.Put(Chat({{"user", "2+3?"}, back(arguments), {"tool", "5"}}));
    EXPECT_FALSE(next.begins) << arguments;
    EXPECT_EQ(next.tokens, tokenizer->Encode("<tool>5<eos><assistant>"));
  }
  EXPECT_TRUE(placed.Put(Chat({{"user", "2+3?"}, back(R"("{\"a\":9}")"), {"tool", "5"}})).begins)
      << "another call is another conversation";
}

TEST_F(Placed, WhatSaysOtherwiseBeginsAnew) {
  placed.Put(Chat({{"user", "2+3?"}}));
  placed.Answered(0, Drawn("five"), Text("five"));
  EXPECT_TRUE(placed.Put(Chat({{"user", "2+3!"}, {"assistant", "five"}, {"user", "?"}})).begins);
  EXPECT_TRUE(placed.Put(Chat({{"user", "summary: five"}, {"user", "?"}})).begins);
  EXPECT_TRUE(placed.Put(Chat({{"user", "2+3?"}, {"assistant", "six"}, {"user", "?"}})).begins);
  EXPECT_TRUE(placed.Put(Chat({{"user", "2+3?"}})).begins) << "asked again";
  const Place on = placed.Put(Chat({{"user", "2+3?"}, {"assistant", "five"}, {"user", "?"}}));
  EXPECT_FALSE(on.begins);
  EXPECT_EQ(on.conversation, 0u);
  EXPECT_TRUE(placed.Put(Chat({{"user", "2+3?"}, {"assistant", "five"}, {"user", "?"}})).begins)
      << "while the one before is being answered";
}

TEST_F(Placed, WhatReachedNobodyIsNotGoneOnWith) {
  placed.Put(Chat({{"user", "2+3?"}}));
  placed.Answered(0, Drawn("five"), Text("five"));
  placed.Dropped(0);
  EXPECT_TRUE(placed.Put(Chat({{"user", "2+3?"}, {"assistant", "five"}, {"user", "?"}})).begins);
}

// A template that drops what was thought once a user speaks again.
TEST_F(Placed, ATemplateThatRewritesGoesOnOnlyWhereItDoesNot) {
  const auto forgets = ChatTemplate::Parse(
      "{% for m in messages %}<{{ m['role'] }}>{{ m['content'].split('</think>')[-1] }}<eos>"
      "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
      "<bos>", "<eos>");
  PlacedConversations own(tokenizer.get(), forgets.get(), /*keeps_beginnings=*/false);
  own.Put(Chat({{"user", "2+3?"}}));
  own.Answered(0, Drawn("<think>hm</think>five"), Text("<think>hm</think>five"));
  EXPECT_TRUE(
      own.Put(Chat({{"user", "2+3?"}, {"assistant", "<think>hm</think>five"}, {"user", "?"}}))
          .begins);
  own.Answered(1, Drawn("plain"), Text("plain"));
  EXPECT_FALSE(own.Put(Chat({{"user", "2+3?"},
                             {"assistant", "<think>hm</think>five"},
                             {"user", "?"},
                             {"assistant", "plain"},
                             {"user", "!"}}))
                   .begins);
}

TEST_F(Placed, CompletionsGoOnByTextOrTokens) {
  const Said first{.chat = false, .text = "2+3="};
  EXPECT_EQ(placed.Put(first).tokens, tokenizer->Encode("2+3="));
  placed.Answered(0, tokenizer->Encode("5;"), Text("5;"));
  const Place by_text = placed.Put({.chat = false, .text = "2+3=5;4+4="});
  EXPECT_FALSE(by_text.begins);
  EXPECT_EQ(by_text.tokens, tokenizer->Encode("4+4="));
  placed.Answered(0, tokenizer->Encode("8"), Text("8"));
  const Place by_tokens = placed.Put({.chat = false, .tokens = tokenizer->Encode("2+3=5;4+4=8;")});
  EXPECT_FALSE(by_tokens.begins);
  EXPECT_EQ(by_tokens.tokens, tokenizer->Encode(";"));
  EXPECT_TRUE(placed.Put({.chat = false, .text = "1+1="}).begins);
}

}  // namespace
}  // namespace plumb::run

// Which tokens of an answer are learned: what the chat template writes for it.
// run/session/answer_text.h
#include "run/session/answer_text.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::run {
namespace {

using plumb::ChatTemplate;

const Tokenizer& Arithmetic() {
  static const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  return *tokenizer;
}

// A user's turn is "+q=", an assistant's "-a=": with the characters of the built-in vocabulary.
constexpr char kTrims[] =
    "{{ bos_token }}{% for m in messages %}{{ '-' if m.role == 'assistant' else '+' }}{{ m.content "
    "| trim }}=\n{% endfor %}"
    "{% if add_generation_prompt %}-{% endif %}";
// A think block in front of the last answer only, as Qwen3 writes one.
constexpr char kThinks[] =
    "{% for m in messages %}{% if m.role == 'assistant' %}-{% if loop.last %}<think>\n{{ "
    "m.reasoning_content or '' }}</think>{% endif %}"
    "{{ m.content }}={% else %}+{{ m.content }}={% endif %}{% endfor %}{% if add_generation_prompt "
    "%}-{% endif %}";
// Opens the think block in the prompt and leaves it out of answers, as R1's does.
constexpr char kPrefills[] =
    "{% for m in messages %}{% if m.role == 'assistant' %}-{{ m.content.split('</think>')[-1] "
    "}}={% else %}+{{ m.content }}={% endif %}"
    "{% endfor %}{% if add_generation_prompt %}-<think>\n{% endif %}";
constexpr char kCalls[] =
    "{% for m in messages %}{{ '-' if m.role == 'assistant' else '+' }}{{ m.content or '' }}{% for "
    "c in m.tool_calls or [] %}"
    "*{{ c.function.arguments.a }}{% endfor %}={% endfor %}{% if add_generation_prompt %}-{% endif "
    "%}";

struct Shown {
  std::string text, learned;
};

std::optional<Shown> Write(const char* source, const std::vector<Message>& prompt,
                           const std::vector<Message>& answer, const std::string& columns = "") {
  const auto chat = ChatTemplate::Parse(source, "<bos>", "<eos>");
  const auto d = AnswerTokens(Arithmetic(), *chat, prompt, answer, columns, "row 7");
  if (!d) return std::nullopt;
  EXPECT_EQ(d->tokens.size(), d->loss_mask.size());
  Shown out{Arithmetic().Decode(d->tokens), ""};
  for (size_t i = 0; i < d->tokens.size(); ++i) {
    if (d->loss_mask[i]) out.learned += Arithmetic().TokenBytes(d->tokens[i]);
  }
  return out;
}

TEST(AnswerText, IsWhatTheTemplateWritesBehindThePrompt) {
  const auto trimmed = Write(kTrims, {{"user", " 1 "}}, {{"assistant", " 42 \n"}});
  EXPECT_EQ(trimmed->text, "<bos>+1=\n-42=\n");
  EXPECT_EQ(trimmed->learned, "42=\n")
      << "trimmed, with the template's end of the turn, and without that of the vocabulary";
  const auto thought =
      Write(kThinks, {{"user", "1"}, {"assistant", "2"}, {"user", "3"}}, {{"assistant", "4"}});
  EXPECT_EQ(thought->text, "+1=-2=+3=-<think>\n</think>4=");
  EXPECT_EQ(thought->learned, "<think>\n</think>4=")
      << "the empty think block is the model's to write";
  const auto reasoned =
      Write(kThinks, {{"user", "1"}}, {{"assistant", "4", R"({"reasoning_content":"2+2"})"}});
  EXPECT_EQ(reasoned->learned, "<think>\n2+2</think>4=");
}

TEST(AnswerText, ATemplateThatWritesThePromptOtherwiseIsRefusedWithBoth) {
  try {
    Write(kPrefills, {{"user", "1"}}, {{"assistant", "<think>\n2</think>3"}});
    FAIL() << "a thought would be learned that no rollout begins like this";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_EQ(e.where(), "row 7");
    EXPECT_NE(e.message().find("-<think>\\n"), std::string::npos) << e.message();
    EXPECT_NE(e.message().find("-3="), std::string::npos) << e.message();
  }
}

TEST(AnswerText, WhatTheTemplateRefusesIsSaidWithTheRow) {
  try {
    Write("{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}",
          {{"user", "1"}}, {{"assistant", "2"}});
    FAIL() << "rendered";
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("one turn only"), std::string::npos) << e.message();
    EXPECT_TRUE(e.where().starts_with("row 7")) << e.where();
  }
}

TEST(AnswerText, MessagesOfWeightZeroStandInItUnlearned) {
  const std::vector<Message> answer = {{"assistant", "2", R"({"weight":0})"},
                                       {"user", "3", R"({"train":false})"},
                                       {"assistant", "4"}};
  const auto some = Write(kCalls, {{"user", "1"}}, answer);
  EXPECT_EQ(some->text, "+1=-2=+3=-4=");
  EXPECT_EQ(some->learned, "-4=");
  EXPECT_EQ(Write(kCalls, {{"user", "1"}}, {answer[0]})->learned, "");
}

TEST(AnswerText, CallsThatTheTemplateDoesNotWriteAreNoEmptyAnswer) {
  const Message call{
      "assistant", "",
      R"({"content":null,"tool_calls":[{"function":{"name":"f","arguments":{"a":5}}}]})"};
  EXPECT_EQ(Write(kCalls, {{"user", "1"}}, {call})->learned, "*5=");
  const std::string plain =
      std::string(kTrims).replace(std::string(kTrims).find("m.content"), 9, "(m.content or '')");
  EXPECT_FALSE(Write(plain.c_str(), {{"user", "1"}}, {call}).has_value());
  EXPECT_TRUE(Write(plain.c_str(), {{"user", "1"}}, {{"assistant", "2", R"({"tool_calls":[]})"}})
                  .has_value());
}

TEST(AnswerText, SeesTheToolsOfTheRow) {
  const auto asked = Write(
      "{% for t in tools or [] %}{{ t.n }}{% endfor %}{% for m in messages %}{{ m.content }}={% "
      "endfor %}",
      {{"user", "1"}}, {{"assistant", "2"}}, R"({"tools":[{"n":8},{"n":9}],"x":1})");
  EXPECT_EQ(asked->text, "891=2=");
  EXPECT_EQ(asked->learned, "2=");
}

}  // namespace
}  // namespace plumb::run

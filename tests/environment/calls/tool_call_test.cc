// The forms in which models call tools: what is read, what is malformed, and that no bytes break
// it.
#include "environment/calls/tool_call.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

namespace plumb::environment {
namespace {

using configs::ToolForm;

constexpr const char* kV3 =
    "Let me look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>search\n```json\n"
    "{\"query\": "
    "\"tides\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n"
    "```json\n{\"a\": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
constexpr const char* kV31 =
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"
    "<｜tool▁calls▁end｜>";

TEST(ToolCallForms, Hermes) {
  const ParsedTurn turn = ParseTurn(
      ToolForm::kHermes,
      "I compute.\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": [2]}}\n"
      "</tool_call>\n<tool_call>{\"name\": \"now\", \"arguments\": \"{}\"}</tool_call>");
  EXPECT_EQ(turn.content, "I compute.");
  EXPECT_EQ(turn.malformed, "");
  ASSERT_EQ(turn.calls.size(), 2u);
  EXPECT_EQ(turn.calls[0], (ToolCall{"", "add", R"({"a":1,"b":[2]})"}));
  EXPECT_EQ(turn.calls[1], (ToolCall{"", "now", "{}"}));
  EXPECT_TRUE(ParseTurn(ToolForm::kHermes, "no call {\"name\": 1}").calls.empty());
  for (const char* bad : {"<tool_call>{\"name\": \"add\"", "<tool_call></tool_call>",
                          "<tool_call>[]</tool_call>", "<tool_call>{\"arguments\": {}}</tool_call>",
                          "<tool_call>{\"name\": \"a\", \"arguments\": [1]}</tool_call>",
                          "<tool_call>{\"name\": \"a\", \"arguments\": \"x\"}</tool_call>",
                          "<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>",
                          "<tool_call>{'name': 'a'}</tool_call>"}) {
    const ParsedTurn wrong = ParseTurn(ToolForm::kHermes, bad);
    EXPECT_NE(wrong.malformed, "") << bad;
    EXPECT_TRUE(wrong.calls.empty()) << bad;
  }
}

// Whatever is wrong with a call, the example is of the form that was tried.
TEST(ToolCallForms, AnExampleIsOfTheFormThatWasTried) {
  struct Case {
    const char *text, *says, *like;  // like "": the usual example
  };
  const Case cases[] = {
      {"<minimax:tool_call>\n<invoke name=\"f\">", "is not closed by </minimax", "<invoke name="},
      {"<minimax:tool_call>", "is not closed by </minimax", "<invoke name="},
      {"<tool_call><function=f><parameter=a>", "is not closed by </tool_call>", "<function=tool>"},
      {"<tool_call>f<arg_key>a</arg_key>", "is not closed by </tool_call>", "<arg_key>"},
      {"<tool_call>{\"name\": \"f\"", "is not closed by </tool_call>", ""},
      {"<|tool_call_start|>[f(a=1)]", "is not closed by <|tool_call_end|>", "[tool(argument=1)]"},
      {"<tool_call><function=></function></tool_call>", "without a name", "<function=tool>"},
      {"<minimax:tool_call><invoke name=\"\"></invoke></minimax:tool_call>", "without a name",
       "<invoke name="},
      {"<tool_call><arg_key>a</arg_key><arg_value>1</arg_value></tool_call>", "no JSON", ""},
      {"<|tool_call_start|>[calculator(expression=6*8)]<|tool_call_end|>",
       "an argument of calculator is no text in quotes, number", "[tool(argument=1)]"},
      {"<tool_call><function=f><parameter=a>1</parameter><parameter=a>2</parameter></function>"
       "</tool_call>",
       "the argument 'a' of f is given twice", "<function=tool>"},
      {"<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value><arg_key>a</arg_key><arg_value>2"
       "</arg_value></tool_call>",
       "the argument 'a' of f is given twice", "<arg_key>"},
      {"<|tool_call_start|>[f(a=1, a=2)]<|tool_call_end|>", "the argument 'a' of f is given twice",
       "[tool(argument=1)]"},
      // what was wrong first counts, with its example
      {"<tool_call>{}</tool_call><tool_call><function=></function></tool_call>", "needs \"name\"",
       ""},
  };
  for (const Case& c : cases) {
    const ParsedTurn turn = ParseTurn(ToolForm::kHermes, c.text);
    EXPECT_NE(turn.malformed.find(c.says), std::string::npos) << c.text << ": " << turn.malformed;
    EXPECT_NE(turn.like.find(c.like), std::string::npos) << c.text << ": " << turn.like;
    EXPECT_EQ(turn.like.empty(), *c.like == '\0') << c.text << ": " << turn.like;
    EXPECT_TRUE(turn.calls.empty()) << c.text;
  }
  EXPECT_NE(ParseTurn(ToolForm::kLlama3, "<|python_tag|>f.call(a=1, a=2)")
                .malformed.find("the argument 'a' of f is given twice"),
            std::string::npos);
}

// What Qwen 3.5, GLM and MiniMax write between the marks.
TEST(ToolCallForms, HermesReadsTagsToo) {
  ParsedTurn turn =
      ParseTurn(ToolForm::kHermes,
                "<think>x</think>\n<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n"
                "<parameter=text>\nline\n\n two</parameter>\n</function>\n</tool_call>");
  EXPECT_EQ(turn.content, "<think>x</think>");
  ASSERT_EQ(turn.calls.size(), 1u) << turn.malformed;
  EXPECT_EQ(turn.calls[0],
            (ToolCall{"", "add", R"({"a":"1","text":"line\n\n two"})", /*spelled=*/true}));
  turn = ParseTurn(ToolForm::kHermes,
                   "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"
                   "<tool_call>now</tool_call>");
  ASSERT_EQ(turn.calls.size(), 2u) << turn.malformed;
  EXPECT_EQ(turn.calls[0], (ToolCall{"", "add", R"({"a":"1"})", true}));
  EXPECT_EQ(turn.calls[1], (ToolCall{"", "now", "{}", true}));
  turn = ParseTurn(ToolForm::kHermes,
                   "Hm.\n<minimax:tool_call>\n<invoke name=\"add\">\n<parameter "
                   "name=\"a\">1</parameter>\n</invoke>\n<invoke name=\"now\">\n</invoke>\n"
                   "</minimax:tool_call>");
  EXPECT_EQ(turn.content, "Hm.");
  ASSERT_EQ(turn.calls.size(), 2u) << turn.malformed;
  EXPECT_EQ(turn.calls[0], (ToolCall{"", "add", R"({"a":"1"})", true}));
  turn = ParseTurn(ToolForm::kHermes,
                   "<|tool_call_start|>[add(a=1, text='x, y'), now()]<|tool_call_end|>I look.");
  EXPECT_EQ(turn.content, "I look.");
  ASSERT_EQ(turn.calls.size(), 2u) << turn.malformed;
  EXPECT_EQ(turn.calls[0], (ToolCall{"", "add", R"({"a":1,"text":"x, y"})"}));
  EXPECT_EQ(turn.calls[1], (ToolCall{"", "now", "{}"}));
  turn = ParseTurn(ToolForm::kHermes, "<|tool_call_start|>[add(1)]<|tool_call_end|>");
  EXPECT_NE(turn.malformed.find("an argument of add is name=value"), std::string::npos);
  EXPECT_NE(turn.like.find("[tool(argument=1)]"), std::string::npos);
  turn = ParseTurn(ToolForm::kHermes, "<tool_call><function=add><parameter=a>1</tool_call>");
  EXPECT_NE(turn.malformed.find("an argument of add is not closed"), std::string::npos);
  EXPECT_NE(turn.like.find("<function=tool>"), std::string::npos) << "in the form that it tried";
  EXPECT_TRUE(turn.calls.empty());
}

TEST(ToolCallForms, Llama3) {
  const ToolForm form = ToolForm::kLlama3;
  ParsedTurn turn = ParseTurn(form, R"({"name": "add", "parameters": {"a": "}"}})");
  ASSERT_EQ(turn.calls.size(), 1u) << turn.malformed;
  EXPECT_EQ(turn.calls[0].arguments, R"({"a":"}"})");
  turn = ParseTurn(form,
                   "<|python_tag|>{\"name\": \"a\", \"parameters\": {}}; {\"name\": \"b\", "
                   "\"parameters\": {}}");
  EXPECT_EQ(turn.calls.size(), 2u) << turn.malformed;
  turn = ParseTurn(form, "<|python_tag|>brave.call(query=\"a, b\", n=[1,2])");
  ASSERT_EQ(turn.calls.size(), 1u) << turn.malformed;
  EXPECT_EQ(turn.calls[0], (ToolCall{"", "brave", R"({"query":"a, b","n":[1,2]})"}));
  // An answer that is JSON is no call.
  turn = ParseTurn(form, R"({"result": 3})");
  EXPECT_EQ(turn.content, R"({"result": 3})");
  EXPECT_EQ(turn.malformed, "");
  for (const char* bad :
       {R"({"name": "add", "parameters": {"a": 1})", "<|python_tag|>", "<|python_tag|>print(1)",
        "<|python_tag|>f.call(1)", R"({"name": "a", "parameters": {}} and more)"}) {
    EXPECT_NE(ParseTurn(form, bad).malformed, "") << bad;
  }
}

TEST(ToolCallForms, Mistral) {
  const ToolForm form = ToolForm::kMistral;
  ParsedTurn turn = ParseTurn(
      form, R"(Yes.[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}, "id": "abcdefghi"}])");
  EXPECT_EQ(turn.content, "Yes.");
  ASSERT_EQ(turn.calls.size(), 1u) << turn.malformed;
  EXPECT_EQ(turn.calls[0], (ToolCall{"abcdefghi", "add", R"({"a":1})"}));
  turn = ParseTurn(form, "[TOOL_CALLS]add[CALL_ID]x12345678[ARGS]{\"a\": 1}[TOOL_CALLS]b[ARGS]{}");
  ASSERT_EQ(turn.calls.size(), 2u) << turn.malformed;
  EXPECT_EQ(turn.calls[0], (ToolCall{"x12345678", "add", R"({"a":1})"}));
  for (const char* bad : {"[TOOL_CALLS]", "[TOOL_CALLS][]", "[TOOL_CALLS][{]", "[TOOL_CALLS]add",
                          "[TOOL_CALLS]add[ARGS]{"}) {
    EXPECT_NE(ParseTurn(form, bad).malformed, "") << bad;
  }
}

TEST(ToolCallForms, Deepseek) {
  ParsedTurn turn = ParseTurn(ToolForm::kDeepseek, kV3);
  EXPECT_EQ(turn.content, "Let me look.");
  ASSERT_EQ(turn.calls.size(), 2u) << turn.malformed;
  EXPECT_EQ(turn.calls[0], (ToolCall{"", "search", R"({"query":"tides"})"}));
  turn = ParseTurn(ToolForm::kDeepseek, kV31);
  ASSERT_EQ(turn.calls.size(), 1u) << turn.malformed;
  EXPECT_EQ(turn.calls[0].name, "add");
  const std::string whole = kV3;
  EXPECT_NE(ParseTurn(ToolForm::kDeepseek, whole.substr(0, 120)).malformed, "");
  EXPECT_NE(ParseTurn(ToolForm::kDeepseek, "<｜tool▁calls▁begin｜>").malformed, "");
}

TEST(ToolCallForms, Harmony) {
  const ToolForm form = ToolForm::kHarmony;
  ParsedTurn turn = ParseTurn(
      form,
      "<|channel|>analysis<|message|>I need a sum.<|end|><|start|>assistant<|channel|>commentary "
      "to=functions.add <|constrain|>json<|message|>{\"a\": 1}");
  ASSERT_EQ(turn.calls.size(), 1u) << turn.malformed;
  EXPECT_EQ(turn.calls[0], (ToolCall{"", "add", R"({"a":1})"}));
  EXPECT_EQ(turn.content, "");
  turn = ParseTurn(form,
                   "<|start|>assistant to=functions.add<|channel|>commentary json<|message|>"
                   "{\"a\":1}<|call|>");
  ASSERT_EQ(turn.calls.size(), 1u) << turn.malformed;
  turn = ParseTurn(form,
                   "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final"
                   "<|message|>It is 3.");
  EXPECT_TRUE(turn.calls.empty());
  EXPECT_EQ(turn.content, "It is 3.");
  for (const char* bad : {"<|channel|>commentary to=functions.add <|constrain|>json",
                          "<|channel|>commentary to=functions.add<|message|>{\"a\":",
                          "<|channel|>commentary to=functions.<|message|>{}"}) {
    EXPECT_NE(ParseTurn(form, bad).malformed, "") << bad;
  }
}

TEST(ToolCallForms, AreSeenInTemplates) {
  EXPECT_EQ(FormOfTemplate("{{ '<tool_call>' }}"), ToolForm::kHermes);
  EXPECT_EQ(FormOfTemplate("<minimax:tool_call>"), ToolForm::kHermes);
  EXPECT_EQ(FormOfTemplate("<|python_tag|>"), ToolForm::kLlama3);
  EXPECT_EQ(FormOfTemplate("'[TOOL_CALLS]'"), ToolForm::kMistral);
  EXPECT_EQ(FormOfTemplate("<｜tool▁calls▁begin｜>"), ToolForm::kDeepseek);
  EXPECT_EQ(FormOfTemplate("<|channel|>commentary to=functions."), ToolForm::kHarmony);
  EXPECT_EQ(FormOfTemplate("{{ messages }}"), ToolForm::kHermes);
}

// Bytes of any kind, and the forms' own pieces in any order: no crash, and every call that comes
// out has a name and an object.
TEST(ToolCallForms, TakeAnyBytes) {
  const std::vector<std::string> pieces = {"<tool_call>",
                                           "<minimax:tool_call>",
                                           "</minimax:tool_call>",
                                           "<|tool_call_start|>",
                                           "<|tool_call_end|>",
                                           "[f(",
                                           "'",
                                           "<function=",
                                           "f>",
                                           "</function>",
                                           "<parameter=",
                                           "</parameter>",
                                           "<invoke name=",
                                           "</invoke>",
                                           "<parameter name=",
                                           "<arg_key>",
                                           "</arg_key>",
                                           "<arg_value>",
                                           "</arg_value>",
                                           "</tool_call>",
                                           "{\"name\": \"f\", \"arguments\": {}}",
                                           "{",
                                           "}",
                                           "[",
                                           "]",
                                           "\"",
                                           "\\",
                                           "<|python_tag|>",
                                           ".call(",
                                           "a=1",
                                           ")",
                                           ";",
                                           ",",
                                           "[TOOL_CALLS]",
                                           "[ARGS]",
                                           "[CALL_ID]",
                                           "<|channel|>",
                                           "<|message|>",
                                           "<|call|>",
                                           "to=functions.f",
                                           "<|start|>",
                                           "<｜tool▁calls▁begin｜>",
                                           "<｜tool▁call▁begin｜>",
                                           "<｜tool▁call▁end｜>",
                                           "<｜tool▁sep｜>",
                                           "```json",
                                           "```",
                                           "function",
                                           "\xff",
                                           "\n",
                                           " "};
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (size_t n = random() % 12; n > 0; --n) {
      if (random() % 4 == 0) text += static_cast<char>(random());
      else text += pieces[random() % pieces.size()];
    }
    for (int form = 1; form <= static_cast<int>(ToolForm::kHarmony); ++form) {
      const ParsedTurn turn = ParseTurn(static_cast<ToolForm>(form), text);
      EXPECT_TRUE(turn.malformed.empty() || turn.calls.empty());
      for (const ToolCall& call : turn.calls) {
        EXPECT_FALSE(call.name.empty());
        EXPECT_TRUE(nlohmann::json::parse(call.arguments).is_object()) << call.arguments;
      }
    }
  }
  for (int form = 1; form <= static_cast<int>(ToolForm::kHarmony); ++form) {
    const std::string deep = "<tool_call>" + std::string(100000, '[') + "</tool_call>";
    ParseTurn(static_cast<ToolForm>(form), deep);
  }
}

}  // namespace
}  // namespace plumb::environment

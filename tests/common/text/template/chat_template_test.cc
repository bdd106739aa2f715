// Chat templates against Hugging Face's rendering (tests/golden/chat_template.json) and against
// hostile ones.
#include "common/text/template/chat_template.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json/strict_json.h"
#include "common/text/template/special_tokens.h"

namespace plumb {
namespace {

using Json = nlohmann::ordered_json;

std::vector<Message> Messages(const Json& list) {
  std::vector<Message> out;
  for (const Json& m : list)
    out.push_back({m["role"].get<std::string>(), m["content"].get<std::string>()});
  return out;
}

TEST(ChatTemplate, RendersOrRefusesAsTheReference) {
  const Json golden = ReadStrictJson(PLUMB_SOURCE_DIR "/tests/golden/chat_template.json", 1 << 20);
  ASSERT_GT(golden.size(), 20u);
  for (const Json& t : golden) {
    for (const Json& c : t["cases"]) {
      const auto render = [&] {
        return ChatTemplate::Parse(t["template"].get<std::string>(), "<s>", "</s>")
            ->Render(Messages(c["messages"]), c["add_generation_prompt"].get<bool>());
      };
      if (c["text"].is_null()) {
        EXPECT_THROW(render(), Error) << t["template"];
        continue;
      }
      try {
        EXPECT_EQ(render(), c["text"].get<std::string>()) << t["template"];
      } catch (const Error& e) {
        ADD_FAILURE() << e.what() << " in " << t["template"];
      }
    }
  }
}

// A message as replay/datasets/rows/row_parser reads it.
Message MessageOf(const Json& m) {
  Message out{.role = m["role"].get<std::string>()};
  Json fields = Json::object();
  if (m["content"].is_string()) {
    out.content = m["content"].get<std::string>();
  } else {
    fields["content"] = m["content"];
  }
  for (const auto& [key, value] : m.items()) {
    if (key != "role" && key != "content") fields[key] = value;
  }
  if (!fields.empty()) out.fields_json = fields.dump();
  return out;
}

// Calls, results, thoughts, parts, null, tools and arguments of the template:
// tests/golden/tool_messages.json.
TEST(ChatTemplate, MessagesReachItAsTheReferenceHandsThemOver) {
  const Json golden = ReadStrictJson(PLUMB_SOURCE_DIR "/tests/golden/tool_messages.json", 1 << 20);
  ASSERT_GE(golden["cases"].size(), 60u);
  for (const Json& c : golden["cases"]) {
    const Json& row = golden["rows"][c["row"].get<std::string>()];
    std::vector<Message> messages;
    for (const Json& m : row["messages"]) messages.push_back(MessageOf(m));
    Json columns = row;
    columns.erase("messages");
    SCOPED_TRACE(c["template"].get<std::string>() + " " + c["row"].get<std::string>());
    const auto chat = ChatTemplate::Parse(
        golden["templates"][c["template"].get<std::string>()].get<std::string>(), "<s>", "</s>");
    const auto render = [&] {
      return chat->Render(messages, c["add"].get<bool>(), columns.dump());
    };
    if (c["text"].is_null()) {
      EXPECT_THROW(render(), Error);
      continue;
    }
    try {
      EXPECT_EQ(render(), c["text"].get<std::string>());
    } catch (const Error& e) {
      ADD_FAILURE() << e.what();
    }
  }
}

TEST(ChatTemplate, RefusesColumnsThatAreNone) {
  const auto chat = ChatTemplate::Parse("{{ tools }}", "", "");
  const std::vector<Message> messages = {{"user", "q"}};
  EXPECT_EQ(chat->Render(messages, true, R"({"other": "tools of the trade"})"), "None");
  for (const char* columns :
       {R"({"tools": 3})", R"({"tools": "[1"})", R"({"tools": "{}"})",
        R"({"tools": [18446744073709551615]})", R"({"chat_template_kwargs": []})",
        R"({"chat_template_kwargs": {"messages": []}})", R"(["tools"])", R"({"tools")"}) {
    EXPECT_THROW(chat->Render(messages, true, columns), Error) << columns;
  }
  EXPECT_THROW(chat->Render(std::vector<Message>{{"user", "q", "[1]"}}, true), Error);
}

TEST(ChatTemplate, SaysWhereTheSyntaxIsWrong) {
  try {
    ChatTemplate::Parse("line one\n{{ 'two' }}\n{% if three %}\n{% for x %}\n", "", "");
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCorruption);
    EXPECT_NE(std::string(e.what()).find("line 4"), std::string::npos) << e.what();
  }
}

TEST(ChatTemplate, PassesOnWhatTheTemplateRaises) {
  try {
    ChatTemplate::Parse("{{ raise_exception('roles must alternate') }}", "", "")->Render({}, false);
    FAIL() << "rendered";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(e.what()).find("roles must alternate"), std::string::npos) << e.what();
  }
}

// None of these may run long, take much memory or exhaust the stack.
TEST(ChatTemplate, HostileTemplatesEnd) {
  const auto repeat = [](const std::string& s, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += s;
    return out;
  };
  const std::string loops =
      "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}x{% endfor "
      "%}{% endfor %}{% endfor %}";
  const std::vector<std::string> hostile = {
      loops,
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% set x = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(1000) %}{% set x.s = x.s ~ "
      "x.s %}{% endfor %}",
      "{% set x = namespace(l=[1]) %}{% for i in range(1000) %}{% set x.l = x.l + x.l %}{% endfor "
      "%}",
      "{% set x = namespace(l=[1]) %}{% for i in range(100000) %}{% set x.l = [x.l] %}{% endfor %}",
      "{% set x = namespace(l=[1]) %}{% for i in range(60) %}{% set x.l = [x.l, x.l] %}{% endfor "
      "%}{{ x.l }}",
      "{{ 'x' * 9999999999 }}",
      "{{ [1] * 9999999999 }}",
      "{{ range(9999999999) | list }}",
      "{{ 9 ** 9 ** 9 }}",
      "{{ " + repeat("(", 100000) + "1" + repeat(")", 100000) + " }}",
      "{{ " + repeat("[", 100000) + repeat("]", 100000) + " }}",
      "{{ " + repeat("not ", 100000) + "1 }}",
      "{{ " + repeat("-", 100000) + "1 }}",
      "{{ 1" + repeat(" + 1", 100000) + " }}",
      "{{ 'a'" + repeat("|trim", 100000) + " }}",
      "{{ a" + repeat(".b", 100000) + " }}",
      "{{ 1" + repeat(" if 1 else 1", 100000) + " }}",
      repeat("{% if 1 %}", 20000) + repeat("{% endif %}", 20000),
      repeat("{% for x in y %}", 20000),
  };
  for (const std::string& source : hostile) {
    EXPECT_THROW(ChatTemplate::Parse(source, "", "")->Render({}, false), Error)
        << source.substr(0, 80);
  }
  // A namespace that holds itself is no error, and is not leaked (the address sanitiser looks).
  EXPECT_EQ(ChatTemplate::Parse("{% set x = namespace(a=1) %}{% set x.me = [x] %}{{ x.a }}", "", "")
                ->Render({}, false),
            "1");
}

TEST(ChatTemplate, EveryCutOfATemplateIsRefusedOrRenders) {
  const Json golden = ReadStrictJson(PLUMB_SOURCE_DIR "/tests/golden/chat_template.json", 1 << 20);
  const std::vector<Message> messages = {{"user", "hello"}, {"assistant", "x"}};
  int refused = 0, rendered = 0;
  for (const Json& t : golden) {
    const auto source = t["template"].get<std::string>();
    for (size_t n = 0; n < source.size(); n += 3) {
      try {
        ChatTemplate::Parse(source.substr(0, n), "<s>", "</s>")->Render(messages, true);
        ++rendered;
      } catch (const Error&) {
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 500);
  EXPECT_GT(rendered, 50);
}

TEST(ChatTemplate, IsFoundInAModelFolder) {
  const std::string folder = ::testing::TempDir() + "/chat_template_" + std::to_string(getpid());
  std::filesystem::create_directories(folder);
  EXPECT_EQ(ChatTemplate::LoadOrNull(folder), nullptr);
  const auto write = [&](const char* name, const std::string& text) {
    RealFileSystem().WriteFileAtomic(folder + "/" + name, text);
  };
  const std::vector<Message> messages = {{"user", "hi"}};
  write("tokenizer_config.json", R"({"bos_token": {"content": "<b>"}, "eos_token": "<e>"})");
  EXPECT_EQ(ChatTemplate::LoadOrNull(folder), nullptr);
  write(
      "tokenizer_config.json",
      R"({"bos_token": {"content": "<b>"}, "eos_token": "<e>", "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"})");
  EXPECT_EQ(ChatTemplate::LoadOrNull(folder)->Render(messages, false), "<b>hi<e>");
  write("special_tokens_map.json", R"({"eos_token": {"content": "<m>"}, "pad_token": "<p>"})");
  EXPECT_EQ(ChatTemplate::LoadOrNull(folder)->Render(messages, false), "<b>hi<m>")
      << "the map goes before";
  EXPECT_EQ(ReadSpecialTokens(folder),
            (std::map<std::string, std::string>{
                {"bos_token", "<b>"}, {"eos_token", "<m>"}, {"pad_token", "<p>"}}));
  write("chat_template.jinja", "{{ bos_token }}!");
  EXPECT_EQ(ChatTemplate::LoadOrNull(folder)->Render(messages, false), "<b>!");
  // A second template for what has tools: in the list of the configuration, or beside the file.
  const std::string tools = R"({"tools": []})";
  std::filesystem::create_directories(folder + "/additional_chat_templates");
  write("additional_chat_templates/tool_use.jinja", "with {{ tools }}");
  EXPECT_EQ(ChatTemplate::LoadOrNull(folder)->Render(messages, false, tools), "with []");
  EXPECT_EQ(ChatTemplate::LoadOrNull(folder)->Render(messages, false), "<b>!");
  std::filesystem::remove(folder + "/chat_template.jinja");
  write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]})");
  EXPECT_EQ(ChatTemplate::LoadOrNull(folder)->Render(messages, false), "d");
  EXPECT_EQ(ChatTemplate::LoadOrNull(folder)->Render(messages, false, tools), "t");
  write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "t"}]})");
  EXPECT_THROW(ChatTemplate::LoadOrNull(folder), Error);
  write("chat_template.jinja", "{{ bos_token ");
  EXPECT_THROW(ChatTemplate::LoadOrNull(folder), Error);
  std::filesystem::remove_all(folder);
}

TEST(ChatTemplate, ChatMlIsBuiltIn) {
  const std::vector<Message> messages = {{"system", "s"}, {"user", "u"}};
  EXPECT_EQ(
      ChatTemplate::BuiltIn("chatml")->Render(messages, true),
      "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_THROW(ChatTemplate::BuiltIn("poetry"), Error);
}

TEST(ChatTemplate, OfTheBytesVocabularyMarksWhoSpeaks) {
  const auto t = ChatTemplate::BuiltIn("bytes");
  const std::vector<Message> two = {{.role = "user", .content = "What is it?"},
                                    {.role = "assistant", .content = "A goat."}};
  EXPECT_EQ(t->Render(std::span(two).first(1), true), "<bos><user>What is it?<eos><assistant>");
  EXPECT_EQ(t->Render(two, false), "<bos><user>What is it?<eos><assistant>A goat.<eos>");
}

}  // namespace
}  // namespace plumb

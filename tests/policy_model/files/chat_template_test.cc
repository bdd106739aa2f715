// Chat templates against Hugging Face's rendering (tests/golden/chat_template.json) and against hostile ones.
#include "policy_model/files/chat_template.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>

#include "common/error.h"
#include "common/file.h"
#include "policy_model/files/strict_json.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::ordered_json;

std::vector<Message> Messages(const Json& list) {
  std::vector<Message> out;
  for (const Json& m : list) out.push_back({m["role"].get<std::string>(), m["content"].get<std::string>()});
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
  const std::string loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}x{% endfor %}{% endfor %}{% endfor %}";
  const std::vector<std::string> hostile = {
      loops,
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% set x = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(1000) %}{% set x.s = x.s ~ x.s %}{% endfor %}",
      "{% set x = namespace(l=[1]) %}{% for i in range(1000) %}{% set x.l = x.l + x.l %}{% endfor %}",
      "{% set x = namespace(l=[1]) %}{% for i in range(100000) %}{% set x.l = [x.l] %}{% endfor %}",
      "{% set x = namespace(l=[1]) %}{% for i in range(60) %}{% set x.l = [x.l, x.l] %}{% endfor %}{{ x.l }}",
      "{{ 'x' * 9999999999 }}", "{{ [1] * 9999999999 }}", "{{ range(9999999999) | list }}", "{{ 9 ** 9 ** 9 }}",
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
    EXPECT_THROW(ChatTemplate::Parse(source, "", "")->Render({}, false), Error) << source.substr(0, 80);
  }
  // A namespace that holds itself is no error, and is not leaked (the address sanitiser looks).
  EXPECT_EQ(ChatTemplate::Parse("{% set x = namespace(a=1) %}{% set x.me = [x] %}{{ x.a }}", "", "")->Render({}, false), "1");
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
  const std::string folder = testing::TempDir() + "/chat_template_" + std::to_string(getpid());
  std::filesystem::create_directories(folder);
  EXPECT_EQ(ChatTemplate::LoadOrNull(folder), nullptr);
  const auto write = [&](const char* name, const std::string& text) { RealFileSystem().WriteFileAtomic(folder + "/" + name, text); };
  const std::vector<Message> messages = {{"user", "hi"}};
  write("tokenizer_config.json", R"({"bos_token": {"content": "<b>"}, "eos_token": "<e>"})");
  EXPECT_EQ(ChatTemplate::LoadOrNull(folder), nullptr);
  write("tokenizer_config.json", R"({"bos_token": {"content": "<b>"}, "eos_token": "<e>", "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"})");
  EXPECT_EQ(ChatTemplate::LoadOrNull(folder)->Render(messages, false), "<b>hi<e>");
  write("chat_template.jinja", "{{ bos_token }}!");
  EXPECT_EQ(ChatTemplate::LoadOrNull(folder)->Render(messages, false), "<b>!");
  write("chat_template.jinja", "{{ bos_token ");
  EXPECT_THROW(ChatTemplate::LoadOrNull(folder), Error);
  std::filesystem::remove_all(folder);
}

TEST(ChatTemplate, ChatMlIsBuiltIn) {
  const std::vector<Message> messages = {{"system", "s"}, {"user", "u"}};
  EXPECT_EQ(ChatTemplate::BuiltIn("chatml")->Render(messages, true),
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_THROW(ChatTemplate::BuiltIn("poetry"), Error);
}

}  // namespace
}  // namespace plumb::policy_model

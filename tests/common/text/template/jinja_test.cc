// Renders what jinja2 rendered for tests/golden/jinja.json, and ends whatever a hostile template
// tries.
#include "common/text/template/chat_template.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/base/error.h"
#include "common/text/template/jinja_filters.h"
#include "common/text/template/jinja_interpreter.h"
#include "common/text/template/jinja_lexer.h"
#include "common/text/template/jinja_methods.h"
#include "common/text/template/jinja_parser.h"
#include "common/text/template/jinja_value.h"
#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

using Json = nlohmann::ordered_json;

Json Golden() {
  std::ifstream in(PLUMB_SOURCE_DIR "/tests/golden/jinja.json");
  return Json::parse(in);
}

std::vector<Message> Talk(const Json& talk) {
  std::vector<Message> out;
  for (const Json& m : talk) out.push_back({m["role"], m["content"]});
  return out;
}

void Check(const Json& golden, const Json& expected, const std::string& source,
           const std::vector<Message>& talk, bool add) {
  const std::string bos = golden["tokens"]["bos_token"], eos = golden["tokens"]["eos_token"];
  if (expected.contains("text")) {
    try {
      EXPECT_EQ(ChatTemplate::Parse(source, bos, eos)->Render(talk, add),
                expected["text"].get<std::string>())
          << source;
    } catch (const Error& e) {
      ADD_FAILURE() << source << "\n" << e.what();
    }
  } else {
    EXPECT_THROW(ChatTemplate::Parse(source, bos, eos)->Render(talk, add), Error) << source;
  }
}

TEST(Jinja, FamiliesRenderAsJinja2DoesIt) {
  const Json golden = Golden();
  size_t errors = 0;
  for (const Json& c : golden["cases"]) {
    SCOPED_TRACE(c["name"].get<std::string>());
    Check(golden, c, golden["families"][c["template"].get<std::string>()],
          Talk(golden["talks"][c["talk"].get<std::string>()]), c["add"]);
    errors += c.contains("error");
  }
  EXPECT_GE(golden["cases"].size(), 100u);
  EXPECT_GT(errors, 0u) << "some families refuse some talks";
}

TEST(Jinja, EveryFeatureAloneRendersAsJinja2DoesIt) {
  const Json golden = Golden();
  for (const Json& c : golden["snippets"])
    Check(golden, c, c["template"], Talk(golden["talks"]["system"]), false);
  EXPECT_GE(golden["snippets"].size(), 90u);
}

TEST(Jinja, TheBuiltInIsChatMl) {
  EXPECT_EQ(ChatTemplate::BuiltIn("chatml")->Render(std::vector<Message>{{"user", "Hi"}}, true),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_THROW(ChatTemplate::BuiltIn("nope"), Error);
}

std::string ErrorOf(const std::string& source) {
  try {
    const std::string text = ChatTemplate::Parse(source, "<s>", "</s>")
                                 ->Render(std::vector<Message>{{"user", "x"}}, false);
    return "no error, but " + std::to_string(text.size()) + " bytes";
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(Jinja, ErrorsSayTheLineAndWhatTheTemplateSaid) {
  EXPECT_NE(ErrorOf("a\n{{ raise_exception('only two roles') }}").find("only two roles"),
            std::string::npos);
  EXPECT_NE(ErrorOf("a\n\n{{ nothing.at_all }}").find("line 3"), std::string::npos)
      << ErrorOf("a\n\n{{ nothing.at_all }}");
  EXPECT_NE(ErrorOf("{% if a %}\n").find("endif"), std::string::npos) << ErrorOf("{% if a %}\n");
  EXPECT_NE(ErrorOf("{{ 1 | blink }}").find("blink"), std::string::npos);
  EXPECT_NE(ErrorOf("{% include 'x' %}").find("include"), std::string::npos);
}

std::string Repeat(const std::string& s, size_t n) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += s;
  return out;
}

TEST(Jinja, HostileTemplatesEndSoonWithAnError) {
  const std::vector<std::string> hostile = {
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      "{% for a in range(1000000000) %}{% endfor %}",
      "{{ 'a' * 1000000000 }}",
      "{{ [0] * 1000000000 }}",
      "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% "
      "endfor %}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% "
      "endfor %}",
      "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}",
      "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = {'a': ns.x} %}{% "
      "endfor %}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
      "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(99) %}{% set ns.x = "
      "ns.x.replace('a', 'aaaaaaaaaa') %}{% endfor %}",
      "{% for i in range(99999) %}{{ '" + Repeat("x", 10000) + "' }}{% endfor %}",
      "{{ " + Repeat("(", 100000) + "1" + Repeat(")", 100000) + " }}",
      "{{ " + Repeat("[", 100000) + Repeat("]", 100000) + " }}",
      "{{ 1" + Repeat(" + 1", 20000) + " }}",
      "{{ " + Repeat("not ", 20000) + "1 }}",
      "{{ " + Repeat("-", 20000) + "1 }}",
      "{{ a" + Repeat(".a", 20000) + " }}",
      "{{ 1" + Repeat(" if 1 else 1", 20000) + " }}",
      Repeat("{% if 1 %}", 20000),
      Repeat("{{ 1 }}", 200000),
      "{{ 9223372036854775807 + 1 }}",
      "{{ -9223372036854775807 - 5 }}",
      "{{ 99999999999999999999 }}",
      "{{ 2 ** 500 }}",
      "{{ (-9223372036854775807 - 1) // -1 }}",
      "{{ 1 // 0 }}",
      "{{ 1 % 0 }}",
      "{{ 'x'[::0] }}",
      "{{ range(1, 2, 0) }}",
      "{{ {} | tojson(indent=1000000000) }}",
      Repeat("x", size_t{2} << 20),
  };
  for (const std::string& source : hostile) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_THROW(ChatTemplate::Parse(source, "<s>", "</s>")
                     ->Render(std::vector<Message>{{"user", "x"}}, false),
                 Error)
        << source.substr(0, 80) << " ... " << ErrorOf(source);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    EXPECT_LT(seconds.count(), 3.0) << source.substr(0, 80);
  }
}

TEST(Jinja, ANamespaceThatHoldsItselfIsReleased) {  // the leak sanitizer watches
  EXPECT_EQ(ChatTemplate::Parse("{% set ns = namespace(x=1) %}{% set ns.x = ns %}ok", "", "")
                ->Render({}, false),
            "ok");
}

TEST(Jinja, EveryCutOfATemplateIsAnErrorOrATextButNeverACrash) {
  const Json golden = Golden();
  for (const auto& [name, source] : golden["families"].items()) {
    const std::string text = source.get<std::string>();
    for (size_t n = 0; n < text.size(); n += 3) {
      try {
        ChatTemplate::Parse(text.substr(0, n), "<s>", "</s>")
            ->Render(Talk(golden["talks"]["tool"]), true);
      } catch (const Error&) {
      }
    }
  }
}

class Folder {
 public:
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_.path() + "/" + name) << text;
  }
  std::string path() const { return folder_.path(); }

 private:
  testing::TempFolder folder_;
};

TEST(Jinja, LoadsTheFilesOfAModelFolder) {
  const std::vector<Message> talk = {{"user", "x"}};
  Folder f;
  EXPECT_EQ(ChatTemplate::LoadOrNull(f.path()), nullptr);
  f.Write("tokenizer_config.json",
          R"({"bos_token": {"content": "<B>"}, "eos_token": "<E>", "pad_token": null})");
  EXPECT_EQ(ChatTemplate::LoadOrNull(f.path()), nullptr);
  f.Write(
      "tokenizer_config.json",
      R"({"bos_token": {"content": "<B>"}, "eos_token": "<E>", "chat_template": "1{{ bos_token }}{{ eos_token }}{{ pad_token }}"})");
  EXPECT_EQ(ChatTemplate::LoadOrNull(f.path())->Render(talk, false), "1<B><E>");
  f.Write("chat_template.jinja", "2{{ bos_token }}\n");
  EXPECT_EQ(ChatTemplate::LoadOrNull(f.path())->Render(talk, false), "2<B>")
      << "the file of its own comes first";
  EXPECT_EQ(ChatTemplate::LoadOrNull(f.path())->source(), "2{{ bos_token }}\n");
  f.Write("chat_template.jinja", "{% if %}");
  try {
    ChatTemplate::LoadOrNull(f.path());
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(e.where().find("chat_template.jinja"), std::string::npos);
  }
}

TEST(Jinja, AListOfTemplatesMeansItsDefault) {
  Folder f;
  f.Write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})");
  EXPECT_EQ(ChatTemplate::LoadOrNull(f.path())->Render({}, false), "d");
  for (const char* bad :
       {R"({"chat_template": 3})", R"({"chat_template": [{"name": "tool_use", "template": "t"}]})",
        "[]", "{", R"({"a": 1, "a": 2})"}) {
    f.Write("tokenizer_config.json", bad);
    EXPECT_THROW(ChatTemplate::LoadOrNull(f.path()), Error) << bad;
  }
}

}  // namespace
}  // namespace plumb

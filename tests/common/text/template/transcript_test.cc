#include "common/text/template/transcript.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb {
namespace {

std::string Refusal(const std::string& source, const std::string& role = "user") {
  const auto chat = ChatTemplate::Parse(source, "", "");
  try {
    CheckKeepsBeginnings(*chat, role, "", "some/model");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Transcript, ThePiecesAreTheWholeRendering) {
  const auto chat = ChatTemplate::BuiltIn("chatml");
  const std::vector<Message> prompt = {{.role = "user", .content = "2+3?"}};
  Transcript transcript(chat.get(), prompt, "");
  const std::vector<Message> first = {{.role = "user", .content = "5"}},
                             second = {{.role = "tool", .content = "done"}};
  // As it was drawn: the end token is there already.
  std::string all = chat->Render(prompt, true) + "2+3=<|im_end|>";
  all += transcript.Reply(first, /*goes_on=*/true, "<|im_end|>");
  all += "it is 5";  // a stop string ended it
  all += transcript.Reply(second, /*goes_on=*/false, "");
  EXPECT_EQ(all, chat->Render(std::vector<Message>{{.role = "user", .content = "2+3?"},
                                                   {.role = "assistant", .content = "2+3="},
                                                   {.role = "user", .content = "5"},
                                                   {.role = "assistant", .content = "it is 5"},
                                                   {.role = "tool", .content = "done"}},
                              false));
}

TEST(Transcript, TrimmedTurnsKeepTheirTokens) {
  const auto chat = ChatTemplate::Parse(
      "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</s>{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}",
      "", "</s>");
  Transcript transcript(chat.get(), {{.role = "user", .content = "a"}}, "");
  const std::vector<Message> reply = {{.role = "user", .content = "b"}};
  EXPECT_EQ(transcript.Reply(reply, true, "</s>"), "<user>b</s><assistant>");
  EXPECT_EQ(transcript.Reply({}, true, ""), "</s><assistant>") << "nothing was said";
}

TEST(Transcript, ATemplateThatKeepsBeginningsPasses) {
  EXPECT_EQ(Refusal("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
                    "{% if add_generation_prompt %}[assistant]{% endif %}"),
            "");
}

TEST(Transcript, ATemplateThatDoesNotIsNamedWithTheTurn) {
  // Thoughts of earlier turns go away once a user speaks, as in several families; a tool's reply
  // leaves them.
  const std::string strips =
      "{% for m in messages %}[{{ m.role }}]"
      "{% set rest = messages[loop.index0 + 1:] | selectattr('role', 'equalto', 'user') | list %}"
      "{% if m.role == 'assistant' and '</think>' in m.content and rest %}"
      "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
      "{% if add_generation_prompt %}[assistant]{% endif %}";
  EXPECT_EQ(Refusal(strips, "tool"), "");
  const std::string said = Refusal(strips, "user");
  EXPECT_NE(said.find("some/model"), std::string::npos) << said;
  EXPECT_NE(said.find("turn 1"), std::string::npos) << said;
  EXPECT_NE(said.find("anew"), std::string::npos) << said;
  // Only the second time: what it says depends on how many there are.
  const std::string later = Refusal(
      "{% if messages | length > 3 %}long{% endif %}{% for m in messages %}[{{ m.role }}]"
      "{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}");
  EXPECT_NE(later.find("turn 2"), std::string::npos) << later;
  const std::string refused = Refusal(
      "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}"
      "{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}"
      "{% if add_generation_prompt %}[assistant]{% endif %}",
      "tool");
  EXPECT_NE(refused.find("role 'tool'"), std::string::npos) << refused;
}

TEST(Transcript, AReplyThatWouldRewriteIsAnError) {
  const auto chat = ChatTemplate::Parse(
      "{{ messages | length }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}", "",
      "");
  Transcript transcript(chat.get(), {{.role = "user", .content = "a"}}, "");
  const std::vector<Message> reply = {{.role = "user", .content = "b"}};
  EXPECT_THROW(transcript.Reply(reply, true, ""), Error);
}

TEST(WithTools, ARowsOwnToolsStay) {
  EXPECT_EQ(WithTools("", ""), "");
  EXPECT_EQ(WithTools("{\"a\":1}", ""), "{\"a\":1}");
  EXPECT_EQ(WithTools("", "[]"), "{\"tools\":[]}");
  EXPECT_EQ(WithTools("{\"a\":1}", "[2]"), "{\"a\":1,\"tools\":[2]}");
  EXPECT_EQ(WithTools("{\"tools\":[1]}", "[2]"), "{\"tools\":[1]}");
  EXPECT_THROW(WithTools("", "[2"), Error);
}

}  // namespace
}  // namespace plumb

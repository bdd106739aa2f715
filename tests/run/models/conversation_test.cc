// Turns of a conversation with a tiny model: what is asked, shown, kept and refused.
#include "run/models/conversation.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/text/unicode.h"
#include "run/models/answering.h"
#include "tests/run/models/toy_model.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

class ConversationTest : public ::testing::Test {
 protected:
  // Without an end token every answer is as long as it may be.
  void Open(const testing::ToyModel& toy) {
    testing::WriteToyModel(temp_ / "model", toy);
    model_.emplace(LoadModel(temp_ / "model", {.threads = 1}));
  }
  static void Silent(const std::string&) {}
  static bool Never() { return false; }

  plumb::testing::TempFolder temp_;
  std::optional<ModelFolder> model_;
};

TEST_F(ConversationTest, EveryTurnAsksTheWholeConversationAndComputesWhatIsNew) {
  Open({.max_positions = 400, .chat_template = true, .end_token = false});
  Conversation talk(*model_, {.system = "8", .max_new_tokens = 30});
  std::vector<Message> messages = {{.role = "system", .content = "8"}};
  int64_t before = 0;
  for (int turn = 0; turn < 4; ++turn) {
    const std::string question = std::to_string(turn) + "+1";
    std::string shown;
    const Conversation::Answer answer = talk.Say(
        question, [&](const std::string& piece) { shown += piece; }, Never);
    EXPECT_EQ(shown, answer.text);
    EXPECT_EQ(answer.tokens, 30);
    EXPECT_EQ(answer.finish, FinishReason::kLength);
    EXPECT_FALSE(answer.context_full);
    // The same as asking for all of it at once.
    messages.push_back({.role = "user", .content = question});
    Prompt prompt;
    prompt.messages = messages;
    prompt.row = static_cast<uint64_t>(turn);
    prompt.tokens = model_->EncodePrompt(prompt, false);
    EXPECT_EQ(answer.prompt_tokens, static_cast<int64_t>(prompt.tokens.size()));
    Answering once(*model_, {.max_new_tokens = 30, .purpose = Purpose::kTrain});
    once.Run(
        std::span(&prompt, 1),
        [&](size_t, actor::GenerateResult& r) {
          EXPECT_EQ(model_->tokenizer->Decode(r.samples[0].tokens, true), answer.text);
        },
        Never);
    // At least the pages of what was asked before; with the answer's, unless it holds special
    // tokens, which the conversation does not.
    EXPECT_GE(answer.kept_tokens, before / 16 * 16) << "of " << answer.prompt_tokens;
    if (turn == 0) {
      EXPECT_EQ(answer.kept_tokens, 0);
    }
    before = answer.prompt_tokens;
    messages.push_back({.role = "assistant", .content = answer.text});
    EXPECT_EQ(talk.messages(), messages);
  }
  const auto json = nlohmann::json::parse(talk.MessagesJson());
  ASSERT_EQ(json["messages"].size(), 9u);
  EXPECT_EQ(json["messages"][8]["content"], messages[8].content);
  talk.Reset();
  EXPECT_EQ(talk.messages().size(), 1u) << "the system message stays";
  talk.SetSystem("");
  EXPECT_TRUE(talk.messages().empty());
  EXPECT_EQ(talk.Tokens(), 0);
}

TEST_F(ConversationTest, AFullContextIsSaidAndNothingIsCut) {
  Open({.chat_template = true, .end_token = false});  // 64 positions
  Conversation talk(*model_, {.max_new_tokens = 40});
  EXPECT_EQ(talk.context(), 64);
  EXPECT_FALSE(talk.Say("1+1", Silent, Never).context_full);
  const Conversation::Answer second = talk.Say("2+2", Silent, Never);
  EXPECT_TRUE(second.context_full);
  EXPECT_EQ(second.prompt_tokens + second.tokens, 64);
  const std::vector<Message> before = talk.messages();
  try {
    talk.Say("3+3+3+3+3+3+3+3+3+3+3+3+3", Silent, Never);
    FAIL() << "there was no room";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(e.message().find("nothing was cut"), std::string::npos) << e.message();
  }
  EXPECT_EQ(talk.messages(), before);
}

TEST_F(ConversationTest, AnAnswerThatIsStoppedStaysAsFarAsItCame) {
  Open({.max_positions = 400, .chat_template = true, .end_token = false});
  Conversation talk(*model_, {.max_new_tokens = 100});
  int asked = 0;
  const Conversation::Answer answer = talk.Say("1", Silent, [&] { return ++asked > 8; });
  EXPECT_TRUE(answer.stopped);
  EXPECT_GT(answer.tokens, 0);
  EXPECT_LT(answer.tokens, 10);
  EXPECT_EQ(talk.messages().back().content, answer.text);
  EXPECT_EQ(talk.Say("2", Silent, [] { return true; }).tokens, 0);
  EXPECT_EQ(talk.messages().size(), 2u) << "a question without a word of an answer is forgotten";
  EXPECT_EQ(talk.Say("3", Silent, Never).tokens, 100) << "and it goes on";
}

TEST_F(ConversationTest, ToolsNeedATemplateThatShowsThem) {
  Open({.chat_template = true});
  EXPECT_THROW(Conversation(*model_, {.tools_json = R"([{"name": "7"}])"}), Error);
  EXPECT_THROW(Conversation(*model_, {.tools_json = "7"}), Error);
  testing::WriteFile(
      temp_ / "model/chat_template.jinja",
      std::string("{% for t in tools or [] %}{{ t.name }}{% endfor %}") + testing::kToyTemplate);
  const ModelFolder shows = LoadModel(temp_ / "model", {.threads = 1});
  Conversation talk(shows, {.tools_json = R"([{"name": "7"}])", .max_new_tokens = 2});
  Conversation plain(shows, {.max_new_tokens = 2});
  EXPECT_EQ(talk.Say("1", Silent, Never).prompt_tokens,
            plain.Say("1", Silent, Never).prompt_tokens + 1);
  EXPECT_EQ(nlohmann::json::parse(talk.MessagesJson())["tools"][0]["name"], "7");
}

TEST_F(ConversationTest, WithoutAChatTemplateThereIsNoConversation) {
  Open({});
  try {
    Conversation talk(*model_, {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("--raw"), std::string::npos) << e.message();
  }
}

TEST_F(ConversationTest, TheMemoryForKeysAndValuesBoundsTheContext) {
  Open({.max_positions = 1 << 16, .chat_template = true});
  // 2 layers x 2 x 2 heads x 8 numbers of 4 bytes: 256 bytes a token
  EXPECT_EQ(Conversation(*model_, {.kv_mb = 1}).context(), 4096);
  EXPECT_EQ(Conversation(*model_, {.kv_mb = 64}).context(), 1 << 16);
}

// Real weights and a real template; needs `make model`.
TEST_F(ConversationTest, SmolLm2SaysTheSameWithWhatItKept) {
  const std::string folder = plumb::testing::SourcePath("models/SmolLM2-135M-Instruct");
  if (!RealFileSystem().Exists(folder + "/config.json"))
    GTEST_SKIP() << "NO MODEL: run `make model`; no real template was talked through";
  const ModelFolder model = LoadModel(folder, {.dtype = "float32", .threads = 1});
  Conversation talk(model, {.max_new_tokens = 24, .sampling = {.temperature = 0}});
  const Conversation::Answer first = talk.Say("What is the capital of France?", Silent, Never);
  EXPECT_NE(first.text.find("Paris"), std::string::npos) << first.text;
  EXPECT_EQ(first.finish, FinishReason::kStop);
  std::string shown;
  const Conversation::Answer second = talk.Say(
      "Say \u65e5\u672c \U0001F600 and nothing else.",
      [&](const std::string& piece) {
        EXPECT_TRUE(IsUtf8(piece));
        shown += piece;
      },
      Never);
  EXPECT_GE(second.kept_tokens, (first.prompt_tokens + first.tokens - 1) / 16 * 16)
      << "all of the first turn";
  Prompt prompt;
  prompt.messages = talk.messages();
  prompt.messages.pop_back();
  prompt.row = 1;
  prompt.tokens = model.EncodePrompt(prompt, false);
  EXPECT_EQ(static_cast<int64_t>(prompt.tokens.size()), second.prompt_tokens);
  Answering once(model, {.max_new_tokens = 24, .max_batch = 1, .sampling = {.temperature = 0}});
  once.Run(
      std::span(&prompt, 1),
      [&](size_t, actor::GenerateResult& r) {
        std::string whole = model.tokenizer->Decode(r.samples[0].tokens, true);
        RepairUtf8(whole);
        EXPECT_EQ(whole, shown);
      },
      Never);
}

}  // namespace
}  // namespace plumb::run

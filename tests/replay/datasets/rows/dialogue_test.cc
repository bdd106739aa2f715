// replay/datasets/rows/dialogue.h and prompts from preference files
// (replay/datasets/rows/dataset_import.h).
#include "replay/datasets/rows/dialogue.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "common/base/error.h"
#include "replay/datasets/rows/dataset_import.h"
#include "tests/testing/temp_folder.h"

namespace plumb::replay {
namespace {

using Turns = std::vector<Message>;

TEST(DialogueTest, TurnsOfHhText) {
  EXPECT_EQ(ParseHumanAssistant("\n\nHuman: Hi there \n\nAssistant: Hello.\n\nHuman: "
                                "Why?\n\nAssistant: Because\n\nof this."),
            (Turns{{"user", "Hi there"},
                   {"assistant", "Hello."},
                   {"user", "Why?"},
                   {"assistant", "Because\n\nof this."}}));
  // it waits for an answer
  EXPECT_EQ(ParseHumanAssistant("\n\nHuman: Hi\n\nAssistant:"), (Turns{{"user", "Hi"}}));
  EXPECT_EQ(ParseHumanAssistant("Hi"), std::nullopt);
  EXPECT_EQ(ParseHumanAssistant(""), std::nullopt);
  EXPECT_EQ(ParseHumanAssistant("\n\nHuman:"), std::nullopt);
  // an answer to nothing
  EXPECT_EQ(ParseHumanAssistant("\n\nHuman: \n\nAssistant: Yes?"), std::nullopt);
}

TEST(DialogueTest, WhatAMessageSaysOfItself) {
  EXPECT_FALSE(CallsTools({"assistant", "tool_calls"}));
  EXPECT_FALSE(CallsTools({"assistant", "", R"({"content":null,"tool_calls":[]})"}));
  EXPECT_FALSE(CallsTools({"assistant", "", R"({"name":"tool_calls"})"}));
  EXPECT_TRUE(CallsTools({"assistant", "", R"({"content":null,"tool_calls":[{"id":"1"}]})"}));
  EXPECT_TRUE(CallsTools({"assistant", "", R"({"content":null,"function_call":{"name":"f"}})"}));
  for (const char* fields :
       {"", R"({"weight":1})", R"({"weight":1.0,"train":true})", R"({"name":"weight"})"}) {
    EXPECT_TRUE(IsLearned({"assistant", "a", fields})) << fields;
  }
  for (const char* fields : {R"({"weight":0})", R"({"weight":0.0})", R"({"train":false})",
                             R"({"weight":1,"train":false})"}) {
    EXPECT_FALSE(IsLearned({"assistant", "a", fields})) << fields;
  }
}

TEST(DialogueTest, ThePromptIsWhatBothAnswer) {
  const Turns chosen = {{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}};
  Turns rejected = chosen;
  rejected[3].content = "e";
  const Turns prompt = {{"user", "a"}, {"assistant", "b"}, {"user", "c"}};
  EXPECT_EQ(SharedPrompt(chosen, rejected), prompt);
  EXPECT_EQ(SharedPrompt(chosen, chosen), prompt);
  rejected[1].content = "z";  // they part earlier
  EXPECT_EQ(SharedPrompt(chosen, rejected), (Turns{{"user", "a"}}));
  rejected[0].content = "y";
  EXPECT_TRUE(SharedPrompt(chosen, rejected).empty());
}

TEST(DialogueTest, PreferenceRowsAsPrompts) {
  testing::TempFolder folder;
  const std::string path = folder.path() + "/pairs.jsonl";
  std::ofstream(path)
      << R"({"chosen":"\n\nHuman: one\n\nAssistant: x","rejected":"\n\nHuman: one\n\nAssistant: y"})"
         "\n"
      << R"({"chosen":"plain","rejected":"text"})"
         "\n"
      << R"({"chosen":[{"role":"user","content":"two"},{"role":"assistant","content":"x"}],)"
         R"("rejected":[{"role":"user","content":"two"},{"role":"assistant","content":"y"}]})"
         "\n"
      << R"({"prompt":"three","chosen":"x","rejected":"y"})"
         "\n";
  const ImportedPrompts all = ImportPrompts(path, {});
  ASSERT_EQ(all.prompts.size(), 3u);
  EXPECT_EQ(all.prompts[0].messages, (Turns{{"user", "one"}}));
  EXPECT_EQ(all.prompts[1].messages, (Turns{{"user", "two"}}));
  EXPECT_EQ(all.prompts[2].text, "three");
  EXPECT_EQ(all.ledger.rejected.at("no_shared_prompt"), 1);
  EXPECT_TRUE(all.prompts[0].extra_json.empty()) << "the answers of the pair are not the prompt's";
  // Usable rows are passed over, so that `limit` and `skip` of one file never overlap.
  ImportOptions tail;
  tail.skip = 2;
  const ImportedPrompts rest = ImportPrompts(path, tail);
  ASSERT_EQ(rest.prompts.size(), 1u);
  EXPECT_EQ(rest.prompts[0].text, "three");
  EXPECT_EQ(rest.ledger.skipped, 2);
  tail.skip = 9;
  EXPECT_THROW(ImportPrompts(path, tail), Error);
}

TEST(DialogueTest, RealHhPrompts) {
  const std::string path =
      PLUMB_SOURCE_DIR "/../shared/data/hh-rlhf/harmless-base-test-1800.jsonl.gz";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  ImportOptions options;
  const ImportedPrompts all = ImportPrompts(path, options);
  EXPECT_EQ(all.ledger.read, 1800);
  EXPECT_GE(all.ledger.used, 1790) << all.ledger.Describe();
  for (const Prompt& p : all.prompts) EXPECT_EQ(p.messages.back().role, "user");
  options.skip = 1600;
  const ImportedPrompts heldout = ImportPrompts(path, options);
  EXPECT_EQ(heldout.ledger.used, all.ledger.used - 1600);
  EXPECT_EQ(heldout.prompts[0].messages, all.prompts[1600].messages);
}

}  // namespace
}  // namespace plumb::replay
